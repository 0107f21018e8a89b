"""What a network gives, judged against its reference: outputs and modules, batches, and half precision."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from zoo.verify.compare import (
    BOXES_FACTOR,
    FACTOR,
    HALF_FACTOR,
    ROUNDOFF,
    Report,
    Row,
    Run,
    compare_half,
    judged,
    relative_l2,
    report_of,
)
from zoo.verify.references import AnyReference

NUDGED_RUNS = 4
BY_LITTLE = 10.0  # times the bound: what is wrong by more needs no second opinion


def compare_reference(
    reference: AnyReference,
    images: np.ndarray,
    ours: Mapping[str, np.ndarray],
    taps: Sequence[str] = (),
    folded: Collection[str] = (),
    factor: float = FACTOR,
) -> Report:
    """Our fp32 outputs and `taps` on `images` against the reference: the whole network, and each module on our inputs.

    `ours` holds outputs and taps by name, `taps` names the latter in network order, `folded` the modules that exist in
    the reference alone. No tensor of the reference is kept longer than it is needed.
    """
    outputs, whole, leaves = _rows(reference, images, ours, taps, {}, "float32", factor)
    if not taps:
        return report_of(outputs, whole, leaves, taps, folded, factor)
    own_outputs, own, _ = _rows(reference, images, ours, taps, _finite(ours, taps), "float32", factor)
    return report_of(outputs, whole, leaves, taps, folded, factor, [*own, *own_outputs])


def compare_batches(
    reference: AnyReference,
    images: np.ndarray,
    report: Report,
    before: Mapping[str, np.ndarray],
    now: Mapping[str, np.ndarray],
    chosen: Sequence[int],
) -> Report:
    """The outputs `now` on `images[chosen]`, against those `before` on all images, within the bounds of `report`.

    These are shares of what all images give, and so are the errors here: a single number that happens to be near zero
    has no relative error that says anything. A network that chooses may choose otherwise now: where it does, it is held
    against the reference again.
    """
    rows = []
    for row in (*report.outputs, *(row for row in report.taps if row.name in reference.choosers)):
        found, whole = now[row.name], before[row.name]
        of_each = whole.reshape(len(images), -1, *whole.shape[1:])  # a picture may have a row for each proposal
        expected = of_each[chosen].reshape(-1, *whole.shape[1:])
        again = judged(row.name, found, expected, expected, expected, 1, row.bound)
        usual = float(np.linalg.norm(np.float64(whole))) * math.sqrt(len(chosen) / len(images))
        if usual > 0 and not again.problem:
            again = replace(again, error=float(np.linalg.norm(np.float64(found) - expected)) / usual)
        rows.append(replace(again, noise=row.noise))
    if reference.choosers and not all(row.ok for row in rows):
        report = compare_reference(reference, images[chosen], now, list(reference.choosers))
        again_held = {row.name: row for row in (*report.outputs, *report.taps)}
        rows = [row if row.ok else again_held[row.name] for row in rows]
    return Report(rows, rule="each image of a batch as it is alone, within the bounds of the batch")


def compare_half_outputs(
    reference: AnyReference,
    images: np.ndarray,
    ours: Mapping[str, np.ndarray],
    ours32: Mapping[str, np.ndarray],
    ref32: Run,
    dtype: Literal["float16", "bfloat16"],
    factor: float = HALF_FACTOR,
) -> Report:
    """`compare_half` on `images`. Where the network chooses, its fp32 run may have chosen others than its half one: the
    reference that fp32 was proven to equal stands in for it, and chooses as the half one did.
    """
    from zoo.verify.running import run_reference

    given = choices(reference, ours)
    if given:
        ref32 = run_reference(reference, images, given=given)
        ours32 = ref32.outputs
    return compare_half(ours, ours32, run_reference(reference, images, dtype, given=given), ref32, dtype, factor)


def with_choosers(taps: Sequence[str], reference: AnyReference) -> list[str]:
    """`taps`, and those by which the network chooses."""
    return list(dict.fromkeys([*taps, *reference.choosers]))


def choices(reference: AnyReference, ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our results by which the reference shall choose: in float64, as half precision would make many of them equal."""
    return {name: ours[name].astype(np.float64) for name in reference.choosers if name in ours}


