"""`python -m zoo.list`: the models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.cascades import Cascade
from zoo.cli import Json, command, print_json
from zoo.registry import Model, get_model, list_cascades, list_models

PRECISIONS = ("fp32", "fp16", "bf16")


def run(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this, or match it with * and ?.")] = "",
    task: Annotated[str | None, typer.Option("--task", help="Only models of this task.")] = None,
    as_json: Json = False,
) -> None:
    """Lists the models by task: name, parameters, input, reference, aliases; as JSON also precisions and paper.

    A cascade of several networks has their names in place of an input and a reference.
    """
    rows = [_row(get_model(name)) for name in list_models(pattern, task)]
    rows += [_row_of_cascade(cascade) for cascade in list_cascades(pattern, task)]
    if as_json:
        print_json(rows)
    else:
        _print_tables(rows)


def _row(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.task,
        "parameters": model.params,
        "input": list(model.input),
        "reference": model.reference,
        "precisions": list(PRECISIONS),
        "aliases": list(model.aliases),
        "paper": model.paper,
    }


def _row_of_cascade(cascade: Cascade) -> dict[str, Any]:
    parts = [get_model(part) for part in cascade.parts]
    return {
        "name": cascade.name,
        "task": cascade.task,
        "parameters": sum(part.params for part in parts),
        "parts": list(cascade.parts),
        "precisions": list(PRECISIONS),
        "aliases": [],
        "paper": cascade.paper,
    }


def _print_tables(rows: list[dict[str, Any]]) -> None:
    """A table for each task, as plain columns: rich would take longer than all else together."""
    if not rows:
        print("no model matches; python -m zoo.list shows them all")
    titles = ("name", "parameters", "input", "reference", "aliases")
    cells = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells)]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [line for line, row in zip(cells, rows) if row["task"] == task]
        print(f"{task}: {len(own)} model{'' if len(own) == 1 else 's'}")
        for name, count, *others in (titles, *own):
            columns = [name.ljust(widths[0]), count.rjust(widths[1]), *map(str.ljust, others, widths[2:])]
            print("  " + "  ".join(columns).rstrip())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    parts = " + ".join(row.get("parts", ()))
    size, aliases = "x".join(map(str, row.get("input", ()))), " ".join(row["aliases"])
    return row["name"], f"{row['parameters']:,}", size, row.get("reference", parts), aliases


main = command(run)

if __name__ == "__main__":
    main()
