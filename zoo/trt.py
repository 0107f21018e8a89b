"""Which TensorRT is here, and what its version can do. The only module that imports one.

Two flavours share the network API: `tensorrt` (8.6 to 11, needs a GPU even to define a network with 8.6) and
`tensorrt_rtx` (TensorRT-RTX: defines and compiles on a machine without any GPU).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import platform
import re
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from zoo.driver import has_driver
from zoo.errors import ZooError

Flavour = Literal["tensorrt", "rtx"]

_MODULES: dict[str, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_INSTALL: dict[str, str] = {"tensorrt": 'pip install "tensorrt-zoo[gpu]"', "rtx": "pip install tensorrt-rtx"}

_RTX_MACHINES = ("Linux x86_64", "Windows AMD64")  # for which tensorrt-rtx has packages

# What TensorRT says beside errors goes to Python's logging, and nowhere unless the program wants it.
_logging = logging.getLogger("zoo.tensorrt")
_logging.addHandler(logging.NullHandler())
_LEVELS = {"WARNING": logging.WARNING, "INFO": logging.INFO, "VERBOSE": logging.DEBUG}

# Every refused call on a machine without a driver is followed by a second error about the driver: noise.
_NO_DRIVER_NOISE = re.compile(r"catchCudaError|Cuda Runtime \(CUDA driver version|CUDA initialization failure")


@dataclass(frozen=True)
class Api:
    """One TensorRT flavour: its module, its version's facts and its log.

    `trt` is the imported module; `strong` says that networks are strongly typed (TensorRT >= 10 and TensorRT-RTX):
    types then come from weights, inputs and casts, not from builder flags.
    """

    trt: ModuleType
    flavour: Flavour
    version: str
    log: Log

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def rtx(self) -> bool:
        return self.flavour == "rtx"

    @property
    def strong(self) -> bool:
        return self.rtx or self.major >= 10

    @property
    def name(self) -> str:
        return f"{'TensorRT-RTX' if self.rtx else 'TensorRT'} {self.version}"


class Log:
    """Keeps what TensorRT logs as errors, so that each can be raised where it happened; all else goes to the logger
    "zoo.tensorrt" of Python's logging.

    A thread gets the errors of its own calls, and those of TensorRT's threads, which nobody else would ask for.
    """

    def __init__(self) -> None:
        self._errors: list[tuple[int, str]] = []  # the thread, and what was said there
        self._lock = threading.Lock()
        self.logger: Any = None  # the trt.ILogger that feeds this log; made with the module

    def record(self, severity: str, text: str) -> None:
        if severity in ("ERROR", "INTERNAL_ERROR"):
            if not _NO_DRIVER_NOISE.search(text):
                with self._lock:
                    self._errors.append((threading.get_ident(), text))
        elif severity in _LEVELS:
            _logging.log(_LEVELS[severity], "%s", text)

    def drain(self) -> str:
        """The errors since the last call, as one line; empty when nothing was refused."""
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        with self._lock:
            errors, self._errors = self._errors, [entry for entry in self._errors if entry[0] in others]
        return " | ".join(" ".join(text.split()) for ident, text in errors if ident not in others)


def installed(flavour: Flavour) -> bool:
    """True when the flavour's Python package can be found (it is not imported)."""
    return importlib.util.find_spec(_MODULES[flavour]) is not None


def load(flavour: Flavour | None = None) -> Api:
    """The TensorRT to use: `flavour`, or full TensorRT where a GPU and the package are there, else TensorRT-RTX.

    Raises ZooError when the package is not installed or cannot work on this machine.
    """
    if flavour is None:
        flavour = "tensorrt" if installed("tensorrt") and has_driver() else "rtx"
    return _load(flavour)


def load_to_define(precision: str = "fp32") -> Api:
    """The TensorRT on which networks are defined that something else runs: TensorRT-RTX, which needs no GPU; where that
    cannot be installed, as on a Jetson, full TensorRT. Raises ZooError where neither can be used."""
    if installed("rtx") or not (installed("tensorrt") and has_driver()):
        return load("rtx")
    api = load("tensorrt")
    if precision != "fp32" and not api.strong:
        raise ZooError(
            f"{api.name} has half precision only in its engines, not in the network; leave --{precision} away"
        )
    return api


def _why_not_installed(flavour: Flavour) -> str:
    """A sentence on a flavour that is not there, with what helps on this kind of machine."""
    machine = f"{platform.system()} {platform.machine()}"
    if flavour == "rtx" and machine not in _RTX_MACHINES:
        return (
            f"networks are defined without a GPU by TensorRT-RTX, which has no package for {machine}; with an NVIDIA "
            f"GPU full TensorRT takes its place: {_INSTALL['tensorrt']}, or on a Jetson that of JetPack"
        )
    return f"no {_MODULES[flavour]} is installed; to install it: {_INSTALL[flavour]}"


@functools.cache
def _load(flavour: Flavour) -> Api:
    if not installed(flavour):
        raise ZooError(_why_not_installed(flavour))
    try:
        trt = importlib.import_module(_MODULES[flavour])
    except (ImportError, OSError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C came while the binding was being made
            raise KeyboardInterrupt from error
        raise ZooError(
            f"{_MODULES[flavour]} is installed but cannot be loaded ({error}); reinstall it: {_INSTALL[flavour]}"
        ) from error
    if flavour == "tensorrt" and not has_driver():
        raise ZooError(
            f"TensorRT {trt.__version__} needs an NVIDIA GPU with its driver and none was found; "
            "use --target rtx to compile ahead of time, or --device cpu to run"
        )
    return Api(trt, flavour, trt.__version__, _make_log(trt))


def _make_log(trt: ModuleType) -> Log:
    """A log that is fed by a trt.ILogger (TensorRT keeps the first logger of a process for good)."""
    log = Log()

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # required: super().__init__() is refused by the binding

        def log(self, severity: Any, text: str) -> None:
            log.record(severity.name, text)

    log.logger = Logger()
    return log
