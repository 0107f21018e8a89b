"""PyTorch in a process of its own, which may be another interpreter: the client of `python -m zoo.verify.rivals`."""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from zoo.discovery import imported_files
from zoo.errors import ZooError

_ROOT = Path(__file__).resolve().parents[2]


class TorchProcess:
    """The client of `python -m zoo.verify.rivals`. `python` may be another interpreter, as a command line.

    Call it with a command's name and keywords (see that module). Raises ZooError with its words when it fails.
    """

    def __init__(self, python: str = "", timeout_s: float = 600) -> None:
        command = [*(shlex.split(python) or [sys.executable]), "-m", "zoo.verify.rivals", *map(str, imported_files())]
        environment = dict(os.environ)
        if python:  # what this interpreter finds on its path is not for the other
            environment["PYTHONPATH"] = str(_ROOT)
        self._timeout, self._errors = timeout_s, tempfile.TemporaryFile("w+")
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=self._errors,
            )  # fmt: skip
        except OSError as error:
            raise ZooError(f"{command[0]} does not start ({error.strerror}); name one: --torch-python PYTHON") from None
        threading.Thread(target=self._listen, daemon=True).start()
        self.about: dict[str, Any] = self._answer("start")

    def __call__(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended: the answer says so
        return self._answer(do)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, do: str) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise ZooError(f"PyTorch's process did not answer '{do}' within {self._timeout:.0f} s") from None
        if not line:
            self._answers.put("")
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines()
            raise ZooError(f"PyTorch's process ended at '{do}': {words[-1] if words else 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise ZooError(f"PyTorch's process failed at '{do}': {answer['error']}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
