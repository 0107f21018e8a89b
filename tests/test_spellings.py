"""What users of trtexec, polygraphy and ultralytics type: taken where it means what is done, else answered."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

import zoo
from zoo import build as build_command
from zoo.api import build_engine
from zoo.engine.build import builder_config
from zoo.engine.effort import Effort, parse_workspace
from zoo.engine.passport import load_description, rebuild_command
from zoo.engine.shapes import Shapes
from zoo.spellings import INSTEAD
from zoo.trt import Api, Log


def build(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """`python -m zoo.build lenet5 WORDS` in this process."""
    monkeypatch.setattr("sys.argv", ["zoo.build", "lenet5", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        build_command.main()
    assert stop.value.code == 0


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    monkeypatch.setattr("sys.argv", ["zoo.build", "lenet5", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        build_command.main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_what_asks_for_what_is_done_anyway_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["--noTF32", "--stronglyTyped", "--buildOnly", "--skipInference", "--memPoolSize=workspace:64"]
    build(monkeypatch, *words, "--output", tmp_path / "a.engine")
    description = load_description(tmp_path / "a.engine")
    assert description["workspace"] == 64 << 20 and description["tf32"] is False
    assert f"--workspace {64 << 20}B" in rebuild_command(description)
    assert parse_workspace(f"{64 << 20}B") == 64 << 20


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--batch", "-1"], "--batch -1 says no range; give one: --min-shapes"),
        ([f"--{end}Shapes=input:2x1x32x32" for end in ("min", "opt", "max")], "and the network has one, 'images'"),
        (["--size", "4294967296"], "the size '4294967296' is not a number such as 224"),
        (["--size", "9" * 5000], "the size '999"),
    ],
)
def test_shapes_that_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], answer: str
) -> None:
    said = refusal(monkeypatch, capsys, *words)
    assert answer in said and len(said) < 2100


def test_a_size_in_two_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "write --imgsz 64x96" in refusal(monkeypatch, capsys, "--imgsz", "64", "96")


def test_a_description_of_before_has_no_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = build_engine("lenet5").save(tmp_path / "a.engine")
    beside = tmp_path / "a.engine.json"
    description = json.loads(beside.read_text())
    del description["workspace"]
    beside.write_text(json.dumps(description))
    assert "--workspace" not in rebuild_command(load_description(path))


def test_the_workspace_bounds_tensorrt(rtx: Api) -> None:
    config = builder_config(rtx, rtx.trt.Builder(rtx.log.logger), Shapes.static((1, 1, 32, 32)), Effort(workspace=4096))
    assert config.get_memory_pool_limit(rtx.trt.MemoryPoolType.WORKSPACE) == 4096


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512 << 20), ("workspace:512", 512 << 20), ("2G", 2 << 30), ("workspace:1.5GB", 3 << 29)],
)
def test_a_workspace_is_written_as_for_trtexec(text: str, size: int) -> None:
    assert parse_workspace(text) == size


@pytest.mark.parametrize("option", INSTEAD)
def test_what_is_not_offered_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """No row is an option that zoo.build has, and each is one sentence that fits a terminal's two lines."""
    said = refusal(monkeypatch, capsys, option)
    assert said.startswith(f"error: there is no {option} here: ") and len(said) < 180
    assert refusal(monkeypatch, capsys, f"{option}=1") == said


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--tf32", "--noTF32"], "exclude each other"),
        (["--memPoolSize=dlaSRAM:1"], "only workspace"),
        (["--memPoolSize=workspace:1,dlaSRAM:1"], "only workspace"),
        (["--workspace", "much"], "the workspace is 'much'"),
    ],
)
def test_what_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    assert wanted in refusal(monkeypatch, capsys, *words)


def test_weakly_typed_networks_are_not_called_strongly_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tensorrt8: Api
) -> None:
    monkeypatch.setattr("zoo.trt.load", lambda flavour=None: tensorrt8)
    assert "TensorRT 8.6.0 has no --stronglyTyped" in refusal(monkeypatch, capsys, "--stronglyTyped")


def test_what_tensorrt_says_goes_to_pythons_logging(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    with caplog.at_level(logging.DEBUG, "zoo.tensorrt"):
        for severity in ("WARNING", "INFO", "VERBOSE", "ERROR"):
            log.record(severity, f"words of {severity} 100%s")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "words of WARNING 100%s"), ("INFO", "words of INFO 100%s"), ("DEBUG", "words of VERBOSE 100%s"),
    ]  # fmt: skip
    assert log.drain() == "words of ERROR 100%s"


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, verbose: bool
) -> None:
    logger = logging.getLogger("zoo")
    try:
        build(monkeypatch, "-o", tmp_path / "a.engine", *(["-v"] if verbose else []))
        assert ("tensorrt: info: " in capsys.readouterr().err) == verbose
    finally:
        logger.setLevel(logging.NOTSET)
        logger.handlers.clear()


def test_a_gpu_without_its_tensorrt_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zoo.driver.has_driver", lambda: True)
    monkeypatch.setattr("zoo.trt.installed", lambda flavour: flavour == "rtx")
    with zoo.load("lenet5") as session:
        assert "CPU" in session.runs_on
    (record,) = caplog.records
    assert "the GPU is not used, since TensorRT is not installed: pip install" in record.getMessage()


def test_a_session_is_warmed_up() -> None:
    with zoo.load("lenet5", device="cpu", batch=2) as session:
        calls: list[tuple[int, ...]] = []
        warmed = replace(session, executor=lambda images, views: calls.append(images.shape))
        warmed.warm_up(batch=2, runs=3)
        assert calls == [(2, 1, 32, 32)] * 3
        session.warm_up(batch=2)


def test_threads_and_workspace_are_api_too() -> None:
    with zoo.load("lenet5", device="cpu", threads=1, workspace=1 << 20) as session:
        assert session.executor._session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(zoo.ZooError, match="the workspace is '1G'; it must be a number of bytes"):
        zoo.load("lenet5", device="cpu", workspace="1G")
