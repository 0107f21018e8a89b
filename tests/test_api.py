"""The Python API: what `import zoo` offers, and sessions on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import zoo
from zoo.api import find_weights
from zoo.driver import has_driver
from zoo.engine.shapes import input_shapes
from zoo.registry import get_model
from zoo.weights import RandomWeights, from_arrays, load_weights, save_safetensors, save_wts

ROOT = Path(__file__).resolve().parent.parent
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"


def arrays() -> dict[str, np.ndarray]:
    """The tensors of the weights that ship."""
    weights = load_weights(LENET)
    return {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()}


def images(batch: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *(shape or (1, 32, 32))), np.float32)


# Names


def test_public_names() -> None:
    assert sorted(zoo.__all__) == ["ZooError", "build_engine", "get_model", "list_models", "load"]
    assert all(callable(getattr(zoo, name)) for name in zoo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        zoo.nonsense  # noqa: B018
    assert {"resnet50", "lenet5", "yolov8n"} <= set(zoo.list_models())
    assert zoo.list_models("resnet5?") == ["resnet50"] and zoo.get_model("resnet50").task == "classify"


def test_the_docstring_runs_as_it_stands(tmp_path: Path) -> None:
    """Apart from the model, which is the one whose weights ship."""
    lines = [line for line in (zoo.__doc__ or "").splitlines() if line.startswith("    ")]
    code = "\n".join(line[4:] for line in lines).replace("resnet50", "lenet5")
    images_ = "np.zeros((2, 1, 32, 32), np.float32)"
    code = f"import zoo, numpy as np\nimages = {images_}\n{code}\nassert logits.shape == (2, 10)"
    weights = tmp_path / "weights"
    weights.mkdir()
    cv2.imwrite(str(tmp_path / "cat.jpg"), np.full((40, 50, 3), 99, np.uint8))
    (weights / LENET.name).write_bytes(LENET.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "lenet5.engine").exists()


# Sessions


def test_rows_do_not_depend_on_their_batch() -> None:
    x = images(5)
    with zoo.load("lenet5", weights=LENET, device="cpu") as session:
        whole = session(x)["logits"]
        assert whole.shape == (5, 10) and whole.dtype == np.float32
        for size in (1, 2):
            for first in range(0, 5 - size + 1, size):
                rows = session(x[first : first + size])["logits"]
                np.testing.assert_allclose(rows, whole[first : first + size], rtol=1e-5, atol=1e-5)
    assert len({row.tobytes() for row in whole}) == 5


def test_a_detector_gives_boxes_and_scores_of_any_batch() -> None:
    with zoo.load("yolov8n", weights="random:1", size=(64, 96), device="cpu") as session:
        assert session.size == (64, 96) and session.weights == "random:1"
        outputs = session(images(2, 3, 64, 96))
    cells = sum((64 // stride) * (96 // stride) for stride in (8, 16, 32))
    assert outputs["boxes"].shape == (2, 4, cells) and outputs["scores"].shape == (2, 80, cells)


def test_what_a_session_says_of_itself() -> None:
    with zoo.load("lenet5", weights=LENET, device="cpu") as session:
        assert session.model is zoo.get_model("lenet5") and session.size == (32, 32)
        assert "onnxruntime" in session.runs_on and "CPU" in session.runs_on
        assert session.weights == str(LENET) and session.labels == list("0123456789")


def test_a_session_accepts_arrays_that_are_not_contiguous() -> None:
    x = images(3)
    turned = np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    with zoo.load("lenet5", weights=LENET, device="cpu") as session:
        expected = session(x)["logits"]
        np.testing.assert_array_equal(session(turned)["logits"], expected)


@pytest.mark.parametrize(
    ("shape", "found"), [((1, 3, 32, 32), "1x3x32x32"), ((2, 1, 32, 28), "2x1x32x28"), ((1, 32, 32), "1x32x32")]
)
def test_images_of_another_shape(shape: tuple[int, ...], found: str) -> None:
    with zoo.load("lenet5", weights=LENET, device="cpu") as session:
        with pytest.raises(zoo.ZooError, match=f"the images are {found}, this network takes Nx1x32x32"):
            session(np.zeros(shape, np.float32))


def test_submissions_give_what_calls_give() -> None:
    with zoo.load("lenet5", weights=LENET, device="cpu") as session:
        given = [images(batch) for batch in (1, 3, 2)]
        expected = [session(x)["logits"] for x in given]
        tickets = [session.submit(x) for x in given]
        for x in given:
            x[:] = 0  # the submitted images were copied
        for ticket, logits in zip(tickets, expected):
            assert np.array_equal(ticket.result()["logits"], logits)
        with pytest.raises(zoo.ZooError, match="this network takes Nx1x32x32"):
            session.submit(images(1, 3, 32, 32))
    with pytest.raises(zoo.ZooError, match="the session is closed"):
        session.submit(images(1))


def test_half_precision_on_the_cpu_is_rounded_and_close() -> None:
    x = images(2)
    results = {}
    for precision in ("fp32", "fp16", "bf16"):
        with zoo.load("lenet5", weights=LENET, precision=precision, device="cpu") as session:  # type: ignore[arg-type]
            results[precision] = session(x)["logits"]
    scale = np.abs(results["fp32"]).max()
    distance = {name: np.abs(results[name] - results["fp32"]).max() / scale for name in ("fp16", "bf16")}
    assert 0 < distance["fp16"] < 5e-3 < 0.05 and distance["fp16"] < distance["bf16"] < 0.05


def test_labels_come_from_the_weights(tmp_path: Path) -> None:
    names = [f"sort {i}" for i in range(10)]
    save_safetensors(tmp_path / "named.safetensors", arrays(), {"classes": json.dumps(names)})
    save_safetensors(tmp_path / "plain.safetensors", arrays())
    with zoo.load("lenet5", weights=tmp_path / "named.safetensors", device="cpu") as session:
        assert session.labels == names
    with zoo.load("lenet5", weights=tmp_path / "plain.safetensors", device="cpu") as session:
        assert session.labels is None


@pytest.mark.parametrize("classes", ["no json", "5", "[1, 2]", "[[" * 50_000, '{"a": "b"}', '"digits"'])
def test_class_names_that_are_no_list_of_names(tmp_path: Path, classes: str) -> None:
    save_safetensors(tmp_path / "w.safetensors", arrays(), {"classes": classes})
    with pytest.raises(zoo.ZooError, match="the class names .* a JSON list of names was expected") as told:
        zoo.load("lenet5", weights=tmp_path / "w.safetensors", device="cpu")
    assert len(str(told.value)) < 500


def test_the_class_count_comes_from_the_weights() -> None:
    """Three of the ten digits."""
    three = {name: array[:3].copy() if name.startswith("fc3") else array for name, array in arrays().items()}
    with zoo.load("lenet5", weights=from_arrays(three), device="cpu") as session:
        assert session(images(1))["logits"].shape == (1, 3)


# Weights


def test_where_weights_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ZOO_WEIGHTS, then ./weights, then beside the source; in each .safetensors before .wts."""
    model = get_model("lenet5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_WEIGHTS", raising=False)
    assert find_weights(model).name == str(ROOT / "weights" / "lenet5.safetensors")  # a link to the package's
    save_wts(tmp_path / "weights" / "lenet5.wts", arrays())
    assert find_weights(model).name == "weights/lenet5.wts"
    save_safetensors(tmp_path / "weights" / "lenet5.safetensors", arrays())
    assert find_weights(model).name == "weights/lenet5.safetensors"
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path / "mine"))
    assert find_weights(model).name == "weights/lenet5.safetensors"
    save_wts(tmp_path / "mine" / "lenet5.wts", arrays())
    assert find_weights(model).name == str(tmp_path / "mine" / "lenet5.wts")


