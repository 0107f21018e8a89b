"""The distribution: the wheel holds all that the package needs, and works outside the source tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import zoo
from zoo.discovery import commands

ROOT = Path(__file__).resolve().parent.parent
CODE = (".py", ".cu", ".cpp", ".h", ".map", ".txt", ".safetensors")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the source tree, built with the setuptools that is here."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "zoo", folder / "source" / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    built = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=folder / "source", capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with the wheel in it, as pip installs it, and nothing of the source tree."""
    folder = wheel.with_name("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_what_the_source_tree_holds(wheel: Path) -> None:
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zoo").rglob("*") if path.suffix in CODE}
    with zipfile.ZipFile(wheel) as file:
        assert {name for name in file.namelist() if ".dist-info/" not in name} == ours
    assert wheel.name.startswith(f"tensorrt_zoo-{zoo.__version__}-py3-none-any")


def test_the_installed_package_reads_a_digit(installed: Path, tmp_path: Path) -> None:
    """LeNet-5 with the weights that the wheel brings, by the command that it brings, in a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(tmp_path)}
    script, digit = installed / "bin" / "zoo", ROOT / "samples" / "digit_7.png"
    run = subprocess.run(
        [script, "run", "lenet5", digit, "--device", "cpu"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert f"lenet5 with {installed}/zoo/weights/lenet5.safetensors" in run.stderr and "7 (7)" in run.stdout
    version = subprocess.run([script, "--version"], env=environment, capture_output=True, text=True)
    assert version.stdout == f"tensorrt-zoo {zoo.__version__}\n"


def test_zoo_has_every_command() -> None:
    files = [*(ROOT / "zoo").glob("*.py"), *(ROOT / "zoo").glob("*/__main__.py")]
    found = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in files
        if re.search(r"^main = command\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert commands().keys() == found


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["list", "lenet5"], 0, "lenet5      61,706"),
        (["list", "--nonsense"], 2, "No such option"),
        (["--version"], 0, f"tensorrt-zoo {zoo.__version__}"),
        ([], 0, "  gen_wts   Writes the weights"),
        (["bild"], 2, "error: there is no command 'bild'; closest: build; python -m zoo --help lists them"),
    ],
)
def test_python_m_zoo_is_the_same(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zoo", *words]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == status and said in run.stdout + run.stderr
