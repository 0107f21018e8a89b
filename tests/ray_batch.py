"""Runs zoo.batch on a real Ray and hurts it: `python tests/ray_batch.py [COUNT]`, in an environment with ray[data] and
this project's dependencies. docs/serving.md has the figures of one machine.

A killed worker, a killed command and pictures that kill their worker must leave a row for each picture, none twice, and
no error but those pictures'. Prints figures as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import pyarrow
from pyarrow import parquet

from zoo.runtime.rows import Work, Worker

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "weights" / "lenet5.safetensors"
WORKERS = 2
POISON = b"ends its worker"
DEADLY = f"""
import os
from zoo.images import sources

def decode_image(data, name, decode=sources.decode_image):
    if data.endswith({POISON!r}):
        os._exit(1)
    return decode(data, name)

sources.decode_image = decode_image
"""

FOUR_GPUS = """
import os, time
from pathlib import Path
from zoo.errors import ZooError
from zoo.runtime import engines

def require_gpu(device):
    if device >= 4:
        raise ZooError(f"there is no gpu:{device}")

def load_model_session(model, weights, *_, device, **options):
    from zoo.api import _cpu_session
    from zoo.network import Precision
    seen = os.environ["CUDA_VISIBLE_DEVICES"]
    (Path(__file__).parent / f"{seen}.{device}.{os.getpid()}.seen").touch()
    return _cpu_session(model, weights, Precision(), None, None, 1, "native")

engines.require_gpu, engines.load_model_session = require_gpu, load_model_session
"""


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    folder.mkdir()
    image = cv2.resize(cv2.imread(str(ROOT / "samples" / "coffee.jpg")), size[::-1])
    for index in range(count):
        image[:8, :8] = index % 256
        cv2.imwrite(str(folder / f"{index:05}.jpg"), image)


def start(folder: Path, *more: Any, sources: Sequence[Any] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zoo.batch", "lenet5", *(sources or [folder / "pictures"]), "--weights", WEIGHTS]
    command += ["--workers", WORKERS, "--output", folder / "out.parquet", "--device", "cpu", "--json", *more]
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str], status: int) -> dict[str, Any]:
    out, err = process.communicate(timeout=500)
    assert process.returncode == status, (process.returncode, out, err[-3000:])
    return json.loads(out)


def rows(folder: Path) -> list[dict[str, Any]]:
    return parquet.read_table(folder / "out.parquet").to_pylist()


def journalled(folder: Path) -> int:
    """How many rows are in the journal of a run that is under way."""
    path = folder / "out.parquet.rows"
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


def wait_for(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    while journalled(folder) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def workers_of(process: subprocess.Popen[str]) -> Iterator[int]:
    """The processes of Ray that predict, of this run."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line, session = (path / "cmdline").read_bytes(), os.getsid(int(path.name))
        except (OSError, ProcessLookupError):
            continue
        if b"MapWorker" in line and (session == process.pid or descends(int(path.name), process.pid)):
            yield int(path.name)


def descends(process: int, ancestor: int) -> bool:
    while process > 1:
        if process == ancestor:
            return True
        status = Path(f"/proc/{process}/stat").read_text()
        process = int(status.rpartition(")")[2].split()[1])
    return False


def check(found: list[dict[str, Any]], count: int, wrong: list[str]) -> None:
    names = [Path(row["source"]).name for row in found]
    assert names == sorted(set(names)) and len(names) == count, (len(names), len(set(names)), count)
    assert [name for name, row in zip(names, found) if row["error"]] == wrong
    assert all(json.loads(row["result"])["classes"] for row in found if not row["error"])


