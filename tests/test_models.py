"""Every registered model against its row in models.toml, its PyTorch reference and TensorRT-RTX's compiler.

The registry is the test matrix: a new model is tested once it is registered and has a row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from budget import with_slow

from zoo.engine.build import compile_network
from zoo.engine.definition import _define, _Zeros, define, parameter_count
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.network import Definition, Precision, PrecisionName
from zoo.registry import get_model, list_models
from zoo.runtime.cpu import CpuSession
from zoo.tasks import CLASSES, get_task
from zoo.trt import Api
from zoo.verify.compare import relative_l2
from zoo.weights import RandomWeights, Weights, from_arrays

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROWS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
MODELS = list_models()
HALVES = {"fp16": "float16", "bf16": "bfloat16"}
IMAGES = 2
MIN_DEPENDENCE = 1e-2


def row_of(name: str) -> dict[str, Any]:
    """The model's row; without one the test fails with the row to add."""
    if name not in ROWS:
        row = f"[{name}]\ninput = {list(get_model(name).input)}\n"
        pytest.fail(f"tests/models.toml lacks {name}; add its row:\n\n{row}", pytrace=False)
    return ROWS[name]


def smallest_of_each_architecture() -> list[str]:
    """One name for each `build` function: the one with the fewest parameters."""
    smallest: dict[Any, str] = {}
    for name in sorted(MODELS, key=lambda name: get_model(name).params):
        smallest.setdefault(get_model(name).build, name)
    return [name for name in MODELS if name in smallest.values()]


def smallest_of_each_kind() -> list[str]:
    """The same without those whose row says that they are `like` another, which has their blocks and their head, or
    that they are large.
    """
    return [name for name in smallest_of_each_architecture() if not {"like", "large"} & ROWS.get(name, {}).keys()]


def has_classes(name: str) -> bool:
    return any(CLASSES in axes for axes in get_task(get_model(name).task).outputs.values())


def in_budget() -> list[str]:
    """The smallest of each architecture, but for those whose row says that they are large.

    `python tests/prove_all.py` proves these, of which the suite proves only that a mistake shows, and the rest, which
    have the same code with other numbers.
    """
    return [name for name in smallest_of_each_architecture() if "large" not in ROWS.get(name, {})]


def reference_of(name: str) -> tuple[Any, Weights]:
    """The calibrated reference and its weights. A missing library fails, with the command that installs it."""
    from zoo.verify.calibration import calibrated, state_arrays

    reference = calibrated(get_model(name).reference, size=tuple(row_of(name)["input"]))
    return reference, from_arrays(state_arrays(reference), f"the weights of {name}")


def images_for(name: str, count: int = IMAGES) -> np.ndarray:
    from zoo.verify.calibration import sample_images

    return sample_images(count, tuple(row_of(name)["input"]), seed=1)


