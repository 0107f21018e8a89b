"""What takes minutes: `python tests/endure.py` kills commands at any time and calls sessions from many threads.

    python tests/endure.py --kills 200 --threads 24 --calls 1000

After every kill (SIGKILL, at a random time) what lies under a final name must be whole, and every tenth time the next
run must be right. Every answer of a session that threads share must be the bits of the same call alone.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import zoo
from zoo.engine.passport import load_engine
from zoo.weights import load_weights


def whole_engine(folder: Path) -> None:
    load_engine(folder / "model.engine")


def whole_onnx(folder: Path) -> None:
    import onnx

    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    onnx.load(folder / "model.onnx")


def whole_weights(folder: Path) -> None:
    weights = load_weights(folder / "model.safetensors")
    for name in weights.names():
        weights.read(name, weights.shape(name) or ())


def whole_results(folder: Path) -> None:
    json.loads((folder / "results.json").read_text("utf-8"))


# A command, the file that is there when it is done, and what reads it.
COMMANDS: dict[str, tuple[list[str], str, Callable[[Path], None]]] = {
    "build": (
        ["build", "resnet18", "-w", "random", "--size", "64", "-o", "model.engine"], "model.engine", whole_engine,
    ),
    "export": (["export", "resnet18", "-w", "random", "-o", "model.onnx"], "model.onnx", whole_onnx),
    "export, external data": (
        ["export", "resnet18", "-w", "random", "--external-data", "-o", "model.onnx"], "model.onnx", whole_onnx,
    ),
    "run": (["run", "lenet5", str(ROOT / "samples"), "--save", "."], "results.json", whole_results),
    "gen_wts": (
        ["gen_wts", "lenet5", "-c", str(ROOT / "zoo/weights/lenet5.safetensors"), "-o", "model.safetensors"],
        "model.safetensors", whole_weights,
    ),
}  # fmt: skip


def kills(count: int, seed: int = 0) -> list[str]:
    """What was found wrong after `count` kills, shared by the commands."""
    rng, wrong, tally = random.Random(seed), list[str](), Counter[str]()
    for number in range(count):
        name = list(COMMANDS)[number % len(COMMANDS)]
        arguments, output, check = COMMANDS[name]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", f"zoo.{arguments[0]}", *arguments[1:]]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": folder}
            quiet = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            if rng.random() < 0.5:  # a file that is replaced
                subprocess.run(command, check=True, **quiet)
            process = subprocess.Popen(command, **quiet)
            time.sleep(rng.uniform(0.3, 4.0))
            process.kill()
            tally["killed" if process.wait() == -9 else "done before"] += 1
            if (Path(folder) / output).exists():
                tally["there"] += 1
                _note(wrong, f"{number}: {name} left half a file", check, Path(folder))
            if number % 10 == 9:
                subprocess.run(command, check=True, **quiet)
                _note(wrong, f"{number}: {name} after a kill", check, Path(folder))
    print(f"{count} kills: {dict(tally)}, {len(wrong)} wrong", flush=True)
    return wrong


def _note(wrong: list[str], what: str, check: Callable[[Path], None], folder: Path) -> None:
    try:
        check(folder)
    except Exception as error:  # whatever does not read it
        wrong.append(f"{what}: {type(error).__name__}: {error}")


def calls(threads: int, count: int, model: str = "lenet5") -> list[str]:
    """What was answered otherwise than alone, by `threads` threads with `count` calls each."""
    rng, wrong = np.random.default_rng(0), list[str]()
    with zoo.load(model, device="cpu") as session:
        channels, height, width = session.model.input
        images = [rng.random((1 + i % 3, channels, height, width), np.float32) for i in range(threads)]
        alone = [session(batch) for batch in images]

        def work(first: int) -> None:
            for i in range(count):
                at = (first + i) % threads
                found = session.submit(images[at]).result() if i % 10 == 9 else session(images[at])
                if any(found[name].tobytes() != alone[at][name].tobytes() for name in found):
                    wrong.append(f"thread {first}, call {i}")

        workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    print(f"{threads} threads x {count:,} calls of {model}: {len(wrong)} differ from the same call alone", flush=True)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--threads", type=int, default=24)
    parser.add_argument("--calls", type=int, default=1000)
    options = parser.parse_args()
    found = calls(options.threads, options.calls) + kills(options.kills)
    print("\n".join(found))
    sys.exit(1 if found else 0)
