"""A folder of photographs of 1080p through yolov8n on a GPU: `python benchmarks/pictures.py --out results`.

    zoo                 python -m zoo.run FOLDER --no-save: prepared and decoded by kernels, one at a time
    zoo, drawn          the same with its drawn pictures
    zoo, batches        the same as the first with --batch 16: prepared and decoded on the host
    one thread          a loop of read and predict, one picture at a time: its results must be those of zoo
    ultralytics         predict of the same weights at batch 16 in half precision, streamed (needs --torch-python)
    ultralytics, drawn  the same with its drawn pictures

A rate is that of all pictures without the first 64, which a run of its own takes: start-up, imports and warm-up are in
neither. `busy` is the share of the samples of nvidia-smi, ten a second, in which a kernel ran. Weights are ultralytics'
own of a network that nobody trained, its classes scaled and raised until about 30 anchors of a picture score enough.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FIRST, BATCH = 64, 16
SIZE = (1080, 1920)


def make_pictures(folder: Path, count: int) -> None:
    """Crops of a photograph, each another, as JPEG of quality 90: some 400 KB each, as cameras make them."""
    photo = cv2.resize(cv2.imread(str(ROOT / "samples" / "coffee.jpg")), (3840, 2560), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 6, (*SIZE, 3)).astype(np.int16)

    def make(index: int) -> None:
        r = np.random.default_rng(index)
        y, x = r.integers(0, photo.shape[0] - SIZE[0]), r.integers(0, photo.shape[1] - SIZE[1])
        picture = np.clip(photo[y : y + SIZE[0], x : x + SIZE[1]] + np.roll(noise, index, 1), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:05}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(count)))


def timed(run: Callable[[int], Any], count: int) -> dict[str, Any]:
    """Pictures a second of `run(how many)`, start-up apart, and the share of time in which the GPU was busy."""
    seconds = []
    watch = subprocess.Popen(
        ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"],
        stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    for many in (FIRST, count):
        start = time.perf_counter()
        run(many)
        seconds.append(time.perf_counter() - start)
    watch.terminate()
    rate = (count - FIRST) / (seconds[1] - seconds[0])
    samples = [int(line) for line in watch.communicate()[0].split() if line.isdigit()]
    last = samples[-max(1, int((seconds[1] - seconds[0]) * 10)) :] or [0]
    return {"pictures_per_s": round(rate, 1), "pictures": count, "busy": round(mean(last) / 100, 3)}


# ---- the contestants ------------------------------------------------------------------------------------------------


def pictures_of(folder: Path, many: int) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.jpg"))[:many]]


def run_zoo(args: argparse.Namespace, many: int, *options: str) -> dict[str, Any]:
    """What `zoo.run --json` says."""
    command = [sys.executable, "-m", "zoo.run", "yolov8n", *pictures_of(args.folder, many), "--weights", args.weights]
    command += ["--fp16", "--level", str(args.level), "--save", str(args.out / "runs"), "--json"]
    done = subprocess.run(
        [*command, "--device", args.device, *options], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout)


def run_one_thread(args: argparse.Namespace) -> Callable[[int], list[int]]:
    """A loop over one session, and how many boxes it finds in each picture."""
    import zoo

    session = zoo.load("yolov8n", weights=args.weights, precision="fp16", level=args.level, device=args.device)

    def run(many: int) -> list[int]:
        return [len(session.predict(cv2.imread(path)).boxes) for path in pictures_of(args.folder, many)]

    return run


def run_ultralytics(args: argparse.Namespace, many: int, save: bool) -> None:
    """A process of the other interpreter, which runs `predict` below."""
    command = [*shlex.split(args.torch_python), __file__, "--out", str(args.out), "--folder", str(args.folder)]
    command += ["--weights", args.weights, "--count", str(many), "--step", "drawn" if save else "predict"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])


def predict(args: argparse.Namespace, save: bool) -> None:
    """ultralytics' predict, as its documentation has it for many pictures."""
    import torch
    from ultralytics import YOLO

    listed = args.out / "pictures.txt"
    listed.write_text("\n".join(pictures_of(args.folder, args.count)))
    on_gpu = torch.cuda.is_available()
    found = YOLO(args.weights).predict(
        str(listed), stream=True, batch=BATCH, half=on_gpu, device=0 if on_gpu else "cpu", imgsz=640, rect=False,
        save=save, project=str(args.out / "runs"), exist_ok=True, verbose=False,
    )  # fmt: skip
    print(sum(len(each.boxes) for each in found))


