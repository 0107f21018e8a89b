"""What an engine's description keeps of its build, of the weights' configuration, and of a proof of its network."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_inspect import edited

from zoo.engine import passport
from zoo.engine.build import build
from zoo.engine.passport import Engine, description_path, load_description, load_engine, plain
from zoo.engine.proofs import provable
from zoo.engine.schema import LATER, check_fields
from zoo.engine.shapes import Shapes
from zoo.errors import ZooError
from zoo.inspect import inspect, to_html
from zoo.quantization import Scales
from zoo.registry import get_model, list_models
from zoo.trt import Api
from zoo.verify.__main__ import run as verify
from zoo.verify.compare import Report, Row
from zoo.verify.proof import Proof
from zoo.verify.report import outcome
from zoo.weights import Weights, from_arrays, load_weights

LENET = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "lenet5.safetensors"
GOOD, BAD = Row("logits", (1, 2), 1e-7, 1e-7, 4e-7), Row("logits", (1, 2), 1.0, 1e-7, 4e-7)


def four_classes() -> Weights:
    """LeNet-5's weights without six of its classes."""
    known = load_weights(LENET)
    arrays = {name: known.read(name, known.shape(name) or ()) for name in known.names()}
    return from_arrays({name: a[:4] if name.startswith("fc3") else a for name, a in arrays.items()}, "four classes")


@pytest.fixture(scope="module")
def built(rtx: Api) -> Engine:
    return build(get_model("lenet5"), load_weights(LENET), rtx, Shapes.static((1, 1, 32, 32)))


@pytest.fixture
def engine(built: Engine, tmp_path: Path) -> Path:
    return built.save(tmp_path / "lenet5.engine")


def test_when_and_how_long_it_was_built(built: Engine, monkeypatch: pytest.MonkeyPatch, rtx: Api) -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", built.description["built"]["date"])
    assert 0 < built.description["built"]["seconds"] < 600
    assert built.description["driver"] is None and built.description["proof"] is None  # no GPU here, nothing proven
    monkeypatch.setattr(passport, "smi", {"driver_version": "580.159"}.get)
    weights = four_classes()
    about = build(get_model("lenet5"), weights, rtx, Shapes.static((1, 1, 32, 32))).description
    assert about["driver"] == "580.159" and about["config"] == {"num_classes": 4}, "what the weights say"
    assert built.description["config"] == {"num_classes": 10}


def test_every_configuration_is_json_that_its_check_takes() -> None:
    wanted, check = LATER["config"]
    for name in list_models():
        config = plain(get_model(name).config)
        assert config is None or check(config), f"{name}: {config} is not {wanted}"


def test_functions_of_a_configuration_are_named() -> None:
    @dataclass(frozen=True)
    class Config:
        act: Any = math.sqrt
        widths: tuple[int, ...] = (1, 2)

    assert plain(Config()) == {"act": "sqrt", "widths": [1, 2]} and plain(None) is None


def test_inspect_shows_them(engine: Path) -> None:
    edited(engine, driver="580.159")
    found = inspect(engine)
    assert found.facts["driver"] == "580.159" and found.facts["config"] == {"num_classes": 10}
    page = to_html(found, "lenet5")
    assert all(f"<dt>{name}</dt>" in page for name in ("driver", "built.date", "built.seconds", "config.num_classes"))


def test_descriptions_of_before_have_none_of_them(engine: Path) -> None:
    path = description_path(engine)
    about = json.loads(path.read_text())
    before = {name: value for name, value in about.items() if name not in ("driver", "built", "proof", "config")}
    path.write_text(json.dumps(before))
    assert load_engine(engine).description == before and "built" not in inspect(engine).facts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("driver", 580), ("driver", "\x1b[2J"), ("built", "today"), ("built", {"date": "today", "seconds": 1}),
        ("built", {"date": "2026-01-31T12:00:00Z", "seconds": -1}), ("built", {"date": "2026-01-31T12:00:00Z"}),
        ("proof", True), ("proof", {"ok": True}), ("config", [1]), ("config", {"a": "\x1b[2J"}),
        ("config", {"a": [[[[[[[[[[[1]]]]]]]]]]]}), ("config", {"\n": 1}),
    ],
)  # fmt: skip
def test_what_they_may_not_be(built: Engine, field: str, value: Any) -> None:
    with pytest.raises(ZooError, match=f"'{field}' in it is .*; it should be ") as error:
        check_fields("it", json.loads(json.dumps(built.description)) | {field: value})
    assert str(error.value).isprintable()


