"""`python -m zoo.new`: drafts of published models, proven as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import new

ROOT = Path(__file__).resolve().parent.parent
SIZE = (3, 48, 65)


@pytest.mark.parametrize(
    ("reference", "holds"),
    [
        ("torchvision:squeezenet1_1", "for i in range(3, 5):"),
        ("torchvision:shufflenet_v2_x0_5", "channel_shuffle(net.functional, "),
        ("timm:lcnet_050", "activation=hardswish"),
    ],
)
def test_a_draft_is_right_as_it_is_written(reference: str, holds: str, tmp_path: Path) -> None:
    """More than is promised: all weights are used, which `zoo.verify` asks for, and every module agrees."""
    name = f"draft_{reference.partition(':')[2]}"
    text, params = new.draft(name, reference, SIZE)
    assert holds in text and f"{name}=Variant(Config(), params={params:_})" in text
    (tmp_path / f"{name}.py").write_text(text)
    verify = ["-m", "zoo.verify", name, "--layers", "--size", "48x65", "--import", f"{name}.py"]
    result = subprocess.run(
        [sys.executable, *verify],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    agree = re.search(r"PASSED  (\d+) of (\d+) tensors agree", result.stdout)
    assert agree and agree[1] == agree[2] and int(agree[1]) > 50


def test_what_is_not_known_stands_as_a_comment() -> None:
    text, _ = new.draft("windows", "torchvision:swin_t", (3, 64, 64))
    compile(text, "windows.py", "exec")
    assert "    # a function: shifted_window_attention(x, qkv_weight, proj_weight, " in text
    assert max(map(len, text.splitlines())) <= 120


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["zoo.new", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        new.main()
    return int(stop.value.code or 0)


def test_files_stay_and_what_cannot_be_drafted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    alexnet = ("alex", "--reference", "torchvision:alexnet")
    assert run(monkeypatch, *alexnet, "--size", "31") == 2
    said = capsys.readouterr().err
    assert "the reference cannot run on an input of 3x31x31 (" in said and "give another --size" in said
    assert not (tmp_path / "alex.py").exists()
    assert run(monkeypatch, *alexnet, "--size", "64") == 0
    assert "input = [3, 64, 64]" in capsys.readouterr().out
    before = (tmp_path / "alex.py").read_bytes()
    assert run(monkeypatch, *alexnet) == 2
    assert "alex.py exists already" in capsys.readouterr().err and (tmp_path / "alex.py").read_bytes() == before
    assert run(monkeypatch, "Alex-2", "--reference", "torchvision:alexnet") == 2
    assert "'Alex-2' cannot be the name of a model" in capsys.readouterr().err
    assert run(monkeypatch, "alex2", "--reference", "torchvision:alexnt") == 2
    assert "closest: alexnet" in capsys.readouterr().err
