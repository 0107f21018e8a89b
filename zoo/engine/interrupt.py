"""Ctrl-C while TensorRT compiles.

TensorRT calls Python back for every line of its log, and swallows what a callback raises: KeyboardInterrupt is lost
there, and the build goes on. So the signal is noted instead, and TensorRT's progress monitor ends the build.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible(trt: Any, config: Any) -> Iterator[None]:
    """A block that builds with `config`: Ctrl-C ends the build, and the block with KeyboardInterrupt.

    TensorRT 8 has no monitor: there the signal ends the process, as it does in a program that does not catch it. Only
    the main thread can do either, and only where Python handles the signal; elsewhere nothing is changed.
    """
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or not handled:
        yield
        return
    stop = threading.Event()
    base = getattr(trt, "IProgressMonitor", None)
    if base is not None and hasattr(config, "progress_monitor"):
        config.progress_monitor = monitor = _monitor(base, stop)  # noqa: F841  (TensorRT does not keep it alive)
        previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    else:
        previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if stop.is_set():
        raise KeyboardInterrupt


def _monitor(base: Any, stop: threading.Event) -> Any:
    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)  # required: super().__init__() is refused by the binding

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None: ...

    return Monitor()