# Proofs


def test_a_proof_is_kept_by_the_engine_that_it_is_of(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        verify("lenet5", weights=str(LENET), engine=engine)
    assert end.value.code == 0 and f"{description_path(engine)}: keeps the outcome" in capsys.readouterr().err
    proof = load_engine(engine).description["proof"]
    assert proof["ok"] and proof["said"].startswith("12 of 12 tensors agree") and proof["date"].endswith("Z")
    assert (proof["executor"], proof["reference"]) == ("onnxruntime on the CPU", get_model("lenet5").reference)
    assert inspect(engine).facts["proof"] == proof


@pytest.mark.parametrize(
    ("report", "also", "ok", "said"),
    [
        (Report([GOOD]), {"fp32": Report([GOOD])}, True, "1 of 1 tensors agree"),
        (Report([BAD]), {"fp32": Report([BAD])}, False, "1 of 1 tensors differ, first at logits"),
        (Report([GOOD]), {"fp32": Report([GOOD]), "8x8": Report([BAD])}, False, "8x8: 1 of 1 tensors differ"),
    ],
)
def test_a_failed_proof_is_kept_too(engine: Path, report: Report, also: dict[str, Report], ok: bool, said: str) -> None:
    found = outcome(Proof("lenet5", "fp32", "w", "the CPU", report, also), "torch:LeNet")
    provable(engine, "lenet5", "fp32", load_weights(LENET), None).note(found)
    proof = load_description(engine)["proof"]
    assert proof["ok"] is ok and proof["said"].startswith(said)


@pytest.mark.parametrize(
    ("given", "fields", "words"),
    [
        (
            {"weights": None},
            {},
            "was built from .*lenet5.safetensors, not from random weights; give these by --weights",
        ),
        ({"weights": four_classes()}, {}, "not from four classes; give these by --weights"),
        ({"precision": "fp16"}, {}, "is of lenet5 in fp32, the proof of lenet5 in fp16"),
        ({"model": "alexnet"}, {}, "is of lenet5 in fp32, the proof of alexnet in fp32"),
        ({}, {"precision": "fp16", "islands": ["conv2"]}, "keeps conv2 in fp32, and no proof is of a part in fp32"),
        ({"precision": "int8"}, {"precision": "int8"}, "was built with other ranges; give its own: --scales .*json"),
    ],
)
def test_a_proof_of_anything_else_is_refused_before_it_is_made(
    engine: Path, given: dict[str, Any], fields: dict[str, Any], words: str
) -> None:
    if fields.get("precision") == "int8":
        fields["scales"] = Scales("lenet5", "0" * 64, {"conv1": 1.0}).to_dict()
    edited(engine, **fields)
    wanted = {"model": "lenet5", "precision": fields.get("precision", "fp32"), "weights": load_weights(LENET)} | given
    with pytest.raises(ZooError, match=words):
        provable(engine, **wanted, scales=None)


def test_an_engine_that_was_replaced_meanwhile_keeps_no_proof(engine: Path) -> None:
    proven = provable(engine, "lenet5", "fp32", load_weights(LENET), None)
    edited(engine, sha256="0" * 64)
    before = description_path(engine).read_bytes()
    with pytest.raises(ZooError, match="was replaced while its network was proven; prove it again"):
        proven.note({"ok": True, "said": "x", "reference": "x", "executor": "x"})
    assert description_path(engine).read_bytes() == before
