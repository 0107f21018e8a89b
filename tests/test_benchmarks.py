"""The programs in benchmarks/ that need no GPU: tables and the picture of what was measured on one."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "tests" / "data" / "gpu.jsonl"  # a few records of a run on an H200
OUTSIDE = sorted(path for folder in ("benchmarks", "scripts", "tests/gpu") for path in (ROOT / folder).glob("*.py"))


def program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_tables_of_what_was_measured() -> None:
    done = program("gpu.py", "--report", MEASURED)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "| " in line]
    table = {tuple(row[:3]): dict(zip(rows[0], row)) for row in rows}
    row = table["vit_b_16", "fp16", "32"]
    assert (row["ours ms"], row["onnx ms"], row["ours / onnx"]) == ("3.7338", "5.1722", "0.722")
    assert (row["graphed ms"], row["ours / graphed"], row["frozen ms"]) == ("3.1928", "1.169", "3.2115")
    unasked = table["resnet50", "tf32", "1"]  # eager and frozen did not take part there, and did not fail
    assert (unasked["torch ms"], unasked["frozen ms"], unasked["graphed ms"]) == ("", "", "0.5052")
    causes = {row[0]: row[1] for row in rows if len(row) == 2}
    assert float(causes["the whole, as one CUDA graph"]) == 1.0824
    assert float(causes["between layers, tensors go through memory"]) == 0.2037


def test_the_picture_of_what_was_measured(tmp_path: Path) -> None:
    picture = tmp_path / "new" / "latency.svg"
    done = program("chart.py", MEASURED, "-o", picture)
    assert done.returncode == 0, done.stderr
    svg = "{http://www.w3.org/2000/svg}"
    drawn = ElementTree.parse(picture).iter(f"{svg}rect")
    bars = {bar.findtext(f"{svg}title"): float(bar.get("width", "0")) for bar in drawn}
    eager, ours = bars["vit_b_16, batch 32, eager PyTorch: 1.00 x"], bars["vit_b_16, batch 32, zoo: 0.87 x"]
    assert abs(ours / eager - 3.2450 / 3.7338) < 0.01
    assert sum(title is not None for title in bars) == 8  # two batch sizes, four contestants; TF32 is another picture
    assert "NVIDIA H200, TensorRT 8.6.0, PyTorch 2.11.0" in picture.read_text()


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    records = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    (tmp_path / "alone.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records if r.get("name") != "torch"))
    for arguments, words in (
        ((tmp_path / "alone.jsonl",), "no row in fp16 with batch [1, 32] has a time of eager PyTorch"),
        ((tmp_path / "nothing.jsonl",), "nothing.jsonl"),
    ):
        done = program("chart.py", *arguments, "-o", tmp_path / "x.svg")
        assert done.returncode == 2 and done.stderr.startswith("error: ") and words in done.stderr
        assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_not_run_here_asks_for_names_that_are_there(path: Path) -> None:
    """Benchmarks, scripts and the tests for a GPU run seldom: what they import of the zoo may have moved meanwhile."""
    lost = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "zoo":
            module = importlib.import_module(node.module)
            names = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            lost += [name for name in names if importlib.util.find_spec(f"{node.module}.{name}") is None]
    assert lost == []
