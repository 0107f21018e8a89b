"""The accuracy gate: which layers must stay higher, so that an int8 network answers almost as well as the fp32 one.

Each layer's sensitivity is what the outputs lose when it alone is in int8. From the most sensitive one on, as many
layers are kept higher as the metric needs, and each of them is then tried in int8 once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from zoo.engine.calibration import calibrate, pictures_in, prepared
from zoo.engine.definition import define
from zoo.engine.passport import labels as names_of
from zoo.engine.shapes import input_shapes
from zoo.errors import ZooError
from zoo.measure.accuracy import Scores, answered, evaluate, labels_of, meter_of
from zoo.measure.labelled import Sample, labelled, spread
from zoo.network import Precision
from zoo.quantization import Scales
from zoo.registry import Model
from zoo.runtime.cpu import CpuSession
from zoo.session import Session
from zoo.trt import load_to_define
from zoo.weights import Weights

Progress = Callable[[str], None]
CALIBRATED = 512  # pictures, at most
PROBED = 4  # pictures for the sensitivities
MOST_RETRIED = 8  # kept layers that are tried in int8 once more, the least sensitive ones first


@dataclass(frozen=True)
class Gate:
    """What came of it: `scales`, whose `keep` are the layers that stay higher, and how that was found.

    `metric` is the name of what counts, `fp32` its value there. `tried` are the values by the number of layers kept, in
    the order of trial; the last one is that of `scales`. `sensitivity` is the relative change of the outputs by layer,
    the largest first, empty where everything may be int8.
    """

    scales: Scales
    metric: str
    fp32: float
    tried: list[tuple[int, float]]
    sensitivity: dict[str, float] = field(default_factory=dict)
    samples: int = 0

    @property
    def drop(self) -> float:
        """How much of the metric is lost, in points of 100."""
        return (self.fp32 - self.tried[-1][1]) * 100

    def table(self) -> list[str]:
        """What was found, in lines for people."""
        lines = [
            f"{'kept higher':>12}  {self.metric:>16}  {'drop, points':>12}",
            f"{'all, in fp32':>12}  {self.fp32:>16.2%}",
        ]
        lines += [f"{kept:>12}  {value:>16.2%}  {(self.fp32 - value) * 100:>12.2f}" for kept, value in self.tried]
        shown = [name for name in self.sensitivity if name in self.scales.keep]
        shown += [name for name in self.sensitivity if name not in shown][:5]
        for name in sorted(shown, key=lambda name: -self.sensitivity[name]):
            kept = "stays higher" if name in self.scales.keep else "int8"
            lines.append(f"{name}: alone in int8 it changes the outputs by {self.sensitivity[name]:.2%}; {kept}")
        return lines


def samples_in(
    model: Model, weights: Weights, data: Path, layout: str | None, count: int | None, size: tuple[int, int] | None
) -> tuple[list[Sample], str]:
    """At most `count` labelled pictures of a folder, as `zoo.measure.labelled` reads them, and an empty string.

    Where it has no such layout, and none is asked for, pictures without labels and the reason.
    """
    meter_of(model.task)
    with _session(model, weights, Precision(), size, 1) as session:
        labels = labels_of(session)
    try:
        return spread(labelled(model.task, data, layout, labels), count), ""
    except ZooError as error:
        if layout is not None:
            raise
        return [Sample(path, None) for path in pictures_in(data, count)], str(error)


def find_layers(
    model: Model,
    weights: Weights,
    samples: Sequence[Sample],
    max_drop: float,
    *,
    agreement: bool = False,
    islands: tuple[str, ...] = (),
    method: str = "mse",
    size: tuple[int, int] | None = None,
    threads: int = 0,
    progress: Progress = lambda text: None,
) -> Gate:
    """Calibrates `model` and keeps layers higher until its metric drops by at most `max_drop` points of 100.

    The metric is over `samples`, whose truth is right; with `agreement` the fp32 network's answers are. Everything runs
    on the CPU as the engine will be: int8, fp16 where a layer stays higher, and fp32 in `islands`. Raises ZooError
    where even fp16 loses more.
    """
    if not 0 <= max_drop <= 100:
        raise ZooError(f"max_drop is {max_drop:g}; it must be between 0 and 100 points")
    paths = [sample.path for sample in spread(samples, CALIBRATED)]
    scales = calibrate(
        model, weights, prepared(model, paths, size, []), method=method, threads=threads, progress=progress
    )

    def measured(precision: Precision, what: str) -> Scores:
        progress(f"measuring {what} on {len(samples)} pictures")
        with _session(model, weights, precision, size, threads) as session:
            return evaluate(session, samples, labels_of(session))

    if agreement:
        with _session(model, weights, Precision(), size, threads) as session:
            samples = answered(session, [sample.path for sample in samples], labels_of(session), progress)
    exact = measured(Precision(), "fp32")
    found = Gate(scales, next(iter(exact.metrics)), exact.value, [], samples=exact.samples)

    def enough(keep: Sequence[str]) -> bool:
        tried = replace(scales, keep=tuple(keep))
        value = measured(Precision("int8", islands, tried), f"int8 but for {len(keep)} layers").value
        found.tried.append((len(keep), value))
        return (exact.value - value) * 100 <= max_drop + 1e-9

    if enough(()):
        return found
    sensitivity = _sensitivity(model, weights, scales, paths, size, threads, progress)
    keep = _fewest([*sensitivity], enough)
    if found.tried[-1][0] != len(keep):  # the last trial was another
        enough(keep)
    return replace(found, scales=replace(scales, keep=tuple(keep)), sensitivity=sensitivity)


def _fewest(order: Sequence[str], enough: Callable[[Sequence[str]], bool]) -> list[str]:
    """The shortest beginning of `order` that is enough, without those in it that are not needed."""
    low, high = 0, 1  # `low` is not enough
    while not enough(order[:high]):
        if high == len(order):
            raise ZooError(
                "the metric drops by more even with everything in fp16; allow a larger drop, or build in fp32"
            )
        low, high = high, min(2 * high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(order[:middle]) else (middle, high)
    keep = list(order[:high])
    for name in keep[-2 : -2 - MOST_RETRIED : -1]:  # the last one is needed
        fewer = [kept for kept in keep if kept != name]
        keep = fewer if enough(fewer) else keep
    return keep


def _sensitivity(
    model: Model, weights: Weights, scales: Scales, paths: Sequence[Path], size: tuple[int, int] | None, threads: int,
    progress: Progress,
) -> dict[str, float]:  # fmt: skip
    """The largest relative change of an output when each layer alone is in int8, the most sensitive layer first."""
    few = [paths[i * len(paths) // PROBED] for i in range(min(PROBED, len(paths)))]
    images = np.concatenate(list(prepared(model, few, size, [])))

    def outputs(precision: Precision) -> Mapping[str, np.ndarray]:
        with _session(model, weights, precision, size, threads) as session:
            return session(images)

    exact, found = outputs(Precision()), {}
    for number, name in enumerate(scales.amax, 1):
        if number & (number - 1) == 0:
            progress(f"the sensitivity of {len(scales.amax)} layers: {number}")
        others = tuple(other for other in scales.amax if other != name)
        changed = outputs(Precision("fp32", scales=replace(scales, keep=others)))
        found[name] = max(float(np.linalg.norm(changed[n] - exact[n]) / np.linalg.norm(exact[n])) for n in exact)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _session(
    model: Model, weights: Weights, precision: Precision, size: tuple[int, int] | None, threads: int
) -> Session:
    shape = input_shapes(model, 1, size).opt
    definition = define(model, weights, load_to_define(precision.name), (-1, *shape[1:]), precision)
    executor = CpuSession(definition, threads=threads)
    names = names_of(weights.metadata)
    return Session(model, executor, executor.runs_on, model.preprocess, shape[2:], names, weights.name)
