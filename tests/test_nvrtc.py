"""The compiler of the kernels, and the driver, as far as they can be asked without a GPU."""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from zoo import driver, nvrtc
from zoo.errors import ZooError
from zoo.runtime import kernels


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        nvrtc.library()
    except ZooError as error:
        pytest.skip(str(error))
    return tmp_path


@pytest.mark.parametrize("file", ["preprocess.cu", "detect.cu"])
@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.9", "9.0"])
def test_kernels_compile(compiler, file, capability, monkeypatch):
    source = (kernels._SOURCES / file).read_text()
    image = nvrtc.compile_source(source, file, capability)
    assert image[:4] == b"\x7fELF"
    monkeypatch.setattr(nvrtc, "_compile", lambda *_: pytest.fail("not taken from the cache"))
    assert nvrtc.compile_source(source, file, capability) == image


def test_kept_machine_code_that_is_damaged_is_compiled_again(monkeypatch, tmp_path):
    compiled = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    monkeypatch.setattr(nvrtc, "_compile", lambda *_: compiled.append(1) or b"\x7fELF" + bytes(99))
    image = nvrtc.compile_source("source", "f.cu", "9.0")
    (kept,) = tmp_path.rglob("f-*.bin")
    whole = kept.read_bytes()
    assert nvrtc.compile_source("source", "f.cu", "9.0") == image and len(compiled) == 1
    for damaged in (b"", whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        kept.write_bytes(damaged)
        assert nvrtc.compile_source("source", "f.cu", "9.0") == image and kept.read_bytes() == whole
    assert len(compiled) == 4


def test_a_newer_gpu_gets_ptx_and_an_error_gets_the_log(compiler):
    source = 'extern "C" __global__ void f(int *x) { *x = 1; }'
    assert b".target" in nvrtc.compile_source(source, "f.cu", "99.0")
    with pytest.raises(ZooError, match="f.cu does not compile for sm_90.*undefined_name"):
        nvrtc.compile_source(source.replace("= 1", "= undefined_name"), "f.cu", "9.0")


def test_missing_nvrtc_names_the_package(monkeypatch):
    monkeypatch.setattr(nvrtc, "_paths", lambda: ["libnvrtc-that-is-not-there.so"])
    nvrtc.library.cache_clear()
    with pytest.raises(ZooError, match="pip install nvidia-cuda-nvrtc"):
        nvrtc.library()
    nvrtc.library.cache_clear()


# ---- the driver ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "count", "visible", "words"),
    [
        (100, 0, "", r"the NVIDIA driver sees no GPU \(CUDA_VISIBLE_DEVICES is ''\)"),
        (100, 0, None, "the NVIDIA driver sees no GPU"),
        (0, 0, "7", r"the NVIDIA driver sees no GPU \(CUDA_VISIBLE_DEVICES is '7'\)"),
        (999, 1, None, r"the NVIDIA driver does not start \(CUDA_ERROR_UNKNOWN\)"),
        (0, 1, None, None),
    ],
)
def test_what_the_driver_lacks(
    monkeypatch: pytest.MonkeyPatch, code: int, count: int, visible: str | None, words: str | None
) -> None:
    def error_name(code: int, name: Any) -> None:
        name._obj.value = b"CUDA_ERROR_UNKNOWN"

    def device_count(number: Any) -> int:
        number._obj.value = count
        return 0

    library = SimpleNamespace(cuInit=lambda flags: code, cuDeviceGetCount=device_count, cuGetErrorName=error_name)
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = driver.driver_problem.__wrapped__()
    assert found is words if words is None else re.fullmatch(words, found)
