"""Benchmarks and profiles on a real GPU: that they measure what they say."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.engine.build import compile_network
from zoo.engine.definition import define
from zoo.engine.effort import Effort
from zoo.engine.shapes import Shapes
from zoo.measure import profiling
from zoo.measure.costs import LayerCosts, layer_costs
from zoo.measure.machine import gpu_state, machine
from zoo.measure.timing import Replay, copy_gb_per_s
from zoo.registry import get_model
from zoo.runtime.cuda import Cuda
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api
from zoo.weights import RandomWeights

ROOT = Path(__file__).resolve().parents[2]
Say = Callable[[str], None]


def run(*arguments: str, status: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def resnet18(api: Api) -> tuple[bytes, LayerCosts]:
    """An fp32 engine of level 0 for batch 4, and the costs of its definition's layers."""
    shapes = Shapes.static((4, 3, 224, 224))
    definition = define(get_model("resnet18"), RandomWeights(0), api, shapes.network)
    return compile_network(definition, shapes, Effort(level=0)), layer_costs(definition, "fp32")


def test_events_agree_with_the_clock(api: Api, resnet18: tuple[bytes, LayerCosts], say: Say) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 224, 224), np.float32)
    with GpuSession(resnet18[0], api=api) as session:
        replay = Replay(session, {"images": x.shape})
        assert replay.captured
        replay.write({"images": x})
        for name, value in session(x).items():
            np.testing.assert_array_equal(replay.outputs()[name], value)
        replay.measure(300)
        times = replay.measure(300)
        with session.cuda.active():
            start = time.perf_counter()
            for _ in range(300):
                replay.run()
            session.cuda.synchronize(replay.stream)
            wall = (time.perf_counter() - start) / 300 * 1e3
        median = sorted(times)[150]
        latency = replay.latency(100)
        replay.close()
    say(f"events {median:.4f} ms, clock {wall:.4f} ms; {gpu_state()}\n{latency}")
    assert 0.8 * wall < median < 1.2 * wall
    assert latency.upload.median > 0 and latency.enqueue.median < latency.compute.median


def test_layer_times_add_up(api: Api, resnet18: tuple[bytes, LayerCosts], say: Say) -> None:
    plan, costs = resnet18
    with GpuSession(plan, api=api) as session:
        profile = profiling.profile_session(session, {"images": (4, 3, 224, 224)}, costs, runs=20)
    say(profiling.to_text(profile, 2))
    assert 0.7 * profile.whole_ms < profile.sum_ms < 5 * profile.whole_ms
    named = sum(layer.ms for layer in profile.layers if layer.covers)
    assert named > 0.9 * profile.sum_ms
    assert {"layer1.0", "layer4.1"} <= {name for name, _, _ in profile.groups(2)}
    whole = costs.group(costs.layers)  # every multiplication is found in one layer of the engine, and in one only
    assert sum(layer.cost.macs for layer in profile.layers if layer.cost) == whole.macs
    assert sum(layer.cost.bytes for layer in profile.layers if layer.cost) > whole.bytes


def test_the_bandwidth_is_one(cuda: Cuda, say: Say) -> None:
    found = copy_gb_per_s(cuda, 1 << 30)
    say(f"{found:.0f} GB/s on {machine()}")
    assert 50 < found < 50_000


def test_the_bench_command(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    text = run("zoo.bench", "lenet5", "--batch", "1,8", "--precision", "fp32,fp16", "--level", "0", "--rounds", "3",
               "--csv", str(table))  # fmt: skip
    assert text.count("GPU Compute Time: min") == 4 and text.count("| lenet5 |") == 4
    rows = list(csv.DictReader(table.open()))
    assert [(r["infer_batch_size"], r["precision"]) for r in rows] == [
        ("1", "fp32"), ("8", "fp32"), ("1", "fp16"), ("8", "fp16"),
    ]  # fmt: skip
    assert all(float(r["infer_step_time"]) > 0 for r in rows)


def test_the_profile_command(tmp_path: Path) -> None:
    engine, page = tmp_path / "lenet5.engine", tmp_path / "profile.html"
    run("zoo.build", "lenet5", "--batch", "2", "--level", "0", "--save-engine", str(engine))
    found: dict[str, Any] = json.loads(run("zoo.profile", str(engine), "--json", "--html", str(page)))
    assert "2x1x32x32" in found["title"] and sum(layer["ms"] for layer in found["layers"]) > 0
    gmacs = [layer["gmacs"] for layer in found["layers"] if layer["gmacs"] is not None]
    assert sum(gmacs) == pytest.approx(2 * 416_520 / 1e9)  # what LeNet-5 multiplies for two images
    assert found["title"] in page.read_text("utf-8")
    assert "zoo.build" not in run("zoo.profile", "lenet5", "--fp16", "--level", "0")


def test_rivals_take_part(say: Say) -> None:
    python = os.environ.get("ZOO_TORCH_PYTHON")
    if not python:
        pytest.skip("ZOO_TORCH_PYTHON names no interpreter that has PyTorch with CUDA")
    found = json.loads(run("zoo.bench", "resnet18", "--level", "0", "--rounds", "5", "--against", "onnx,torch",
                           "--torch-python", python, "--json"))  # fmt: skip
    rows = {r["name"]: r for r in found["results"]}
    say(
        "\n".join(
            f"{name}: {r['compute_ms']['median']:.4f} ms, ours / this {r['ratio']:.3f}" for name, r in rows.items()
        )
    )
    assert list(rows) == ["zoo", "onnx", "torch"]
    assert all(r["difference"] < 0.05 for r in rows.values())
