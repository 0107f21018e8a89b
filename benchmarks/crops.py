"""Crops of the photographs that installed packages bring: `python benchmarks/crops.py --out crops`.

There are no labels for them, so networks are compared by how often they agree, which is no accuracy. Every crop has a
number, from which place and size come: the same numbers are the same crops.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = {  # by package; None: of this project
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "ultralytics": ("assets/bus.jpg", "assets/zidane.jpg"),
    None: ("samples/coffee.jpg", "tests/data/grace_hopper.jpg"),
}
SMALLEST = 0.3  # of a photograph's shorter side


def photographs() -> list[np.ndarray]:
    """All of them, (H, W, 3) uint8 BGR."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package) if package else None
        if package and (spec is None or spec.origin is None):
            raise SystemExit(f"the photographs of {package} are missing: pip install -e .[reference]")
        folder = Path(spec.origin).parent if spec and spec.origin else ROOT
        found += [cv2.imread(str(folder / name)) for name in names]
    return found


def crop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of it, mirrored every other time."""
    height, width = picture.shape[:2]
    side = round(min(height, width) * rng.uniform(SMALLEST, 1))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    square = picture[top : top + side, left : left + side]
    return square[:, ::-1] if rng.random() < 0.5 else square


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=600)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = photographs()
    for number in range(args.count):
        picture = pictures[number % len(pictures)]
        cv2.imwrite(str(args.out / f"{number:04}.png"), crop(picture, np.random.default_rng(number)))
    print(f"{args.out}: {args.count} crops of {len(pictures)} photographs")


if __name__ == "__main__":
    main()
