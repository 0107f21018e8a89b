"""The shell in a process with a real library of TensorRT: `python plugin_real.py FOLDER DRIVER SHELL ORDER`.

FOLDER has the wheels of one version of TensorRT's lean runtime, DRIVER is plugin_driver.cpp compiled, SHELL the
library of the plugins. ORDER says how both meet: `after` (the shell is loaded last), `before` (the shell was there
first and is called again), `library` (TensorRT loads the shell itself). Nothing here needs a GPU. Wheels of 8.6 have
bindings for Python 3.10 only; elsewhere the library alone is asked.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SPEC = b"op twice 3\nio 1 1\ntypes ff twice_fp32\nout 0.0,2,* 0.1\nrun 1 1 1 1 1 1\narg i0\narg o0\n"
IMAGE = b"\x00kernels\xff"


def native_library(folder: Path) -> ctypes.CDLL:
    (path,) = folder.glob("*/libnvinfer_lean.so.*")
    library = ctypes.CDLL(str(path))
    library.getPluginRegistry.restype = ctypes.c_void_p
    return library


def bindings(folder: Path) -> ModuleType | None:
    """NVIDIA's Python bindings, compiled against its own declarations of the classes."""
    if (folder / "tensorrt_lean").exists() and sys.version_info[:2] != (3, 10):
        return None
    sys.path.insert(0, str(folder))
    return importlib.import_module("tensorrt_lean" if (folder / "tensorrt_lean").exists() else "tensorrt_lean_bindings")


def load_shell(path: str) -> ctypes.CDLL:
    shell = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    shell.zoo_creator.restype = ctypes.c_void_p
    shell.zoo_register.restype = ctypes.c_bool
    shell.getPluginCreators.restype = ctypes.POINTER(ctypes.c_void_p)
    return shell


def main(folder: Path, driver_path: str, shell_path: str, order: str) -> None:
    calls = ctypes.CDLL(driver_path)
    for function in ("registry_find", "echo_creator", "plugin_create", "plugin_deserialize", "plugin_clone"):
        getattr(calls, function).restype = ctypes.c_void_p
    calls.registry_add.restype = ctypes.c_bool
    calls.plugin_serialize.restype = ctypes.c_size_t

    early = load_shell(shell_path) if order == "before" else None
    library = native_library(folder)
    version = library.getInferLibVersion()
    major = version // (10_000 if version >= 10_000 else 1_000)
    registry = ctypes.c_void_p(library.getPluginRegistry())
    trt = bindings(folder)
    if early is not None:
        assert early.zoo_register() and early.zoo_register()
        shell = early
    elif order == "library" and trt is not None:
        assert trt.get_plugin_registry().load_library(shell_path) is not None
        shell = load_shell(shell_path)
    else:
        shell = load_shell(shell_path)
        if order == "library":  # as load_library does
            count = ctypes.c_int32()
            creators = shell.getPluginCreators(ctypes.byref(count))
            assert count.value == 1 and calls.registry_add(version, registry, ctypes.c_void_p(creators[0]))

    found = calls.registry_find(version, registry, b"ZooOp", b"1")
    assert found == shell.zoo_creator(major), "the registry has another creator"
    assert calls.registry_find(version, registry, b"ZooOp", b"2") is None
    check_plugin(calls, major, ctypes.c_void_p(found))

    assert calls.registry_add(version, registry, ctypes.c_void_p(calls.echo_creator(major)))
    assert calls.registry_find(version, registry, b"Echo", b"7") == calls.echo_creator(major)
    if trt is not None:
        check_bindings(trt, version)
    print(version, "with bindings" if trt else "alone")


def serialised() -> bytes:
    return b"zooop-1\n" + len(SPEC).to_bytes(8, "little") + SPEC + IMAGE


def check_plugin(calls: ctypes.CDLL, major: int, creator: ctypes.c_void_p) -> None:
    """What the registry found makes plugins and reads them back."""
    made = calls.plugin_create(major, creator, SPEC, len(SPEC), IMAGE, len(IMAGE))
    data = serialised()
    again = calls.plugin_deserialize(major, creator, data, ctypes.c_size_t(len(data)))
    copy = calls.plugin_clone(major, ctypes.c_void_p(again))
    for plugin in (made, again, copy):
        buffer = ctypes.create_string_buffer(len(data))
        assert calls.plugin_serialize(major, ctypes.c_void_p(plugin), buffer) == len(data) and buffer.raw == data
        calls.plugin_destroy(major, ctypes.c_void_p(plugin))
    for other in (data.replace(b"zooop-1", b"zooop-0"), data[:12], data[:40], b""):
        assert calls.plugin_deserialize(major, creator, other, ctypes.c_size_t(len(other))) is None


def check_bindings(trt: Any, version: int) -> None:
    """What NVIDIA's declarations make of ours."""
    registry = trt.get_plugin_registry()
    find = registry.get_creator if hasattr(registry, "get_creator") else registry.get_plugin_creator
    creator = find("ZooOp", "1", "")
    assert (creator.name, creator.plugin_version, [f.name for f in creator.field_names]) == (
        "ZooOp",
        "1",
        ["spec", "image"],
    )
    char = trt.PluginFieldType.CHAR
    fields = trt.PluginFieldCollection([trt.PluginField("spec", SPEC, char), trt.PluginField("image", IMAGE, char)])
    made = creator.create_plugin("here", fields)
    assert (made.plugin_type, made.plugin_version, made.num_outputs) == ("ZooOp", "1", 1)
    assert made.tensorrt_version == 3 << 24 | version
    data = serialised()
    for plugin in (made, made.clone(), creator.deserialize_plugin("there", data)):
        assert plugin.serialization_size == len(data) and bytes(plugin.serialize()) == data

    creator = find("Echo", "7", "")
    assert [field.name for field in creator.field_names] == ["first", "second"]
    echo = creator.create_plugin("echo", trt.PluginFieldCollection([]))
    large = 1 << (40 if version >= 10_000 else 30)
    shapes = [trt.Dims((1, 2, 3)), trt.Dims(tuple(range(8))), trt.Dims((large, 5))]
    for index, shape in enumerate(shapes):
        assert tuple(echo.get_output_shape(index, shapes)) == tuple(shape)
    assert (echo.tensorrt_version, echo.plugin_type, echo.plugin_version) == (3 << 24 | 123, "Echo", "7")
    assert (echo.num_outputs, echo.serialization_size, bytes(echo.serialize())) == (5, 4, b"echo")
    assert echo.initialize() == 11 and echo.get_workspace_size(3) == 3 + (1 << 40)
    echo.plugin_namespace = "mine"
    assert echo.clone().plugin_namespace == "mine"
    echo.terminate()
    assert echo.plugin_namespace == "terminated"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
