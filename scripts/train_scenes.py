"""Trained networks whose accuracy can be measured without a download: generated scenes of eight shapes.

    python scripts/train_scenes.py resnet18 --out runs/scenes       # or mobilenet_v3_small, or any of torchvision's
    python scripts/train_scenes.py yolov8n --out runs/scenes        # by ultralytics' own trainer
    python -m zoo.eval resnet18 --weights runs/scenes/resnet18.safetensors --data runs/scenes/classify

A scene is drawn from its number alone, so that the same numbers are the same pictures on any machine: training and held
out are different numbers. Classifiers see 64 x 64 pixels with one shape, detectors 128 x 128 with one to five; both
with noise, shading, and lines that are no shapes. Seeds and the number of threads are fixed, so that a run repeats.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo import gen_wts
from zoo.preprocess import stretched
from zoo.registry import Model, get_model
from zoo.verify.calibration import state_arrays
from zoo.verify.references import Reference, load_reference
from zoo.weights import from_arrays, save_safetensors

CLASSES = ["arrow", "circle", "cross", "frame", "ring", "square", "star", "triangle"]
CLASSIFY, DETECT = 64, 128  # pixels
MOST = 5  # shapes in a detector's scene
HELD_OUT = 10_000_000  # the number of the first scene that is not trained on
FINE = 16  # parts of a pixel that corners are drawn to (cv2's `shift` is 4)


def scene(number: int, size: int, most: int) -> tuple[np.ndarray, list[tuple[int, tuple[float, float, float, float]]]]:
    """The picture (size, size, 3) uint8 BGR of a number, and its 1 to `most` shapes: class and box x1, y1, x2, y2."""
    rng = np.random.default_rng(number)
    low, high = rng.uniform(0, 255, (2, 3))
    slope = np.linspace(0, 1, size, dtype=np.float32)
    shade = np.add.outer(slope * rng.uniform(-1, 1), slope * rng.uniform(-1, 1))[..., None]
    picture = np.ascontiguousarray(np.clip(low + (high - low) * shade, 0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 7)):
        ends = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(picture, *ends, rng.uniform(0, 255, 3).tolist(), 1, cv2.LINE_AA)
    found: list[tuple[int, tuple[float, float, float, float]]] = []
    for _ in range(rng.integers(1, most + 1)):
        radius = rng.uniform(0.09, 0.2) * size * (1.5 if most == 1 else 1)
        centre = rng.uniform(radius, size - radius, 2)
        if any(x1 < centre[0] < x2 and y1 < centre[1] < y2 for _, (x1, y1, x2, y2) in found):
            continue  # it would hide the other one
        kind = int(rng.integers(len(CLASSES)))
        corners = outline(CLASSES[kind], rng) * radius + centre
        around = picture[tuple(np.clip(centre[::-1].astype(int), 0, size - 1))].astype(float)
        colour = np.clip(around + rng.choice([-1, 1], 3) * rng.uniform(25, 110, 3), 0, 255)
        thick = 0.28 * radius if CLASSES[kind] in ("ring", "frame") else 0
        points = np.rint(corners * FINE).astype(np.int32)
        if thick:
            cv2.polylines(picture, [points], True, colour.tolist(), max(1, round(thick)), cv2.LINE_AA, 4)
        else:
            cv2.fillPoly(picture, [points], colour.tolist(), cv2.LINE_AA, 4)
        low_corner, high_corner = corners.min(0) - thick / 2, corners.max(0) + thick / 2
        found.append((kind, tuple(np.clip([*low_corner, *high_corner], 0, size).tolist())))  # type: ignore[arg-type]
    noisy = picture + rng.normal(0, rng.uniform(2, 22), picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), found


def outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """The corners (N, 2) of a shape within the circle of radius 1, turned at random."""
    angles = {
        "circle": np.arange(32) * math.tau / 32, "ring": np.arange(32) * math.tau / 32,
        "triangle": np.arange(3) * math.tau / 3, "square": np.arange(4) * math.tau / 4,
        "frame": np.arange(4) * math.tau / 4, "star": np.arange(10) * math.tau / 10,
    }  # fmt: skip
    if name in angles:
        reach = np.where(np.arange(10) % 2, 0.4, 1.0) if name == "star" else np.ones(len(angles[name]))
        corners = np.stack([np.cos(angles[name]), np.sin(angles[name])], 1) * reach[:, None]
    elif name == "cross":
        arm = np.array([[0.3, 0.3], [0.3, 0.95], [-0.3, 0.95]])
        turns = [_turn(angle) for angle in np.arange(4) * math.tau / 4]
        corners = np.concatenate([arm @ turn.T for turn in turns])
    else:  # an arrow
        corners = np.array([[1, 0], [0.2, 0.7], [0.2, 0.25], [-0.9, 0.25], [-0.9, -0.25], [0.2, -0.25], [0.2, -0.7]])
    turn, stretch = rng.uniform(0, math.tau), np.array([1, rng.uniform(0.75, 1)])
    return (corners * stretch) @ _turn(turn).T


def _turn(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


# Data in files, as zoo.eval and ultralytics read them


def write_classes(folder: Path, numbers: range) -> None:
    """FOLDER/CLASS/NUMBER.png."""
    for number in numbers:
        picture, ((kind, _), *_) = scene(number, CLASSIFY, 1)
        path = folder / CLASSES[kind] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture)


def write_boxes(folder: Path, numbers: range) -> None:
    """FOLDER/images/NUMBER.png and FOLDER/labels/NUMBER.txt."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture, found = scene(number, DETECT, MOST)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        rows = [(kind, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for kind, (x1, y1, x2, y2) in found]
        lines = [f"{kind} " + " ".join(f"{value / DETECT:.6f}" for value in box) for kind, *box in rows]
        (folder / "labels" / f"{number}.txt").write_text("".join(f"{line}\n" for line in lines))


