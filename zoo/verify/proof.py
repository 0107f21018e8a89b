"""The proof of a model: its network against the reference on the same weights and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.engine.definition import Shape, define
from zoo.errors import Refused, ZooError
from zoo.network import Definition, Precision, PrecisionName
from zoo.quantization import Scales
from zoo.registry import Model
from zoo.trt import Api
from zoo.verify.compare import FACTOR, FP16_SUMS_FACTOR, HALF_FACTOR, TANH_FACTOR, Report, Row, Run, compare_runs
from zoo.verify.judge import compare_batches, compare_half_outputs, compare_reference, own_half_rows, with_choosers
from zoo.verify.references import AnyReference
from zoo.weights import Weights, from_arrays

Progress = Callable[[str], None]
Execute = Callable[[Definition, list[str], np.ndarray], dict[str, np.ndarray]]
Factor = Callable[[Definition], float]
HALVES: dict[str, Literal["float16", "bfloat16"]] = {"fp16": "float16", "bf16": "bfloat16"}
IMAGES = 2
# Of an output: the reference's error on fewer values is luck, and so is a bound by it
FEW_IMAGES, MOST_IMAGES, FEW_VALUES = 8, 16, 64
# About what the second size is: small, not square, and halved again and again it is odd and even by turns: a pooling
# that rounds up where it should not shows in height or in width.
SECOND_SIZE = 99, 153
ONE_SIZE = "the definition takes no size but its own, the reference takes this one: a window or a size is written in"


@dataclass(frozen=True)
class Proof:
    """A report, and what it is about.

    `also` are further reports by what they are of: another size and batch, the fp32 behind a half precision. `notes`
    say what was not proven.
    """

    model: str
    precision: PrecisionName
    weights: str
    executor: str
    report: Report
    also: dict[str, Report] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when every report is."""
        return self.report.ok and all(report.ok for report in self.also.values())


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
    layers: bool = True,
    size: tuple[int, int] | None = None,
    execute: Execute = execute_on_cpu,
    executor: str = "onnxruntime on the CPU",
    factor: Factor = factor_on_cpu,
    progress: Progress = lambda text: None,
    own_module: Path | None = None,
    scales: Scales | None = None,
) -> Proof:
    """Compares `model` with its PyTorch reference by the rule of `zoo.verify.compare`, at two sizes and batches.

    Without `weights` both get the reference's calibrated random weights. `layers` judges every tap too, each on our own
    inputs. The second size is odd and not square, since the published one can hide a rounding, a swapped height and
    width or a constant; a model that takes one size only is run with another batch there. fp16 and bf16 are compared
    with our own fp32, which is proven first, and each of their layers with the reference. `own_module` is the file of
    the weights, if it holds a whole module that shall take the place of the published one: PyTorch unpickles it, that
    is, runs its code. Of a network that TensorRT refuses, what was written before is compared.
    int8 and fp8 are compared with PyTorch's fake quantisation (`zoo.verify.rounding`) by the rule of fp32, everything
    else being in fp32, with `scales` or with some from its own images.
    Raises ZooError when the reference cannot be made, and for a definition that is refused and not wrong before.
    """
    from zoo.verify.calibration import calibrated, scales_of, state_arrays
    from zoo.verify.pretrained import with_own_module
    from zoo.verify.references import load_reference
    from zoo.verify.rounding import following, nothing_lost, rounded, with_rounded_taps
    from zoo.verify.running import run_reference

    shape, filled = (-1, model.input[0], *(size or model.input[1:])), True
    if weights is None:
        progress(f"calibrating random weights of {model.reference}")
        reference = calibrated(model.reference, 0, shape[1:], fixed=model.ignored)
        weights = from_arrays(state_arrays(reference), "calibrated random weights, seed 0")
    else:
        classes = getattr(model.configured(weights).config, "num_classes", None)
        reference, filled = load_reference(model.reference, classes), own_module is not None
        if own_module is not None:
            reference = with_own_module(reference, own_module)

    def run(
        definition: Definition, count: int, least: int = 0, progress: Progress = lambda text: None
    ) -> tuple[Any, Any, Report]:
        """On `count` images; the taps of at `least` so many values for each."""
        images = images_of(definition, count)
        taps = [name for name, tensor in definition.taps.items() if values_of(tensor) >= least] if layers else []
        taps = taps or list(reference.choosers)
        progress("running the network")
        ours = execute(definition, taps, images)
        progress("running the reference")
        model = following(reference, ours)
        report = nothing_lost(compare_reference(model, images, ours, taps, definition.folded, factor(definition)))
        missing = [name for name in report.missing if name not in definition.taps] if layers else report.missing
        return images, ours, replace(report, missing=missing)

    def alone(report: Report, definition: Definition, images: Any, ours: Any) -> Report:
        """The first of the images by itself."""
        found = execute(definition, list(reference.choosers), images[:1])
        return compare_batches(reference, images, report, ours, found, [0])

    also, notes, policy = {}, (), Precision()
    try:
        if precision in ("int8", "fp8"):
            progress(f"choosing the ranges of {precision}")
            policy = replace(policy, scales=scales or scales_of(model, weights, shape[1:], precision), stored=precision)
        definition = define(model, weights, api, shape, policy)
        if not filled:
            fill(reference, definition)
        if policy.scales is not None:
            reference = rounded(reference, definition)
            definition = with_rounded_taps(definition)
        other = define_at_another_size(model, weights, api, shape, policy)
        if other is not None:
            other = with_rounded_taps(other)
        # Taps of few values take many images: they are judged at the second size alone where that is the smaller one.
        spared = other is not None and values_of(images_tensor(other)) < values_of(images_tensor(definition))
        most = IMAGES if reference.choosers else MOST_IMAGES  # what is chosen is as much as many images
        count = images_for(definition, not spared, most)
        least = math.ceil(FEW_VALUES / count) if spared else 0
        images, ours, report = run(definition, count, least, progress)
    except Refused as refusal:
        if refusal.definition is None:
            raise
        if not filled:
            fill(reference, refusal.definition, partly=True)
        report = compare_before(refusal, reference)
        return Proof(model.name, "fp32", weights.name, executor, report, notes=(f"{refusal}",))
    if other is None:
        if takes(reference, (1, model.input[0], *SECOND_SIZE)):
            also["{}x{}".format(*SECOND_SIZE)] = Report([Row("images", (), math.inf, 0, 0, ONE_SIZE)])
        notes = (f"{model.name} takes one size only, so no other was compared",)
        other = definition
    at = "{}x{}".format(*tuple(images_tensor(other).shape)[2:])
    if other is definition:
        also[f"{at}, batch 1"] = alone(report, definition, images, ours)
    else:
        more, found, also[at] = run(other, images_for(other, most=most) + 1)
        also[f"{at}, batch 1"] = alone(also[at], other, more, found)
    if precision in HALVES:
        also = {"fp32": report, **also}
        half = define(model, weights, api, shape, Precision(precision))
        taps = list(half.taps) if layers else []
        found = execute(half, with_choosers(taps, reference), images)
        ref32 = run_reference(reference, images)
        report = compare_half_outputs(reference, images, found, ours, ref32, HALVES[precision], factor(half))
        if layers:
            own = own_half_rows(reference, images, found, taps, HALVES[precision], factor(half))
            report = replace(report, own=own, rule=f"{report.rule}; each module alike on our own inputs")
    return Proof(model.name, precision, weights.name, executor, report, also, notes)


