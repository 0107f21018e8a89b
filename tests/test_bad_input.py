"""What an engine's commands are given wrongly: one sentence, status 2, and nothing written or changed."""

from __future__ import annotations

import importlib
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zoo.engine.passport import Engine, description_path
from zoo.quantization import Scales
from zoo.trt import Api
from zoo.weights import load_weights

LENET = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "lenet5.safetensors"
Refuse = Callable[..., str]


def scales(**changes: Any) -> Scales:
    about = {"model": "lenet5", "weights": load_weights(LENET).digest(), "amax": {"conv1": 1.0, "conv2": 1.0}}
    return Scales(**about | changes)


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """No file can grow beyond `count` bytes: the system refuses in the middle of a write, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def built(rtx: Api) -> Engine:
    from zoo.api import build_engine

    return build_engine("lenet5", target="rtx")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The last line that a command says, which must be refused and leave the folder as it was."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *words: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        monkeypatch.setattr("sys.argv", [f"zoo.{command}", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(f"zoo.{command}").main()
        said = capsys.readouterr()
        assert end.value.code == 2 and said.out == "" and "Traceback" not in said.err, said.err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and said.err.splitlines()[-1] == errors[0]
        return errors[0]

    return run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "0" * 64}, "was calibrated with other weights"),
        ({"model": "resnet18"}, "holds scales of resnet18, not of lenet5; calibrate lenet5"),
        ({"amax": {"layer1.0.conv1": 1.0}}, "has no range for 'conv1': it is of another network; calibrate again"),
    ],
    ids=["stale", "of another model", "of other tensors"],
)
@pytest.mark.parametrize("precision", ["--int8", "--fp8"])
def test_scales_of_something_else(refused: Refuse, change: dict[str, Any], words: str, precision: str) -> None:
    scales(**change).save("mine.json")
    assert words in refused("build", "lenet5", precision, "--scales", "mine.json", "--target", "rtx")


def test_a_folder_without_pictures(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "notes.txt").write_text("none yet")
    for command, words in (
        ("calibrate", ["lenet5", "--data", "pictures"]),
        ("build", ["lenet5", "--int8", "--data", "pictures", "--target", "rtx"]),
        ("eval", ["lenet5", "--data", "pictures"]),
    ):
        assert "pictures' holds no " in refused(command, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 64}, "is not the engine that its description was written for"),
        ({"precision": "int4"}, "'precision' in the description mine.engine.json is 'int4'; it should be one of fp32,"),
        ({"input": {"min": [1, 1, 32, 32]}}, "'input' in the description mine.engine.json is"),
        ({"weights": {"file": "w", "sha256": "x"}}, "it should be an object with the file and its sha256"),
    ],
)
def test_a_description_that_was_edited(built: Engine, refused: Refuse, change: dict[str, Any], words: str) -> None:
    engine = built.save("mine.engine")
    path = description_path(engine)
    flags = {"flags": {"refit": True}}
    path.write_text(json.dumps(json.loads(path.read_text()) | flags | change))
    assert words in refused("refit", "mine.engine", LENET)


@pytest.mark.parametrize("missing", [1, 500_000])
def test_a_disk_that_is_full_before_the_engine_is_written(built: Engine, refused: Refuse, missing: int) -> None:
    """In the middle of the file or at its last byte: the older engine stays, with its own description."""
    built.save("mine.engine")
    with room_for(len(built.data) - missing):
        said = refused("build", "lenet5", "--target", "rtx", "-o", "mine.engine")
    assert "cannot write mine.engine: File too large" in said


def test_scales_on_a_full_disk(refused: Refuse, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    scales().save("lenet5.scales.json")
    with room_for(100):
        assert "cannot write lenet5.scales.json" in refused("calibrate", "lenet5", "--data", ".")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-shapes", "8x3x64x64", "--max-shapes", "1x3x64x64"], "shrink"),
        (["--min-shapes", "1x3x33x33", "--max-shapes", "1x3x63x63"], "multiple"),
        (["--min-shapes", "0x3x64x64", "--max-shapes", "1x3x64x64"], "positive"),
        (["--imgsz", "64-32"], "shrink"),
    ],
    ids=["shrinks", "no multiple between", "no picture", "a range that shrinks"],
)
def test_a_profile_that_holds_no_shape(refused: Refuse, words: list[str], said: str) -> None:
    assert said in refused("build", "yolov8n", "--weights", "random", "--target", "rtx", *words)
