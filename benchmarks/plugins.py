"""Custom ops on a GPU: kernels against layers and NVIDIA's plugins, and a detector from frames to final boxes.

    python benchmarks/plugins.py --out results [--ops | --heads | --end2end]

Every op is an engine of its own, at a size that networks have; implementations take turns in one process. `share` is
what its inputs and outputs would take at the measured rate of copies, over its time. One line of OUT/plugins.jsonl per
row, written when it is there; the tables come last.
"""

# ruff: noqa: E402  (it runs from a checkout, without installation)

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from plugin_cases import Case, attention, boxed, decoded, deform, roi_pool, suppression

from zoo.blocks.yolo import boxes_around, distances
from zoo.blocks.yolo_head import in_a_row
from zoo.engine.build import compile_network
from zoo.engine.definition import creation_flags, define
from zoo.engine.effort import Effort
from zoo.engine.end2end import EndToEnd
from zoo.engine.plugins import Plugins
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.measure.contest import take_turns
from zoo.measure.contestants import Options
from zoo.measure.machine import machine
from zoo.measure.timing import Replay, copy_gb_per_s
from zoo.network import Definition, Net, PluginPolicy, Precision, PrecisionName, Tensor
from zoo.ops import sigmoid, split
from zoo.plugins.core.kernels import declaration
from zoo.plugins.deform_conv2d import DeformColumns
from zoo.plugins.nms import Nms, nms
from zoo.plugins.roi_align import RoiAlign
from zoo.plugins.yolo_decode import YoloDecode
from zoo.registry import get_model
from zoo.runtime.cuda import Cuda
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api, load
from zoo.weights import RandomWeights, from_arrays

TURNS = Options(rounds=5, replays=40)
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16")
POLICIES: tuple[PluginPolicy, ...] = ("native", "cuda", "builtin")
Say = Callable[[dict[str, Any]], None]


def cases() -> list[Case]:
    """The ops at sizes of networks: a stage of CenterNet, Deformable DETR's encoder and decoder, Faster R-CNN's
    largest level, YOLOv8 at 640."""
    pyramid = ((100, 134), (50, 67), (25, 34), (13, 17))
    return [
        deform("deform_columns 256 channels", DeformColumns((3, 3), 256, padding=(1, 1)), (40, 40)),
        attention("ms_deform_attn encoder", pyramid, 32, sum(h * w for h, w in pyramid)),
        attention("ms_deform_attn decoder", pyramid, 32, 300),
        roi_pool("roi_align 1000 boxes", RoiAlign((7, 7), 0.25), (200, 336), channels=256, count=1000),
        suppression("nms 8400 x 80, 162 candidates", Nms(0.7, 0.7, 300), 8400, classes=80, objects=60),
        suppression("nms 8400 x 80, 4766 candidates", Nms(0.25, 0.7, 300), 8400, classes=80, objects=60),
        yolo_head(),
        boxed("letterbox 1080p", (640, 640), (1080, 1920)),
    ]


def yolo_head() -> Case:
    """YOLOv8's head at 640, where 290 of 8,400 anchors score enough."""
    return decoded("yolo_decode 8400 x 80", YoloDecode((8, 16, 32)), ((80, 80), (40, 40), (20, 20)), 80, least=-90)


def op_engine(
    api: Api, case: Case, arrays: tuple[np.ndarray, ...], policy: PluginPolicy, precision: PrecisionName
) -> bytes:
    """An engine of nothing but the op."""
    builder = api.trt.Builder(api.log.logger)
    network = builder.create_network(creation_flags(api))
    definition = Definition(api, builder, network, from_arrays({}), Precision(precision), policy)
    kinds = {"float32": api.trt.float32, "int32": api.trt.int32}
    tensors = [network.add_input(name, kinds[a.dtype.name], a.shape) for name, a in zip(case.op.inputs, arrays)]
    found = case.op(Net(definition, "op"), *tensors)
    for name, tensor in zip(case.op.outputs, found if isinstance(found, tuple) else (found,)):
        tensor.name = f"{name}_"
        network.mark_output(tensor)
    shapes = Shapes.static(tuple(arrays[0].shape))  # type: ignore[arg-type]
    return compile_network(definition, shapes, Effort(1), Plugins(policy))


def in_turns(replays: dict[str, Replay]) -> dict[str, float]:
    """The median microseconds of each."""
    times = take_turns({name: replay.measure for name, replay in replays.items()}, TURNS)
    return {name: statistics.median(found) * 1e3 for name, found in times.items()}


def measure_ops(api: Api, cuda: Cuda, say: Say) -> None:
    """A row per op and precision, with the time of each implementation."""
    rate = copy_gb_per_s(cuda)
    say({"section": "rate", "copy_gb_per_s": round(rate)})
    for case in cases():
        arrays = tuple(array[:1] for array in case.arrays())
        for precision in PRECISIONS if "fp16" in declaration(case.op).types else ("fp32",):
            row: dict[str, Any] = {"section": "ops", "op": case.name, "precision": precision}
            sessions, replays = [], {}
            for policy in POLICIES:
                try:
                    plan = op_engine(api, case, arrays, policy, precision)  # type: ignore[arg-type]
                except ZooError as error:
                    row[f"{policy}_refused"] = str(error)[:200]
                    continue
                session = GpuSession(plan, api=api)
                replay = Replay(session, {name: a.shape for name, a in zip(case.op.inputs, arrays)})
                replay.write(dict(zip(case.op.inputs, arrays)))
                sessions.append(session)
                replays[policy] = replay
            size = sum(array.nbytes for array in arrays) + sum(y.nbytes for y in replays["native"].outputs().values())
            for policy, us in in_turns(replays).items():
                row |= {policy: round(us, 1), f"{policy}_share": round(size / rate / 1e3 / us, 3)}
            say(row)
            for replay, session in zip(replays.values(), sessions):
                replay.close()
                session.close()


