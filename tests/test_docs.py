"""The documents hold: their commands run and print what they show, their Python runs, their links and tables are right.

Blocks marked `console` are run in a copy of the project, one copy for each section that has any: lines that begin with
"$ " are commands, the others must appear in the command's output in this order. Numbers that depend on the machine
(with a decimal point, a percentage, "N x") match any other. A command that shows FAILED must exit with 1, any other
with 0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADDING = ["docs/adding-a-task.md", "docs/adding-a-plugin.md", "docs/adding-a-reference.md"]
PAGES = ["docs/adding-a-model.md", *ADDING, "docs/export.md", "docs/int8.md", "docs/eval.md", "docs/serving.md"]
RUN = ["README.md", "CONTRIBUTING.md", "docs/serving.md"]  # section by section
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *PAGES]
COPIED = ["zoo", "scripts", "samples", "tests", "docs", "pyproject.toml", "constraints.txt", "README.md"]
MAX_PICTURE = 300_000  # bytes


class Instead(NamedTuple):
    """What runs in the place of a command that cannot run as it stands; `error` is what it then must say."""

    command: str | None
    error: str | None
    reason: str


INSTEAD = {
    "bash scripts/test.sh": Instead(
        "bash scripts/test.sh tests/test_registry.py -k alias", None, "these tests would run themselves"
    ),
    "bash scripts/test.sh tests/test_models.py -k resnet50": Instead(
        "bash scripts/test.sh tests/test_registry.py -k alias", None, "ResNet-50 takes half a minute"
    ),
    "pip install -e . -c constraints.txt": Instead(None, None, "scripts/demo.sh does the same"),
    'pip install -e ".[reference]" -c constraints.txt': Instead(None, None, "scripts/test.sh does the same"),
    "python -m zoo.gen_wts resnet50": Instead(
        "python -m zoo.gen_wts resnet50", "could not be downloaded", "tests download nothing: the way out is shut"
    ),
    "python -m zoo.run yolov8n street.jpg --conf 0.4 --save runs/street": Instead(
        "python -m zoo.run yolov8n samples/digit_7.png --conf 0.4 --save runs/street --weights random",
        None,
        "published weights and a photo are the reader's",
    ),
    "python -m zoo.run yolov8n rtsp://camera/stream --frames 500": Instead(None, None, "no camera is here"),
    "ffmpeg -i talk.mkv -f avi -c:v mjpeg - | python -m zoo.run yolov8n - --no-save": Instead(
        None, None, "FFmpeg and the film are the reader's"
    ),
    "python -m zoo.run yolov8n street.jpg --fp16 --device gpu": Instead(
        "python -m zoo.run yolov8n samples/digit_7.png --fp16 --device gpu --weights random",
        "driver|tensorrt",
        "needs a GPU, and says so",
    ),
    "python -m zoo.bench resnet50 --batch 1,32 --precision fp16 --against onnx,torch": Instead(
        "python -m zoo.bench lenet5 --batch 1 --precision fp16 --against torch --rounds 1",
        "driver|tensorrt",
        "needs a GPU, and says so",
    ),
    "python -m zoo.profile resnet50 --fp16 --html profile.html": Instead(
        "python -m zoo.profile lenet5 --fp16 --html profile.html", "driver|tensorrt", "needs a GPU, and says so"
    ),
    "python -m zoo.verify resnet50 --layers --device gpu": Instead(
        "python -m zoo.verify lenet5 --layers --device gpu", "driver|tensorrt", "needs a GPU, and says so"
    ),
}


class Block(NamedTuple):
    section: str
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document, with the title of the section that each stands in."""
    section, found = "", []
    pattern = re.compile(r"^## (?P<title>[^\n]+)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
    for match in pattern.finditer((ROOT / document).read_text(encoding="utf-8")):
        if match["title"]:
            section = match["title"]
        else:
            found.append(Block(section, match["language"], match["text"]))
    return found


# ------------------------------------------------------------------------------------------- a copy of the project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy in which commands may write, with `python` on the path and the virtual environments already made."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name, **{"ignore": ignored} if copy is shutil.copytree else {})
    (tmp_path / "weights").mkdir()
    shutil.copy(ROOT / "weights" / "lenet5.safetensors", tmp_path / "weights")
    for folder in ("bin", ".venv-demo/bin", ".venv-test/bin"):
        python = tmp_path / folder / "python"
        python.parent.mkdir(parents=True)
        python.write_text(
            f'#!/bin/sh\n[ "$2" = pip ] && echo "$@" >> "{tmp_path}/pip.log" && exit\nexec "{sys.executable}" "$@"\n'
        )
        python.chmod(0o755)
    return tmp_path


ignored = shutil.ignore_patterns("__pycache__", "gpu")


def run(command: str, project: Path) -> subprocess.CompletedProcess[str]:
    """A shell command in the copy; what it prints on stdout and stderr comes as one text. The network is shut."""
    # CI and BUILD_NUMBER make pytest print its summary whole; the pages show it as a terminal does.
    unlike_terminal = ("PYTEST_", "ZOO_", "PYTHON", "CI", "BUILD_NUMBER")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(unlike_terminal)}
    shut = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    own = {
        "PATH": f"{project / 'bin'}:{os.environ['PATH']}",
        "PYTHON": str(project / "bin" / "python"),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "80",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TORCH_HOME": str(project / "cache"),
        "XDG_CACHE_HOME": str(project / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", "-c", command],
        cwd=project,
        env=inherited | shut | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )


# ------------------------------------------------------------------------------------------------------- commands


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines of output shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, [line for line in shown if line.strip() not in ("", "…")]


def general(line: str) -> str:
    """A line of output without what differs between machines."""
    line = re.sub(r"\d[\d,]* x(?= |$)|\d+(\.\d+)+(e[-+]\d+)?%?|\d+%", "#", line)
    return " ".join(line.split())


def check_command(command: str, shown: list[str], project: Path) -> None:
    instead = INSTEAD.get(command, Instead(command, None, ""))
    if instead.command is None:
        return
    result = run(instead.command, project)
    if instead.error and result.returncode == 0:
        return  # here it could run
    if instead.error:
        last = result.stdout.splitlines()[-1]
        assert result.returncode == 2 and re.match(f"error: .*({instead.error})", last, re.I), result.stdout
        return
    assert result.returncode == any(line.startswith("FAILED") for line in shown), f"{command}\n{result.stdout}"
    output = iter(map(general, result.stdout.splitlines()))
    for line in shown:
        assert general(line) in output, f"{command}\ndoes not print: {line}\nbut:\n{result.stdout}"


@pytest.mark.parametrize(
    ("document", "section"),
    [
        (document, section)
        for document in RUN
        for section in dict.fromkeys(block.section for block in blocks(document) if block.language == "console")
    ],
)
def test_commands(document: str, section: str, project: Path) -> None:
    for block in blocks(document):
        if (block.section, block.language) == (section, "console"):
            for command, shown in commands(block.text):
                check_command(command, shown, project)
                if command.startswith("bash scripts/"):
                    check_installs(project)


def check_installs(project: Path) -> None:
    """The set-up scripts install tested versions: each call names the constraints, or is for one package alone."""
    calls = (project / "pip.log").read_text().splitlines()
    assert calls and all(("-c constraints.txt" in call) != ("--no-deps" in call) for call in calls)


def test_every_exception_is_in_use() -> None:
    found = {cmd for document in DOCUMENTS for block in blocks(document) for cmd, _ in commands(block.text)}
    assert sorted(INSTEAD.keys() - found) == []


# --------------------------------------------------------------------------------------------- the page that is run


def apply(block: Block, project: Path) -> None:
    """Does to the copy what a block shows: a file written or continued, or lines of a file replaced."""
    head, _, body = block.text.partition("\n")
    path = project / re.sub(r"^(#|---) ", "", head)
    if block.language == "diff":
        lines = body.splitlines()
        old = "\n".join(line[1:] for line in lines if line[0] in " -")
        new = "\n".join(line[1:] for line in lines if line[0] in " +")
        source = path.read_text(encoding="utf-8")
        assert source.count(old + "\n") == 1, f"{path.name} has no\n{old}"
        path.write_text(source.replace(old + "\n", new + "\n"), encoding="utf-8")
    else:
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(body)


@pytest.mark.parametrize("last", [False, True], ids=["model", "op"])
def test_adding_a_model(last: bool, project: Path) -> None:
    """The page from top to bottom; its last section stands alone."""
    page = blocks("docs/adding-a-model.md")
    for block in page:
        if (block.section == page[-1].section) != last:
            continue
        if block.language == "console":
            for command, shown in commands(block.text):
                check_command(command, shown, project)
        else:
            apply(block, project)


@pytest.mark.parametrize("page", ADDING)
def test_adding_another_thing(page: str, project: Path) -> None:
    """The page from top to bottom: blocks that name a file write it, the other Python is run."""
    for block in blocks(page):
        if block.language == "console":
            for command, shown in commands(block.text):
                check_command(command, shown, project)
        elif block.language == "diff" or block.text.startswith("# "):
            apply(block, project)
        else:
            (project / "block.py").write_text(block.text, encoding="utf-8")
            result = run("python block.py", project)
            assert result.returncode == 0, result.stdout


def test_what_the_pages_add_is_not_in_the_project() -> None:
    pages = (block.text for page in PAGES for block in blocks(page) if block.text.startswith("# zoo/"))
    added = [text for text in pages if '"""' in text.splitlines()[1]]
    assert len(added) == 6
    assert not [text for text in added if (ROOT / text.splitlines()[0].removeprefix("# ")).exists()]


# -------------------------------------------------------------------------------------------------- what README says


def test_python_blocks(project: Path) -> None:
    for block in blocks("README.md"):
        if block.language == "python" and not block.text.startswith("# zoo/"):
            (project / "block.py").write_text(block.text, encoding="utf-8")
            result = run("python block.py", project)
            assert result.returncode == 0, result.stdout


def test_excerpts_are_the_source() -> None:
    excerpts = [block.text for block in blocks("README.md") if block.text.startswith("# zoo/")]
    assert excerpts
    for text in excerpts:
        path, _, body = text.partition("\n")
        source = (ROOT / path.removeprefix("# ")).read_text(encoding="utf-8")
        for part in body.split("# …"):
            assert part.strip() in source


def test_the_page_of_models_is_the_registry_and_what_was_seen(project: Path) -> None:
    written = project / "docs" / "models.md"
    written.write_text("stale", encoding="utf-8")
    result = run("python scripts/models_page.py", project)
    assert result.returncode == 0, result.stdout
    if written.read_text(encoding="utf-8") != (ROOT / "docs" / "models.md").read_text(encoding="utf-8"):
        pytest.fail("docs/models.md is stale; renew it with: python scripts/models_page.py", pytrace=False)


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/models.md", "docs/from-tensorrtx.md", "weights/README.md"])
def test_links(document: str) -> None:
    path = ROOT / document
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for target in targets:
        file = path.parent / target.partition("#")[0]
        assert file.exists(), f"{document} links to {target}, which is not there"
        if file.suffix in (".png", ".jpg"):
            assert file.stat().st_size < MAX_PICTURE
