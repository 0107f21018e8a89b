"""Ctrl-C ends a command with one sentence and status 130, also while its imports run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn

STATUS = 130  # 128 + SIGINT, as shells count


def watch_imports() -> None:
    """From here on, KeyboardInterrupt that nobody catches ends the process as `stopped` does.

    Only in a process that a command of the zoo began, which has imports to do before it can catch anything itself.
    """
    if _is_command():
        sys.excepthook = _say


def stopped() -> NoReturn:
    """Says so and exits. It leaves SIGINT blocked: where the signal came while a string of code ran (each dataclass is
    made of one), CPython ends with that signal, whatever was caught since."""
    print("error: stopped", file=sys.stderr)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows, where nothing ends by a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.exit(STATUS)


@contextmanager
def saying_stopped() -> Iterator[None]:
    """A block whose KeyboardInterrupt ends the process as `stopped` does."""
    try:
        yield
    except KeyboardInterrupt:
        stopped()


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    stopped()


def _is_command() -> bool:
    """Whether this process is `python -m zoo…` or the script `zoo`."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else Path(sys.argv[0]).stem
    return module == "zoo" or module.startswith("zoo.")