def every_anchor(net: Net, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes and scores of all anchors, as the layers of a definition make them."""
    parts = [split(net, level, (64, 80)) for level in levels]
    boxes = boxes_around(net, distances(net / "dfl", [box for box, _ in parts], 16), (640, 640), levels)
    return boxes, in_a_row(net, [sigmoid(net.functional, logits) for _, logits in parts])


def head_network(
    api: Api, case: Case, shapes: list[tuple[int, ...]], best: bool, precision: PrecisionName, policy: PluginPolicy
) -> Definition:
    """From the maps of a head to final boxes: all anchors decoded by layers, or the best by the op."""
    builder = api.trt.Builder(api.log.logger)
    network = builder.create_network(creation_flags(api))
    weights = from_arrays({"dfl.conv.weight": np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)})
    definition = Definition(api, builder, network, weights, Precision(precision), policy)
    net = Net(definition)
    levels = [network.add_input(name, api.trt.float32, shape) for name, shape in zip(case.op.inputs, shapes)]
    if best:
        boxes, scores, _ = case.op(net / "decode", *levels)  # type: ignore[misc]  # three outputs
    else:
        boxes, scores = every_anchor(net, [net.enter(level) for level in levels])
    for name, tensor in zip(Nms.outputs, nms(net / "nms", boxes, scores)):
        tensor.name = name
        network.mark_output(tensor)
    return definition


def measure_heads(api: Api, say: Say) -> None:
    """The time of both ways, with suppression by kernels, which must find as many boxes."""
    case = yolo_head()
    arrays = dict(zip(case.op.inputs, (array[:1] for array in case.arrays())))
    shapes = [array.shape for array in arrays.values()]
    for precision in PRECISIONS:
        replays, sessions, counts = {}, [], set()
        for name, best in (("all anchors by layers", False), ("the best by the kernel", True)):
            definition = head_network(api, case, shapes, best, precision, "cuda")
            plan = compile_network(definition, Shapes.static(shapes[0]), Effort(1), Plugins("cuda"))  # type: ignore[arg-type]
            sessions.append(GpuSession(plan, api=api))
            replays[f"{name}, {precision}"] = replay = Replay(sessions[-1], dict(zip(arrays, shapes)))  # type: ignore[arg-type]
            replay.write(arrays)
            counts.add(int(replay.outputs()["num_detections"].item()))
        if len(counts) != 1:
            raise ZooError(f"{precision}: the two ways found {counts} boxes, which must be as many")
        say({"section": "heads", **{name: round(us, 1) for name, us in in_turns(replays).items()}})
        for replay, session in zip(replays.values(), sessions):
            replay.close()
            session.close()


def measure_end2end(api: Api, say: Say, effort: Effort, timings: Path) -> None:
    """yolov8n in fp16: the bare engine, and from a uint8 frame of 1080p to final boxes."""
    model, weights, whole = get_model("yolov8n"), RandomWeights(0), EndToEnd((1080, 1920))
    shapes = Shapes.static((1, *model.input))
    rng, replays, sessions = np.random.default_rng(0), {}, []
    for name, policy in (("bare", None), ("native", "native"), ("cuda", "cuda")):
        end2end = whole if policy else None
        definition = define(
            model, weights, api, shapes.network, Precision("fp16"), plugins=policy or "native", end2end=end2end
        )
        profile = whole.frames(shapes) if end2end else shapes
        start = time.perf_counter()
        plan = compile_network(definition, profile, effort, Plugins(policy or "native"), timing_cache=timings)
        print(f"{name}: built in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        sessions.append(GpuSession(plan, api=api))
        if end2end:
            given = {"frames": rng.integers(0, 256, (1, 1080, 1920, 3), np.uint8)}
        else:
            given = {"images": rng.random(shapes.opt, np.float32)}
        replays[name] = Replay(sessions[-1], {key: value.shape for key, value in given.items()})
        replays[name].write(given)
    say({"section": "end2end", **{name: round(us, 1) for name, us in in_turns(replays).items()}})
    for replay, session in zip(replays.values(), sessions):
        replay.close()
        session.close()


def table(records: list[dict[str, Any]]) -> str:
    """Markdown of all rows."""
    lines = [
        "| op | precision | layers, us | kernels, us | NVIDIA's, us | kernels, share of copies |",
        "|---|---|---|---|---|---|",
    ]
    for r in (r for r in records if r["section"] == "ops"):
        cells = [str(r.get(policy, "")) for policy in POLICIES]
        lines.append(f"| {r['op']} | {r['precision']} | {' | '.join(cells)} | {r.get('cuda_share', '')} |")
    for r in (r for r in records if r["section"] in ("heads", "end2end")):
        lines += ["", *(f"{name}: {us} us" for name, us in r.items() if name != "section")]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ops", action="store_true", help="only the ops")
    parser.add_argument("--heads", action="store_true", help="only the decoding of a head, with suppression")
    parser.add_argument("--end2end", action="store_true", help="only the detector")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--heuristic", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []

    def say(record: dict[str, Any]) -> None:
        records.append(record)
        print(json.dumps(record), file=sys.stderr, flush=True)
        with (args.out / "plugins.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    api = load("tensorrt")
    print(json.dumps(machine()))
    every = not (args.ops or args.heads or args.end2end)
    if every or args.ops:
        from zoo.runtime.cuda import provider

        measure_ops(api, provider(), say)
    if every or args.heads:
        measure_heads(api, say)
    if every or args.end2end:
        measure_end2end(api, say, Effort(args.level, args.heuristic), args.out / "timings")
    print(table(records))


if __name__ == "__main__":
    main()
