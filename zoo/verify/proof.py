"""The proof of a model: its network against the reference on the same weights and images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.network import Definition, Precision, PrecisionName
from zoo.registry import Model
from zoo.trt import Api
from zoo.verify.compare import (
    FACTOR,
    FP16_SUMS_FACTOR,
    HALF_FACTOR,
    ROUNDOFF,
    TANH_FACTOR,
    Report,
    Row,
    Run,
    compare_half,
    compare_runs,
    judged,
    report_of,
)
from zoo.verify.references import Reference
from zoo.weights import Weights, from_arrays

Progress = Callable[[str], None]
Execute = Callable[[Definition, list[str], np.ndarray], dict[str, np.ndarray]]
Factor = Callable[[Definition], float]
HALVES: dict[str, Literal["float16", "bfloat16"]] = {"fp16": "float16", "bf16": "bfloat16"}
IMAGES = 2


@dataclass(frozen=True)
class Proof:
    """A report, and what it is about."""

    model: str
    precision: PrecisionName
    weights: str
    executor: str
    report: Report


def factor_on_cpu(definition: Definition) -> float:
    """How many times the reference's own error is allowed."""
    return FACTOR if definition.precision.name == "fp32" else HALF_FACTOR


def factor_on_gpu(definition: Definition) -> float:
    """The same for TensorRT's own kernels; the two exceptions and their reasons stand in `zoo.verify.compare`."""
    if definition.precision.name == "fp32":
        return TANH_FACTOR if "tanh" in definition.ops else FACTOR
    return HALF_FACTOR if definition.api.strong else FP16_SUMS_FACTOR


def execute_on_cpu(definition: Definition, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs and taps from onnxruntime; half precision is rounded after every layer."""
    from zoo.runtime.cpu import CpuSession

    return CpuSession(definition, taps)(images)


def prove(
    model: Model,
    api: Api,
    weights: Weights | None = None,
    *,
    precision: PrecisionName = "fp32",
    layers: bool = False,
    size: tuple[int, int] | None = None,
    execute: Execute = execute_on_cpu,
    executor: str = "onnxruntime on the CPU",
    factor: Factor = factor_on_cpu,
    progress: Progress = lambda text: None,
) -> Proof:
    """Compares `model` with its PyTorch reference by the rule of `zoo.verify.compare`.

    Without `weights` both get the reference's calibrated random weights. fp16 and bf16 are compared with our own fp32.
    `layers` compares every tap too. Raises ZooError when the reference cannot be made or the definition is refused.
    """
    from zoo.verify.calibration import calibrated, sample_images, state_arrays
    from zoo.verify.pretrained import load_state
    from zoo.verify.references import load_reference
    from zoo.verify.running import run_reference

    shape = (IMAGES, model.input[0], *(size or model.input[1:]))
    if weights is None:
        progress(f"calibrating random weights of {model.reference}")
        reference = calibrated(model.reference, 0, shape[1:], fixed=model.ignored)
        weights = from_arrays(state_arrays(reference), "calibrated random weights, seed 0")
        definition = define(model, weights, api, shape)
    else:
        definition = define(model, weights, api, shape)
        classes = getattr(model.configured(weights).config, "num_classes", None)
        reference = load_state(load_reference(model.reference, classes), arrays_of(definition))
    images = sample_images(IMAGES, shape[1:], seed=1)
    progress("running the network")
    taps = list(definition.taps) if layers and precision == "fp32" else []
    ours = execute(definition, taps, images)
    progress("running the reference")
    if precision == "fp32":
        report = compare_reference(reference, images, ours, taps, definition.folded, factor(definition))
    else:
        half = define(model, weights, api, shape, Precision(precision))
        ref32, ref16 = run_reference(reference, images), run_reference(reference, images, HALVES[precision])
        report = compare_half(execute(half, [], images), ours, ref16, ref32, HALVES[precision], factor(half))
    return Proof(model.name, precision, weights.name, executor, report)


def compare_reference(
    reference: Reference,
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
    from zoo.verify.running import run_reference

    def rows(given: Mapping[str, np.ndarray]) -> tuple[list[Row], list[Row], dict[str, str]]:
        def against(name: str, exact: np.ndarray, rounded: np.ndarray) -> Row:
            return judged(name, ours.get(name), exact, rounded, exact, factor, ROUNDOFF["float32"])

        ref32 = run_reference(reference, images, "float32", taps=taps, given=given)
        keep = lambda name, exact: against(name, exact, ref32.taps.pop(name))  # noqa: E731
        ref64 = run_reference(reference, images, "float64", taps=taps, given=given, keep=keep)
        outputs = [against(name, exact, ref32.outputs[name]) for name, exact in ref64.outputs.items()]
        return outputs, [ref64.taps[name] for name in taps if name in ref64.taps], ref64.leaves

    outputs, whole, leaves = rows({})
    if not taps:
        return report_of(outputs, whole, leaves, taps, folded, factor)
    own_outputs, own, _ = rows({name: ours[name] for name in taps if np.isfinite(ours[name]).all()})
    return report_of(outputs, whole, leaves, taps, folded, factor, [*own, *own_outputs])


def prove_golden(
    model: Model, api: Api, weights: Weights, images: np.ndarray, ref32: Run, ref64: Run, *,
    execute: Execute = execute_on_cpu, executor: str = "onnxruntime on the CPU", factor: Factor = factor_on_cpu,
) -> Proof:  # fmt: skip
    """Compares `model` with what a golden file says of the reference: no PyTorch is needed. In fp32."""
    definition = define(model, weights, api, images.shape)
    taps = [name for name in definition.taps if name in ref64.taps]
    ours = execute(definition, taps, images)
    report = compare_runs(ours, ref32, ref64, taps, definition.folded, factor(definition))
    return Proof(model.name, "fp32", weights.name, executor, report)


def arrays_of(definition: Definition) -> dict[str, np.ndarray]:
    """Every tensor that the definition read, by name."""
    read: Iterable[tuple[str, tuple[int, ...]]] = [*definition.parameters.items(), *definition.buffers.items()]
    return {name: definition.weights.read(name, shape) for name, shape in read}


def require_reference() -> None:
    """Raises ZooError, naming the extra, where PyTorch is not installed."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise ZooError(
            'verify needs PyTorch for its reference and it is not installed: pip install -e ".[reference]"; '
            "a golden file needs none: --golden FILE"
        )
