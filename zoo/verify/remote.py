"""References in a process of their own: the client of `python -m zoo.verify.serve`, and how the two talk.

A message is a line of JSON and the arrays that it announces, byte by byte. A process serves all references of its
library, and ends when this one does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.discovery import imported_files
from zoo.errors import ZooError
from zoo.verify.compare import Run
from zoo.verify.environments import Environment


def send(stream: IO[bytes], message: Mapping[str, Any], arrays: Mapping[str, np.ndarray] = {}) -> None:
    """Writes a message and its arrays, by name."""
    head = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    stream.write(json.dumps({**message, "arrays": head}).encode() + b"\n")
    for array in arrays.values():
        stream.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a message and its arrays. Raises EOFError where there is none any more."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message, arrays = json.loads(line), {}
    for name, (dtype, shape) in message.pop("arrays").items():
        arrays[name] = array = np.empty(shape, dtype)
        if array.size and stream.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
            raise EOFError
    return message, arrays


@dataclass(frozen=True, eq=False)
class RemoteReference:
    """A published model that lives in the process of its library. What is asked of it is what `zoo.verify` asks of a
    `Reference`, by the same names.
    """

    source: str
    process: _Process
    number: int  # by which the process knows it
    choosers: Collection[str] = ()  # none of these references has any

    def describe(self) -> str:
        """Its modules, as PyTorch prints them."""
        return self._ask("describe")["text"]

    def num_parameters(self) -> int:
        return self._ask("num_parameters")["count"]

    def state_arrays(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        self._ask("state_arrays", received=arrays.__setitem__)
        return arrays

    def load_state(self, arrays: Mapping[str, np.ndarray], partly: bool) -> None:
        self._ask("load_state", arrays, partly=partly)

    def with_own_module(self, path: Path) -> RemoteReference:
        return _made(self.source, self.process, self._ask("with_own_module", path=str(path.absolute())))

    def run(
        self,
        images: np.ndarray,
        dtype: str,
        taps: bool | Collection[str],
        given: Mapping[str, np.ndarray],
        keep: Callable[[str, np.ndarray], Any],
        nudge: int | None,
    ) -> Run:
        outputs: dict[str, np.ndarray] = {}
        kept: dict[str, Any] = {}

        def received(name: str, array: np.ndarray) -> None:
            kind, _, name = name.partition("/")
            if kind == "tap":
                kept[name] = keep(name, array)
            else:
                outputs[name] = array

        sent = {"images": images, **{f"given/{name}": array for name, array in given.items()}}
        wanted = taps if isinstance(taps, bool) else list(taps)
        answer = self._ask("run", sent, received, dtype=dtype, taps=wanted, nudge=nudge)
        return Run(outputs, kept, answer["leaves"])

    def _ask(
        self,
        do: str,
        arrays: Mapping[str, np.ndarray] = {},
        received: Callable[[str, np.ndarray], None] = lambda name, array: None,
        **arguments: Any,
    ) -> dict[str, Any]:
        return self.process.ask(self.source, {"do": do, "number": self.number, **arguments}, arrays, received)


def create(environment: Environment, do: str, source: str, **arguments: Any) -> RemoteReference:
    """The reference that "load_reference" or "calibrated", with its arguments, makes in the library's process."""
    process = _processes.get(environment)
    if process is None or not process.alive:
        process = _processes[environment] = _Process(environment)
    return _made(source, process, process.ask(source, {"do": do, "source": source, **arguments}))


def _made(source: str, process: _Process, answer: dict[str, Any]) -> RemoteReference:
    reference = RemoteReference(source, process, answer["number"])
    weakref.finalize(reference, process.dropped.append, reference.number)
    return reference


class _Process:
    """A process that serves the references of one library. `dropped` are the numbers of those that nobody has."""

    def __init__(self, environment: Environment) -> None:
        self.dropped: list[int] = []
        self._name, self._errors = environment.name, tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zoo.verify.serve", *map(str, imported_files())],
            cwd=environment.folder,  # which `-m` puts before everything else
            env=environment.variables,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self,
        source: str,
        message: dict[str, Any],
        arrays: Mapping[str, np.ndarray] = {},
        received: Callable[[str, np.ndarray], None] = lambda name, array: None,
    ) -> dict[str, Any]:
        """The answer to a message; `received` gets each array as it comes. Raises ZooError with the words of a failure
        there.
        """
        dropped, self.dropped[:] = [*self.dropped], []
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if self._process.stdin.closed:
                raise EOFError
            send(self._process.stdin, {**message, "dropped": dropped}, arrays)
            answer: dict[str, Any] = {"more": True}
            while answer.get("more"):
                answer, found = receive(self._process.stdout)
                for name, array in found.items():
                    received(name, array)
        except (EOFError, OSError):
            self._end()
            raise ZooError(f"the process of {self._name} ended at {source}: {self._last_words()}") from None
        except BaseException:  # what is still on its way is the answer to nothing
            self._end()
            raise
        if "refused" in answer:
            raise ZooError(answer["refused"])
        if "failed" in answer:
            raise ZooError(f"{source} failed in the process of {self._name}: {answer['failed']}")
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()
        return words[-1] if words else f"it said nothing (status {self._process.returncode})"


_processes: dict[Environment, _Process] = {}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        try:
            stream.close()  # type: ignore[union-attr]
        except OSError:
            pass  # what it did not read
