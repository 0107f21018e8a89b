"""Proves every model, by layers in fp32 and in fp16, and keeps what was seen: `python tests/prove_all.py [NAME …]`.

docs/models.jsonl, from which scripts/models_page.py makes docs/models.md, has a line of JSON for each model: the worst
tensor's share of what is allowed in both precisions, the latency on this CPU, how many lines write the network, and
the day. It is keyed by the hash of the network (its layers, not its weights): what is there already is not proven
again, so that the run may be stopped and continued, and a changed network is proven anew. The smallest of each
architecture come first. With --stale the models whose network has changed since are named, and nothing is proven.
Exit status 1 when one fails or is stale. The suite proves the smaller models each time.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by PyTorch when it is imported

from figures import latency_on_cpu, lines_of_definition, lines_of_reference
from test_models import row_of, smallest_of_each_architecture

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.network import PrecisionName
from zoo.onnx import to_onnx
from zoo.registry import Model, get_model, list_models
from zoo.trt import Api, load
from zoo.weights import RandomWeights

SEEN = Path(__file__).resolve().parent.parent / "docs" / "models.jsonl"


def network_hash(model: Model, api: Api, shape: tuple[int, ...]) -> str:
    """What the definition writes for images of `shape` (C, H, W), whatever the weights."""
    definition = define(model, RandomWeights(0), api, (1, *shape))
    graph = to_onnx(definition.network, api.trt, arrays=definition.arrays, weights={})
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()[:16]


def proof(model: Model, api: Api, shape: tuple[int, ...], precision: PrecisionName) -> dict[str, Any]:
    """The verdict of `zoo.verify` on one model, as data."""
    from zoo.verify.proof import prove

    report = prove(model, api, precision=precision, layers=True, size=(shape[1], shape[2])).report
    worst = report.worst
    return {
        "ok": report.ok,
        "tensors": len(report.taps) + len(report.outputs),
        "share": round(worst.ratio, 3) if worst else None,
        "worst": worst.name if worst else None,
        "missing": report.missing,
    }


def figures(model: Model, api: Api, shape: tuple[int, ...], network: str) -> dict[str, Any]:
    """All that is kept of one model."""
    started = time.perf_counter()
    found: dict[str, Any] = {"model": model.name, "network": network, "size": list(shape)}
    for precision in ("fp32", "fp16"):
        found[precision] = proof(model, api, shape, precision)
        gc.collect()
    lines = {"ours": lines_of_definition(model, api), "reference": lines_of_reference(model)}
    return found | {
        "lines": lines,
        "ms": latency_on_cpu(model),
        "cpu": cpu_name(),
        "seconds": round(time.perf_counter() - started, 1),
        "date": date.today().isoformat(),
    }


def cpu_name() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What was seen, by model."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {line["model"]: line for line in map(json.loads, lines)}


def write(path: Path, seen: dict[str, dict[str, Any]]) -> None:
    """One line a model, sorted, so that a difference shows what changed."""
    with replacing(path) as file:
        file.write("".join(json.dumps(seen[name]) + "\n" for name in sorted(seen)).encode())


def in_order(names: list[str]) -> list[Model]:
    """The smallest of each architecture, then the rest, by their parameters."""
    first = set(smallest_of_each_architecture())
    return sorted(map(get_model, names), key=lambda model: (model.name not in first, model.params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=SEEN)
    parser.add_argument("--most", type=int, default=10**12, help="leave out models of more parameters")
    parser.add_argument("--stale", action="store_true", help="name the models that have changed since")
    args = parser.parse_args()
    seen, api, bad = read(args.out), load("rtx"), []
    for model in in_order(args.models or list_models()):
        known = seen.get(model.name)
        if model.params > args.most or (args.stale and known is None):
            continue
        shape = tuple(row_of(model.name)["input"])
        network = network_hash(model, api, shape)
        if known is not None and known["network"] == network and (args.stale or passed(known)):
            continue
        if args.stale:
            print(f"stale  {model.name}: seen {known['date'] if known else 'never'}")
            bad.append(model.name)
            continue
        try:
            line = figures(model, api, shape, network)
        except ZooError as error:  # a library that is not here
            print(f"       {model.name}: {error}", flush=True)
            continue
        seen = read(args.out) | {model.name: line}
        write(args.out, seen)
        shares = ", ".join(f"{precision} {line[precision]['share']}" for precision in ("fp32", "fp16"))
        print(f"{'ok    ' if passed(line) else 'FAILED'} {model.name}: {shares}, {line['seconds']} s", flush=True)
        bad += [] if passed(line) else [model.name]
        gc.collect()
    sys.exit(1 if bad else 0)


def passed(line: dict[str, Any]) -> bool:
    return all(line[precision]["ok"] for precision in ("fp32", "fp16"))


if __name__ == "__main__":
    main()
