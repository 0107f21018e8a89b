"""The rule that says whether a network is right: no fixed tolerance, the reference's own rounding error sets it.

In fp32, every tensor's relative L2 distance from the reference computed in float64 may be at most 4 times what the
reference itself loses in fp32. That catches what cosine similarity, top-1 agreement and `allclose(5e-3)` let pass: a
BatchNorm epsilon of 0 for 1e-5, a GELU by tanh, a lost bias.

It is asked twice. Of the whole network: there the errors of all modules add up, and the bound grows with the
reference's. And of each module on our own inputs to it: the reference goes on with our tensors, so that error and
bound are that module's own arithmetic, and an early mistake neither hides nor blames a later module. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

FACTOR = 4.0
HALF_FACTOR = 2.0

# On a GPU both hold, as measured on an H200 with TensorRT 8.6.0 over all models (docs/benchmarks.md), but for two:
# TensorRT's tanh is an approximation, good to about 1e-5: LeNet-5 came to 31 x the reference's own error, everything
# else to at most 2.3 x. And weakly typed TensorRT sums fp16 products in fp16 (its kernels are named
# f16f16_f16f16_f16), where PyTorch sums in fp32: VGG-13 came to 10.8 x what PyTorch's half run loses.
TANH_FACTOR = 40.0
FP16_SUMS_FACTOR = 12.0

# Boxes are decoded in fp32, since half precision counts in quarters of a pixel beyond 256 and in halves beyond 512.
# On its own inputs such a decoding loses at most 0.39 x what a half one does, where the last convolution of the head
# is judged with it (YOLOv5), else next to nothing; one in half loses 0.50 x (YOLO26) to 1.0 x (docs/proof.md).
BOXES_FACTOR = 0.45

# A layer may be exact in the reference by luck (a pooling, a sum of few terms), and noise 0 would allow nothing.
# Rounding every element once costs up to the unit roundoff of the type: no tensor of that type can be asked for less.
ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# Modules that move data or, in eval mode, do nothing: they need no tensor of ours. Padding is seen in what reads it; a
# Sequential is a leaf where it is empty.
NO_ARITHMETIC = frozenset(
    "AlphaDropout Concat Dropout Dropout1d Dropout2d Dropout3d DropPath FeatureAlphaDropout Flatten Identity Permute "
    "Sequential StochasticDepth Unflatten ZeroPad2d".split()
)


@dataclass
class Run:
    """What one forward pass gave: float64 arrays from a float64 run, float32 arrays from all others.

    `taps` are module outputs by `named_modules()` path in the order of execution; the k-th further call of a module is
    "path:k". `leaves` maps the taps of innermost modules (none of whose children ran) to their class names.
    """

    outputs: dict[str, np.ndarray]
    taps: dict[str, np.ndarray] = field(default_factory=dict)
    leaves: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One tensor: our relative error, the reference's own (noise), what is allowed, and what makes numbers moot."""

    name: str
    shape: tuple[int, ...]
    error: float
    noise: float
    bound: float
    problem: str = ""  # a wrong shape, NaN or inf; then it fails whatever the numbers say
    kind: str = ""  # class of the reference's module

    @property
    def ratio(self) -> float:
        """Error as a share of what is allowed."""
        return self.error / self.bound if self.bound else float("inf")

    @property
    def ok(self) -> bool:
        return not self.problem and self.error <= self.bound


@dataclass(frozen=True)
class Report:
    """The verdict: every output on its own, every tap in network order.

    outputs, taps: what errors amount to along the whole network
    own:     the same tensors, each module on our own inputs to it; empty where only the whole can be judged
    missing: modules of the reference that computed something and that no tap of ours was compared with
    extra:   taps of ours that the reference has no module for (a functional call there)
    rule:    the rule in words
    """

    outputs: list[Row]
    taps: list[Row] = field(default_factory=list)
    own: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    rule: str = ""

    @property
    def ok(self) -> bool:
        """True when every output and every tap is within its bounds. Missing taps are told, not judged."""
        return bool(self.outputs) and not self.failures

    @property
    def rows(self) -> list[Row]:
        """Everything that is judged: modules on our own inputs, then taps and outputs of the whole network."""
        return [*self.own, *self.taps, *self.outputs]

    @property
    def failures(self) -> list[Row]:
        """The rows out of bounds: first the modules whose own arithmetic is wrong, in network order."""
        return [row for row in self.rows if not row.ok]

    @property
    def wrong(self) -> list[Row]:
        """The modules whose own arithmetic is wrong."""
        return [row for row in self.own if not row.ok]

    @property
    def first_divergence(self) -> Row | None:
        """The first module whose own arithmetic is wrong; without such, the first tensor of the whole network that is.

        The place to look for the mistake.
        """
        return next(iter(self.failures), None)

    @property
    def worst(self) -> Row | None:
        """The row that is nearest to its bound or furthest beyond it."""
        return max(self.rows, key=lambda row: (bool(row.problem), row.ratio), default=None)


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b|| / ||b|| in float64; 0 when both are zero, inf when only `b` is, NaN for NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf
        distance, size = float(np.linalg.norm((a - b).ravel())), float(np.linalg.norm(b.ravel()))
    if size == 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / size


