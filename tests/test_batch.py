"""zoo.batch: what workers answer, what the journal keeps, and the share of Ray that workers get.

`test_a_real_ray` kills workers and commands where ZOO_RAY_PYTHON names an interpreter that has ray[data] and what this
project needs; docs/serving.md says how.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import batch, load
from zoo.errors import ZooError
from zoo.images.addresses import list_addresses, read_address
from zoo.runtime.rows import COLUMNS, Work, Worker, try_out

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"


def work(folder: Path = ROOT, **more: Any) -> Work:
    return Work({"source": "lenet5", "device": "cpu", "threads": 1}, {"top": 2}, str(folder), **more)


# Addresses


def test_sources_become_addresses(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", ".c.png", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text("s3://bucket/1.jpg\n\n  b.png \n")
    a, b, listed = (str(tmp_path / name) for name in ("a.jpg", "b.png", "list.txt"))
    found = list(list_addresses([str(tmp_path), listed, str(tmp_path / "*.png"), a]))
    assert found == [a, b, "s3://bucket/1.jpg", "b.png", b, a]
    assert read_address(a) == b"x"


@pytest.mark.parametrize("source", ["nothing.jpg", "*.none", "."])
def test_a_source_without_pictures_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZooError, match="has no pictures; give a picture, a folder"):
        list(list_addresses([source]))


@pytest.mark.parametrize("source", ["rows.parquet", "s3://bucket/folder"])
def test_what_needs_pyarrow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ZooError, match=r'read by pyarrow, .*pip install "tensorrt-zoo\[batch\]"'):
        list(list_addresses([source]))


# Rows


@pytest.mark.parametrize("together", [1, 3])
def test_each_picture_has_a_row_and_what_is_wrong_with_it(tmp_path: Path, together: int) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    digit = str(SAMPLES / "digit_7.png")
    worker = Worker(work(tmp_path, batch=together, readers=2))
    addresses = [digit, "bad.png", "gone.png", digit]
    columns = worker({"source": np.array(addresses)})
    worker.close()
    assert list(columns) == list(COLUMNS) and columns["source"] == addresses
    assert [error is None for error in columns["error"]] == [True, False, False, True]
    assert "'bad.png' is not an image" in columns["error"][1] and "gone.png' cannot be read" in columns["error"][2]
    assert columns["width"] == columns["height"] == [128, None, None, 128]
    with load("lenet5", device="cpu", threads=1) as session:
        result = session.predict(digit, top=2)
    found = json.loads(columns["result"][0])["classes"]
    assert [entry["label"] for entry in found] == result.labels
    assert columns["result"][1:3] == [None, None]


def test_a_worker_that_cannot_be_made_says_why() -> None:
    with pytest.raises(ZooError, match="has no 'model.0"):
        try_out(
            Work({"source": "yolov8n", "weights": ROOT / "weights" / "lenet5.safetensors", "device": "cpu"}, {}, "")
        )


# The journal


def journal(folder: Path, **identity: Any) -> batch.Journal:
    return batch.Journal(folder / "out.parquet.rows", identity)


def test_a_journal_keeps_what_was_done(tmp_path: Path) -> None:
    with journal(tmp_path, model="a") as first:
        assert first.open(resume=False) == set()
        first.add([{"source": "1"}, {"source": "2"}])
    with open(first.path, "ab") as file:
        file.write(b'{"source": "3')  # the command was killed as it wrote
    with pytest.raises(ZooError, match="did not finish; continue it with --resume, or remove it"):
        journal(tmp_path, model="a").open(resume=False)
    with pytest.raises(ZooError, match="is of a run with another model, other weights or options"):
        journal(tmp_path, model="b").open(resume=True)
    with journal(tmp_path, model="a") as second:
        assert second.open(resume=True) == {"1", "2"}
        second.add([{"source": "3"}])
    lines = [json.loads(line) for line in first.path.read_text().splitlines()]
    assert lines == [{"model": "a"}, {"source": "1"}, {"source": "2"}, {"source": "3"}]


def test_a_run_that_did_nothing_leaves_no_journal(tmp_path: Path) -> None:
    with pytest.raises(ZooError), journal(tmp_path) as empty:
        empty.open(resume=False)
        raise ZooError("no worker can be started")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with journal(tmp_path) as full:
        full.open(resume=False)
        full._file.close()
        full._file = open("/dev/full", "w")  # noqa: SIM115
        with pytest.raises(ZooError, match=f"{os.strerror(errno.ENOSPC)}; --resume continues the run"):
            full.add([{"source": "1"}])
        full._file = open(os.devnull, "w")  # noqa: SIM115


# Ray


@pytest.mark.parametrize(
    ("resources", "workers", "device", "wanted"),
    [
        ({"CPU": 4.0}, 2, "auto", (2, 1.0, 0.0)),
        ({"CPU": 2.0}, 2, "auto", (2, 0.5, 0.0)),  # with 0.9 for each Ray waits for ever
        ({"CPU": 8.0}, None, "cpu", (4, 1.0, 0.0)),
        ({"CPU": 64.0, "GPU": 4.0}, None, "auto", (4, 1.0, 1.0)),
        ({"CPU": 64.0, "GPU": 2.0}, 4, "gpu", (4, 1.0, 0.5)),
        ({"CPU": 64.0, "GPU": 2.0}, 4, "cpu", (4, 1.0, 0.0)),
    ],
)
def test_workers_leave_a_cpu_to_ray(
    resources: dict[str, float], workers: int | None, device: str, wanted: tuple[int, float, float]
) -> None:
    share = batch._share(resources, workers, device, cores=4)
    assert (share.workers, share.cpus, share.gpus) == wanted
    assert share.workers * share.cpus <= resources["CPU"] - 1


@pytest.mark.parametrize(
    ("resources", "device", "words"),
    [({"CPU": 1.0}, "cpu", "counts 1 CPUs, which is too few"), ({"CPU": 8.0}, "gpu", "Ray has no GPU here")],
)
def test_a_cluster_that_is_too_small(resources: dict[str, float], device: str, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        batch._share(resources, 2, device, cores=4)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZooError, match=r'needs Ray Data and pyarrow .*pip install "tensorrt-zoo\[batch\]"'):
        batch.run("lenet5", ["samples"])


def test_a_real_ray() -> None:
    python = os.environ.get("ZOO_RAY_PYTHON")
    if not python:
        pytest.skip("ZOO_RAY_PYTHON names no interpreter that has ray[data], whose workers it kills")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, ROOT / "tests" / "ray_batch.py", "200"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
