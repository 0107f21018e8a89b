"""Files whose contents nobody meant well: each is one sentence, and nothing in them commands the terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.weights import save_safetensors

ROOT = Path(__file__).resolve().parent.parent
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"
X = np.zeros((2, 1, 32, 32), np.float32)
Y = np.ones((2, 10), np.float32)
GOLDEN = {"images": X, "float32/logits": Y, "float64/logits": Y.astype(np.float64)}


def verify(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo.verify", "lenet5", "--golden", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def golden(path: Path, without: str = "", **changed: Any) -> Path:
    arrays = {name: array for name, array in {**GOLDEN, **changed}.items() if name != without}
    save_safetensors(path, arrays, {"format": "zoo golden 1", "model": "lenet5"})
    return path


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"float32/logits": Y[:1]}, "differ between fp32 and fp64"),
        ({"without": "float32/logits"}, "differ between fp32 and fp64"),
        ({"without": "float64/logits"}, "differ between fp32 and fp64"),
        ({"float32/tap/conv1": Y, "float64/tap/conv1": Y[:1]}, "layers in .* differ between"),
        ({"float64/tap/conv1": Y}, "layers in .* differ between"),
        ({"images": np.zeros((), np.float32)}, r"images in .* are float32 \(\)"),
        ({"images": X[:0]}, "images in .* are"),
        ({"images": X[None]}, "images in .* are"),
        ({"images": X.astype(np.int64)}, "images in .* are int64"),
    ],
)
def test_golden_files_are_refused_by_what_is_wrong(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    from zoo.errors import ZooError
    from zoo.verify.golden import load_golden

    path = golden(tmp_path / "g.safetensors", **changed)
    with pytest.raises(ZooError, match=said):
        load_golden(path, "lenet5")


def test_a_golden_file_that_is_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    result = verify(tmp_path, ".")
    assert result.returncode == 2 and "is a folder; name the file in it" in result.stderr


def test_names_in_golden_files_are_neither_markup_nor_commands(tmp_path: Path) -> None:
    names = ("[/x]", "[link=http://evil]click[/link]", "\x1b[31mred", "tap/[/y]")
    more = {f"{precision}/{name}": Y for name in names for precision in ("float32", "float64")}
    folder = tmp_path / "[" / "bold]"
    folder.mkdir(parents=True)
    weights = Path(shutil.copy(LENET, folder / "[red]w.safetensors"))
    result = verify(tmp_path, golden(folder / "g.safetensors", **more), "--weights", weights, "--layers")
    shown = result.stdout.replace("\n", "")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert "[red]w.safetensors" in shown and "[/x]" in shown and "[link=http://evil]click" in shown
    assert "\\x1b[31mred" in shown and "\x1b" not in result.stdout + result.stderr