def run(definition: Definition, images: np.ndarray, taps: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Outputs and taps from a session that is gone, with all its memory, before a reference needs as much."""
    return CpuSession(definition, taps, threads=1)(images)


def test_every_row_has_a_model() -> None:
    assert sorted(ROWS.keys() - set(MODELS)) == []


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count(name: str, rtx: Api) -> None:
    assert parameter_count(get_model(name), rtx) == get_model(name).params


@pytest.mark.parametrize("name", with_slow(in_budget()))
def test_equals_its_reference(name: str, rtx: Api) -> None:
    """fp32: every output at every batch size, every layer at one; no module and no tensor of the reference left out.

    Then fp16 and bf16, of each kind of network: one reference, which takes a third of the time, serves all three.
    """
    from zoo.verify.calibration import num_parameters
    from zoo.verify.proof import compare_batches, compare_reference
    from zoo.verify.proof import images_for as count_for

    model, row = get_model(name), row_of(name)
    reference, weights = reference_of(name)
    assert num_parameters(reference) == model.params

    definition = define(model, weights, rtx, (-1, *row["input"]))
    assert weights.unused(model.ignored) == []

    images, order = images_for(name, count_for(definition)), [*definition.taps]
    ours = run(definition, images, order)
    report = compare_reference(reference, images, ours, order, definition.folded)
    assert report.ok, report.first_divergence
    assert report.missing == []
    for output in report.outputs:
        assert relative_l2(ours[output.name][:1], ours[output.name][1:2]) > MIN_DEPENDENCE

    session = CpuSession(definition, reference.choosers, threads=1)
    for batch in (1, 5):
        chosen = np.arange(batch) % IMAGES
        found = session(images[chosen])
        again = compare_batches(reference, images, report, ours, found, chosen)
        assert again.ok, f"batch {batch}: {again.first_divergence}"

    if name in smallest_of_each_kind():
        few = images[:IMAGES]
        loses_at_most_twice_what_pytorch_loses(name, reference, weights, few, session(few), rtx)


def loses_at_most_twice_what_pytorch_loses(
    name: str, reference: Any, weights: Weights, images: np.ndarray, ours32: dict[str, np.ndarray], rtx: Api
) -> None:
    from zoo.verify.proof import compare_half_outputs
    from zoo.verify.running import run_reference

    ref32 = run_reference(reference, images)
    for precision, dtype in HALVES.items():
        definition = define(get_model(name), weights, rtx, (-1, *images.shape[1:]), Precision(precision))
        half = CpuSession(definition, reference.choosers, half="round", threads=1)(images)
        report = compare_half_outputs(reference, images, half, ours32, ref32, dtype)
        assert report.ok, f"{precision}: {report.worst}"


@pytest.mark.parametrize("precision", ["fp32", "fp16", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", with_slow(smallest_of_each_kind()))
def test_compiles_for_a_range_of_batches(name: str, precision: PrecisionName, rtx: Api) -> None:
    shapes = Shapes(*((batch, *row_of(name)["input"]) for batch in (1, 2, 5)))
    definition = define(get_model(name), RandomWeights(0), rtx, shapes.network, Precision(precision))
    assert compile_network(definition, shapes)


@pytest.mark.parametrize("name", with_slow(name for name in smallest_of_each_kind() if has_classes(name)))
def test_class_count_is_read_from_the_weights(name: str, rtx: Api) -> None:
    from zoo.verify.calibration import state_arrays, unfilled

    model, size = get_model(name), tuple(row_of(name)["input"])
    weights = from_arrays(state_arrays(unfilled(model.reference, size, classes=7)))
    network = define(model, weights, rtx, (-1, *size)).network
    shapes = {network.get_output(i).name: tuple(network.get_output(i).shape)[1:] for i in range(network.num_outputs)}
    assert len(get_task(model.task).labels(shapes, None)) == 7


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        ("alexnet", 62, "too small"),
        ("vgg11", 31, "too small"),
        ("lenet5", 28, "use 32x32"),
        ("vit_b_32", 192, "use 224x224"),
        ("vit_b_16", 240, "use 224x224"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name: str, side: int, words: str, rtx: Api) -> None:
    model = get_model(name)
    with pytest.raises(ZooError, match=words):
        define(model, RandomWeights(0), rtx, (-1, model.input[0], side, side))


def test_a_vision_transformer_of_another_size_has_that_of_its_weights(rtx: Api) -> None:
    """How many position embeddings there are says for which pictures."""
    model = get_model("vit_b_32")
    names = _define(model, _Zeros(), rtx, (1, *model.input), Precision())
    arrays = {name: np.zeros(shape, np.float32) for name, shape in {**names.parameters, **names.buffers}.items()}
    weights = from_arrays(arrays | {"encoder.pos_embedding": np.zeros((1, 5, 768), np.float32)})
    assert define(model, weights, rtx, (1, 3, 64, 64)).network.get_output(0).shape[1] == 1000
    with pytest.raises(ZooError, match="images of 224x224 do not fit 5 position embeddings; use 64x64"):
        define(model, weights, rtx, (1, 3, 224, 224))
