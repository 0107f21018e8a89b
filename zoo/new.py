"""`python -m zoo.new`: the first draft of a definition, from a published model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import Size, command, size_of
from zoo.errors import ZooError
from zoo.files import checked_destination, replacing

PAGE = '''"""{title}: a draft from {source}, to be read beside it.

What the reference says is here: its modules, their settings and the order of its calls, for an input of {size}.
What is not: how pictures become its input, its paper, and whatever stands in a comment.
"""

from __future__ import annotations

from dataclasses import dataclass
{typing}
from zoo.network import Net, Tensor
from zoo.ops import {ops}
from zoo.preprocess import imagenet
from zoo.registry import Variant, {classes_from}register


@dataclass(frozen=True)
class Config:
    num_classes: int = {classes}


{functions}@register(
    task="{task}",
    reference="{reference}",
    preprocess=imagenet(),  # as the published weights want it: size, resizing, mean and standard deviation
    paper="",  # arXiv:…
{configure}    {name}=Variant(Config(), params={params:_}),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
{body}
'''


def run(
    name: Annotated[str, typer.Argument(help="The name of the model, and of its file.")],
    reference: Annotated[str, typer.Option("--reference", help="The published model, such as torchvision:resnet50.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: zoo/models/NAME.py, or NAME.py where there is no such folder."),
    ] = None,
    size: Size = None,
    task: Annotated[str, typer.Option("--task", help="What its outputs are: classify, segment …")] = "classify",
) -> None:
    """Writes the first draft of a definition from a published model, and says what is left to do.

    PyTorch follows the model's own code on an input of zeros. What a module is given, its settings and the order of
    calls are written down as ops; modules that have the same steps become one function. Existing files stay.
    """
    from zoo.tasks import get_task

    get_task(task)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ZooError(f"{name!r} cannot be the name of a model: lower-case letters, digits and _ were expected")
    folder = Path("zoo/models")
    path = output or (folder if folder.is_dir() else Path()) / f"{name}.py"
    if path.exists():
        raise ZooError(f"{path} exists already; name another file with --output, or remove it")
    checked_destination(path)
    height, width = size_of(size) or (224, 224)
    text, params = draft(name, reference, (3, height, width), task)
    with replacing(path) as file:
        file.write(text.encode())
    print(f"{path}: {len(text.splitlines())} lines, {params:,} parameters in the reference")
    print(f"\nthe row in tests/models.toml:\n\n[{name}]\ninput = [3, {height}, {width}]\n")
    where = "" if path.parent == folder else f" --import {path}"
    print(f"then: python -m zoo.verify {name} --layers --size {height}x{width}{where}")


def draft(name: str, source: str, size: tuple[int, int, int], task: str = "classify") -> tuple[str, int]:
    """The text of a file that defines `source` as `name`, and the reference's number of parameters."""
    from zoo import ops
    from zoo.verify.calibration import num_parameters
    from zoo.verify.draft import write
    from zoo.verify.draft.follow import Follower
    from zoo.verify.draft.share import share
    from zoo.verify.references import Reference, load_reference

    reference = load_reference(source, None)
    if not isinstance(reference, Reference):
        raise ZooError(f"{source} runs in an environment of its own, where its code cannot be followed")
    module: Any = reference.module
    shared = share(module, Follower(module, size))
    functions = "".join(f"{write.function(f, shared)}\n\n\n" for f in shared.functions[:-1])
    lines, path, classes = write.root(shared.functions[-1], shared)
    body = "\n".join(f"    {line}" for line in lines)
    params = num_parameters(reference)
    library, _, model = source.partition(":")
    configure = f'    configure=classes_from("{path}.bias"),\n' if classes is not None else ""
    code = functions + body
    text = PAGE.format(
        title=name, source=source, size=f"{size[0]} x {size[1]} x {size[2]}",
        typing="from typing import Any\n" if ": Any" in functions else "",
        ops=", ".join(write.ops_in(code, vars(ops))), classes_from="classes_from, " if configure else "",
        classes=classes or 1000, functions=functions, task=task,
        reference=f"{library}:{{name}}" if model == name else source,
        configure=configure, name=name, params=params, body=body,
    )  # fmt: skip
    return text, params


main = command(run)

if __name__ == "__main__":
    main()
