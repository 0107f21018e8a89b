"""What the tests share: one thread, TensorRT-RTX, and networks small enough to write in the test that uses them."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # PyTorch reads it when it is imported: the same sums, whatever the machine
os.environ["ZOO_OFFLINE"] = "1"  # no test downloads from anywhere but this machine

if platform.libc_ver()[0] == "glibc":  # what a large network leaves goes back to the system at once, not with luck
    M_MMAP_THRESHOLD = -3  # <malloc.h>
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)

import numpy as np
import pytest
from fake_gpu import FakeCuda, LateCuda, install

from zoo.driver import has_driver
from zoo.engine.definition import define
from zoo.network import Definition, Net, Precision, PrecisionName, Tensor
from zoo.preprocess import imagenet
from zoo.registry import Model
from zoo.trt import Api, installed, load
from zoo.verify.references import MissingLibrary, libraries
from zoo.weights import from_arrays

pytest.register_assert_rewrite("session_contract")

Build = Callable[[Net, Tensor], "Tensor | dict[str, Tensor]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked `gpu` where there is no GPU or no full TensorRT."""
    if has_driver() and installed("tensorrt"):
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU and full TensorRT")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


# A proof that cannot be made fails, with what to install: a skip would pass for one. Whoever lacks the references can
# say so, and reads in the summary what was not proven.
WITHOUT_REFERENCES = os.environ.get("ZOO_WITHOUT_REFERENCES") == "1"
PACKAGES = {"torch", "sklearn", *(library.package for library in libraries().values())}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    return report if "gpu" in item.keywords else told(report, call)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    return told(report, report.call)


def told(report: Any, call: pytest.CallInfo[Any]) -> Any:
    """The report of a test, failed where it was skipped for want of a module; skipped where that was asked for."""
    package, why = lacking(call.excinfo) if call.excinfo and not report.passed else (None, "")
    if package is None:
        return report
    if WITHOUT_REFERENCES and package in PACKAGES:
        report.outcome, report.longrepr = "skipped", (report.nodeid, 0, f"Skipped: not proven, {why}")
    elif report.skipped:
        hint = "bash scripts/test.sh installs it; ZOO_WITHOUT_REFERENCES=1 leaves out what it proves"
        report.outcome, report.longrepr = "failed", f"{why}: {hint}"
    return report


def lacking(raised: pytest.ExceptionInfo[BaseException]) -> tuple[str | None, str]:
    """The package that a test could not import, if that was its end, and what was said."""
    for error in (raised.value, raised.value.__cause__):
        if isinstance(error, MissingLibrary):
            return error.package, str(error)
        if isinstance(error, ImportError):
            return (error.name or "").partition(".")[0], str(error)
    last = raised.traceback[-1]
    if last.name == "importorskip":
        return last.frame.f_locals["modname"].partition(".")[0], str(raised.value)
    return None, ""


@pytest.fixture(params=[FakeCuda, LateCuda], ids=["at once", "late"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Generator[FakeCuda, None, None]:
    """A device that sessions use, which works at once, or as late as the order of its streams allows."""
    fake = install(monkeypatch, request.param)
    yield fake
    gc.collect()
    assert not fake.misused


@pytest.fixture(scope="session")
def rtx() -> Api:
    """TensorRT-RTX, which defines and compiles without a GPU."""
    return load("rtx")


@pytest.fixture(scope="session")
def tensorrt8(rtx: Api) -> Api:
    """TensorRT 8.6 as far as TensorRT-RTX can play it: weakly typed, shapes in int32, no GELU activation."""
    return replace(rtx, trt=_Module8(rtx.trt), flavour="tensorrt", version="8.6.0")


@pytest.fixture
def define_net(rtx: Api) -> Callable[..., Definition]:
    """`define_net(build, weights, shape, …)`: the definition that `build(net, x)` writes, with no registered model."""

    def define_net(
        build: Build,
        weights: Mapping[str, np.ndarray] = {},
        shape: tuple[int, ...] = (1, 8, 9, 9),
        precision: PrecisionName = "fp32",
        islands: tuple[str, ...] = (),
        api: Api = rtx,
    ) -> Definition:
        return define(small_model(build), from_arrays(weights), api, shape, Precision(precision, islands))

    return define_net


def small_model(build: Build) -> Model:
    """A model that is in no registry."""
    return Model(
        name="small",
        task="classify",
        build=lambda net, x, config: build(net, x),
        config=None,
        params=0,
        reference="none",
        preprocess=imagenet(),
        input=(8, 9, 9),
        paper="none",
    )


class _Player:
    """Plays an object of TensorRT 8.6 with one of TensorRT-RTX: what the subclass does not say comes from that."""

    def __init__(self, real: Any) -> None:
        self.__dict__["real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Module8(_Player):
    def __init__(self, trt: ModuleType) -> None:
        super().__init__(trt)
        kinds = trt.ActivationType.__members__.items()
        self.ActivationType = SimpleNamespace(**{name: kind for name, kind in kinds if not name.startswith("GELU")})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)

    def Builder(self, logger: Any) -> _Builder8:  # noqa: N802
        return _Builder8(self.real.Builder(logger))


class _Builder8(_Player):
    def create_network(self, flags: int) -> _Network8:
        return _Network8(self.real.create_network(flags))


class _Network8(_Player):
    """`added` are the layers, with what was asked of them."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.added: list[_Layer8] = []

    def __getattr__(self, name: str) -> Any:
        if name == "add_normalization_v2":  # since 10.15
            raise AttributeError(name)
        method = getattr(self.real, name)
        if name == "add_input" or not name.startswith("add_"):
            return method
        return lambda *args: self._keep(method(*args))

    def _keep(self, layer: Any) -> _Layer8 | None:
        if layer is None:
            return None
        self.added.append(_Layer8(layer))
        return self.added[-1]

    def add_shape(self, x: Any) -> _Layer8 | None:
        return self._keep(self.real.add_cast(self.real.add_shape(x).get_output(0), x.dtype.__class__.INT32))


class _Layer8(_Player):
    """A layer that takes the constraints which only weakly typed networks have."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.__dict__.update(precision=None, output_types={})

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "precision":
            self.__dict__[name] = value
        else:
            setattr(self.real, name, value)

    def set_output_type(self, index: int, dtype: Any) -> None:
        self.output_types[index] = dtype
