"""Writes docs/models.md, the table of all models, from the registry: `python scripts/models_page.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zoo.cascades import Cascade
from zoo.cli import command
from zoo.registry import Model, get_model, list_cascades, list_models
from zoo.tasks import all_tasks

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
SITES = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
HEAD = """# Models

Written by `python scripts/models_page.py` from the registry. Names are followed by millions of parameters, as
published; an input is the published size, channels x height x width. Class counts are read from the weights.
Networks of the task `part` answer together with others, as a cascade, which stands with its task and has a name.
"""


def page() -> str:
    """The page as it must read now."""
    models = [get_model(name) for name in list_models()]
    ours = [model for model in models if model.build.__module__.startswith("zoo.models.")]
    sections = [_section(task.name, [m for m in ours if m.task == task.name]) for task in all_tasks()]
    return "\n".join([HEAD, *filter(None, sections)])


def _section(task: str, models: list[Model]) -> str:
    """The table of a task, one row an architecture or a cascade; nothing for a task that has neither."""
    rows = [_row(list(variants)) for _, variants in groupby(models, key=lambda model: model.build)]
    rows += [_cascade(c) for c in list_cascades(task=task) if type(c).__module__.startswith("zoo.cascades.")]
    if not rows:
        return ""
    head = ["| Architecture | Names, million parameters | Input | Reference | Paper |", "|---|---|---|---|---|"]
    return "\n".join([f"## {task}", "", *head, *rows, ""])


def _cascade(cascade: Cascade) -> str:
    parts = [get_model(name) for name in cascade.parts]
    name = f"`{cascade.name}` {sum(part.params for part in parts) / 1e6:.2f}"
    together = " + ".join(f"`{part.name}`" for part in parts)
    libraries = _once(part.reference.partition(":")[0] for part in parts)
    cells = [_title(type(cascade).__module__), f"{name} = {together}", "any", libraries, _link(cascade.paper)]
    return f"| {' | '.join(cells)} |"


def _title(module: str) -> str:
    """What a file's docstring begins with, without the paper."""
    text = sys.modules[module].__doc__ or ""
    return " ".join(text.partition("\n\n")[0].partition(" (")[0].split()).rstrip(".")


def _row(variants: list[Model]) -> str:
    title = _title(variants[0].build.__module__)
    same = len({model.input for model in variants}) == 1
    names = [f"`{m.name}` {m.params / 1e6:.2f}" + ("" if same else f" ({_size(m)})") for m in variants]
    size = _size(variants[0]) if same else "each its own"
    libraries = _once(model.reference.partition(":")[0] for model in variants)
    cells = [title, ", ".join(names), size, libraries, _once(_link(model.paper) for model in variants)]
    return f"| {' | '.join(cells)} |"


def _size(model: Model) -> str:
    return "x".join(map(str, model.input))


def _once(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _link(paper: str) -> str:
    """«arXiv:1512.03385» as a link; an address stands for itself."""
    kind, _, number = paper.partition(":")
    return f"[{paper}]({SITES[kind]}{number})" if kind in SITES else f"<{paper}>"


def run() -> None:
    """Writes docs/models.md from the registry."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parent.parent))


main = command(run)

if __name__ == "__main__":
    main()
