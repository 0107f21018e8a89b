"""Tries the published weights of every model, for a machine with internet: `python tests/published.py [NAME …]`.

They are downloaded, converted as `zoo.gen_wts` does, held against the PyTorch reference with the same weights, and run
on a photograph, whose answer is judged where it is known: a cup of coffee, or a portrait. Cascades are run too. A line
of JSON for each goes to --out; what passed there is not tried again, so that the run may be stopped and continued.
Files stay in the cache of downloads unless --forget removes each after its turn. Exit status 1 when one fails; weights
that cannot be had (no internet, none published) are told and are no failure.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from test_models import row_of

import zoo
from zoo.api import find_published
from zoo.cascades import Cascade
from zoo.errors import ZooError
from zoo.gen_wts import run as gen_wts
from zoo.images.sources import read_image
from zoo.registry import Model, get_cascade, get_model, list_cascades, list_models
from zoo.tasks import get_task
from zoo.trt import load
from zoo.verify.proof import prove
from zoo.verify.references import published
from zoo.weights import load_weights
from zoo.weights.published import comes_with_a_package, fetch, place

ROOT = Path(__file__).resolve().parent.parent
COFFEE, PORTRAIT = ROOT / "samples" / "coffee.jpg", ROOT / "tests" / "data" / "grace_hopper.jpg"
# The photograph of a task, and what the labels among its results must name; of other tasks nothing is known.
KNOWN = {"classify": (COFFEE, ("espresso", "cup", "coffee mug")), "detect": (COFFEE, ("cup",)), "faces": (PORTRAIT, ())}


def have(model: Model) -> None:
    """Downloads what is not here. Raises ZooError, saying why, where it cannot be had."""
    known = published(model.reference)
    fetch(known.url, known.sha256, known.size, name=known.file)


def tried(model: Model) -> dict[str, Any]:
    """What the published weights of one model did."""
    started = time.perf_counter()
    weights = find_published(model)
    with tempfile.TemporaryDirectory() as folder:
        file, printed = Path(folder) / f"{model.name}.safetensors", io.StringIO()
        with contextlib.redirect_stdout(printed):
            gen_wts(model.name, output=file)
        converted = load_weights(str(file), model.name)
        proof = prove(model, load("rtx"), converted, size=tuple(row_of(model.name)["input"][1:])).report
        answer = {} if model.task == "part" else answered(model, str(file))
    return {
        "model": model.name,
        "url": published(model.reference).url.rpartition("/")[2],
        "sha256": weights.digest(),
        "converted": printed.getvalue().partition(": ")[2].strip(),
        "verified": proof.ok,
        "share": round(proof.worst.ratio, 3) if proof.worst else None,
        **answer,
        "ok": proof.ok and answer.get("right", True),
        "seconds": round(time.perf_counter() - started, 1),
        "date": date.today().isoformat(),
    }


def answered(entry: Model | Cascade, weights: str | None = None) -> dict[str, Any]:
    """What is said of the photograph, and whether that is `right`, where it is known."""
    picture, names = KNOWN.get(entry.task, (COFFEE, ()))
    with zoo.load(entry.name, weights=weights, device="cpu") as session:
        result = session.predict(read_image(picture))
        known = entry.task in KNOWN and _knows(getattr(session, "labels", None), names)
    answer = {"says": get_task(entry.task).summarize(result)}
    return answer | ({"right": right(result, names)} if known else {})


def _knows(labels: list[str] | None, names: tuple[str, ...]) -> bool:
    return not names or bool(set(names) & set(labels or ()))


def right(result: Any, names: tuple[str, ...]) -> bool:
    """Whether the first five labels name what is there; without names, whether there is one result."""
    return bool(set(result.labels[:5]) & set(names)) if names else len(result.scores) == 1


def of_cascade(cascade: Cascade) -> dict[str, Any]:
    """What a cascade says with the published weights of its parts."""
    answer = answered(cascade)
    return {"model": cascade.name, **answer, "ok": answer.get("right", True), "date": date.today().isoformat()}


def forget(model: Model) -> None:
    """Removes what was downloaded for `model`."""
    known = published(model.reference)
    if not comes_with_a_package(known.url):
        place(known.url, name=known.file).unlink(missing_ok=True)


def passed(path: Path) -> Mapping[str, Any]:
    lines = map(json.loads, path.read_text("utf-8").splitlines() if path.exists() else [])
    return {line["model"]: line for line in lines if line["ok"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="default: all, and all cascades")
    parser.add_argument("--out", type=Path, default=Path("runs/published.jsonl"))
    parser.add_argument("--most", type=int, default=10**12, help="leave out models of more parameters")
    parser.add_argument("--forget", action="store_true", help="keep no downloads")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done, failed, absent = passed(args.out), [], []
    for name in args.models or [*list_models(), *(cascade.name for cascade in list_cascades())]:
        entry = get_cascade(name) or get_model(name)
        if entry.name in done or (isinstance(entry, Model) and entry.params > args.most):
            continue
        try:
            for model in map(get_model, entry.parts if isinstance(entry, Cascade) else (entry.name,)):
                have(model)
        except ZooError as error:
            absent.append(entry.name)
            print(f"absent {entry.name}: {error}", flush=True)
            continue
        try:
            line = of_cascade(entry) if isinstance(entry, Cascade) else tried(entry)
        except ZooError as error:  # weights that are here and do not fit are a failure
            line = {"model": entry.name, "says": str(error), "ok": False, "date": date.today().isoformat()}
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{'ok    ' if line['ok'] else 'FAILED'} {entry.name}: {line.get('says', '')}", flush=True)
        failed += [] if line["ok"] else [entry.name]
        if args.forget and isinstance(entry, Model):
            forget(entry)
        gc.collect()
    print(f"{len(failed)} failed, {len(absent)} absent")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
