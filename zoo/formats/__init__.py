"""What a model can be exported as. A format is one file in this folder, found by a scan: its name, and a function with
the options that it has. Importing this imports no library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo import discovery


@dataclass(frozen=True)
class Format:
    """A format of `zoo.export`, in its module as FORMAT.

    `export(model, *, …)` writes the model and prints what it wrote. Its parameters are annotated as those of a
    command, and each is None (a flag: False) when it was not given. Those that several formats have are annotated
    alike.
    """

    name: str
    export: Callable[..., None]


def all_formats() -> dict[str, Format]:
    """Every format, by name."""
    found: list[Format] = discovery.find("zoo.formats", "FORMAT")
    return {format.name: format for format in sorted(found, key=lambda format: format.name)}
