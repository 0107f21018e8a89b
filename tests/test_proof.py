"""`prove` and `prove_golden`: the proofs behind `python -m zoo.verify`, as functions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.network import Definition
from zoo.registry import get_model
from zoo.trt import Api
from zoo.verify.calibration import calibrated, sample_images, state_arrays
from zoo.verify.golden import load_golden, save_golden
from zoo.verify.pretrained import load_state
from zoo.verify.proof import arrays_of, execute_on_cpu, prove, prove_golden
from zoo.verify.references import Reference, load_reference
from zoo.verify.running import run_reference
from zoo.weights import RandomWeights, Weights, from_arrays, load_weights, save_safetensors

LENET = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "lenet5.safetensors"
SMALL = (64, 96)


def lenet_arrays() -> dict[str, np.ndarray]:
    weights = load_weights(LENET)
    return {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()}


def wrong_from(name: str) -> Callable[[Definition, list[str], np.ndarray], dict[str, np.ndarray]]:
    """An executor whose numbers are 0.1 % too large from the tap `name` on."""

    def execute(definition: Definition, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        found = execute_on_cpu(definition, taps, images)
        right = taps[: taps.index(name)] if name in taps else []
        return {tap: value if tap in right else value * np.float32(1.001) for tap, value in found.items()}

    return execute


# Against the reference


def test_without_weights_both_sides_get_calibrated_ones(rtx: Api) -> None:
    said: list[str] = []
    proof = prove(get_model("lenet5"), rtx, progress=said.append)
    assert proof.report.ok and proof.weights == "calibrated random weights, seed 0"
    assert (proof.model, proof.precision, proof.executor) == ("lenet5", "fp32", "onnxruntime on the CPU")
    assert [row.name for row in proof.report.outputs] == ["logits"]
    assert proof.ok and len(proof.report.own) == len(proof.report.taps) + 1
    assert [line.split()[0] for line in said] == ["calibrating", "running", "running"]


def test_weights_that_are_given(rtx: Api) -> None:
    proof = prove(get_model("lenet5"), rtx, load_weights(LENET))
    assert proof.report.ok and proof.weights == str(LENET)


@pytest.mark.parametrize("name", ["resnet18", "yolov8n", "yolov5n", "mnasnet0_5"])
def test_random_weights_by_their_seed(rtx: Api, name: str) -> None:
    model = get_model(name)
    errors = []
    for seed in (1, 2):
        proof = prove(model, rtx, RandomWeights(seed), size=SMALL)
        assert proof.report.ok and proof.weights == f"random:{seed}"
        errors.append([row.error for row in proof.report.outputs])
    assert errors[0] != errors[1]  # the weights were not the same


def test_the_class_count_of_the_weights_is_the_references_too(rtx: Api) -> None:
    three = {name: array[:3].copy() if name.startswith("fc3") else array for name, array in lenet_arrays().items()}
    (row,) = prove(get_model("lenet5"), rtx, from_arrays(three)).report.outputs
    assert row.ok and row.shape == (16, 3)  # few values ask for more images


def test_the_size_that_is_wanted(rtx: Api) -> None:
    rows = {row.name: row for row in prove(get_model("yolov8n"), rtx, size=SMALL).report.outputs}
    cells = sum((SMALL[0] // stride) * (SMALL[1] // stride) for stride in (8, 16, 32))
    assert rows["boxes"].shape == (2, 4, cells) and rows["scores"].shape == (2, 80, cells)
    assert all(row.ok for row in rows.values())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_compared_with_our_own_fp32(rtx: Api, precision: str) -> None:
    proof = prove(get_model("lenet5"), rtx, precision=precision)  # type: ignore[arg-type]
    (row,) = proof.report.outputs
    assert proof.report.ok and proof.precision == precision and "our own fp32" in proof.report.rule
    assert row.error > 1e-5  # it was rounded at all


def test_layers_are_compared_in_network_order(rtx: Api) -> None:
    report = prove(get_model("resnet18"), rtx, layers=True, size=SMALL).report
    names = [row.name for row in report.taps]
    assert report.ok and not report.missing and len(names) == len(set(names)) == 40
    assert names[:4] == ["bn1", "relu", "maxpool", "layer1.0.bn1"] and names[-2:] == ["avgpool", "fc"]


@pytest.mark.parametrize("start", ["bn1", "layer2.0.bn2", "fc"])
def test_the_first_layer_that_differs_is_named(rtx: Api, start: str) -> None:
    report = prove(get_model("resnet18"), rtx, layers=True, size=SMALL, execute=wrong_from(start)).report
    assert not report.ok and report.first_divergence is not None
    assert report.first_divergence.name == start


def test_a_late_error_is_found_behind_an_early_one(rtx: Api) -> None:
    def execute(definition: Definition, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        """Every tensor between the two is far from the reference's, but what its own inputs make of it."""
        found = execute_on_cpu(definition, taps, images)
        return found | {
            name: found[name] * np.float32(1.01) for name in ("layer1.0.bn2", "layer4.1.bn2") if name in found
        }

    report = prove(get_model("resnet18"), rtx, layers=True, size=SMALL, execute=execute).report
    after = {"layer1.0.relu:1", "layer4.1.relu:1"}  # was not computed from what this executor says of its input
    assert {row.name for row in report.wrong} == {"layer1.0.bn2", "layer4.1.bn2"} | after
    assert report.first_divergence is not None and report.first_divergence.name == "layer1.0.bn2"
    assert len(report.own) == len(report.taps) + len(report.outputs)


