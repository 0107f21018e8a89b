"""Other people's models and references: packages that bring them by entry points, and a file named by --import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo import discovery
from zoo.cli import imports

ROOT = Path(__file__).parent.parent
Zoo = Callable[..., subprocess.CompletedProcess[str]]

MODEL = """
from dataclasses import dataclass

from zoo.ops import conv2d, flatten, global_avg_pool, linear, relu
from zoo.preprocess import imagenet
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    num_classes: int = 10


@register(
    task="classify", reference="extra:{name}", preprocess=imagenet(size=32), paper="https://example.org",
    configure=classes_from("fc.bias"), tinynet=Variant(Config(), params=314, aliases=("tiny",)),
)
def build(net, x, cfg):
    x = relu(net / "relu", conv2d(net / "conv", x, 8, 3, 2))
    return linear(net / "fc", flatten(net, global_avg_pool(net / "pool", x)), cfg.num_classes)
"""
REFERENCE = """
from zoo.verify.references import Library


class Extra(Library):
    name = "extra"
    package = "torch"
    install = "pip install torch"

    def names(self):
        return ["tinynet"]

    def load(self, name, classes):
        from torch import nn

        class TinyNet(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.relu = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
                self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, classes or 10)

            def forward(self, x):
                return self.fc(self.pool(self.relu(self.conv(x))).flatten(1))

        return TinyNet()


LIBRARY = Extra()
"""
TASK = """
from zoo.tasks.classify import Classify


class Guess(Classify):
    name = "guess"
"""
PLUGIN = """
from dataclasses import dataclass

from zoo.ops import add
from zoo.plugins.core.op import Op


@dataclass(frozen=True)
class Twice(Op):
    name, version, reference = "twice", 3, "torch.add"
    inputs, outputs = ("x",), ("y",)

    def shapes(self, x):
        return (tuple(x[axis] for axis in range(4)),)

    def native(self, net, x):
        return add(net, x, x)
