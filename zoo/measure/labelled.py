"""Labelled pictures: the layouts of folders and files in which data sets come.

classify  folder    DIR/CLASS/PICTURE: folders bear the names of classes, their numbers, or stand in their order
          imagenet  DIR or DIR/val with a folder for each class, or with pictures and a file val.txt: PICTURE NUMBER
detect    coco      annotations as COCO's JSON, the pictures anywhere below DIR
          folder    DIR/images/PICTURE with DIR/labels/PICTURE.txt: CLASS CX CY W H, in shares of the picture (YOLO)
segment   folder    DIR/images/PICTURE with DIR/masks/PICTURE.png, whose pixels are the numbers of classes
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError, closest, one_of
from zoo.images.sources import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Sample:
    """A picture and what is right: a class, `Boxes`, or the class map, as an array or as its file."""

    path: Path
    truth: Any


@dataclass(frozen=True, eq=False)
class Boxes:
    """Objects: `corners` (K, 4) x1, y1, x2, y2 in pixels or, where `shares`, in shares of the picture; `classes` (K,).

    `areas` (K,) in pixels are those of their outlines; None: of the boxes. Of a `crowd` (K,) none need be found.
    """

    corners: np.ndarray
    classes: np.ndarray
    areas: np.ndarray | None = None
    crowd: np.ndarray | None = None
    shares: bool = False


def labelled(
    task: str, data: Path, layout: str | None, labels: Sequence[str], annotations: Path | None = None
) -> list[Sample]:
    """The pictures of `data` with what is right for `task`, in the order of their names.

    `labels` are the names of the network's classes. Raises ZooError for a folder that does not have the layout, and for
    classes that the network does not know.
    """
    layouts = {known: reader for (of, known), reader in _READERS.items() if of == task}
    if not layouts:
        raise ZooError(f"there is no layout of labelled pictures for the task '{task}'")
    chosen = one_of("format", layout or next(iter(layouts)), layouts)
    if not data.is_dir():
        raise ZooError(f"'{data}' is no folder; --data takes a folder with labelled pictures")
    if annotations is not None and chosen != "coco":
        raise ZooError("--annotations belongs to --format coco")
    found = _coco(data, labels, annotations) if chosen == "coco" else layouts[chosen](data, labels)
    if not found:
        raise ZooError(f"'{data}' holds no labelled picture in the format {chosen}")
    return found


def spread(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """At most `count` of them, evenly spread."""
    if count is not None and count < 1:
        raise ZooError(f"samples is {count}; it must be at least 1")
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[i * len(samples) // count] for i in range(count)]


def _classes(data: Path, names: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """The class of each name: by the network's labels, as a number, or where there are as many by their order."""
    number = {label: i for i, label in reversed([*enumerate(labels)])}
    if all(name in number for name in names):
        return {name: number[name] for name in names}
    if all(name.isdecimal() and int(name) < len(labels) for name in names):
        return {name: int(name) for name in names}
    if len(names) == len(labels):
        return {name: i for i, name in enumerate(names)}
    unknown = [name for name in names if name not in number]
    raise ZooError(
        f"{len(unknown)} of the {len(names)} classes of '{data}' are none of the network's {len(labels)} "
        f"({', '.join(labels[:3])} …): {', '.join(unknown[:3])}{closest(unknown[0], labels)}"
    )


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _class_folders(data: Path, labels: Sequence[str]) -> list[Sample]:
    folders = {
        folder: pictures for folder in sorted(data.iterdir()) if folder.is_dir() and (pictures := _pictures(folder))
    }
    if not folders:
        raise ZooError(f"'{data}' holds no folder with pictures; expected one for each class: {data}/CLASS/PICTURE")
    known = _classes(data, [folder.name for folder in folders], labels)
    return [Sample(path, known[folder.name]) for folder, pictures in folders.items() for path in pictures]


def _imagenet(data: Path, labels: Sequence[str]) -> list[Sample]:
    root = data / "val" if (data / "val").is_dir() else data
    listed = next((path for path in (root / "val.txt", data / "val.txt") if path.is_file()), None)
    if listed is None:
        return _class_folders(root, labels)
    found = []
    for number, line in enumerate(_lines(listed), 1):
        name, _, known = line.rpartition(" ")
        if not known.isdecimal() or int(known) >= len(labels):
            raise ZooError(
                f"line {number} of {listed} is '{line[:80]}', expected PICTURE NUMBER, less than {len(labels)}"
            )
        found.append(Sample(root / name.strip(), int(known)))
    return found


