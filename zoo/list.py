"""`python -m zoo.list`: the models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.api import origin_of_weights
from zoo.cascades import Cascade
from zoo.cli import Json, command, print_json
from zoo.registry import Model, get_model, list_cascades, list_models

HERE = ("file", "package", "kept")  # in the order in which they are told
PRECISIONS = ("fp32", "fp16", "bf16")


def run(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this, or match it with * and ?.")] = "",
    task: Annotated[str | None, typer.Option("--task", help="Only models of this task.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Only models whose weights are on this machine.")] = False,
    as_json: Json = False,
) -> None:
    """Lists the models by task: name, parameters, input, weights, reference, aliases; in JSON also the paper.

    Weights are in a file of the model's name, come with a package, were downloaded and kept, are published for
    download, or must be given. A cascade of several networks has their names in place of an input and a reference.
    """
    rows = [_row(get_model(name)) for name in list_models(pattern, task)]
    rows += [_row_of_cascade(cascade) for cascade in list_cascades(pattern, task)]
    rows = [row for row in rows if not here or row["weights"] in HERE]
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
        "weights": origin_of_weights(model),
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
        "weights": _of_all([origin_of_weights(part) for part in parts]),
        "precisions": list(PRECISIONS),
        "aliases": [],
        "paper": cascade.paper,
    }


def _of_all(origins: list[str | None]) -> str | None:
    """Where the weights of several networks are, together: as far away as those that are farthest."""
    order = (*HERE, "published", None)
    return max(origins, key=order.index)


def _print_tables(rows: list[dict[str, Any]]) -> None:
    """A table for each task, as plain columns: rich would take longer than all else together."""
    if not rows:
        print("no model matches; python -m zoo.list shows them all")
    titles = ("name", "parameters", "input", "weights", "reference", "aliases")
    cells = [_cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *cells)]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [line for line, row in zip(cells, rows) if row["task"] == task]
        here = sum(row["task"] == task and row["weights"] in HERE for row in rows)
        print(f"{task}: {len(own)} model{'' if len(own) == 1 else 's'}, weights of {here or 'none'} here")
        for name, count, *others in (titles, *own):
            columns = [name.ljust(widths[0]), count.rjust(widths[1]), *map(str.ljust, others, widths[2:])]
            print("  " + "  ".join(columns).rstrip())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    parts = " + ".join(row.get("parts", ()))
    size, aliases = "x".join(map(str, row.get("input", ()))), " ".join(row["aliases"])
    return row["name"], f"{row['parameters']:,}", size, row["weights"] or "-", row.get("reference", parts), aliases


main = command(run)

if __name__ == "__main__":
    main()
