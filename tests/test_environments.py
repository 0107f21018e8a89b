"""Libraries of references with an environment of their own: how it is made, and that it changes no result."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from zoo.errors import ZooError
from zoo.verify import install, remote
from zoo.verify.calibration import calibrated, num_parameters, sample_images, state_arrays
from zoo.verify.environments import Environment
from zoo.verify.pretrained import load_state, with_own_module
from zoo.verify.references import Library, MissingLibrary, Reference, load_reference
from zoo.verify.remote import RemoteReference
from zoo.verify.rivals import Worker
from zoo.verify.running import run_reference

ROOT = Path(__file__).resolve().parent.parent
SIZE = (3, 8, 8)

# A library whose network is in a package that only its environment has; the same without one has it from its file.
LIBRARY = """
from torch import nn

from zoo.verify.references import Library


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        if x.shape[2] == 7:
            raise ValueError("seven is\\nno size")
        if x.shape[2] == 6:
            import os
            print("what a library prints")
            os._exit(3)
        return self.fc(self.relu(self.bn(self.conv(x))).mean((2, 3)))


class Small(Library):
    name = package = "small"
    requirements = ("small==1.0",)

    def names(self):
        return ["net"]

    def load(self, name, classes):
        import small

        if name != "net":
            raise self.unknown(name)
        print("a library may print")
        return Net(classes or small.CLASSES)


LIBRARY = Small()
"""


def write_wheel(folder: Path, version: str) -> None:
    about = f"small-{version}.dist-info"
    with zipfile.ZipFile(folder / f"small-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small.py", "CLASSES = 5\n")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: small\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of packages, the only place where pip looks, and one beside it for environments."""
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "1.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        patch.setenv("ZOO_REFERENCES", str(folder / "environments"))
        yield folder


# The environment


