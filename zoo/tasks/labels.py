"""Class names: ImageNet-1k and COCO-80 in the order of torchvision and ultralytics, else «class 17»."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ZooError, closest

_DATA = Path(__file__).parent / "data"
_SETS = {"imagenet": 1000, "coco": 80, "digits": 10}


def known_labels(name: str) -> list[str]:
    """The names of the label set "imagenet" (1000), "coco" (80) or "digits" (10)."""
    if name not in _SETS:
        raise ZooError(f"No label set is called '{name}'; there are {', '.join(_SETS)}{closest(name, _SETS)}.")
    if name == "digits":
        return [str(digit) for digit in range(10)]
    return (_DATA / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def labels_for(count: int, names: Sequence[str] | str | None = None) -> list[str]:
    """One name for each of `count` classes.

    `names` is a list with exactly `count` entries or the name of a label set. Without it, 1000 classes are taken for
    ImageNet, 80 for COCO, and any other count is numbered. Raises `ZooError` when the number of names differs.
    """
    if names is None:
        names = next((name for name in ("imagenet", "coco") if _SETS[name] == count), None)
    if names is None:
        return [f"class {index}" for index in range(count)]
    labels = known_labels(names) if isinstance(names, str) else list(names)
    if len(labels) != count:
        raise ZooError(f"The network has {count} classes but {len(labels)} labels were given; give one per class.")
    return labels
