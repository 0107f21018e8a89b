"""Proves every model, layer by layer in fp32, and keeps what was seen: `python tests/prove_all.py [NAME …]`.

A line of JSON for each proof goes to --out, keyed by the hash of the network (its layers, not its weights): what is
there already is not proven again, so that the run may be stopped and continued, and a changed network is proven anew.
Exit status 1 when one fails. The suite proves the smaller models each time; this is for the larger ones.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from test_models import row_of

from zoo.engine.definition import define
from zoo.onnx import to_onnx
from zoo.registry import Model, get_model, list_models
from zoo.trt import Api, load
from zoo.weights import RandomWeights


def network_hash(model: Model, api: Api, shape: tuple[int, ...]) -> str:
    """What the definition writes for images of `shape` (C, H, W), whatever the weights."""
    definition = define(model, RandomWeights(0), api, (1, *shape))
    graph = to_onnx(definition.network, api.trt, arrays=definition.arrays, weights={})
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()[:16]


def prove(model: Model, api: Api, shape: tuple[int, ...]) -> dict[str, Any]:
    """The verdict of `zoo.verify` on one model, as data."""
    from zoo.verify.proof import prove as verify

    started = time.perf_counter()
    report = verify(model, api, layers=True, size=(shape[1], shape[2])).report
    worst = report.worst
    return {
        "model": model.name,
        "ok": report.ok,
        "tensors": len(report.taps) + len(report.outputs),
        "share": round(worst.ratio, 3) if worst else None,
        "worst": worst.name if worst else None,
        "missing": report.missing,
        "size": list(shape),
        "seconds": round(time.perf_counter() - started, 1),
        "date": date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/proofs.jsonl"))
    parser.add_argument("--most", type=int, default=10**12, help="leave out models of more parameters")
    args = parser.parse_args()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    done = {(line["model"], line["network"]) for line in map(json.loads, lines) if line["ok"]}
    api, failed = load("rtx"), []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for model in sorted(map(get_model, args.models or list_models()), key=lambda model: model.params):
        shape = tuple(row_of(model.name)["input"])
        network = network_hash(model, api, shape)
        if (model.name, network) in done or model.params > args.most:
            continue
        line = {**prove(model, api, shape), "network": network}
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{'ok    ' if line['ok'] else 'FAILED'} {model.name}: {line['share']} at {line['worst']}", flush=True)
        failed += [] if line["ok"] else [model.name]
        gc.collect()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