# Training


def batches(model: Model, count: int, epochs: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pictures, prepared as prediction does it, and their classes; `count` scenes, in another order each epoch."""
    scenes = [scene(number, CLASSIFY, 1) for number in range(count)]
    classes = torch.tensor([found[0][0] for _, found in scenes])
    for _ in range(epochs):
        for chosen in torch.randperm(count).split(size):
            pixels = np.stack([model.preprocess.apply(scenes[i][0])[0] for i in chosen.tolist()])
            yield torch.from_numpy(pixels), classes[chosen]


def train_classifier(model: Model, count: int, epochs: int, size: int, rate: float, path: Path) -> None:
    """In batches of `size`, with a learning rate of at most `rate`."""
    reference = load_reference(model.reference, len(CLASSES))
    assert isinstance(reference, Reference)
    module = reference.module.train()
    for norm in (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.momentum = 0.1  # MobileNetV3 has 0.01, for a training that is a thousand times as long
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=0.02)
    steps = epochs * -(-count // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    for step, (x, y) in enumerate(batches(model, count, epochs, size), 1):
        loss = F.cross_entropy(module(x), y, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    weights = from_arrays(state_arrays(replace(reference, module=module.eval())), "scenes")
    arrays, _, _ = gen_wts.check(model, weights)
    source = f"scripts/train_scenes.py, {count} scenes, {epochs} epochs"
    save_safetensors(path, gen_wts.arrays_of(arrays), gen_wts.metadata(model, weights, source, CLASSES))


def train_detector(model: Model, count: int, epochs: int, out: Path, path: Path) -> None:
    """By ultralytics' trainer, with mosaics and all that is usual there; nothing is downloaded."""
    load_reference(model.reference)  # so that ultralytics can be imported without a GPU
    from ultralytics import YOLO

    write_boxes(out / "training", range(count))
    about = out / "scenes.yaml"
    images = str((out / "training" / "images").resolve())
    about.write_text(json.dumps({"train": images, "val": images, "names": dict(enumerate(CLASSES))}))
    yolo = YOLO(f"{model.name}.yaml", task="detect")
    yolo.train(
        data=str(about), imgsz=DETECT, epochs=epochs, batch=32, device="cpu", workers=0, seed=0, deterministic=True,
        amp=False, val=False, plots=False, close_mosaic=1, pretrained=False, project=str(out.resolve()), name="yolo",
        exist_ok=True, optimizer="AdamW", lr0=2e-3, warmup_epochs=1,
    )  # fmt: skip
    gen_wts.run(model.name, checkpoint=out / "yolo" / "weights" / "last.pt", output=path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a classifier of torchvision, or a detector of ultralytics")
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--train", type=int, default=8000, help="scenes to train on")
    parser.add_argument("--held-out", type=int, default=5000, help="scenes to measure with")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="scenes in a step of a classifier's training")
    parser.add_argument("--rate", type=float, default=3e-3, help="a classifier's largest learning rate")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, path = get_model(args.model), args.out / f"{args.model}.safetensors"
    held_out = range(HELD_OUT, HELD_OUT + args.held_out)
    args.out.mkdir(parents=True, exist_ok=True)
    if model.task == "detect":
        train_detector(model, args.train, args.epochs, args.out, path)
        write_boxes(args.out / "detect", held_out)
        told = f"--weights {path} --data {args.out / 'detect'} --format folder --size {DETECT}"
        print(f"python -m zoo.eval {model.name} {told}")
        return
    model = replace(model, preprocess=stretched(CLASSIFY), input=(3, CLASSIFY, CLASSIFY))
    train_classifier(model, args.train, args.epochs, args.batch, args.rate, path)
    write_classes(args.out / "classify", held_out)
    print(f"python -m zoo.eval {model.name} --weights {path} --data {args.out / 'classify'}")


if __name__ == "__main__":
    main()
