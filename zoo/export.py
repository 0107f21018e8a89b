"""`python -m zoo.export`: a model in another format."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

import typer

from zoo.cli import command, extended
from zoo.errors import ZooError, one_of
from zoo.formats import Format, all_formats


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list, or what else the format takes.")],
    format: Annotated[str, typer.Option("--format", help="The options below say which there are.")] = "onnx",
    **chosen: Any,
) -> None:
    """Writes MODEL in another format: ONNX, a Triton model repository …"""
    formats = all_formats()
    wanted = formats[one_of("format", format, formats)]
    given = {name: value for name, value in chosen.items() if value is not None and value is not False}
    for name in sorted(given.keys() - _parameters(wanted).keys()):
        owners = " or ".join(other.name for other in formats.values() if name in _parameters(other))
        raise ZooError(f"--{name.replace('_', '-')} is not an option of the format {wanted.name}, but of {owners}")
    wanted.export(model, **given)


def with_format_options(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the options of each format; None (a flag: False) where they are not given."""
    formats = all_formats().values()
    owners: dict[str, list[Format]] = {}
    for format in formats:
        for name in _parameters(format):
            owners.setdefault(name, []).append(format)
    return extended(function, [_parameter(name, having, len(formats)) for name, having in owners.items()], function)


def _parameter(name: str, owners: list[Format], formats: int) -> inspect.Parameter:
    """The option `name`, under the names of the formats that have it, where not all do."""
    first, *others = (_parameters(format)[name] for format in owners)
    for format, other in zip(owners[1:], others):
        if str(other) != str(first):
            raise ZooError(f"the format '{format.name}' has another option '{name}' than '{owners[0].name}'")
    if len(owners) == formats:
        return first
    kind, option = get_args(first.annotation)
    option = copy.copy(option)
    option.rich_help_panel = f"Options of {', '.join(format.name for format in owners)}"
    return first.replace(annotation=Annotated[kind, option])


def _parameters(format: Format) -> Mapping[str, inspect.Parameter]:
    """The options of a format, by name."""
    parameters = inspect.signature(format.export, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


main = command(run, extend=with_format_options)

if __name__ == "__main__":
    main()
