"""From opening a session on the CPU to its first answer, in its parts: processor seconds, which other work on the
machine does not change.

    python benchmarks/opening.py [MODEL …]

Every run is a process of its own with one thread and random weights; imports are told apart. Nothing is kept between
runs: on the CPU a network is defined anew each time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

MODELS = ("lenet5", "resnet18", "resnet50", "yolov8n")
PARTS = ("imports", "weights", "definition", "session", "first answer", "second answer")
RUNS = 3


def measure(name: str) -> list[float]:
    """The processor seconds of each part, in this process."""
    marks = [0.0]
    import numpy as np
    import onnxruntime  # noqa: F401

    from zoo.api import find_weights
    from zoo.engine.definition import define
    from zoo.registry import get_model
    from zoo.runtime.cpu import CpuSession
    from zoo.trt import load

    model, api = get_model(name), load("rtx")
    marks.append(time.process_time())
    weights = find_weights(model, "random")
    marks.append(time.process_time())
    definition = define(model, weights, api, (-1, *model.input))
    marks.append(time.process_time())
    with CpuSession(definition, threads=1) as session:
        marks.append(time.process_time())
        for _ in range(2):
            session(np.zeros((1, *model.input), np.float32))
            marks.append(time.process_time())
    return [end - start for start, end in zip(marks, marks[1:])]


def main() -> None:
    print(f"| model | {' | '.join(PARTS)} |\n|---|{'---:|' * len(PARTS)}")
    for name in sys.argv[1:] or MODELS:
        command = [sys.executable, __file__, "--one", name]
        runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(RUNS)]
        print(f"| {name} | {' | '.join(f'{statistics.median(part):.3f}' for part in zip(*runs))} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main()