"""
BROKEN = "import a_package_that_nobody_has"


def install(folder: Path, package: str, modules: dict[str, str], entry_points: str) -> None:
    """What `pip install --target folder` leaves behind of a package."""
    code, about = folder / package.replace("-", "_"), folder / f"{package.replace('-', '_')}-1.2.dist-info"
    code.mkdir(parents=True)
    about.mkdir()
    for name, source in {"__init__": "", **modules}.items():
        (code / f"{name}.py").write_text(source, encoding="utf-8")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(entry_points, encoding="utf-8")


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """`zoo("list", …)`: a command in an environment that has the packages in tmp_path/site as well."""

    def zoo(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}", "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", f"zoo.{command}", *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return zoo


@pytest.fixture
def extra(tmp_path: Path) -> None:
    groups = "[zoo.models]\ntinynet = zoo_extra.net\n\n[zoo.references]\nextra = zoo_extra.reference\n"
    install(tmp_path / "site", "zoo-extra", {"net": MODEL, "reference": REFERENCE}, groups)


# Packages


@pytest.mark.usefixtures("extra")
def test_a_package_brings_a_model_and_its_reference(zoo: Zoo) -> None:
    (row,) = json.loads(zoo("list", "tinynet", "--json").stdout)
    assert (row["name"], row["parameters"], row["input"], row["aliases"]) == ("tinynet", 314, [3, 32, 32], ["tiny"])
    built = zoo("build", "tiny", "--weights", "random", "--dry-run")
    assert built.returncode == 0 and "defined model tinynet" in built.stdout
    proven = zoo("verify", "tinynet")
    assert proven.returncode == 0 and "PASSED" in proven.stdout, proven.stdout + proven.stderr


def test_a_package_brings_something_of_each_group(zoo: Zoo, tmp_path: Path) -> None:
    """Each is found by the one entry point of its group: the model needs the task, the proof the reference."""
    modules = {"net": MODEL.replace('"classify"', '"guess"'), "reference": REFERENCE, "task": TASK, "plugin": PLUGIN}
    groups = {"models": "net", "references": "reference", "tasks": "task", "plugins": "plugin"}
    points = "".join(f"[zoo.{group}]\none = zoo_all.{module}\n\n" for group, module in groups.items())
    install(tmp_path / "site", "zoo-all", modules, points)
    (row,) = json.loads(zoo("list", "--task", "guess", "--json").stdout)
    assert row["name"] == "tinynet"
    assert "extra:tinynet: 314 parameters" in zoo("verify.references", "extra:tinynet").stdout
    ops = {row["op"]: row for row in json.loads(zoo("plugins", "list", "--json").stdout)["ops"]}
    assert ops["twice"]["implementations"] == {"native": None}


@pytest.mark.usefixtures("extra")
def test_a_broken_package_is_named_and_the_rest_works(zoo: Zoo, tmp_path: Path) -> None:
    groups = "[zoo.models]\nbroken = zoo_broken.net\n\n[zoo.tasks]\nbroken = zoo_broken.net\n\n"
    install(tmp_path / "site", "zoo-broken", {"net": BROKEN}, f"{groups}[zoo.references]\nb = zoo_broken.net:LIBRARY\n")
    words = r"the package zoo-broken 1.2 cannot be loaded (zoo.models, zoo_broken.net): ModuleNotFoundError: No module"

    listed = zoo("list", "t*n*t")
    assert listed.returncode == 0 and "tinynet" in listed.stdout
    assert any(line.startswith(f"warning: {words}") for line in listed.stderr.splitlines())
    assert "Traceback" not in listed.stderr

    refused = zoo("build", "brokennet", "--weights", "random", "--dry-run")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: no model is named 'brokennet'")
    assert f"; {words} named 'a_package_that_nobody_has'" in refused.stderr.splitlines()[-1]

    refused = zoo("list", "--task", "broken")
    assert refused.returncode == 2 and "(zoo.tasks, zoo_broken.net): ModuleNotFoundError" in refused.stderr

    refused = zoo("verify.references", "b:net")
    assert refused.returncode == 2 and "(zoo.references, zoo_broken.net:LIBRARY)" in refused.stderr.splitlines()[-1]


def test_a_package_may_not_take_a_name(zoo: Zoo, tmp_path: Path) -> None:
    thief = MODEL.replace("tinynet=", "resnet18=")
    install(tmp_path / "site", "zoo-thief", {"net": thief}, "[zoo.models]\nt = zoo_thief.net\n")
    listed = zoo("list", "resnet18", "--json")
    assert {row["name"]: row["parameters"] for row in json.loads(listed.stdout)}["resnet18"] == 11_689_512
    assert "two models are named 'resnet18': in zoo.models.resnet and in zoo_thief.net" in listed.stderr


# Plugins


def plugins(zoo: Zoo, *arguments: object) -> dict[str, dict[str, object]]:
    """The custom ops that the command lists."""
    listed = zoo("plugins", "list", "--json", *arguments)
    assert listed.returncode == 0, listed.stderr
    return {row["op"]: row for row in json.loads(listed.stdout)["ops"]}


def test_a_package_or_a_file_brings_a_plugin(zoo: Zoo, tmp_path: Path) -> None:
    assert "twice" not in plugins(zoo)
    file = tmp_path / "twice.py"
    file.write_text(PLUGIN, encoding="utf-8")
    found = plugins(zoo, "--import", file)
    install(tmp_path / "site", "zoo-twice", {"op": PLUGIN}, "[zoo.plugins]\nt = zoo_twice.op\n")
    assert found == plugins(zoo) and {"nms", "twice"} <= found.keys()
    assert (found["twice"]["version"], found["twice"]["implementations"]) == (3, {"native": None})


def test_a_package_may_not_take_the_name_of_a_plugin(zoo: Zoo, tmp_path: Path) -> None:
    thief = PLUGIN.replace('"twice"', '"nms"')
    install(tmp_path / "site", "zoo-thief", {"op": thief}, "[zoo.plugins]\nt = zoo_thief.op\n")
    listed = zoo("plugins", "list")
    assert listed.returncode == 0 and "nms 2: ultralytics" in listed.stdout
    words = "warning: the package zoo-thief 1.2 cannot be loaded (zoo.plugins, zoo_thief.op): ValueError: two plugins"
    assert listed.stderr.startswith(f"{words} are named 'nms': in zoo.plugins.nms and in zoo_thief.op")


# A file


def test_a_file_brings_a_model_and_its_reference(zoo: Zoo, tmp_path: Path) -> None:
    file = tmp_path / "my net.py"
    file.write_text(MODEL + REFERENCE, encoding="utf-8")
    assert "no model is named 'tinynet'" in zoo("verify", "tinynet").stderr
    proven = zoo("verify", "tinynet", "--import", file)
    assert proven.returncode == 0 and "PASSED" in proven.stdout, proven.stdout + proven.stderr
    assert "tinynet" in zoo("list", f"--import={file}", "--import", file).stdout


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import sys\nraise OSError('no\\ndisk')", "net.py, line 2, cannot be imported: OSError: no disk"),
        ("def f(:", r"net.py cannot be imported: SyntaxError: invalid syntax \(net.py, line 1\)"),
        (MODEL.replace("tinynet=", "vgg11="), "two models are named 'vgg11': in zoo.models.vgg and in .*/net.py"),
        (MODEL.replace('"classify"', '"clasify"'), "No task is called 'clasify'; .*closest: classify"),
        (None, "net.py cannot be imported; give a Python file"),
    ],
)
def test_a_file_that_fails_is_told_in_a_sentence(zoo: Zoo, tmp_path: Path, source: str | None, words: str) -> None:
    if source is not None:
        (tmp_path / "net.py").write_text(source, encoding="utf-8")
    listed = zoo("list", "--import", "net.py")
    assert listed.returncode == 2 and listed.stdout == ""
    assert len(listed.stderr.splitlines()) == 1 and listed.stderr.startswith("error: ")
    assert re.search(words, listed.stderr), listed.stderr


def test_files_are_read_off_the_command_line() -> None:
    words = ["resnet18", "--import", "a.py", "--size", "64", "--import=b.py", "--", "--import", "c.py"]
    assert list(imports(words)) == [Path("a.py"), Path("b.py")]
    assert list(imports(["--import"])) == []


# Our own


def test_a_group_is_its_files_without_their_helpers() -> None:
    for group, folder in discovery.FOLDERS.items():
        files = {path.stem for path in ROOT.joinpath(*folder.split(".")).glob("[!_]*.py")}
        assert {module.__name__.rpartition(".")[2] for module in discovery.load(group)} == files