def _yolo(data: Path, labels: Sequence[str]) -> list[Sample]:
    return [
        Sample(path, _yolo_boxes(data / "labels" / path.relative_to(images).with_suffix(".txt"), len(labels)))
        for images in [_folder(data, "images", "labels")]
        for path in _pictures(images)
    ]


def _yolo_boxes(path: Path, classes: int) -> Boxes:
    """What a file says; where it is not there, the picture shows nothing."""
    rows = []
    for number, line in enumerate(_lines(path) if path.is_file() else (), 1):
        try:
            kind, *box = (float(word) for word in line.split())
            if len(box) != 4 or not 0 <= kind < classes or kind != int(kind):
                raise ValueError
        except ValueError:
            raise ZooError(
                f"line {number} of {path} is '{line[:80]}', expected CLASS CX CY W H, CLASS < {classes}"
            ) from None
        rows.append((kind, *box))
    table = np.array(rows, np.float64).reshape(-1, 5)
    centre, half = table[:, 1:3], table[:, 3:] / 2
    return Boxes(np.concatenate([centre - half, centre + half], 1), table[:, 0].astype(int), shares=True)


def _masks(data: Path, labels: Sequence[str]) -> list[Sample]:
    images = _folder(data, "images", "masks")
    found = [Sample(path, data / "masks" / path.relative_to(images).with_suffix(".png")) for path in _pictures(images)]
    missing = [sample.truth for sample in found if not sample.truth.is_file()]
    if missing:
        raise ZooError(f"{len(missing)} of {len(found)} pictures have no class map, the first is {missing[0]}")
    return found


def _folder(data: Path, images: str, truth: str) -> Path:
    if not (data / images).is_dir() or not (data / truth).is_dir():
        raise ZooError(f"'{data}' holds no folders {images} and {truth}, which this format needs")
    return data / images


def _coco(data: Path, labels: Sequence[str], annotations: Path | None) -> list[Sample]:
    path = annotations or _annotations(data)
    try:
        content = json.loads(path.read_bytes())
        images = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        categories = {int(c["id"]): str(c["name"]) for c in sorted(content["categories"], key=lambda c: c["id"])}
        rows: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
        for row in content["annotations"]:
            rows[int(row["image_id"])].append(row)
        known = _classes(path, list(categories.values()), labels)
        truths = {number: _coco_boxes(of, categories, known) for number, of in rows.items()}
    except OSError as error:
        raise ZooError(f"the annotations {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ZooError(f"{path} holds no annotations as COCO has them ({type(error).__name__}: {error})") from None
    files = {file.name: file for file in reversed(_pictures(data))}
    found = [Sample(files.get(Path(name).name, data / name), truths[number]) for number, name in images.items()]
    return sorted(found, key=lambda sample: sample.path)


def _coco_boxes(rows: Iterable[dict[str, Any]], categories: dict[int, str], known: dict[str, int]) -> Boxes:
    rows = [row for row in rows if "bbox" in row]
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    areas = [float(row.get("area", box[2] * box[3])) for row, box in zip(rows, boxes)]
    return Boxes(
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        np.array([known[categories[int(row["category_id"])]] for row in rows], int),
        np.array(areas), np.array([bool(row.get("iscrowd", 0)) for row in rows], bool),
    )  # fmt: skip


def _annotations(data: Path) -> Path:
    """The only file of annotations below `data`; of several the only one for boxes of a validation split."""
    found = sorted(data.rglob("*.json"))
    likely = [path for path in found if "instances" in path.name and "val" in path.name] if len(found) > 1 else found
    if len(likely) != 1:
        some = ", ".join(path.name for path in found[:3]) or "no JSON file"
        raise ZooError(f"'{data}' holds {some}; say which has the annotations: --annotations FILE")
    return likely[0]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None


_READERS: dict[tuple[str, str], Callable[..., list[Sample]]] = {
    ("classify", "folder"): _class_folders,
    ("classify", "imagenet"): _imagenet,
    ("detect", "coco"): _coco,
    ("detect", "folder"): _yolo,
    ("segment", "folder"): _masks,
}
