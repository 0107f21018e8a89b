"""zoo.demo without its page: answers, and what is refused.

`test_the_page` uses the page in Chromium where ZOO_DEMO_PYTHON names an interpreter that has gradio and websockets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from zoo import demo, load
from zoo.errors import ZooError
from zoo.tasks import get_task

ROOT = Path(__file__).parent.parent
DIGIT = ROOT / "samples" / "digit_7.png"


def test_an_answer_is_what_the_session_says() -> None:
    picture = cv2.imread(str(DIGIT))
    picture[:40, :40] = (200, 0, 0)  # blue: the page's pictures are RGB
    drawn, found, times, source = demo.Models(None, None, "cpu").answer("lenet5", picture[..., ::-1])
    with load("lenet5", device="cpu") as session:
        wanted = session.predict(picture)
    task = get_task("classify")
    assert found.splitlines() == task.describe(wanted)
    assert np.array_equal(drawn[..., ::-1], task.draw(picture, wanted))
    assert [line.split()[-1] for line in times.splitlines()[:4]] == [
        *("preprocess", "inference", "postprocess", "altogether")
    ]
    assert source == (ROOT / "zoo" / "models" / "lenet5.py").read_text()


def test_few_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LOADED", 1)
    models = demo.Models("random", (64, 64), "cpu")
    picture = np.zeros((8, 8, 3), np.uint8)
    models.answer("shufflenet_v2_x0_5", picture)
    first = models._loaded["shufflenet_v2_x0_5"]
    models.answer("mobilenet_v3_small", picture)
    assert list(models._loaded) == ["mobilenet_v3_small"]
    with pytest.raises(ZooError, match="closed"):
        first(np.zeros((1, 3, 64, 64), np.float32))


def test_the_models_of_the_page_are_those_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet18.wts").touch()
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    assert {"lenet5", "resnet18"} <= set(demo.available()) and "resnet34" not in demo.available()


def test_weights_are_of_one_model() -> None:
    with pytest.raises(ZooError, match="--weights is for one model, and the page would have 2"):
        demo.run(["lenet5", "resnet18"], weights="random")


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ZooError, match=r'pip install "tensorrt-zoo\[demo\]"'):
        demo.run(["lenet5"])


def test_the_page() -> None:
    python = os.environ.get("ZOO_DEMO_PYTHON")
    if not python:
        pytest.skip("ZOO_DEMO_PYTHON names no interpreter that has gradio, whose page is used in Chromium")
    command = [python, ROOT / "tests" / "demo_page.py"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
