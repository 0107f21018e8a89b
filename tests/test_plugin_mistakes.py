"""What goes wrong with custom ops is one sentence with op, version and the way out, and leaves nothing half written.

And `python -m zoo.plugins`, which tells beforehand.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zoo.engine.plugins import why_not_loadable
from zoo.errors import ZooError
from zoo.network import Net
from zoo.plugins import __main__ as command
from zoo.plugins import all_ops
from zoo.plugins.core import kernels, op, shell
from zoo.plugins.deform_conv2d import DeformColumns
from zoo.trt import Api, Log


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; what the shell was loaded from before does not count."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shell.load.cache_clear()
    return tmp_path


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Api:
    """TensorRT 10 as far as nobody calls it, on a machine that has a driver."""
    monkeypatch.setattr(shell, "driver_problem", lambda: None)
    monkeypatch.setattr("zoo.nvrtc.library", lambda: None)
    return Api(SimpleNamespace(), "tensorrt", "10.16.1", Log())  # type: ignore[arg-type]


def engine(implementation: str = "cuda", **about: Any) -> dict[str, Any]:
    """The description of an engine with deform_columns 1."""
    ops = {"deform_columns": {"version": 1, "implementation": implementation}}
    return {"plugins": {"policy": "auto", "ops": ops, "self_contained": False, "shell": shell.FORMAT, **about}}


# Engines


@pytest.mark.usefixtures("cache")
def test_an_engine_that_can_be_loaded_lacks_nothing() -> None:
    assert why_not_loadable(engine()) is None
    assert why_not_loadable({}) is None


def test_an_op_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeformColumns, "version", 2)
    words = "it was built with the plugin deform_columns 1, this zoo has deform_columns 2"
    assert why_not_loadable(engine()) == words


def test_an_op_that_is_not_there() -> None:
    ops = {"warp": {"version": 4, "implementation": "cuda"}}
    assert why_not_loadable(engine(ops=ops)) == "it was built with the plugin warp 4, which this zoo does not have"


def test_a_shell_of_another_format() -> None:
    words = "it holds the plugins deform_columns 1 as 'zooop-7', this zoo's shell reads 'zooop-1'"
    assert why_not_loadable(engine(shell="zooop-7")) == words
    assert why_not_loadable(engine("builtin", shell="zooop-7")) is None


@pytest.mark.usefixtures("cache", "no_compiler")
def test_an_engine_whose_library_cannot_be_compiled() -> None:
    words = why_not_loadable(engine()) or ""
    assert words.startswith(
        f"it needs the library {shell.library_path()} for deform_columns 1, and there is no C++ comp"
    )
    assert why_not_loadable(engine(self_contained=True)) is None


# The shell


@pytest.mark.usefixtures("no_compiler")
def test_no_compiler(cache: Path, tensorrt: Api) -> None:
    with pytest.raises(ZooError, match=r"no C\+\+ compiler was found .*; use --plugins native"):
        shell.build()
    with pytest.raises(
        ZooError, match=r"deform_columns 1 has no cuda .* here: there is no C\+\+ .*use --plugins native"
    ):
        op.choose(DeformColumns, tensorrt, "cuda")
    assert op.choose(DeformColumns, tensorrt, "auto") == "native"
    assert not list(cache.rglob("*.so*"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'shell.cpp:1: error: too old' >&2; exit 1", "shell.cpp:1: error: too old; use --plugins native"),
        ('while [ "$1" != -o ]; do shift; done; echo half > "$2"; exit 1', "no reason given; use --plugins native"),
        ("kill -9 $$", "no reason given; use --plugins native"),
    ],
)
def test_a_compiler_that_fails(script: str, words: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = cache / "cxx"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("CXX", str(tool))
    with pytest.raises(ZooError, match=f"{tool} cannot compile the plugins' shell: {words}$"):
        shell.build()
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["cxx"]


@pytest.mark.parametrize("refused", ["", "-static-libstdc++"], ids=["own runtime", "shared runtime"])
def test_the_library_mixes_with_no_other_runtime(refused: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some compilers put their C++ runtime into libraries by default. Seen from outside it would be mixed with that
    of Python or TensorRT, and crash."""
    tool = cache / "cxx"
    refuse = f'case "$*" in *"{refused or "never"}"*) exit 1;; esac'
    tool.write_text(f'#!/bin/sh\n{refuse}\nexec {shutil.which("g++")} "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("CXX", str(tool))
    listed = subprocess.run(["nm", "-D", str(shell.build())], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-2:] for line in listed.splitlines()]
    given = {name for kind, name in symbols if kind not in "Uw"}
    assert given == {*"zoo_register zoo_format zoo_creator getPluginCreators getCreators setLoggerFinder".split()}
    taken = [name for kind, name in symbols if kind == "U" and name.startswith("_ZNSt")]
    assert bool(taken) == bool(refused)


