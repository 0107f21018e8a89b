"""Does the proof ever fail a right definition? Every architecture over many seeds, and heads that are easily failed.

    python tests/false_alarms.py --out alarms.jsonl [--models lenet5,resnet18] [--seeds 20]
    python tests/false_alarms.py --out alarms.jsonl --report

The smallest variant of each architecture runs over all seeds, three others over three, at the sizes of the tests; then
heads of one and of two classes, and weights whose scores are tiny. One line of JSON per case, written when it is there:
what a file holds already is not run again. Exit status 1 when a case failed.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import numpy as np
from test_models import MODELS, ROWS, has_classes, smallest_of_each_architecture

from zoo.errors import ZooError
from zoo.registry import get_model
from zoo.trt import load
from zoo.verify.calibration import calibrated, state_arrays
from zoo.verify.proof import prove
from zoo.weights import from_arrays

OTHERS = ("resnet50", "vgg11_bn", "yolov8s")
TINY = -14.0  # the bias of every class: scores of about 1e-6


def cases(models: list[str], seeds: int) -> Iterator[tuple[str, int, int | None, bool]]:
    """(model, seed, classes or None for the published number, tiny scores)."""
    for model in models:
        for seed in range(3 if model in OTHERS else seeds):
            yield model, seed, None, False
        if model in OTHERS or not has_classes(model):
            continue
        for classes in (1, 2):
            yield from ((model, seed, classes, False) for seed in range(seeds))
        if get_model(model).task == "detect":
            yield from ((model, seed, None, True) for seed in range(seeds))


def run(name: str, seed: int, classes: int | None, tiny: bool) -> dict[str, Any]:
    """The verdict on a right definition, and the row nearest to its bound or beyond."""
    model, size = get_model(name), tuple(ROWS[name]["input"])
    start = time.perf_counter()
    try:
        arrays = state_arrays(calibrated(model.reference, seed, size, classes, fixed=model.ignored))
    except ZooError as error:  # its output hardly depends on the image: these weights prove nothing
        return {"ok": True, "refused": str(error), "tensor": "", "share": 0.0, "seconds": time.perf_counter() - start}
    if tiny:
        lowered = {key: _tiny(name, key, value) for key, value in arrays.items()}
        if all(lowered[key] is arrays[key] for key in arrays):
            why = f"the biases of {name}'s classes have other names"
            return {"ok": True, "refused": why, "tensor": "", "share": 0.0, "seconds": time.perf_counter() - start}
        arrays = lowered
    proof = prove(model, load("rtx"), from_arrays(arrays, f"seed {seed}"), size=size[1:])
    worst = max((row for report in (proof.report, *proof.also.values()) for row in report.rows), key=lambda r: r.ratio)
    return {"ok": proof.ok, "tensor": worst.name, "share": worst.ratio, "seconds": time.perf_counter() - start}


def _tiny(model: str, key: str, value: np.ndarray) -> np.ndarray:
    """The biases of the classes so low that every score is tiny."""
    if re.search(r"cv3\.\d\.2\.bias$", key):
        return np.full_like(value, TINY)
    if get_model(model).reference.startswith("yolov5:") and re.search(r"\.24\.m\.\d\.bias$", key):
        rows = value.reshape(3, -1).copy()
        rows[:, 4:] = TINY / 2  # objectness x class
        return rows.ravel()
    return value


def report(lines: list[dict[str, Any]]) -> bool:
    """A line per model and kind of head; True when no case failed."""
    kinds: dict[tuple[str, Any, bool], list[dict[str, Any]]] = {}
    for line in lines:
        kinds.setdefault((line["model"], line["classes"], line["tiny"]), []).append(line)
    for (model, classes, tiny), found in kinds.items():
        worst = max(found, key=lambda line: line["share"])
        failed = sum(not line["ok"] for line in found)
        refused = sum("refused" in line for line in found)
        found = [line for line in found if "refused" not in line]
        head = "tiny scores" if tiny else "published" if classes is None else f"{classes} classes"
        print(
            f"{model:20} {head:12} {failed} of {len(found)} failed, worst {worst['share']:.2f} at {worst['tensor']}"
            + (f"; {refused} seeds gave no weights that prove anything" if refused else "")
        )
    print(f"{sum(not line['ok'] for line in lines)} of {len(lines)} failed")
    return all(line["ok"] for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of results, one JSON object a line")
    parser.add_argument("--models", type=lambda text: text.split(","), help="default: all that the text above says")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--report", action="store_true", help="run nothing, sum up what is there")
    args = parser.parse_args()
    smallest = sorted(smallest_of_each_architecture(), key=lambda name: get_model(name).params)
    models = args.models or [*smallest, *(name for name in OTHERS if name in MODELS)]
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(line["model"], line["seed"], line["classes"], line["tiny"]) for line in lines}
    for case in cases(models, args.seeds) if not args.report else ():
        if case in done:
            continue
        lines.append(dict(zip(("model", "seed", "classes", "tiny"), case)) | run(*case))
        with args.out.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    sys.exit(0 if report(lines) else 1)


if __name__ == "__main__":
    main()