def compare_runs(
    ours: Mapping[str, np.ndarray],
    ref32: Run,
    ref64: Run,
    order: Sequence[str],
    folded: Collection[str] = (),
    factor: float = FACTOR,
) -> Report:
    """Our fp32 outputs and taps against the reference's.

    `ours` holds outputs and taps by name, `order` names the taps in network order, `folded` the modules that exist in
    the reference alone because they were folded into the next (a convolution into its BatchNorm).
    """
    shared = [name for name in order if name in ref64.taps]
    floor = ROUNDOFF["float32"]
    return report_of(
        [judged(n, ours.get(n), value, ref32.outputs[n], value, factor, floor) for n, value in ref64.outputs.items()],
        [judged(n, ours.get(n), ref64.taps[n], ref32.taps[n], ref64.taps[n], factor, floor) for n in shared],
        ref64.leaves,
        order,
        folded,
        factor,
    )


def report_of(
    outputs: list[Row],
    taps: list[Row],
    leaves: Mapping[str, str],
    order: Sequence[str],
    folded: Collection[str] = (),
    factor: float = FACTOR,
    own: list[Row] | None = None,
) -> Report:
    """The report on rows of the reference's tensors: kinds, coverage and the rule are added; arguments as before."""
    shared = {row.name for row in taps}
    return Report(
        outputs=outputs,
        taps=[replace(row, kind=leaves.get(row.name, "")) for row in taps],
        own=[replace(row, kind=leaves.get(row.name, "")) for row in own or ()],
        missing=[
            name
            for name, kind in leaves.items()
            if name not in shared and name not in folded and kind not in NO_ARITHMETIC
        ],
        extra=[name for name in order if name not in shared],
        rule=f"relative L2 against the float64 reference, at most {factor:g} x what the reference itself loses in fp32"
        + (", in the whole network and in each module on our own inputs" if own else ""),
    )


def compare_half(
    ours: Mapping[str, np.ndarray],
    ours32: Mapping[str, np.ndarray],
    ref_half: Run,
    ref32: Run,
    dtype: Literal["float16", "bfloat16"] = "float16",
    factor: float = HALF_FACTOR,
) -> Report:
    """Our half-precision outputs against our own fp32 ones: at most 2 x what the reference's half run loses.

    Outputs only. Along a network rounding differs from kernel to kernel, and structure is proven in fp32. A run that
    loses nothing at all proves nothing: weakly typed TensorRT may compute in fp32 all the same.
    """
    rows = [
        judged(name, ours.get(name), ours32[name], ref_half.outputs[name], exact, factor, ROUNDOFF[dtype])
        for name, exact in ref32.outputs.items()
    ]
    if all(row.error == 0 for row in rows):
        rows = [replace(row, problem=f"{dtype} was not used: these are the bits of fp32") for row in rows]
    return Report(
        outputs=rows,
        rule=f"relative L2 against our own fp32, at most {factor:g} x what the reference loses in {dtype}",
    )


def judged(
    name: str,
    ours: np.ndarray | None,
    expected: np.ndarray,
    rounded: np.ndarray,
    exact: np.ndarray,
    factor: float,
    floor: float,
) -> Row:
    """`ours` against `expected`, bounded by `factor` x the distance of `rounded` from `exact`, at least `floor`."""
    problem = _problem(ours, expected)
    noise = relative_l2(rounded, exact)
    if not np.isfinite(noise):
        problem = problem or "the reference itself is not finite in this precision, so it sets no bound"
    error = float("inf") if problem else relative_l2(ours, expected)
    return Row(name, expected.shape, error, noise, factor * max(noise, floor), problem)


def _problem(ours: np.ndarray | None, expected: np.ndarray) -> str:
    """Why the tensors cannot be compared; empty when they can."""
    if ours is None:
        return "missing among ours"
    if ours.shape != expected.shape:
        return f"shape {ours.shape}, expected {expected.shape}"
    bad = int(ours.size - np.count_nonzero(np.isfinite(ours)))
    return f"{bad} of {ours.size} values are NaN or inf" if bad else ""