def images_of(definition: Definition, count: int) -> np.ndarray:
    """Structured random images of the size that the definition takes."""
    from zoo.verify.calibration import sample_images

    return sample_images(count, tuple(images_tensor(definition).shape)[1:], seed=1)


def fill(reference: AnyReference, definition: Definition, partly: bool = False) -> None:
    """Gives the reference the weights that the definition read; of one that was refused, only a part."""
    from zoo.verify.pretrained import load_state

    load_state(reference, independently_read(definition.weights, arrays_of(definition)), partly)


def compare_before(refusal: Refused, reference: AnyReference) -> Report:
    """What was written before TensorRT refused a layer, on the CPU against the reference.

    Raises the refusal again where nothing before is wrong.
    """
    definition = replace(refusal.definition, network=_UpToTaps(refusal.definition))
    taps = list(definition.taps)
    if not taps:
        raise refusal
    images = images_of(definition, IMAGES)
    report = compare_reference(reference, images, execute_on_cpu(definition, taps, images), taps, definition.folded)
    before = Report([], report.taps, [row for row in report.own if row.name in definition.taps], rule=report.rule)
    if not before.failures:
        raise Refused(f"{refusal}; the {len(before.taps)} modules before it agree with the reference") from refusal
    return before


class _UpToTaps:
    """The network of a definition without the layers after its last tap: the one that was refused has no shape."""

    def __init__(self, definition: Definition) -> None:
        self._network = network = definition.network
        names = {tensor.name for tensor in definition.taps.values()}
        made = [network.get_layer(i).get_output(0).name in names for i in range(network.num_layers)]
        self.num_layers = max((i + 1 for i, tapped in enumerate(made) if tapped), default=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def images_tensor(definition: Definition) -> Any:
    """The input of the network."""
    return definition.network.get_input(0)


def values_of(tensor: Any) -> int:
    """How many values `tensor` has for each image."""
    return math.prod(tuple(tensor.shape)[1:])


def images_for(definition: Definition, taps: bool = True, most: int = MOST_IMAGES) -> int:
    """How many images, at most `most`: more where an output, or one of the `taps`, has few values."""
    network = definition.network
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    fewest = min(map(values_of, (*outputs, *(definition.taps.values() if taps else ()))))
    few = min(max(FEW_IMAGES, FEW_VALUES // fewest), most)
    return IMAGES if IMAGES * fewest >= FEW_VALUES else few


def define_at_another_size(
    model: Model, weights: Weights, api: Api, shape: Shape, precision: Precision = Precision()
) -> Definition | None:
    """`model` at a size that is odd in units of its stride, and not square; None where no other size fits."""
    for near in (SECOND_SIZE, (shape[2] * 5 // 4, shape[3] * 7 // 4)):
        for stride in (1, 2, 4, 8, 16, 32, 64):
            height, width = (stride * (2 * round((side / stride - 1) / 2) + 1) for side in near)
            if height == width or (height, width) == shape[2:]:
                continue
            try:
                return define(model, weights, api, (*shape[:2], height, width), precision)
            except Refused:
                raise
            except ZooError:  # it does not fit
                continue
    return None


def takes(reference: AnyReference, shape: Shape) -> bool:
    """Whether the reference runs on images of `shape`."""
    from zoo.verify.running import run_reference

    try:
        run_reference(reference, np.zeros(shape, np.float32))
    except Exception:  # modules raise whatever their arithmetic meets
        return False
    return True


def independently_read(weights: Weights, read: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors `read`, from a safetensors file by its own library, so that no mistake of our reader hides."""
    from safetensors.torch import load_file

    if not weights.name.endswith(".safetensors") or not Path(weights.name).is_file():
        return read
    stored = load_file(weights.name)
    return {name: stored[name].float().numpy() if name in stored else array for name, array in read.items()}


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
            'verify needs PyTorch for its reference and it is not installed: pip install "tensorrt-zoo[reference]"; '
            "a golden file needs none: --golden FILE"
        )
