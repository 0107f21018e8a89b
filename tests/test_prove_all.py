"""What docs/models.md is made of: a network's hash, and how lines of code are counted."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import prove_all
import pytest
from figures import code_lines, latency_on_cpu, lines_of_definition

from zoo.registry import get_model
from zoo.trt import Api

LENET = get_model("lenet5")


def test_a_hash_is_of_the_network(rtx: Api) -> None:
    known = prove_all.network_hash(LENET, rtx, (1, 32, 32))
    assert known == prove_all.network_hash(LENET, rtx, (1, 32, 32))
    changed = replace(LENET, config=replace(LENET.config, num_classes=11))
    assert prove_all.network_hash(changed, rtx, (1, 32, 32)) != known


def test_a_row_whose_network_has_changed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rtx: Api
) -> None:
    seen, now = prove_all.read(prove_all.SEEN)["lenet5"], prove_all.network_hash(LENET, rtx, (1, 32, 32))
    for network, status, said in (("0" * 16, 1, f"stale  lenet5: seen {seen['date']}\n"), (now, 0, "")):
        prove_all.write(tmp_path / "seen.jsonl", {"lenet5": {**seen, "network": network}})
        monkeypatch.setattr(
            sys, "argv", ["prove_all.py", "lenet5", "vgg11", "--stale", "--out", str(tmp_path / "seen.jsonl")]
        )
        with pytest.raises(SystemExit) as stopped:
            prove_all.main()
        assert (stopped.value.code, capsys.readouterr().out) == (status, said)


def test_every_row_is_whole_and_passed() -> None:
    rows = [json.loads(line) for line in prove_all.SEEN.read_text("utf-8").splitlines()]
    assert [row["model"] for row in rows] == sorted({row["model"] for row in rows})
    for row in rows:
        assert prove_all.passed(row), row["model"]
        assert all(0 <= row[precision]["share"] <= 1 for precision in ("fp32", "fp16")), row["model"]
        assert row["lines"]["ours"] > 0, row["model"]


def test_lines_hold_code(rtx: Api) -> None:
    source = '''
    def build(net):
        """What it does,
        in two lines."""

        # why
        text = """a
        b"""
        return (
            text
        )
    '''
    assert code_lines(source) == 6
    assert lines_of_definition(LENET, rtx) == 17  # the file's Config and decorator write no layer


def test_a_latency_is_of_the_published_size() -> None:
    assert 0 < (latency_on_cpu(LENET) or 0) < 100
