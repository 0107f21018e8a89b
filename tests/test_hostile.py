"""Files whose contents nobody meant well: each is one sentence, and nothing in them commands the terminal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.labels import given_names
from zoo.weights import load_weights, save_safetensors

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


# Weights and names


@pytest.mark.parametrize("name", ["\\ud800", "NaN"])
def test_headers_that_are_no_json_are_refused_as_the_library_does(tmp_path: Path, name: str) -> None:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = f'{{"{name}":{entry}}}' if name != "NaN" else f'{{"a":{entry},"__metadata__":{{"b":NaN}}}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(ZooError, match="its header is not JSON"):
        load_weights(tmp_path / "w.safetensors")


def test_names_that_are_no_text_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"text in UTF-8, which \\ud800 is not"):
        save_safetensors(tmp_path / "w.safetensors", {"\ud800": X})
    assert not list(tmp_path.iterdir())


def test_a_path_with_a_zero_byte_is_one_sentence() -> None:
    with pytest.raises(ZooError, match="cannot read the weights file"):
        load_weights("a\0b.wts")


def test_names_of_classes_are_a_file_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcat\r\n\r\n dog \n".encode())
    assert given_names(str(path)) == given_names("cat,dog") == ["cat", "dog"]
    assert given_names("0,1") == ["0", "1"]
    assert given_names("x" * 5000) == ["x" * 5000]  # longer than a path may be
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(ZooError, match="text file in UTF-8"):
        given_names(str(path))
    for nothing in ("", " , ", "\n"):
        with pytest.raises(ZooError, match="holds no name"):
            given_names(nothing)


# Mutated files


def test_mutated_files_of_every_format_are_taken_or_refused() -> None:
    """The many of them are tried by `python tests/fuzz.py`, as these are."""
    command = [sys.executable, "tests/fuzz.py", "--count", "2000"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "all: 2,000 inputs" in result.stdout, result.stdout + result.stderr


def test_threads_that_share_a_session_get_their_own_answers() -> None:
    """A thousand calls each, and kills at any time, are tried by `python tests/endure.py`."""
    command = [sys.executable, "tests/endure.py", "--kills", "0", "--threads", "24", "--calls", "50"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "0 differ" in result.stdout, result.stdout + result.stderr
