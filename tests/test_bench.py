"""Benchmarks and profiles as far as they can be told without a GPU: costs, statistics, rivals, tables."""

# ruff: noqa: ANN001, ANN201, ANN202  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_gpu as fakes
import numpy as np
import onnxruntime
import pytest

from zoo import bench
from zoo.engine.definition import define
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.measure import contest, machine, profiling, timing
from zoo.measure.contest import Arena, take_turns
from zoo.measure.contestants import Options
from zoo.measure.costs import Cost, LayerCost, LayerCosts, cost_of, layer_costs
from zoo.measure.inspector import side_by_side
from zoo.measure.profiling import LayerTime, Profile
from zoo.measure.timing import Latency, Replay, Spread, Stopwatch
from zoo.measure.torch_process import TorchProcess
from zoo.network import Definition, Precision
from zoo.ops import add, relu, split
from zoo.registry import get_model
from zoo.runtime import gpu
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api
from zoo.weights import RandomWeights, save_safetensors

ROOT = Path(__file__).parents[1]


# ---- costs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gmacs"),  # as torchvision's and ultralytics' tables print them (half of ultralytics' FLOPs)
    [("resnet50", 4.09), ("vit_b_32", 4.41), ("mobilenet_v2", 0.30), ("yolov8n", 8.7 / 2), ("yolov5s", 16.5 / 2)],
)
def test_operations_are_those_that_upstream_publishes(rtx: Api, name: str, gmacs: float) -> None:
    model = get_model(name)
    cost = cost_of(define(model, RandomWeights(0), rtx, (1, *model.input)), "fp32")
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.012)


def test_costs_grow_with_the_batch_and_shrink_with_the_precision(rtx: Api) -> None:
    model = get_model("lenet5")
    one, eight = (cost_of(define(model, RandomWeights(0), rtx, (n, 1, 32, 32)), "fp32") for n in (1, 8))
    half = cost_of(define(model, RandomWeights(0), rtx, (1, 1, 32, 32)), "fp16")
    # convolutions 6x28x28x25 and 16x10x10x150, matrices 120x400, 84x120 and 10x84
    assert one.macs == 117_600 + 240_000 + 48_000 + 10_080 + 840
    assert eight.macs == 8 * one.macs and half.macs == one.macs
    assert one.bytes == 4 * (61_706 + 32 * 32 + 10) and eight.bytes == 4 * (61_706 + 8 * (32 * 32 + 10))
    assert half.bytes == 2 * 61_706 + 4 * (32 * 32 + 10)


def test_the_bound_is_the_slower_of_arithmetic_and_memory() -> None:
    assert Cost(macs=5 * 10**9, parameters=1, bytes=10**6).bound_ms(tflops=100, gb_per_s=1000) == pytest.approx(0.1)
    assert Cost(macs=10**6, parameters=1, bytes=10**9).bound_ms(tflops=100, gb_per_s=1000) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "gmacs", "more"),  # weights that an engine reads beyond the parameters; folded BatchNorms need fewer
    [("resnet50", 4.09, -26_560), ("vit_b_16", 17.56, 12), ("yolov8n", 4.37, None)],
)
def test_layers_together_cost_what_the_network_does(rtx: Api, name: str, gmacs: float, more: int | None) -> None:
    model = get_model(name)
    definition = define(model, RandomWeights(0), rtx, (2, *model.input), Precision("fp16"))
    costs, whole = layer_costs(definition, "fp16"), cost_of(definition, "fp16")
    assert len(costs.layers) == definition.network.num_layers
    assert sum(costs.group([layer]).macs for layer in costs.layers) == whole.macs
    assert whole.macs / 2e9 == pytest.approx(gmacs, abs=0.01)
    assert sum(costs.group([layer]).bytes for layer in costs.layers) > 3 * whole.bytes
    if more is not None:
        assert whole.bytes == 2 * (whole.parameters + more) + 4 * 2 * (3 * 224 * 224 + 1000)


