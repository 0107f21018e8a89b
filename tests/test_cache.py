"""`python -m zoo.cache`: what is kept is listed with what is damaged in it, and cleared by kind and by age."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from zoo import cache
from zoo.api import build_engine
from zoo.engine.store import kept_engine, most_bytes
from zoo.errors import ZooError
from zoo.units import age_text, bytes_text, parse_age, parse_bytes

DAY = 86400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of caches with one of each kind, used 1 to 7 days ago, and a file of somebody else's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "zoo"
    kept_engine("lenet5-fp32-0123", lambda: build_engine("lenet5"))
    code = b"machine code"
    files = {
        "timing-0123.cache": b'{"timing_cache": "TensorRT 8.6.0", "gpu": "NVIDIA H200"}\nblob',
        "preprocess-0123.bin": hashlib.sha256(code).digest() + code,
        "libzoo_plugins-0123.so": b"\x7fELF",
        "torchvision-0.28-1/libcudart.so": b"\x7fELF",
        "weights/resnet18-f37072fd.pth": b"PK",
        ".0123.zoo-part": b"half",
        "notes.txt": b"of the user",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    for days, name in enumerate(["engines/lenet5-fp32-0123", *(n.partition("/lib")[0] for n in files)], 1):
        os.utime(folder / name, (time.time() - days * DAY - 60,) * 2)
    return folder


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    cache.run(**{"kinds": None, "clear_them": False, "older": None, "as_json": True} | options)
    return json.loads(capsys.readouterr().out)


def test_everything_that_is_kept_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys)
    kinds = ["unfinished", "weights", "stand-ins", "library", "kernel", "timings", "engine"]
    assert [entry["kind"] for entry in answer["entries"]] == kinds  # what was unused for longest first
    assert [entry["unused"] // DAY for entry in answer["entries"]] == [7, 6, 5, 4, 3, 2, 1]
    about = {entry["kind"]: entry["about"] for entry in answer["entries"]}
    assert about["engine"].startswith("lenet5 fp32, rtx") and about["kernel"] == "preprocess"
    assert about["timings"] == "TensorRT 8.6.0, NVIDIA H200"
    assert [entry["kind"] for entry in answer["entries"] if entry["damaged"]] == ["unfinished"]
    engine = sum(file.stat().st_size for file in (folder / "engines" / "lenet5-fp32-0123").iterdir())
    assert answer["entries"][-1]["size"] == engine and answer["bytes"] > engine
    assert (folder / "notes.txt").read_bytes() == b"of the user"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("engines/lenet5-fp32-0123/engine.plan", b"other"),
        ("engines/lenet5-fp32-0123/engine.plan.json", b"{"),
        ("timing-0123.cache", b"[]\n"),
        ("preprocess-0123.bin", b"cut short"),
        ("libzoo_plugins-0123.so", b""),
        ("weights/resnet18-f37072fd.pth", b""),
        ("engines/former.engine", b"a plan"),
    ],
)
def test_what_is_damaged_is_told(folder: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    damaged = [entry for entry in run(capsys)["entries"] if entry["damaged"] and entry["kind"] != "unfinished"]
    assert len(damaged) == 1 and (folder / name).is_relative_to(damaged[0]["path"])
    cache.run(None, False, None, False)
    assert "damaged: " in capsys.readouterr().out


def test_all_is_cleared_but_what_is_not_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(run(capsys, clear_them=True)["removed"]) == 7
    assert [file.name for file in folder.rglob("*") if file.is_file()] == ["notes.txt"]
    assert run(capsys)["entries"] == []


def test_what_is_cleared_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, kinds=["kernel", "engine"], clear_them=True)
    assert [Path(path).name for path in answer["removed"]] == ["preprocess-0123.bin", "lenet5-fp32-0123"]
    answer = run(capsys, older="4.5d", clear_them=True)
    assert [Path(path).name for path in answer["removed"]] == [
        ".0123.zoo-part", "resnet18-f37072fd.pth", "torchvision-0.28-1",
    ]  # fmt: skip
    assert {entry["kind"] for entry in run(capsys)["entries"]} == {"library", "timings"}


def test_what_is_being_written_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(folder / ".0123.zoo-part")
    assert run(capsys, kinds=["unfinished"], clear_them=True)["removed"] == []
    assert (folder / ".0123.zoo-part").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder.parent / "mine"
    (target / "deep").mkdir(parents=True)
    (folder / "engines" / "link").symlink_to(target)
    run(capsys, kinds=["engine"], clear_them=True)
    assert (target / "deep").is_dir() and not (folder / "engines" / "link").is_symlink()


def test_nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert run(capsys, clear_them=True)["entries"] == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"kinds": ["engins"]}, "closest: engine"), ({"older": "30"}, "30d"), ({"older": "soon"}, "'soon'")],
)
def test_what_cannot_be_meant(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        cache.run(**{"kinds": None, "clear_them": True, "older": None} | options)
    assert (folder / "preprocess-0123.bin").exists()


def test_the_bound_of_the_store_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_BYTES", "5G")
    assert most_bytes() == 5 << 30
    monkeypatch.setenv("ZOO_CACHE_BYTES", "plenty")
    with pytest.raises(ZooError, match="ZOO_CACHE_BYTES is 'plenty'"):
        most_bytes()


def test_bytes_and_ages() -> None:
    assert [parse_bytes("x", text) for text in ("7", "7B", "2k", "1.5MiB", "3GB")] == [
        7, 7, 2048, 3 << 19, 3 << 30,
    ]  # fmt: skip
    assert parse_bytes("x", "7", unit="m") == 7 << 20 and parse_bytes("x", "7B", unit="m") == 7
    assert [parse_age(text) for text in ("90s", "2m", "1h", "30d", "2w")] == [90, 120, 3600, 30 * DAY, 14 * DAY]
    assert [bytes_text(n) for n in (7, 1500, 51_600_000)] == ["7 B", "1.5 kB", "51.6 MB"]
    assert [age_text(s) for s in (0, 61, 7200, DAY)] == ["0 seconds", "1 minute", "2 hours", "1 day"]