def test_without_layers_a_wrong_output_still_fails(rtx: Api) -> None:
    proof = prove(get_model("lenet5"), rtx, layers=False, execute=wrong_from(""), executor="a wrong one")
    assert not proof.report.ok and proof.executor == "a wrong one"
    assert proof.report.first_divergence is not None and proof.report.first_divergence.name == "logits"


def test_weights_that_do_not_fit_are_refused(rtx: Api) -> None:
    arrays = lenet_arrays()
    del arrays["fc2.bias"]
    with pytest.raises(ZooError, match=r"has no 'fc2\.bias'"):
        prove(get_model("lenet5"), rtx, from_arrays(arrays))


def test_a_second_size_and_batch_are_proven(rtx: Api) -> None:
    proof = prove(get_model("resnet18"), rtx, size=SMALL)
    assert list(proof.also) == ["99x153", "99x153, batch 1"] and not proof.notes
    assert [report.outputs[0].shape for report in proof.also.values()] == [(3, 1000), (1, 1000)]
    assert list(prove(get_model("yolov5n"), rtx, size=SMALL).also) == ["96x160", "96x160, batch 1"]
    one = prove(get_model("lenet5"), rtx)
    assert list(one.also) == ["32x32, batch 1"] and "takes one size only" in one.notes[0]


def test_taps_of_few_values_get_many_images_at_the_second_size_alone(rtx: Api) -> None:
    proof = prove(get_model("mobilenet_v3_small"), rtx, size=(128, 160))
    main, second = proof.report, proof.also["99x153"]
    squeeze = "features.1.block.1.fc1"  # 8 values an image
    assert proof.ok and main.outputs[0].shape[0] == 2 and second.outputs[0].shape[0] == 9
    assert squeeze in {row.name for row in second.taps} - {row.name for row in main.taps}
    assert main.missing == second.missing == []


@pytest.mark.parametrize("seed", [16, 19], ids=["rounded well by luck", "onnxruntime's sum in a row"])
def test_a_head_of_one_class_passes_and_its_last_bits_count(rtx: Api, seed: int) -> None:
    """Its single sum of 1024 terms is rounded alike on all images, so one run of the reference may be right by luck."""
    model = get_model("mobilenet_v3_small")
    reference = calibrated(model.reference, seed, (3, 64, 64), classes=1, fixed=model.ignored)
    weights = from_arrays(state_arrays(reference), f"seed {seed}")
    assert prove(model, rtx, weights, size=(64, 64)).ok
    if seed == 16:
        wrong = prove(model, rtx, weights, size=(64, 64), execute=wrong_from("classifier.3"))
        assert wrong.report.first_divergence is not None and wrong.report.first_divergence.name == "classifier.3"