def test_a_fused_layer_moves_what_enters_and_leaves_it(rtx: Api) -> None:
    model = get_model("resnet50")
    costs = layer_costs(define(model, RandomWeights(0), rtx, (2, *model.input), Precision("fp16")), "fp16")

    def moved(*layers: str) -> int:
        return costs.group(layers).bytes

    pixels = 2 * 56 * 56  # of two images
    fused = costs.group(["layer1.0.conv3", "layer1.0.add", "layer1.0.relu:2"])
    assert fused == Cost(pixels * 64 * 256, 64 * 256 + 256, 2 * (64 * 256 + 256 + pixels * (64 + 256 + 256)))
    assert moved("layer1.0.add", "layer1.0.relu:2") == 2 * pixels * 3 * 256
    # the sum moves although the group uses it: a later addition does, too
    assert moved("layer1.0.relu:2", "layer1.1.conv1") == 2 * (256 * 64 + 64 + pixels * (256 + 256 + 64))
    # one input for both, and of the 1x1 convolution that steps over pixels only what it sees
    assert moved("layer1.0.conv1", "layer1.0.downsample.0") == 2 * (64 * 320 + 320 + pixels * (64 + 64 + 256))
    assert moved("layer2.0.downsample.0") == 2 * (256 * 512 + 512 + pixels // 4 * (256 + 512))
    # constants count once, whether the engine names them or not; the ends are float32
    fc = costs.group(["fc.matmul", "fc"])
    assert fc == costs.group(["fc.weight", "fc.matmul", "fc.bias", "fc"])
    assert fc == Cost(2 * 2048 * 1000, 2_049_000, 2 * (2_049_000 + 2 * (2048 + 1000)))
    assert moved("logits.output") == 2 * 1000 * (2 + 4) and moved("conv1.cast") == 2 * 3 * 224 * 224 * (4 + 2)


def test_slices_read_what_they_take(define_net: Callable[..., Definition]) -> None:
    def build(net: Any, x: Any) -> dict[str, Any]:
        first, second = split(net / "split", relu(net / "relu", x), [2, 6])
        return {"logits": first, "second": add(net / "twice", second, second)}

    costs = layer_costs(define_net(build, shape=(1, 8, 3, 3)), "fp32")
    assert costs.group(["split.split"]).bytes == 4 * 9 * (2 + 2)
    assert costs.group(["split.split", "split.split:1"]).bytes == 4 * 9 * (8 + 8)
    assert costs.group(["twice.add"]).bytes == 4 * 9 * (6 + 6)  # the same tensor twice
    assert costs.group(costs.layers) == Cost(0, 0, 4 * 9 * (8 + 8))


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_percentiles_are_times_that_were_measured() -> None:
    spread = Spread.of([float(n) for n in range(200, 0, -1)])
    assert vars(spread) == {
        "min": 1, "max": 200, "mean": 100.5, "median": 100.5, "p90": 180, "p95": 190, "p99": 198,
    }  # fmt: skip
    assert set(vars(Spread.of([3.0])).values()) == {3.0}


def test_the_latency_block_has_trtexecs_words() -> None:
    steps = [Spread.of([value]) for value in (0.5, 2.0, 0.25, 0.01)]
    text = str(Latency(499.0, *steps))
    assert text.splitlines()[:2] == [
        "Throughput: 499.00 qps",
        "Latency: min = 2.75 ms, max = 2.75 ms, mean = 2.75 ms, median = 2.75 ms, percentile(90%) = 2.75 ms, "
        "percentile(95%) = 2.75 ms, percentile(99%) = 2.75 ms",
    ]
    for name, value in (("Enqueue Time", 0.01), ("H2D Latency", 0.5), ("GPU Compute Time", 2), ("D2H Latency", 0.25)):
        assert f"\n{name}: min = {value} ms" in text


class Player:
    """A contestant whose runs take `ms`; it notes its turns."""

    def __init__(self, name: str, ms: float, turns: list[tuple[str, int]]) -> None:
        self.name, self.ms, self.turns = name, ms, turns

    def measure(self, count: int) -> list[float]:
        self.turns.append((self.name, count))
        return [self.ms] * count


def test_rounds_take_turns_and_slow_networks_fewer_runs() -> None:
    turns: list[tuple[str, int]] = []
    players = {name: Player(name, ms, turns).measure for name, ms in (("fast", 0.1), ("slow", 10.0))}
    times = take_turns(players, Options(rounds=3, replays=40))
    assert turns[:4] == [("fast", 5), ("fast", 200), ("slow", 5), ("slow", 50)]  # a warm-up of at most 500 ms
    first = [("fast", 40), ("slow", 10)]  # a round of at most 100 ms
    assert turns[4:] == [*first, *first[::-1], *first]
    assert times == {"fast": [0.1] * 120, "slow": [10.0] * 30}


# ---- replays, on a CUDA provider of host memory ---------------------------------------------------------------------


class Clock(fakes.FakeCuda):
    """Time advances by 2 ms with every launch of a graph and by 1 ms with every copy."""

    now = 0.0

    def launch_graph(self, graph, stream) -> None:
        self.now += 2
        super().launch_graph(graph, stream)

    def h2d(self, dst, src, stream) -> None:
        self.now += 1
        super().h2d(dst, src, stream)

    def d2h(self, dst, src, stream) -> None:
        self.now += 1
        super().d2h(dst, src, stream)

    def record(self, event, stream) -> None:
        super().record(event, stream)
        event.raw.time = self.now

    def elapsed_ms(self, start, end) -> float:
        return end.raw.time - start.raw.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    monkeypatch.setattr(gpu, "provider", lambda name, device: fake)
    fakes.ENGINES[b"plan"] = fakes.FakeEngine(fake, {"images": fakes.PROFILE}, fakes.OUTPUTS, fakes.network)
    yield fake
    fakes.ENGINES.clear()


@pytest.mark.parametrize("capturable", [True, False])
def test_a_replay_computes_what_the_session_does(clock: Clock, capturable: bool) -> None:
    fakes.ENGINES[b"plan"].capturable = capturable
    with fakes.open_session() as session:
        replay = Replay(session, {"images": (2, 3, 4, 4)})
        assert replay.captured == capturable
        x = fakes.images(2)
        replay.write({"images": x})
        fakes.check(replay.outputs(), x)
        replay.close()
        replay.close()


def test_each_run_is_timed_on_its_own(clock: Clock) -> None:
    with fakes.open_session() as session:
        replay = Replay(session, {"images": (2, 3, 4, 4)})
        launches = clock.launches
        assert replay.measure(7) == [2.0] * 7
        assert clock.launches == launches + 7 + timing.LEAD
        latency = replay.latency(5)
        steps = (latency.upload, latency.compute, latency.download, latency.total)
        assert [step.median for step in steps] == [1.0, 2.0, 2.0, 5.0]  # one input, two outputs
        assert replay.latency(5, [7.0]).compute.median == 7.0
        replay.close()
    assert not clock.graphs_alive


def test_bandwidth_counts_what_is_read_and_what_is_written(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stopwatch, "__call__", lambda self, work, count, lead=4: [2.0, 1.0, 3.0])
    assert timing.copy_gb_per_s(clock, nbytes=10**6) == pytest.approx(2.0)


# ---- rivals ---------------------------------------------------------------------------------------------------------


class Mixed:
    """TensorRT-RTX to define networks with, the fake to run them."""

    Runtime = staticmethod(fakes.FakeTensorRT.Runtime)
    TensorFormat = fakes.FakeTensorRT.TensorFormat
    TensorIOMode = fakes.FakeTensorRT.TensorIOMode

    def __init__(self, real: Any) -> None:
        self._real = real
        self.ExecutionContextAllocationStrategy = fakes.FakeTensorRT(True).ExecutionContextAllocationStrategy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture(scope="module")
def torch_on_cpu() -> Iterator[TorchProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_RIVAL_DEVICE", "cpu")
        torch = TorchProcess()
    yield torch
    torch.close()


@pytest.fixture
def ring(clock: Clock, rtx: Api, torch_on_cpu: TorchProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    """An arena whose engines are run by onnxruntime, with a real PyTorch process on the CPU."""
    api = replace(rtx, trt=Mixed(rtx.trt))  # type: ignore[arg-type]

    def plan_of(run, shapes: Shapes) -> bytes:
        plan = f"plan {len(fakes.ENGINES)}".encode()
        outputs = {name: (lambda shape: lambda _: shape)(value.shape) for name, value in
                   run(np.zeros(shapes.min, np.float32)).items()}  # fmt: skip
        fakes.ENGINES[plan] = fakes.FakeEngine(
            clock, {"images": (shapes.min,) * 3}, outputs, lambda arrays: run(arrays["images"].copy())
        )
        return plan

    def ours(model, weights, api, shapes, precision, options) -> tuple[bytes, Cost]:
        definition = define(model, weights, rtx, shapes.network)
        return plan_of(CpuSession(definition), shapes), cost_of(definition, precision)

    def from_onnx(api, path, shapes, precision, options) -> bytes:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        assert [i.name for i in session.get_inputs()] == ["images"]
        return plan_of(lambda x: dict(zip(names, session.run(None, {"images": x}))), shapes)

    monkeypatch.setattr(contest, "compile_ours", ours)
    monkeypatch.setattr(contest, "compile_onnx", from_onnx)
    return Arena(api, ("onnx", "torch"), torch_on_cpu, tmp_path, Options(rounds=2, replays=3, warmup=3))


@pytest.mark.parametrize(("name", "size"), [("lenet5", (32, 32)), ("yolov5n", (96, 96)), ("yolov8n", (96, 96))])
def test_all_contestants_compute_the_same(ring: Arena, name: str, size: tuple[int, int]) -> None:
    model = get_model(name)
    times = 2 if model.preprocess.stride > 1 else 1  # its statistics come from half the size
    small = replace(model, input=(model.input[0], *(times * side for side in size)))
    weights = ring.weights(small, None)
    results = ring.hold(model, weights, "fp32", 2, size)
    assert [r.name for r in results] == ["zoo", "onnx", "torch"] and not ring.failed
    assert all(r.difference is not None and 0 <= r.difference < 2e-5 for r in results)
    assert max(r.difference for r in results if r.difference is not None) > 0
    ours, onnx, torch = results
    assert ours.ratio == onnx.ratio == 1.0 and ours.compute == onnx.compute
    assert len(ours.as_dict()["latency"]) == 5 and torch.latency is None
    assert torch.ratio == pytest.approx(2.0 / torch.compute.median) and torch.runtime.startswith("PyTorch 2.")


def test_compiled_rivals_compute_the_same(ring: Arena) -> None:
    ring.rivals = ("torch", "compile", "graphed", "frozen")
    model = get_model("lenet5")
    results = ring.hold(model, ring.weights(model, None), "fp32", 2)
    assert [r.name for r in results] == ["zoo", *ring.rivals] and not ring.failed
    assert all(r.difference is not None and 0 <= r.difference < 2e-5 for r in results)
    assert len({r.runtime for r in results[1:]}) == 1  # PyTorch's version alone


@pytest.mark.parametrize("kinds", [("compile", "frozen"), ("frozen", "compile")])
def test_only_the_frozen_rival_folds_batch_norms(
    kinds: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch
    import torch._inductor.config as inductor

    from zoo.verify import rivals
    from zoo.verify.references import Library, Reference

    reference = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    given = Reference("conv-bn", reference, Library())
    monkeypatch.setattr(rivals, "load_reference", lambda source, classes: given)
    modules = []
    whole = rivals.Worker._whole
    monkeypatch.setattr(rivals.Worker, "_whole", lambda *given: modules.append(whole(*given)) or modules[-1])
    save_safetensors(tmp_path / "weights", {key: value.numpy() for key, value in reference.state_dict().items()})
    worker = rivals.Worker("cpu")
    worker.load("conv-bn", None, str(tmp_path / "weights"), [1, 1, 8, 8], str(tmp_path / "exchange"))
    for kind in kinds:
        worker.prepare(kind, "fp32")
        assert not inductor.freezing
    before = {kind: worker.rivals[kind]()[0].clone() for kind in kinds}
    torch.testing.assert_close(before["compile"], before["frozen"])
    for module in modules:
        module.module[1].running_mean += 1  # who has folded it does not see it
    after = {kind: worker.rivals[kind]()[0].clone() for kind in kinds}
    worker.release()
    assert torch.equal(after["frozen"], before["frozen"])
    assert (before["compile"] - after["compile"]).min() > 0.9


def test_a_model_that_cannot_be_frozen_has_no_frozen_time(
    ring: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def freeze(*_): raise ValueError('a planted failure')\n"
        "if 'zoo.verify.rivals' in sys.orig_argv:  # not in what it starts\n"
        "    import torch._inductor.freezing\n"
        "    torch._inductor.freezing.freeze = freeze\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ZOO_RIVAL_DEVICE", "cpu")
    monkeypatch.setattr(ring, "torch", TorchProcess())
    ring.rivals = ("frozen", "compile")
    model = get_model("lenet5")
    try:
        results = {r.name: r for r in ring.hold(model, RandomWeights(0), "fp32", 1)}
    finally:
        assert ring.torch is not None
        ring.torch.close()
    assert results["frozen"].compute is None and "a planted failure" in results["frozen"].problem
    assert results["compile"].compute is not None and len(ring.failed) == 1


def test_a_contestant_that_computes_something_else_is_not_timed(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    right = contest.compile_onnx

    def wrong(*args: Any) -> bytes:
        plan = right(*args)
        function = fakes.ENGINES[plan].function
        fakes.ENGINES[plan].function = lambda arrays: {k: v * 1.01 for k, v in function(arrays).items()}
        return plan

    model = get_model("lenet5")
    weights = ring.weights(model, None)
    monkeypatch.setattr(contest, "compile_onnx", wrong)
    results = {r.name: r for r in ring.hold(model, weights, "fp32", 1)}
    assert results["onnx"].compute is None and "differs by 0.01 from PyTorch" in results["onnx"].problem
    assert results["torch"].compute is not None and len(ring.failed) == 1
    assert "did not take part" in bench.table(list(results.values()))
    assert len(bench.csv_text(list(results.values()), {"gpu": "g", "tensorrt": "t"}, 0).splitlines()) == 3
    json.loads(json.dumps([r.as_dict() for r in results.values()], allow_nan=False))

    ours = contest.compile_ours

    def wrong_too(*args: Any) -> tuple[bytes, Cost]:
        plan, cost = ours(*args)
        fakes.ENGINES[plan].function = lambda arrays: {"logits": np.ones((1, 10), np.float32)}
        return plan, cost

    monkeypatch.setattr(contest, "compile_ours", wrong_too)
    with pytest.raises(ZooError, match="lenet5 fp32 batch 1: zoo differs by"):
        ring.hold(model, weights, "fp32", 1)


def test_the_command_prints_what_was_measured(
    ring: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    @contextmanager
    def arena(api: Any, rivals: Any, options: Any, **others: Any) -> Iterator[Arena]:
        assert rivals == ["onnx", "torch"] and options.rounds == 2
        yield ring

    monkeypatch.setattr(machine, "tensorrt_on_gpu", lambda: ring.api)
    monkeypatch.setattr(contest, "arena", arena)
    arguments = {"batch": "1,2", "precision": "fp32,tf32", "against": "onnx,torch", "torch_python": "", "weights": None,
                 "size": None, "level": None, "heuristic": False, "timing_cache": None, "rounds": 2, "replays": 3,
                 "warmup": 3, "inspect": None, "csv_file": tmp_path / "rows.csv"}  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        bench.run(["lenet5"], **arguments, as_json=False)
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert text.count("weights weights/lenet5.safetensors\nThroughput:") == 4 and "PyTorch 2." in text
    assert text.count("| lenet5 | tf32 | 2 | ") == 3
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 13
    with pytest.raises(SystemExit):
        bench.run(["lenet5"], **{**arguments, "csv_file": None}, as_json=True)
    assert len(json.loads(capsys.readouterr().out)["results"]) == 12


def test_what_fails_in_pytorch_is_told(ring: Arena) -> None:
    torch = ring.torch
    assert torch is not None
    with pytest.raises(ZooError, match="failed at 'load': ZooError: reference 'nowhere:x' is unknown"):
        torch("load", reference="nowhere:x", classes=None, weights="/x", shape=[1, 1, 2, 2], path="/y")
    with pytest.raises(ZooError, match="'dance' is no command"):
        torch("dance")
    assert torch("matrix_rate", precision="fp32", size=64)["tflops"] > 0  # it goes on


def test_an_interpreter_without_pytorch_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="/no/python does not start"):
        TorchProcess("/no/python")
    with pytest.raises(ZooError, match="process ended at 'start': .*No module named 'torch'|zoo\\[reference\\]"):
        TorchProcess(f"env -i {sys.executable} -S")
    monkeypatch.setenv("ZOO_RIVAL_DEVICE", "cuda")
    with pytest.raises(ZooError, match="failed at 'start': PyTorch 2.* sees no GPU"):
        TorchProcess()


def test_random_weights_without_pytorch(rtx: Api, tmp_path: Path) -> None:
    alone = Arena(rtx, (), None, tmp_path, Options())
    assert alone.weights(get_model("resnet18"), None).name == "random:0"
    given = RandomWeights(7)
    assert alone.weights(get_model("resnet18"), given) is given


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_both_engines_are_compiled_alike(rtx: Api, torch_on_cpu: TorchProcess, tmp_path: Path, precision: str) -> None:
    model, shapes = get_model("lenet5"), Shapes.static((2, 1, 32, 32))
    alone = Arena(rtx, ("onnx",), torch_on_cpu, tmp_path, Options(timing_cache=tmp_path / "cache"))
    weights = alone.weights(model, None)
    alone._exchange(model, weights, shapes.min)
    torch_on_cpu("export", path=str(tmp_path / "rival.onnx"), precision=precision)
    plan, cost = contest.compile_ours(model, weights, rtx, shapes, precision, alone.options)
    assert len(plan) > cost.parameters * (4 if precision == "fp32" else 2)
    other = contest.compile_onnx(rtx, tmp_path / "rival.onnx", shapes, precision, alone.options)
    assert len(other) == pytest.approx(len(plan), rel=0.1)
    with pytest.raises(ZooError, match="refused the ONNX file"):
        (tmp_path / "bad.onnx").write_bytes(b"none")
        contest.compile_onnx(rtx, tmp_path / "bad.onnx", shapes, precision, alone.options)
    with pytest.raises(ZooError, match="does not guess kernels"):
        contest.compile_ours(model, weights, rtx, shapes, precision, Options(heuristic=True))


# ---- tables ---------------------------------------------------------------------------------------------------------


def results() -> list[contest.Result]:
    row = {"model": "resnet50", "precision": "fp16", "batch": 8, "size": (224, 224), "clocks": {}}
    cost = Cost(8 * 4_089_184_256, 25_557_032, 10**8)
    fast, slow = Spread.of([0.5, 0.4, 0.6]), Spread.of([1.0])
    return [
        contest.Result(**row, name="zoo", cost=cost, runtime="TensorRT 8.6.0", compute=fast, ratio=1, build_s=3),
        contest.Result(
            **row, name="torch", cost=cost, runtime="PyTorch 2", compute=slow, ratio=0.5, build_s=1, difference=1e-3
        ),
    ]


def test_the_table_has_a_line_for_each_contestant() -> None:
    lines = bench.table(results()).splitlines()
    assert lines[2] == "| resnet50 | fp16 | 8 | zoo (TensorRT 8.6.0) | 0.5000 | 0.6000 | 1.000 | 16000 |  | 3.0 |"
    assert lines[3] == "| resnet50 | fp16 | 8 | torch (PyTorch 2) | 1.0000 | 1.0000 | 0.500 | 8000 | 1.0e-03 | 1.0 |"


def test_csv_has_timms_columns() -> None:
    rows = list(csv.DictReader(io.StringIO(bench.csv_text(results(), {"gpu": "H", "tensorrt": "8.6.0"}, None))))
    assert rows[0] == {
        "model": "resnet50", "infer_samples_per_sec": "16000.00", "infer_step_time": "0.5000", "infer_batch_size": "8",
        "infer_img_size": "224", "param_count": "25.56", "contestant": "zoo", "runtime": "TensorRT 8.6.0",
        "precision": "fp16", "gpu": "H", "tensorrt": "8.6.0", "level": "default",
    }  # fmt: skip


def test_two_engines_side_by_side() -> None:
    layer = {
        "Name": "conv1 + relu", "TacticName": "sm90_xmma", "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": "Half NHWC8"}], "Outputs": [{"Format/Datatype": "Half NHWC8"}],
    }  # fmt: skip
    lines = side_by_side({"Layers": [layer, "fc"]}, {"Layers": [layer]}).splitlines()
    assert lines[0] == "| 2 layers of ours | 1 layers from ONNX |"
    assert lines[2].count("conv1 + relu: sm90_xmma; Half NHWC8 → Half NHWC8") == 2
    assert lines[3] == "| fc |  |"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet18", "--batch", "0"], "the batch '0' is not a number from 1 on"),
        (["resnet18", "--precision", "int3"], "there is no precision 'int3'; choose among fp32, tf32, fp16, bf16"),
        (
            ["resnet18", "--against", "onxx"],
            "there is no rival 'onxx'; choose among onnx, torch, compile, graphed, frozen",
        ),
        (["resnet19"], "no model is named 'resnet19'"),
        (["resnet18"], "this measures on a GPU"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "zoo.bench", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(f"error: .*{re.escape(words)}.*\n", done.stderr)


# ---- profiles -------------------------------------------------------------------------------------------------------

KNOWN = [
    "conv1", "relu", "maxpool", "layer1.0.conv1", "layer1.0.relu", "layer1.0.conv2", "layer1.0.add", "layer1.0.relu:1",
    "layer1.1.cv1.conv", "layer1.1.cv1.act.gate", "layer1.1.cv1.act", "layer1.1.cv2.conv", "layer1.1.cv2.act",
    "head.ln.weight", "head.ln", "head.fc.matmul", "head.fc", "logits.output",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "covers", "module"),
    [
        ("conv1 + relu", ["conv1", "relu"], "conv1 + relu"),
        ("maxpool", ["maxpool"], "maxpool"),
        ("layer1.0.conv2 + layer1.0.add + layer1.0.relu:1", KNOWN[5:8], "layer1.0"),
        ("PWN(PWN(layer1.1.cv1.act.gate), layer1.1.cv1.act)", KNOWN[9:11], "layer1.1.cv1.act"),
        ("PWN(layer1.0.relu)", ["layer1.0.relu"], "layer1.0.relu"),
        ("layer1.1.cv1.conv || layer1.1.cv2.conv", ["layer1.1.cv1.conv", "layer1.1.cv2.conv"], "layer1.1"),
        ("Reformatting CopyNode for Input Tensor 0 to layer1.0.conv1 + layer1.0.relu", KNOWN[3:5], "layer1.0"),
        ("layer1.0.relu copy", ["layer1.0.relu"], "layer1.0.relu"),
        ("{ForeignNode[head.ln.weight...head.fc]}", KNOWN[13:17], "head"),
        ("{ForeignNode[(Unnamed Layer* 3) [Constant]...head.fc]}", ["head.fc"], "head.fc"),
        ("{ForeignNode[conv1...logits.output]}", KNOWN, profiling.SEVERAL),
        ("__myl_MulAddResi_myl0_4", [], profiling.UNNAMED),
        ("layer1", [], profiling.UNNAMED),
    ],
)
def test_fused_layers_find_their_modules(name: str, covers: list[str], module: str) -> None:
    layers = tuple(profiling.covered(name, KNOWN))
    assert list(layers) == covers
    assert LayerTime(name, 1.0, layers).module == module


def test_a_foreign_node_leaves_out_what_others_are_named_after() -> None:
    names = ["{ForeignNode[layer1.1.cv1.conv...head.fc]}", "layer1.1.cv2.conv + layer1.1.cv2.act", "head.fc.matmul"]
    first, second, third = profiling.assign(names, KNOWN)
    assert second == ["layer1.1.cv2.conv", "layer1.1.cv2.act"] and third == ["head.fc.matmul"]
    assert first == ["layer1.1.cv1.conv", "layer1.1.cv1.act.gate", "layer1.1.cv1.act", "head.ln.weight", "head.ln",
                     "head.fc"]  # fmt: skip


@pytest.fixture
def profile() -> Profile:
    names = {
        "Reformatting CopyNode for Input Tensor 0 to conv1 + relu": 0.25, "conv1 + relu": 1.0,
        "layer1.0.conv1 + layer1.0.relu": 2.0, "layer1.0.conv2 + layer1.0.add": 1.5, "layer1.1.cv1.conv": 3.0,
        "head.fc": 0.125, "</script><b>": 0.125,
    }  # fmt: skip
    rows = zip(names, names.values(), profiling.assign(list(names), KNOWN))
    costs = {"layer1.1.cv1.conv": Cost(macs=6 * 10**9, parameters=100, bytes=9 * 10**6)}
    return Profile(tuple(LayerTime(name, ms, tuple(covers), costs.get(name)) for name, ms, covers in rows), 6.0)


def test_times_are_summed_by_module(profile: Profile) -> None:
    assert profile.sum_ms == 8.0
    assert profile.groups(1)[:2] == [("layer1", 6.5, 3), ("conv1 + relu", 1.25, 2)]
    assert dict((name, ms) for name, ms, _ in profile.groups(2))["layer1.0"] == 3.5
    assert sum(ms for _, ms, _ in profile.groups(3)) == 8.0
    text = profiling.to_text(profile, 2, top=2)
    assert text.startswith("6.0000 ms as one CUDA graph; 7 layers one by one take 8.0000 ms")
    assert re.search(r"layer1\.0 +3\.5000 +43\.8%  2\n", text) and "head.fc " not in text.split("slowest layers")[1]
    data = json.loads(json.dumps(profiling.to_dict(profile)))
    assert data["layers"][2]["covers"] == ["layer1.0.conv1", "layer1.0.relu"] and data["whole_ms"] == 6.0


def test_rates_stand_beside_the_layers_whose_cost_is_known(profile: Profile) -> None:
    lines = profiling.to_text(profile, 2).split("slowest layers")[1].splitlines()
    assert lines[0].split() == ["ms", "share", "GMACs", "TFLOP/s", "MB", "GB/s", "TensorRT's", "name"]
    assert lines[1].split()[1:-1] == ["3.0000", "37.5%", "6.000", "4.0", "9.00", "3"]
    assert lines[2].split() == ["layer1.0", "2.0000", "25.0%", "layer1.0.conv1", "+", "layer1.0.relu"]
    page = profiling.to_html(profile, "resnet", {})
    assert page.count("<td class=number>6.000</td><td class=number>4.0</td><td class=number>9.00</td>") == 1
    rows = {row["name"]: row for row in profiling.to_dict(profile)["layers"]}
    assert rows["layer1.1.cv1.conv"].items() >= {"gmacs": 6.0, "tflops": 4.0, "mb": 9.0, "gb_per_s": 3.0}.items()
    assert rows["head.fc"].items() >= {"gmacs": None, "tflops": None, "mb": None, "gb_per_s": None}.items()


def test_the_tree_holds_every_layer_once(profile: Profile) -> None:
    def leaves(node: dict[str, Any]) -> list[str]:
        if not node["children"]:
            return [node["name"]]
        assert node["ms"] == pytest.approx(sum(child["ms"] for child in node["children"]))
        return [name for child in node["children"] for name in leaves(child)]

    root = profiling.tree(profile)
    assert sorted(leaves(root)) == sorted(layer.name for layer in profile.layers)
    layer1 = next(child for child in root["children"] if child["name"] == "layer1")
    assert [(child["name"], child["ms"]) for child in layer1["children"]] == [("0", 3.5), ("1", 3.0)]


def test_the_page_stands_alone(profile: Profile) -> None:
    page = profiling.to_html(profile, "resnet <18>", {"gpu": "H & H"})
    assert "<title>resnet &lt;18&gt;</title>" in page and "<dd>H &amp; H</dd>" in page
    assert page.count("</script>") == 1 and "&lt;/script&gt;&lt;b&gt;" in page  # a layer's name is no markup
    assert not re.search(r"(?:src|href)=|https?:|@import", page)
    data = re.search(r"const network = (.*?);\n", page)
    assert data and json.loads(data[1])["ms"] == 8.0


class FakeProfiler:
    """The base class that TensorRT's binding has."""


def test_layers_are_timed_by_their_medians(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter(range(100))

    def execute(context: Any, handle: int) -> bool:
        if context.profiler is not None:
            assert handle not in clock.captures
            run = next(runs)
            context.profiler.report_layer_time("conv1 + relu", 0.5)
            context.profiler.report_layer_time("layer1.0.conv1", float(run))
            context.profiler.report_layer_time("layer1.0.conv1 copy", 0.25)
        return plain(context, handle)

    plain = fakes.FakeContext.execute_async_v3
    monkeypatch.setattr(fakes.FakeContext, "execute_async_v3", execute)
    monkeypatch.setattr(fakes.FakeContext, "profiler", None, raising=False)
    monkeypatch.setattr(fakes.FakeTensorRT, "IProfiler", FakeProfiler, raising=False)
    work = {name: LayerCost(index, {}, {}, ()) for index, name in enumerate(KNOWN)}
    with fakes.open_session() as session:
        costs = LayerCosts(work, {}, frozenset(), 4)
        found = profiling.profile_session(session, {"images": (2, 3, 4, 4)}, costs, runs=5)
    assert [(layer.name, layer.ms, layer.module) for layer in found.layers] == [
        ("conv1 + relu", 0.5, "conv1 + relu"),
        ("layer1.0.conv1", 5.0, "layer1.0.conv1"),  # runs 3 to 7: the first three warm up
        ("layer1.0.conv1 copy", 0.25, "layer1.0.conv1"),
    ]
    assert [layer.cost and layer.cost.macs for layer in found.layers] == [0 + 1, 3, None]  # places in KNOWN
    assert found.whole_ms == 2.0
