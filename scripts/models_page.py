"""Writes docs/models.md, the tables of all models, from the registry, from what `tests/prove_all.py` saw
(docs/models.jsonl) and from docs/from-tensorrtx.md: `python scripts/models_page.py`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from zoo.cascades import Cascade
from zoo.cli import command
from zoo.errors import ZooError
from zoo.registry import Model, get_model, list_cascades, list_models
from zoo.tasks import all_tasks
from zoo.verify.references import published

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, SEEN, TENSORRTX = DOCS / "models.md", DOCS / "models.jsonl", DOCS / "from-tensorrtx.md"
SITES = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
HEAD = """# Models

Written by `python scripts/models_page.py` from the registry; [figures](#figures) stand at the end. Names are followed
by millions of parameters, as published; an input is the published size, channels x height x width. Class counts are
read from the weights. Networks of the task `part` answer together with others, as a cascade, which stands with its task
and has a name.
"""
FIGURES = """## Figures

What `python tests/prove_all.py` saw ({dates}); it may be stopped and continued. Models of the tables above without a
row here are not measured yet. A row is of one network, whose hash stands in [models.jsonl](models.jsonl) with the name
of the worst tensor; `python tests/prove_all.py --stale` names the rows whose network has changed since.

- fp32, fp16: the error of the worst tensor as a share of what is [allowed](proof.md), with calibrated random weights.
- ms: one image of the published size, fp32, onnxruntime, one thread, the least of several runs on a machine that others
  used too ({cpus}): to compare networks with each other.
- Lines of code, ours and the reference's: of the functions of `zoo/models` and `zoo/blocks` that write the network, and
  of the classes that the reference's modules are of, PyTorch's own left out.
- Licence: of the published weights. tensorrtx: the folder that [becomes](from-tensorrtx.md) this.

| Model | fp32 | fp16 | ms | Ours | Reference's | Licence | tensorrtx | Seen |
|---|---|---|---|---|---|---|---|---|
"""
LEFT_OUT = """## Left out

- EfficientAD: anomalib's networks answer only with the statistics of a training on one's own pictures, part by part.
- PSENet: psenet-text-detector downloads weights when it is imported. `db_resnet50` finds text.
- TSM: mmaction2 does not import beside current packages, and no task here takes several frames of a video at once.
"""


def page() -> str:
    """The page as it must read now."""
    models = [get_model(name) for name in list_models()]
    ours = [model for model in models if model.build.__module__.startswith("zoo.models.")]
    sections = [_section(task.name, [m for m in ours if m.task == task.name]) for task in all_tasks()]
    return "\n".join([HEAD, *filter(None, sections), LEFT_OUT, _figures(ours)])


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


def _figures(models: list[Model]) -> str:
    """The table of what was seen of `models`, in their order; a row of one that is gone is left out."""
    seen = {line["model"]: line for line in map(json.loads, SEEN.read_text("utf-8").splitlines())}
    known, folders = [model for model in models if model.name in seen], _folders()
    lines = [seen[model.name] for model in known]
    dates = " to ".join(dict.fromkeys(pick(line["date"] for line in lines) for pick in (min, max)))
    head = FIGURES.format(dates=dates, cpus=_once(line["cpu"] for line in lines))
    rows = [_figure(model, seen[model.name], folders.get(model.name, "")) for model in known]
    return head + "\n".join([*rows, ""])


def _figure(model: Model, line: dict[str, Any], folder: str) -> str:
    shares = [_share(line[precision]) for precision in ("fp32", "fp16")]
    latency = "" if line["ms"] is None else f"{line['ms']:.3g}"
    lines = [str(count or "") for count in (line["lines"]["ours"], line["lines"]["reference"])]
    cells = [f"`{model.name}`", *shares, latency, *lines, _licence(model), folder, line["date"]]
    return f"| {' | '.join(cells)} |"


def _share(seen: dict[str, Any]) -> str:
    share = "" if seen["share"] is None else f"{seen['share']:.0%}"
    return share if seen["ok"] else f"FAILED {share}".rstrip()


def _licence(model: Model) -> str:
    try:
        return published(model.reference).licence
    except ZooError:
        return ""


def _folders() -> dict[str, str]:
    """The folders of tensorrtx by the models that they become."""
    found: dict[str, list[str]] = {}
    for line in TENSORRTX.read_text("utf-8").partition("| Folder |")[2].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and not cells[2].startswith("not covered"):
            for name in re.findall(r"`(?:python -m zoo\.run )?([a-z0-9_]+)", cells[2]):
                found.setdefault(name, []).append(cells[1])
    return {name: ", ".join(folders) for name, folders in found.items()}


def run() -> None:
    """Writes docs/models.md."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parent.parent))


main = command(run)

if __name__ == "__main__":
    main()