def test_what_is_wrong_only_at_the_second_size_fails(rtx: Api) -> None:
    def execute(definition: Definition, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        return (execute_on_cpu if images.shape[2:] == SMALL else wrong_from("avgpool"))(definition, taps, images)

    proof = prove(get_model("resnet18"), rtx, size=SMALL, execute=execute)
    assert proof.report.ok and not proof.ok
    first = proof.also["99x153"].first_divergence
    assert first is not None and first.name == "avgpool"


def test_half_precision_proves_structure_first(rtx: Api) -> None:
    def execute(definition: Definition, taps: list[str], images: np.ndarray) -> dict[str, np.ndarray]:
        """Wrong by the same in fp32 and in fp16."""
        return {name: value * np.float32(1.01) for name, value in execute_on_cpu(definition, taps, images).items()}

    proof = prove(get_model("lenet5"), rtx, precision="fp16", layers=False, execute=execute)
    assert proof.report.ok and not proof.also["fp32"].ok and not proof.ok


# Readers that are wrong, and modules of users


@pytest.mark.parametrize(
    ("mistake", "starts"),
    [
        (lambda array: array.astype(np.float16).astype(np.float32), "conv1"),
        (lambda array: array.swapaxes(-1, -2).copy() if array.ndim == 4 else array, "conv1"),
        (lambda array: np.roll(array, 1) if array.ndim == 1 else array, "conv1"),
        (lambda array: array.T.copy().reshape(array.shape) if array.ndim == 2 else array, "fc1"),
    ],
    ids=["rounds", "transposes kernels", "shifts biases", "transposes matrices"],
)
def test_a_wrong_reader_does_not_fool_both_sides(
    rtx: Api, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[np.ndarray], np.ndarray], starts: str
) -> None:
    read = Weights.read
    monkeypatch.setattr(Weights, "read", lambda self, name, shape: mistake(read(self, name, shape)))
    proof = prove(get_model("lenet5"), rtx, load_weights(LENET))
    assert not proof.ok and proof.report.first_divergence is not None
    assert proof.report.first_divergence.name == starts


@pytest.fixture(scope="module")
def yolov8n() -> Reference:
    return calibrated("ultralytics:yolov8n", size=(3, *SMALL))


def pickled(path: Path, content: Any) -> tuple[Weights, Path]:
    """The weights of a checkpoint as the command reads them, and its path."""
    torch.save(content, path)
    weights = load_weights(path)
    weights.modules = ()
    return weights, path


def test_the_module_of_a_checkpoint_takes_the_place_of_the_published_one(
    rtx: Api, tmp_path: Path, yolov8n: Reference
) -> None:
    weights, path = pickled(tmp_path / "best.pt", {"ema": None, "model": copy.deepcopy(yolov8n.module)})
    assert prove(get_model("yolov8n"), rtx, weights, size=SMALL, own_module=path).ok


def test_a_checkpoint_that_was_trained_with_another_activation_fails_at_it(
    rtx: Api, tmp_path: Path, yolov8n: Reference
) -> None:
    module = copy.deepcopy(yolov8n.module)
    module.model[3].act = torch.nn.ReLU()
    weights, path = pickled(tmp_path / "best.pt", {"model": module})
    assert prove(get_model("yolov8n"), rtx, weights, size=SMALL).ok  # the published module has SiLU
    proof = prove(get_model("yolov8n"), rtx, weights, size=SMALL, own_module=path)
    assert not proof.ok and proof.report.first_divergence is not None
    assert proof.report.first_divergence.name == "model.3.act"


