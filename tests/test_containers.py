"""The container files: what they say agrees with the project. None is built here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from zoo.formats.triton import CONTAINERS

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


@pytest.fixture
def service() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["triton"]


def test_compose_builds_what_the_dockerfile_has(service: dict[str, Any]) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert service["build"]["target"] in stages and (ROOT / service["build"]["dockerfile"]).is_file()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))
    assert service["build"]["args"] == {"TRITON": f"${{TRITON:-{arguments['TRITON']}}}"}
    assert f"nvcr.io/nvidia/tritonserver:{arguments['TRITON']}-py3" in dict(CONTAINERS.values())
    used = set(re.findall(r"\$\{(\w+)\}", DOCKERFILE))
    assert used == arguments.keys()


def test_what_the_image_installs_is_not_left_out_of_it() -> None:
    kept = set(re.findall(r"^!(\S+)$", (ROOT / "docker" / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text()
    assert {"zoo", "pyproject.toml", "constraints.txt"} <= kept and all((ROOT / name).exists() for name in kept)
    assert re.search(r'readme = "(\S+)"', project)[1] in kept  # type: ignore[index]
    for extra in re.findall(r"/opt/zoo\[(\w+)\]", DOCKERFILE):
        assert re.search(rf"^{extra} = ", project, re.MULTILINE)


def test_health_is_asked_as_the_page_says(service: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    command = re.search(r"^curl .*?'$", page, re.MULTILINE | re.DOTALL)[0]  # type: ignore[index]
    said, asked = shlex.split(command.replace("\\\n", "")), service["healthcheck"]["test"][1:]
    assert said[:2] == asked[:2] and said[-2:] == asked[-2:]
    assert json.loads(asked[-1])["inputs"][0]["name"] == "picture"


def test_contributors_get_the_test_environment() -> None:
    said = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / said["postCreateCommand"].split()[1]).is_file()
    assert said["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"] == ".venv-test/bin/python"
