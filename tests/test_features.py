"""Networks that end at module paths, against what hooks on the reference's modules see."""

from __future__ import annotations

import functools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import zoo
from zoo.engine.passport import load_engine, model_of
from zoo.errors import ZooError
from zoo.export import run as export
from zoo.registry import Model, get_model
from zoo.tasks import get_task
from zoo.verify.calibration import calibrated, state_arrays
from zoo.weights import Weights, from_arrays

# A CNN, a transformer and a detector, whose modules have taps, or only their own parts have.
PATHS = {
    "resnet18": ["maxpool", "layer1.0.relu:1", "layer2.0.downsample", "layer3.0", "layer3", "layer4", "avgpool"],
    "deit_tiny_patch16_224": ["patch_embed.proj", "blocks.0.mlp", "blocks.5", "blocks", "norm"],
    "yolov8n": ["model.2", "model.2.m.0", "model.4", "model.9", "model.15", "model.22.cv2.0"],
}
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)


def images_for(model: Model) -> np.ndarray:
    """Small ones, where the network takes them."""
    if "patch" not in model.name:
        return IMAGES
    return np.random.default_rng(0).normal(size=(2, *model.input)).astype(np.float32)


@functools.cache
def seen(name: str) -> tuple[Weights, dict[str, list[np.ndarray]]]:
    """Weights, and what each call of the reference's modules returns for the images with them, in fp64."""
    model = get_model(name)
    images = images_for(model)
    reference = calibrated(model.reference, 0, images.shape[1:], fixed=model.ignored)
    weights = from_arrays(state_arrays(reference), "calibrated")
    found: dict[str, list[np.ndarray]] = {}
    module = reference.module.double()
    for path, part in module.named_modules():
        if path in {wanted.partition(":")[0] for wanted in PATHS[name]}:
            # A copy: an activation in place would change what was seen.
            part.register_forward_hook(lambda m, _, y, path=path: found.setdefault(path, []).append(y.numpy().copy()))
    with torch.inference_mode():
        module(torch.from_numpy(images).double())
    return weights, found


@pytest.mark.parametrize("name", PATHS)
def test_features_are_what_the_modules_of_the_reference_return(name: str) -> None:
    weights, expected = seen(name)
    model = get_model(name).features(*PATHS[name])
    with zoo.load(model, weights=weights, size=images_for(model).shape[2:]) as session:
        found = session(images_for(model))
    assert list(found) == PATHS[name]
    for path, values in found.items():
        module, _, call = path.partition(":")
        wanted = expected[module][int(call or 0)]
        assert values.shape == wanted.shape, path
        assert np.linalg.norm(values - wanted) <= 1e-5 * np.linalg.norm(wanted), path


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("layer5",), "resnet18 has no module 'layer5' to end at; closest: layer4, layer3, layer2"),
        (
            ("layer1.0.conv1",),
            "'layer1.0.conv1' of resnet18 returns nothing: it is folded into the module after it; name that one",
        ),
        ((), r"features of resnet18 end at module paths, such as 'layer3'; \(\) names none"),
        (("layer3", ""), r"features of resnet18 end at module paths, such as 'layer3'; \('layer3', ''\) names none"),
    ],
)
def test_paths_that_a_network_cannot_end_at_are_named(paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(ZooError, match=f"^{message}$"):
        zoo.load(get_model("resnet18").features(*paths), weights="random", size=(64, 64))


def test_a_module_whose_last_one_is_folded_away_is_refused() -> None:
    model = get_model("deeplabv3plus_resnet34").features("decoder.block2.0")  # its last convolution is block2.1's
    with pytest.raises(ZooError, match=r"^'decoder.block2.0' of deeplabv3plus_resnet34 returns nothing: it is folded"):
        zoo.load(model, weights="random", size=(64, 64))


def test_a_module_that_returns_several_tensors_is_refused() -> None:
    with pytest.raises(ZooError, match=r"^'model.22.cv2' of yolov8n returns 3 tensors: model.22.cv2.0.2, .*name a"):
        zoo.load(get_model("yolov8n").features("model.22.cv2"), weights="random", size=(64, 64))


def test_an_engine_says_what_it_ends_at_and_holds_no_more(tmp_path: Path) -> None:
    model = get_model("resnet18").features("layer1")
    engine = zoo.build_engine(model, weights="random", precision="fp16", size=(64, 64))
    engine.save(tmp_path / "layer1.engine")
    about = load_engine(tmp_path / "layer1.engine").description
    assert len(engine.data) < 1e6  # of 23 MB
    assert about["task"] == "features"
    assert about["outputs"] == {"layer1": {"dtype": "float32", "shape": [1, 64, 16, 16]}}
    assert " resnet18 --fp16 --features layer1 --weights " in about["rebuild"]
    assert model_of(about) == model == pickle.loads(pickle.dumps(model))


def test_the_command_exports_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "backbone.onnx"
    export("resnet18", features=["layer2", "layer3"], weights="random", size="64", output=file, as_json=True)
    assert json.loads(capsys.readouterr().out)["bytes"] < 12e6  # of 47 MB: without layer4 and fc
    session = onnxruntime.InferenceSession(str(file))
    found = session.run(None, {"images": IMAGES[:, :, :64, :64]})
    assert [output.name for output in session.get_outputs()] == ["layer2", "layer3"]
    assert [values.shape for values in found] == [(2, 128, 8, 8), (2, 256, 4, 4)]


def test_a_picture_gives_its_features_and_half_precision_that_overflows_is_told() -> None:
    picture: Any = np.full((80, 90, 3), (10, 120, 240), np.uint8)
    with zoo.load(get_model("resnet18").features("layer3", "avgpool"), weights="random", size=(64, 64)) as session:
        result = session.predict(picture)
        expected = session(session.prepare(picture)[0][None])
    assert {path: values.shape for path, values in result.features.items()} == {
        "layer3": (256, 4, 4),
        "avgpool": (512, 1, 1),
    }
    assert all(np.array_equal(values, expected[path][0]) for path, values in result.features.items())
    task = get_task("features")
    assert np.allclose(task.to_json(result)["features"]["avgpool"], result.features["avgpool"], atol=1e-6)
    assert task.describe(result)[0].startswith("layer3: 256x4x4, mean ")
    with pytest.raises(ZooError, match="'layer3' holds NaN or infinity"):
        task({"layer3": np.array([1, np.inf], np.float32)}, None, None, {})  # type: ignore[arg-type]
