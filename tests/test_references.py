"""The libraries of references: addresses of weights that stay true, and what happens where a library is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.verify.references import PYTORCH, published
from zoo.verify.torchvision_shim import import_torchvision

ROOT = Path(__file__).resolve().parent.parent


def test_torchvisions_addresses_are_those_of_its_own_table() -> None:
    """Its first ImageNet weights, for every classifier that has them and for no other but ViT-H/14."""
    models = import_torchvision().models
    for name in models.list_models(module=models):
        trained = "IMAGENET1K_SWAG_LINEAR_V1" if name == "vit_h_14" else "IMAGENET1K_V1"
        weights = getattr(models.get_model_weights(name), trained, None)
        if weights is None:
            with pytest.raises(ZooError, match="publishes no weights"):
                published(f"torchvision:{name}")
            continue
        found = published(f"torchvision:{name}")
        assert found.url == weights.url
        assert found.sha256 and weights.url.endswith(f"-{found.sha256}.pth")


# A missing library

TESTS = """
import sys

sys.modules["ultralytics"] = sys.modules["nobodys"] = None  # as if they were not installed
import pytest
from zoo.verify.references import load_reference


def test_proof():
    load_reference("ultralytics:yolov8n")


def test_import():
    pytest.importorskip("ultralytics.nn")


def test_another_library():
    pytest.importorskip("nobodys")


def test_another_skip():
    pytest.skip("as it should")
"""
MODULE = TESTS.partition("from zoo")[0] + "pytest.importorskip('ultralytics')\n"


def outcomes(folder: Path, **environment: str) -> tuple[dict[str, str], str]:
    """What these tests come to under tests/conftest.py, and the summary's lines."""
    (folder / "test_each.py").write_text(TESTS, encoding="utf-8")
    (folder / "test_module.py").write_text(MODULE, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-rA", "-vv"]
        + ["--continue-on-collection-errors"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "COLUMNS": "250", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    words = re.findall(r"^test_each.py::test_(\w+) (PASSED|FAILED|SKIPPED)", result.stdout, re.MULTILINE)
    return dict(words), result.stdout


def test_what_a_missing_library_proves_fails(tmp_path: Path) -> None:
    found, text = outcomes(tmp_path, ZOO_WITHOUT_REFERENCES="")
    assert found == {"proof": "FAILED", "import": "FAILED", "another_library": "FAILED", "another_skip": "SKIPPED"}
    assert f"ultralytics need the package 'ultralytics', which is missing: {PYTORCH}" in text
    assert "could not import 'ultralytics.nn'" in text and "bash scripts/test.sh installs it" in text
    assert "ERROR test_module.py" in text


def test_what_a_missing_library_proves_may_be_left_out_by_name(tmp_path: Path) -> None:
    found, text = outcomes(tmp_path, ZOO_WITHOUT_REFERENCES="1")
    assert found == {"proof": "SKIPPED", "import": "SKIPPED", "another_library": "FAILED", "another_skip": "SKIPPED"}
    assert text.count("not proven, ") >= 3
    assert "ERROR" not in text