def test_weights_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = get_model("lenet5")
    monkeypatch.setenv("ZOO_WEIGHTS", str(LENET.parent))
    given = from_arrays(arrays())
    assert find_weights(model, given) is given
    random = find_weights(model, "random:7")
    assert isinstance(random, RandomWeights) and random.seed == 7
    assert find_weights(model, LENET).name == str(LENET)
    with pytest.raises(zoo.ZooError, match=r"no weights file none\.wts; make it with: .*zoo.gen_wts lenet5"):
        find_weights(model, "none.wts")


def test_no_weights_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_WEIGHTS", raising=False)
    with pytest.raises(zoo.ZooError, match=r"no weights file .*wide_resnet101_2.*zoo.gen_wts wide_resnet101_2"):
        zoo.load("wide_resnet101_2", device="cpu")


# Engines


def test_input_shapes() -> None:
    model = get_model("lenet5")
    assert str(input_shapes(model)) == "1x1x32x32"
    assert str(input_shapes(model, (1, 2, 8))) == "1x1x32x32 / 2x1x32x32 / 8x1x32x32"
    assert str(input_shapes(get_model("yolov8n"), 2, (64, 96))) == "2x3x64x96"


def test_build_engine_saves_what_it_built(tmp_path: Path) -> None:
    said: list[str] = []
    engine = zoo.build_engine(
        "lenet5", weights=LENET, precision="fp16", batch=(1, 2, 4), target="rtx", progress=said.append
    )
    path = engine.save(tmp_path / "new folder" / "lenet5.engine")
    assert path.read_bytes() == engine.data and engine.description["precision"] == "fp16"
    assert [line.split()[0] for line in said] == ["defining", "compiling"]


