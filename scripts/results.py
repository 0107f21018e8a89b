"""Draws one result for each task whose trained weights are on this machine: `python scripts/results.py`.

docs/images/TASK.jpg come from weights that packages bring (weights/README.md) and from photographs of this repository,
as `zoo.run` draws them. Nothing is drawn with random weights: tasks without trained ones are named.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import zoo
from zoo.api import origin_of_weights
from zoo.cascades import Cascade
from zoo.cli import command
from zoo.images.sources import read_image
from zoo.images.writers import save_image
from zoo.registry import Model, get_model, list_cascades, list_models
from zoo.tasks import all_tasks, get_task

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images"
# Which model shows a task, on which photograph, with which options of the task.
SHOWN = {
    "classify": ("efficientnet_lite0", "samples/coffee.jpg", {"top": 3}),
    "faces": ("mtcnn", "tests/data/grace_hopper.jpg", {}),
}


def run() -> None:
    """Draws the results, and says which tasks have none."""
    for task, (name, picture, options) in SHOWN.items():
        image = read_image(ROOT / picture)
        with zoo.load(name, device="cpu") as session:
            result = session.predict(image, **options)
        path = PICTURES / f"{task}.jpg"
        save_image(path, get_task(task).draw(image, result))
        print(f"{path.relative_to(ROOT)}: {name}, {get_task(task).summarize(result)}")
    print(f"no trained weights are here for: {', '.join(without_weights())}")


def without_weights() -> list[str]:
    """The tasks of which no model and no cascade has trained weights on this machine."""
    found = []
    for task in all_tasks():
        entries = [get_model(name) for name in list_models(task=task.name)] + list_cascades(task=task.name)
        if entries and not any(map(_has_weights, entries)) and task.name not in SHOWN:
            found.append(task.name)
    return found


def _has_weights(entry: Model | Cascade) -> bool:
    models = [get_model(part) for part in entry.parts] if isinstance(entry, Cascade) else [entry]
    return all(origin_of_weights(model) in ("file", "package", "kept") for model in models)


main = command(run)

if __name__ == "__main__":
    main()
