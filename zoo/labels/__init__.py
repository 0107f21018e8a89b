"""Class names. A label set is a file here, one name a line; ImageNet-1k and Pascal VOC in torchvision's order,
COCO-80 in ultralytics', COCO with its gaps and the background (91) in torchvision's. Else «class 17»."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ZooError, closest
from zoo.text import LONGEST, LONGEST_LABEL, clean

_FOLDER = Path(__file__).parent


def known_labels(name: str) -> list[str]:
    """The names of a label set: "imagenet" (1000), "coco" (80), "voc" (21), "digits" (10) …"""
    known = sorted(path.stem for path in _FOLDER.glob("*.txt"))
    if name not in known:
        raise ZooError(f"No label set is called '{name}'; there are {', '.join(known)}{closest(name, known)}.")
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def labels_for(count: int, names: Sequence[str] | str | None = None) -> list[str]:
    """One name for each of `count` classes.

    `names` is a list with exactly `count` entries or the name of a label set. Without it classes are numbered: 80 of
    one's own are not COCO's. Raises `ZooError` when the number of names differs.
    """
    if names is None:
        return [f"class {index}" for index in range(count)]
    labels = known_labels(names) if isinstance(names, str) else [clean(str(name), LONGEST_LABEL) for name in names]
    if len(labels) != count:
        raise ZooError(f"The network has {count} classes but {len(labels)} labels were given; give one per class.")
    return labels


def given_names(names: str) -> list[str]:
    """The class names of --names: the lines of a file, or a,b,c. Raises ZooError where there are none."""
    if os.path.isfile(names):
        try:
            lines = Path(names).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ZooError(
                f"the names in {names} cannot be read ({error}); a text file in UTF-8 was expected"
            ) from None
    else:
        lines = names.split(",")
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ZooError(f"--names {clean(names, LONGEST)!r} holds no name; give a text file with one a line, or a,b,c")
    return found