def own_half_rows(
    reference: AnyReference,
    images: np.ndarray,
    ours: Mapping[str, np.ndarray],
    taps: Sequence[str],
    dtype: Literal["float16", "bfloat16"],
    factor: float = HALF_FACTOR,
) -> list[Row]:
    """Each module of our half-precision network on its own inputs, against the reference in float64 on the same.

    `factor` times what the reference's module loses in `dtype` is allowed, and of boxes `BOXES_FACTOR`.
    """
    outputs, own, leaves = _rows(reference, images, ours, taps, _finite(ours, taps), dtype, factor)
    outputs = [
        replace(row, bound=BOXES_FACTOR * max(row.noise, ROUNDOFF["float32"])) if row.name == "boxes" else row
        for row in outputs
    ]
    return [*(replace(row, kind=leaves.get(row.name, "")) for row in own), *outputs]


def _finite(ours: Mapping[str, np.ndarray], taps: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: ours[name] for name in taps if np.isfinite(ours[name]).all()}


def _rows(
    reference: AnyReference,
    images: np.ndarray,
    ours: Mapping[str, np.ndarray],
    taps: Sequence[str],
    given: Mapping[str, np.ndarray],
    dtype: Literal["float32", "float16", "bfloat16"],
    factor: float,
) -> tuple[list[Row], list[Row], dict[str, str]]:
    """Outputs and taps against the reference in float64, bounded by what it loses in `dtype`, and its leaves.

    One run of the reference may be right by luck: a sum of a thousand terms may be rounded well, and alike on all
    images. So what fails by little is bounded again, by the most that several float32 runs lose whose weights are
    nudged by their last bit, and whose linear layers of few outputs add in a row.
    """
    from zoo.verify.running import run_reference

    given = {**given, **choices(reference, ours)}
    rounded = run_reference(reference, images, dtype, taps=taps, given=given)

    def keep(name: str, exact: np.ndarray) -> Row:
        return judged(name, ours.get(name), exact, rounded.taps.pop(name), exact, factor, ROUNDOFF[dtype])

    exact = run_reference(reference, images, "float64", taps=taps, given=given, keep=keep)
    outputs = [
        judged(name, ours.get(name), value, rounded.outputs[name], value, factor, ROUNDOFF[dtype])
        for name, value in exact.outputs.items()
    ]
    rows = [exact.taps[name] for name in taps if name in exact.taps]
    failed = [row for row in (*outputs, *rows) if not row.ok]
    if failed and dtype == "float32" and not any(row.problem or row.ratio > BY_LITTLE for row in failed):
        noise = _most_noise(reference, images, given, [row.name for row in failed])
        outputs, rows = ([_bounded_by(row, noise, factor) for row in some] for some in (outputs, rows))
    return outputs, rows, exact.leaves


def _most_noise(
    reference: AnyReference, images: np.ndarray, given: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, float]:
    """The largest relative error of the reference in float32 over runs with nudged weights, by tap or output."""
    from zoo.verify.running import run_reference

    exact = run_reference(reference, images, "float64", taps=names, given=given)
    noise = dict.fromkeys(names, 0.0)
    for seed in range(NUDGED_RUNS):
        run = run_reference(reference, images, taps=names, given=given, nudge=seed)
        for values, wanted in ((run.taps, exact.taps), (run.outputs, exact.outputs)):
            for name in noise.keys() & values.keys():
                noise[name] = max(noise[name], relative_l2(values[name], wanted[name]))
    return noise


def _bounded_by(row: Row, noise: Mapping[str, float], factor: float) -> Row:
    most = max(row.noise, noise.get(row.name, 0.0))
    return replace(row, noise=most, bound=max(row.bound, factor * most))
