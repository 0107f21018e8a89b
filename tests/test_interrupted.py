"""Ctrl-C before a command's own code runs: while its imports do, in each place where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What stands in for a package, so that Ctrl-C comes there each time.
PLAIN = "raise KeyboardInterrupt\n"
IN_A_STRING = 'exec("raise KeyboardInterrupt")\n'  # as in the code of a dataclass: CPython keeps a note of such a one
IN_A_BINDING = 'raise ImportError("initialization failed") from KeyboardInterrupt()\n'  # what pybind11 makes of it


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("typer", PLAIN),
        ("typer", IN_A_STRING),
        ("numpy", PLAIN),
        ("pydantic", PLAIN),  # typer asks for it when it reads the arguments
        ("tensorrt_rtx", PLAIN),
        ("tensorrt_rtx", IN_A_STRING),
        ("tensorrt_rtx", IN_A_BINDING),
    ],
)
def test_stopped_in_an_import(package: str, code: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text(code)
    result = subprocess.run(
        [sys.executable, "-m", "zoo.export", "lenet5", "-o", "lenet5.onnx"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "error: stopped\n")


def test_programs_that_import_the_zoo_keep_their_own_way(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import zoo; raise KeyboardInterrupt"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.stderr.endswith("KeyboardInterrupt\n") and "stopped" not in result.stderr