def test_a_state_dict_is_no_module_of_its_own(rtx: Api, tmp_path: Path) -> None:
    arrays = {name: torch.from_numpy(array.copy()) for name, array in lenet_arrays().items()}
    weights, path = pickled(tmp_path / "lenet5.pt", arrays)
    with pytest.raises(ZooError, match=r"lenet5\.pt holds a dict and no module, .*: give --weights"):
        prove(get_model("lenet5"), rtx, weights, own_module=path)


def test_a_module_whose_classes_are_not_there_is_refused(rtx: Api, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ZooError, match=r"best\.pt cannot be unpickled: .*must be importable"):
        prove(get_model("lenet5"), rtx, load_weights(LENET), own_module=path)


# Against a golden file


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LeNet-5's reference makes of two images with the weights that ship, layer by layer."""
    path = tmp_path_factory.mktemp("golden") / "lenet5.golden.safetensors"
    model = get_model("lenet5")
    reference = load_state(load_reference(model.reference), lenet_arrays())
    images = sample_images(2, model.input, seed=1)
    runs = [run_reference(reference, images, dtype, taps=True) for dtype in ("float32", "float64")]
    save_golden(path, model.name, images, *runs)
    return path


def test_a_golden_file_gives_back_what_was_stored(golden: Path) -> None:
    images, ref32, ref64 = load_golden(golden, "lenet5")
    assert images.shape == (2, 1, 32, 32) and images.dtype == np.float32
    assert ref32.outputs["logits"].dtype == np.float32 and ref64.outputs["logits"].dtype == np.float64
    assert list(ref32.outputs) == ["logits"] and {"conv1", "fc3"} <= set(ref64.taps) == set(ref32.taps)
    assert 0 < np.abs(ref32.outputs["logits"] - ref64.outputs["logits"]).max() < 1e-4


def test_a_golden_file_proves_outputs_and_layers(rtx: Api, golden: Path) -> None:
    proof = prove_golden(get_model("lenet5"), rtx, load_weights(LENET), *load_golden(golden, "lenet5"))
    assert proof.report.ok and proof.precision == "fp32" and proof.weights == str(LENET)
    assert {"conv1", "fc3"} <= {row.name for row in proof.report.taps}


@pytest.mark.parametrize("changed", ["conv2.bias", "fc2.weight"])
def test_other_weights_differ_from_their_layer_on(rtx: Api, golden: Path, changed: str) -> None:
    arrays = lenet_arrays()
    arrays[changed] = arrays[changed] * np.float32(1.001)
    report = prove_golden(get_model("lenet5"), rtx, from_arrays(arrays), *load_golden(golden, "lenet5")).report
    assert not report.ok and report.first_divergence is not None
    assert report.first_divergence.name == changed.rpartition(".")[0]


def test_golden_files_that_are_refused(tmp_path: Path, golden: Path) -> None:
    with pytest.raises(ZooError, match="is the golden file of lenet5, not of resnet18"):
        load_golden(golden, "resnet18")
    with pytest.raises(ZooError, match=r"lenet5\.safetensors is not a golden file; to make one: .*lenet5 --golden"):
        load_golden(LENET, "lenet5")
    with pytest.raises(ZooError, match=r"none\.safetensors cannot be read"):
        load_golden(tmp_path / "none.safetensors", "lenet5")
    (tmp_path / "cut.safetensors").write_bytes(golden.read_bytes()[:-100])
    with pytest.raises(ZooError, match=r"cut\.safetensors cannot be read"):
        load_golden(tmp_path / "cut.safetensors", "lenet5")
    save_safetensors(tmp_path / "bare.safetensors", {"a": np.zeros(1)}, {"format": "zoo golden 1", "model": "lenet5"})
    with pytest.raises(ZooError, match=r"bare\.safetensors is not a golden file"):
        load_golden(tmp_path / "bare.safetensors", "lenet5")


def test_what_a_definition_read(rtx: Api) -> None:
    definition = define(get_model("lenet5"), load_weights(LENET), rtx, (1, 1, 32, 32))
    found, expected = arrays_of(definition), lenet_arrays()
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
