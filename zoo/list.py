"""`python -m zoo.list`: the models."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.cli import Json, command, print_json
from zoo.registry import Model, get_model, list_models
from zoo.tasks import get_task

PRECISIONS = ("fp32", "fp16", "bf16")


def run(
    pattern: Annotated[str, typer.Argument(help="Only names that contain this, or match it with * and ?.")] = "",
    task: Annotated[str | None, typer.Option("--task", help="Only models of this task.")] = None,
    as_json: Json = False,
) -> None:
    """Lists the models: name, task, parameters, input, reference, precisions, aliases."""
    if task is not None:
        get_task(task)
    rows = [_row(get_model(name)) for name in list_models(pattern, task)]
    if as_json:
        print_json(rows)
    else:
        _print_table(rows)


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


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "task", "parameters", "input", "reference", "precisions", "aliases"):
        table.add_column(title, justify="right" if title == "parameters" else "left", no_wrap=True)
    for row in rows:
        size, count = "x".join(map(str, row["input"])), f"{row['parameters']:,}"
        lists = [" ".join(row["precisions"]), " ".join(row["aliases"])]
        table.add_row(row["name"], row["task"], count, size, row["reference"], *lists)
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print(table if rows else "no model matches; python -m zoo.list shows them all")


main = command(run)

if __name__ == "__main__":
    main()