def letterboxed(path: str) -> Any:
    """A picture of 16:9 as yolov8 sees it: (3, 640, 640) in 0 … 1, RGB, with grey bars."""
    import torch

    canvas = np.full((640, 640, 3), 114, np.uint8)
    canvas[140:500] = cv2.resize(cv2.imread(path), (640, 360))
    return torch.from_numpy(canvas[..., ::-1].transpose(2, 0, 1).copy()).float() / 255


def make_weights(args: argparse.Namespace) -> None:
    """A checkpoint of ultralytics: about 30 anchors of a picture score more than 0.25."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    network = YOLO("yolov8n.yaml")
    pictures = torch.stack([letterboxed(path) for path in pictures_of(args.folder, 8)])
    for layer in network.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean of all that was seen
            layer.reset_running_stats()
    with torch.no_grad():
        network.model.train()(pictures)
        branches = [branch[-1] for branch in network.model.model[-1].cv3]
        for last in branches:
            last.weight *= 8  # places differ as those of a trained network do
        scores = network.model.eval()(pictures)[0][:, 4:].amax(1).sort(1).values[:, -30].logit().mean()
        for last in branches:
            last.bias += (torch.tensor(0.25).logit() - scores).item()
    network.save(args.weights)


# ---- all of them ----------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, say: Callable[[dict[str, Any]], None]) -> None:
    few = min(args.count, 400)
    one_by_one = run_one_thread(args)
    say({"contestant": "one thread", **timed(one_by_one, few)})
    answer = run_zoo(args, few, "--no-save")
    boxes = [len(each["detections"]) for each in answer["results"]]
    say({"boxes": round(mean(boxes), 1), "as one thread": boxes == one_by_one(few)})
    say({"contestant": "zoo", **timed(lambda many: run_zoo(args, many, "--no-save"), args.count)})
    say({"contestant": "zoo, drawn", **timed(lambda many: run_zoo(args, many), args.count)})
    together = ("--no-save", "--batch", str(BATCH))
    say({"contestant": "zoo, batches", **timed(lambda many: run_zoo(args, many, *together), args.count)})
    if args.torch_python:
        say({"contestant": "ultralytics", **timed(lambda many: run_ultralytics(args, many, False), args.count)})
        say({"contestant": "ultralytics, drawn", **timed(lambda many: run_ultralytics(args, many, True), few)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/zoo-pictures"), help="where the pictures are made")
    parser.add_argument("--weights", default="/tmp/zoo-pictures/yolov8n.pt", help="where the checkpoint is made")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--torch-python", default="", help="an interpreter with PyTorch and ultralytics")
    parser.add_argument("--step", choices=("weights", "predict", "drawn"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.step == "weights":
        make_weights(args)
    elif args.step:
        predict(args, args.step == "drawn")
    else:
        make_pictures(args.folder, args.count)
        command = [*shlex.split(args.torch_python or sys.executable), __file__, "--out", str(args.out)]
        command += ["--folder", str(args.folder), "--weights", args.weights, "--step", "weights"]
        subprocess.run(command, cwd=ROOT, check=True)

        def say(record: dict[str, Any]) -> None:
            print(json.dumps(record), flush=True)
            with (args.out / "pictures.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")

        if args.device == "gpu":
            from zoo.measure.machine import machine

            say(machine())
        measure(args, say)


if __name__ == "__main__":
    main()
