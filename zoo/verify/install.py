"""`python -m zoo.verify.install`: the environments of the libraries of references that cannot share ours."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli import command, progress
from zoo.errors import ZooError, closest


def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Libraries of references. Default: all.", show_default=False)
    ] = None,
) -> None:
    """Installs the pinned packages of each library that has an environment of its own, where they are missing."""
    from zoo.verify.references import libraries

    environments = {name: library.environment for name, library in libraries().items() if library.environment}
    for name in names or environments:
        if name not in environments:
            known = ", ".join(environments)
            raise ZooError(
                f"no library of references with an environment of its own is called '{name}', expected one of {known}"
                f"{closest(name, environments)}"
            )
    with progress() as say:
        for name in names or environments:
            environment = environments[name]
            if not environment.ready:
                say(f"installing {', '.join(environment.requirements)}")
                environment.make()
            print(f"{name}: {environment.folder}")


main = command(run)

if __name__ == "__main__":
    main()