def test_an_environment_is_whole_or_not_there(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Environment("small", ("small==1.0",))
    assert not made.ready and not made.entered
    made.make()
    assert made.ready and (made.folder / "small.py").is_file()
    other = Environment("small", ("small==2.0",))
    with pytest.raises(ZooError, match="small cannot be made: pip ended with status 1: ERROR: .*small==2.0"):
        other.make()
    assert made.ready and not other.ready
    assert [path.name for path in made.folder.parent.iterdir()] == ["small"]

    write_wheel(wheels, "2.0")
    other.make()
    assert other.ready and not made.ready and not list(made.folder.glob("small-1.0*"))

    monkeypatch.setattr(subprocess, "run", None)
    other.make()  # which is there already
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(ZooError, match="cannot be made in .*: disk full; set ZOO_REFERENCES to a folder"):
        made.make()


def test_the_command_names_what_it_installs(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = Library()
    library.name, library.requirements = "small", ("small==1.0",)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.verify.references.libraries", lambda: {"small": library, "torch": Library()})
        install.run()
        with pytest.raises(ZooError, match="is called 'smal', expected one of small; closest: small"):
            install.run(["small", "smal"])
    assert capsys.readouterr().out == f"small: {wheels / 'environments' / 'small'}\n"


# References in it


@pytest.fixture(scope="module")
def library(wheels: Path) -> Iterator[Library]:
    """The library, whose references live in the process of its environment."""
    Environment("small", ("small==1.0",)).make()
    file = wheels / "library.py"
    file.write_text(LIBRARY, encoding="utf-8")
    module = ModuleType("library")
    exec(LIBRARY, vars(module))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "imported_files", lambda: [file])
        patch.setattr("zoo.verify.references.libraries", lambda: {"small": module.LIBRARY})
        yield module.LIBRARY


@pytest.fixture
def here(library: Library, monkeypatch: pytest.MonkeyPatch) -> Reference:
    """The same reference in this process."""
    monkeypatch.setitem(sys.modules, "small", SimpleNamespace(CLASSES=5, __spec__=object()))
    monkeypatch.setattr(library, "requirements", ())
    reference = calibrated("small:net", 3, SIZE)
    monkeypatch.undo()
    assert isinstance(reference, Reference)
    return reference


def test_it_is_the_same_as_here(library: Library, here: Reference) -> None:
    there = calibrated("small:net", 3, SIZE)
    assert isinstance(there, RemoteReference) and "small" not in sys.modules
    assert there.describe() == here.describe()
    assert num_parameters(there) == num_parameters(here) == 285
    assert_equal(state_arrays(there), state_arrays(here))
    images = sample_images(2, SIZE)
    given = {"bn": np.full((2, 8, 6, 6), 0.5, np.float32), "fc": np.ones((1, 1), np.float32)}  # fc: another shape
    for dtype in ("float32", "float64", "float16"):
        for taps in (True, ["relu", "fc"], False):
            found, expected = (run_reference(r, images, dtype, taps, given=given) for r in (there, here))
            assert_equal(found.outputs, expected.outputs)
            assert_equal(found.taps, expected.taps)
            assert found.leaves == expected.leaves
    nudged = [run_reference(r, images, nudge=1).outputs for r in (there, here)]
    assert_equal(*nudged)
    assert (nudged[0]["logits"] != run_reference(there, images).outputs["logits"]).any()
    kept = run_reference(there, images, taps=True, keep=lambda name, value: (name, value.shape)).taps
    assert kept["bn"] == ("bn", (2, 8, 6, 6))


def assert_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_weights_and_modules_are_given_to_it(library: Library, here: Reference, tmp_path: Path) -> None:
    there, images = load_reference("small:net", 5), sample_images(1, SIZE)
    assert there is load_state(there, state_arrays(here))
    assert_equal(run_reference(there, images).outputs, run_reference(here, images).outputs)
    with pytest.raises(ZooError, match="the weights do not fit the reference: missing .*'bn.bias'"):
        load_state(there, {"fc.bias": np.zeros(5, np.float32)})
    load_state(there, {"fc.bias": np.zeros(5, np.float32)}, partly=True)
    torch.save(torch.nn.Sequential(torch.nn.Flatten()), tmp_path / "own.pt")
    own = with_own_module(there, tmp_path / "own.pt")
    assert run_reference(own, images).outputs["logits"].shape == (1, 192)
    assert run_reference(there, images).outputs["logits"].shape == (1, 5)


def test_references_that_nobody_has_are_forgotten(library: Library) -> None:
    process = load_reference("small:net").process
    there = load_reference("small:net")
    assert there.process is process and not process.dropped
    number = there.number
    del there
    assert process.dropped == [number]


def test_what_fails_there_is_told_here(library: Library) -> None:
    with pytest.raises(ZooError, match="small has no model 'nets'; closest: net$"):
        load_reference("small:nets")
    there = load_reference("small:net")
    with pytest.raises(ZooError, match="^small:net failed in the process of small: ValueError: seven is no size$"):
        run_reference(there, sample_images(1, (3, 7, 7)))
    assert run_reference(there, sample_images(1, SIZE)).outputs["logits"].shape == (1, 5)
    with pytest.raises(ZeroDivisionError):  # the answer that is still on its way is nobody's
        run_reference(there, sample_images(1, SIZE), taps=True, keep=lambda name, value: 1 / 0)
    with pytest.raises(ZooError, match="the process of small ended at small:net"):
        run_reference(there, sample_images(1, SIZE))
    again = load_reference("small:net")
    with pytest.raises(ZooError, match="the process of small ended at small:net: what a library prints"):
        run_reference(again, sample_images(1, (3, 6, 6)))


def test_its_process_ends_with_ours(wheels: Path, library: Library) -> None:
    code = (
        "from zoo.verify import references, remote\n"
        f"remote.imported_files = lambda: [{str(wheels / 'library.py')!r}]\n"
        "made = remote.create(references.Environment('small', ('small==1.0',)), 'load_reference', 'small:net', "
        "classes=None)\n"
        "print(made.process._process.pid, flush=True)\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + 20
    while Path(f"/proc/{done.stdout.strip()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_is_no_rival(library: Library) -> None:
    with pytest.raises(ZooError, match="small:net runs in an environment of its own, and is no rival"):
        Worker("cpu").load("small:net", 5, "", [1, *SIZE], "")


def test_a_missing_environment_is_explained(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_REFERENCES", "/nowhere")
    for load in (load_reference, calibrated):
        with pytest.raises(MissingLibrary, match="small need an environment .*: python -m zoo.verify.install small"):
            load("small:net")
