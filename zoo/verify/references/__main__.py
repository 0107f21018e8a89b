"""`python -m zoo.verify.references`: what a reference is made of, for whoever writes its definition."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli import command


def run(
    source: Annotated[str, typer.Argument(help="A reference, such as torchvision:resnet50.")],
    classes: Annotated[int | None, typer.Option("--classes", help="Classes of its head. Default: upstream's.")] = None,
) -> None:
    """Prints the modules of a published model as PyTorch does, and how many parameters it has."""
    from zoo.verify.calibration import num_parameters
    from zoo.verify.references import load_reference

    reference = load_reference(source, classes)
    print(reference.describe())
    print(f"{source}: {num_parameters(reference):,} parameters")


main = command(run)

if __name__ == "__main__":
    main()
