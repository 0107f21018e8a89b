"""The contract of sessions on a real GPU: the cases that run without one too, and what README shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from session_contract import *  # noqa: F403  the cases
from session_contract import Subject

import zoo
from zoo.runtime.engines import MOST_AT_ONCE
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api

from .conftest import SmallNet

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(params=[{}, {"graphs": False}, {"contexts": 3}], ids=["graphs", "no graphs", "3 contexts"])
def subject(request: pytest.FixtureRequest, api: Api, net: SmallNet) -> Subject:
    return Subject(lambda: GpuSession(net.plan, api=api, **request.param), net, net.shape)


def test_what_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shown = re.search(r"^with zoo\.load.*?(?=^```)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    exec(shown[0], {"zoo": zoo, "np": np})


def test_a_name_takes_any_number_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zoo.load("lenet5", device="cpu") as on_cpu, zoo.load("lenet5", device="gpu", level=0) as session:
        for count in (1, MOST_AT_ONCE, 2 * MOST_AT_ONCE + 5):
            x = np.random.default_rng(count).standard_normal((count, 1, 32, 32), np.float32)
            want = on_cpu(x)["logits"]
            for found in (session(x), session.submit({"images": x}).result()):
                np.testing.assert_allclose(found["logits"], want, rtol=1e-3, atol=1e-3)