def test_a_library_of_another_format_or_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = cache / "shell.cpp"
    code.write_text(
        '#define EXPORT extern "C" __attribute__((visibility("default")))\n'
        'EXPORT char const *zoo_format() { return "zooop-7\\n"; }\nEXPORT bool zoo_register() { return true; }\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr(shell, "SOURCES", cache)
        patch.setattr(shell, "library_path", lambda: cache / "other.so")
        other = shell.build()
    with pytest.raises(
        ZooError, match=f"shell {other} has the format zooop-7, this zoo needs zooop-1; delete that file"
    ):
        shell.load(other)
    damaged = cache / "damaged.so"
    damaged.write_bytes(b"not a library")
    with pytest.raises(ZooError, match=f"shell {damaged} cannot be loaded .*; delete it, it is compiled anew"):
        shell.load(damaged)


# Kernels and attributes


def test_kernels_that_do_not_compile(tensorrt: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> bytes:
        raise ZooError("deform_columns.cu does not compile for sm_90: line 3: error: expected a ';'")

    monkeypatch.setattr("zoo.nvrtc.compile_source", refuse)
    made = DeformColumns((3, 3), 4)
    words = (
        "the kernels of deform_columns 1 cannot be compiled: deform_columns.cu .* expected a ';'; use --plugins native"
    )
    with pytest.raises(ZooError, match=words):
        kernels.image(made, kernels.declaration(made), "9.0")


def test_inputs_that_are_too_few(rtx: Api) -> None:
    net = Net(SimpleNamespace(api=rtx, plugins="native"), "dcn")  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="deform_columns 1 at 'dcn' takes x, offset, mask, got 1 inputs"):
        DeformColumns((3, 3), 4)(net, None)


# python -m zoo.plugins


def test_list_says_what_is_here_and_what_auto_takes(capsys: pytest.CaptureFixture[str]) -> None:
    command.run("list", as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [row["op"] for row in listed["ops"]] == list(all_ops())
    row = next(row for row in listed["ops"] if row["op"] == "deform_columns")
    assert row["implementations"] == {"native": None, "cuda": "TensorRT-RTX has no plugins"}
    assert row["auto"] == "native" and row["figures"][0]["kernel"] < row["figures"][0]["native"]
    command.run("list")
    text = capsys.readouterr().out
    assert "deform_columns 1: torchvision.ops.deform_conv2d" in text and "not here: TensorRT-RTX has no plugins" in text
    assert "    cuda 177 us, native 276 us: 256 channels, fp32" in text


def test_auto_takes_kernels_that_were_measured_to_be_faster(
    tensorrt: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load", lambda: tensorrt)
    monkeypatch.setattr(all_ops()["nms"], "figures", ())
    command.run("list", as_json=True)
    rows = {row["op"]: row for row in json.loads(capsys.readouterr().out)["ops"]}
    assert rows["deform_columns"]["auto"] == "cuda" and rows["nms"]["auto"] == "native"
    assert not any(rows["nms"]["implementations"].values())
    command.run("list")
    assert "native, since its kernels are not measured" in capsys.readouterr().out


def test_build_says_where_the_library_is(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run("build")
    path = Path(capsys.readouterr().out.strip())
    assert path.is_file() and cache in path.parents
    command.run("build", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"library": str(path), "format": "zooop-1"}
    with pytest.raises(ZooError, match="the action is 'liste'; it must be list or build; closest: list"):
        command.run("liste")