@pytest.mark.skipif(has_driver(), reason="a GPU is here")
def test_an_engine_where_there_is_no_gpu(tmp_path: Path) -> None:
    path = zoo.build_engine("lenet5", weights=LENET, target="rtx").save(tmp_path / "lenet5.engine")
    before = path.read_bytes()
    for auto_rebuild in (False, True):
        with pytest.raises(zoo.ZooError, match=f"to rebuild it: python -m zoo.build lenet5 .* --save-engine {path}$"):
            zoo.load(path, auto_rebuild=auto_rebuild)
        assert path.read_bytes() == before
    built_in = {"weights": LENET, "size": (32, 32), "precision": "fp16", "batch": 2, "level": 1, "heuristic": True}
    built_in |= {"plugins": "native"}
    words = "is an engine, in which weights, size, batch, precision, plugins and .* are built in; leave"
    for name, value in built_in.items():
        with pytest.raises(zoo.ZooError, match=words):
            zoo.load(path, **{name: value})
    with pytest.raises(zoo.ZooError, match="is an engine, which needs a GPU; for the CPU, give the model's name"):
        zoo.load(path, device="cpu")
    with pytest.raises(zoo.ZooError, match="use --device cpu"):
        zoo.load("lenet5", weights=LENET, device="gpu")


def test_an_engine_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match=r"none\.engine"):
        zoo.load(tmp_path / "none.engine")
    with pytest.raises(zoo.ZooError, match="no model is named 'lenet6'; closest: lenet5"):
        zoo.load("lenet6", device="cpu")


# Pictures


def test_a_picture_gives_a_result_from_python() -> None:
    digit = ROOT / "samples" / "digit_7.png"
    with zoo.load("lenet5", device="cpu") as session:
        found = session.predict(digit, top=2)
        assert (found.labels[0], found.classes.shape, found.scores.shape) == ("7", (2,), (2,))
        again = session.predict(cv2.imread(str(digit)))
        assert again.classes[:2].tolist() == found.classes.tolist() and len(again.classes) == 5
        for wrong, words in (("missing.png", "'missing.png' cannot be read"), (np.zeros((8, 8)), "Expected a picture")):
            with pytest.raises(zoo.ZooError, match=words):
                session.predict(wrong)
        with pytest.raises(zoo.ZooError, match="the task 'classify' has no option 'conf'"):
            session.predict(digit, conf=0.5)