def killed_worker(folder: Path, count: int) -> dict[str, Any]:
    make_pictures(folder / "pictures", count, (240, 320))
    process = start(folder)
    wait_for(folder, count // 3, process)
    victim = next(workers_of(process))
    os.kill(victim, signal.SIGKILL)
    result = finished(process, 0)
    check(rows(folder), count, [])
    return {"rows": result["rows"], "seconds": result["seconds"]}


def killed_command(folder: Path, count: int) -> dict[str, Any]:
    make_pictures(folder / "pictures", count, (240, 320))
    process = start(folder)
    wait_for(folder, count // 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = journalled(folder)
    with open(folder / "out.parquet.rows", "ab") as file:
        file.write(b'{"source": "torn')  # as if it had been writing
    time.sleep(5)  # Ray's processes notice
    refused = start(folder)
    assert "did not finish; continue it with --resume" in refused.communicate()[1] and refused.returncode == 2
    result = finished(start(folder, "--resume"), 0)
    check(rows(folder), count, [])
    assert not (folder / "out.parquet.rows").exists()
    return {"rows": result["rows"], "kept by the journal": kept, "seconds of the rest": result["seconds"]}


def deadly_pictures(folder: Path, count: int) -> dict[str, Any]:
    make_pictures(folder / "pictures", count, (240, 320))
    (folder / "deadly.py").write_text(DEADLY)
    wrong = [f"{index:05}.jpg" for index in (7, 8, count // 2)]
    for name in wrong:
        with open(folder / "pictures" / name, "ab") as file:
            file.write(POISON)
    (folder / "pictures" / "zz.jpg").write_bytes(b"no picture")
    result = finished(start(folder, "--import", folder / "deadly.py"), 1)
    found = rows(folder)
    check(found, count + 1, [*wrong, "zz.jpg"])
    assert sum("ended at this picture" in (row["error"] or "") for row in found) == len(wrong)
    return {"rows": result["rows"], "errors": result["errors"], "seconds": result["seconds"]}


def several_gpus(folder: Path, count: int) -> dict[str, Any]:
    """Two of four GPUs, which the CPU plays: each worker sees one of them, as its first, and rows are those of one."""
    make_pictures(folder / "pictures", count, (240, 320))
    (folder / "four.py").write_text(FOUR_GPUS)
    found = {}
    for device in ("1", "3,1"):
        finished(start(folder, "--import", folder / "four.py", "--device", device), 0)
        found[device] = rows(folder), {name.name.partition(".")[0] for name in folder.glob("*.0.*.seen")}
        for name in folder.glob("*.seen"):
            name.unlink()
    assert found["1"][0] == found["3,1"][0] and len(found["1"][0]) == count
    assert (found["1"][1], found["3,1"][1]) == ({"1"}, {"1", "3"})
    refused = start(folder, "--import", folder / "four.py", "--device", "1,4")
    assert "there is no gpu:4" in refused.communicate()[1] and refused.returncode == 2
    return {"rows": count}


def all_kinds_of_sources(folder: Path) -> dict[str, Any]:
    """A list, an address with a scheme, and Parquet files with bytes, structs and addresses give the same results."""
    make_pictures(folder / "pictures", 5, (60, 80))
    files = sorted(map(str, (folder / "pictures").iterdir()))
    data = [Path(name).read_bytes() for name in files]
    (folder / "list.txt").write_text("\n".join([*files, f"{folder}/gone.jpg", ""]))
    tables = {"bytes": data, "structs": [{"bytes": one, "path": None} for one in data], "names": files}
    for name, column in tables.items():
        table = pyarrow.table({"label": range(5), "picture": [*column]})
        parquet.write_table(table, folder / f"{name}.parquet", row_group_size=2)
    found = {}
    for source, more in (
        (folder / "pictures", ()),
        (folder / "list.txt", ()),
        (f"file://{folder}/pictures", ()),
        (folder / "bytes.parquet", ()),
        (f"file://{folder}/structs.parquet", ()),
        (folder / "names.parquet", ("--column", "picture")),
    ):
        status = 1 if source == folder / "list.txt" else 0
        finished(start(folder, *more, sources=[source]), status)
        table = rows(folder)
        found[str(source)] = [row["result"] for row in table if not row["error"]]
        assert [row["source"] for row in table if row["error"]] == [f"{folder}/gone.jpg"] * status
    assert len({tuple(results) for results in found.values()}) == 1 and len(found) == 6
    return {"kinds": len(found)}


def pool_worker(work: Work) -> None:
    global worker
    worker = Worker(work)


def pool_rows(addresses: list[str]) -> int:
    return len(worker.rows(addresses))


def against_a_pool(folder: Path, count: int) -> dict[str, Any]:
    """Pictures a second of yolov8n at 1080p, of Ray's workers and of a pool of as many processes, start-up apart."""
    from zoo import batch

    make_pictures(folder / "pictures", count, (1080, 1920))
    addresses = sorted(map(str, (folder / "pictures").iterdir()))
    load = {"source": "yolov8n", "weights": "random", "device": "cpu", "threads": 1}
    work = Work(load, {}, str(folder))
    batch.BLOCK = 8  # many, so that the first ones, whose start is not seen, count little
    blocks = [addresses[start : start + batch.BLOCK] for start in range(0, count, batch.BLOCK)]
    with ProcessPoolExecutor(WORKERS, initializer=pool_worker, initargs=(work,)) as pool:
        list(pool.map(pool_rows, [[addresses[0]]] * WORKERS))  # all have loaded
        started = time.perf_counter()
        assert sum(pool.map(pool_rows, blocks)) == count
        alone = count / (time.perf_counter() - started)
    with batch._ray(WORKERS, "cpu", ()) as share:
        found, times = 0, []
        for part in batch._blocks(addresses, work, share):
            found += len(part)
            times.append((time.perf_counter(), len(part)))
    assert found == count
    rate = (count - sum(size for _, size in times[:WORKERS])) / (times[-1][0] - times[WORKERS - 1][0])
    return {"pool": round(alone, 2), "Ray": round(rate, 2)}


def main(count: int = 800) -> None:
    figures: dict[str, Any] = {"pictures": count, "cores": os.cpu_count(), "workers": WORKERS}
    with tempfile.TemporaryDirectory() as name:
        for scenario in (several_gpus, killed_worker, killed_command, deadly_pictures):
            folder = Path(name) / scenario.__name__
            folder.mkdir()
            figures[scenario.__name__] = scenario(folder, count)
        (Path(name) / "kinds").mkdir()
        figures["sources"] = all_kinds_of_sources(Path(name) / "kinds")
        (Path(name) / "pool").mkdir()
        figures["pictures/s, yolov8n at 1080p"] = against_a_pool(Path(name) / "pool", max(count // 5, 64))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
