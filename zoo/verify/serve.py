"""`python -m zoo.verify.serve`: references for one client, through stdin and stdout; see `zoo.verify.remote`.

Libraries that print get stderr. Arguments are files with references. The process ends with its stdin.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.discovery import import_file
from zoo.errors import ZooError
from zoo.verify.calibration import calibrated, num_parameters, state_arrays
from zoo.verify.pretrained import load_state, with_own_module
from zoo.verify.references import Reference, load_reference
from zoo.verify.remote import receive, send
from zoo.verify.running import run_reference

Answer = dict[str, Any]


class Server:
    """What a client may ask; each method takes the keys of its message, and answers with one."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send, self._numbers = send, itertools.count()
        self._made: dict[int, Reference] = {}

    def load_reference(self, source: str, classes: int | None) -> Answer:
        return self._keep(load_reference(source, classes))

    def calibrated(self, size: list[int], **arguments: Any) -> Answer:
        return self._keep(calibrated(size=tuple(size), **arguments))

    def with_own_module(self, number: int, path: str) -> Answer:
        return self._keep(with_own_module(self._made[number], Path(path)))

    def describe(self, number: int) -> Answer:
        return {"text": self._made[number].describe()}

    def num_parameters(self, number: int) -> Answer:
        return {"count": num_parameters(self._made[number])}

    def state_arrays(self, number: int) -> Answer:
        self._send({"more": True}, state_arrays(self._made[number]))
        return {}

    def load_state(self, number: int, arrays: dict[str, np.ndarray], partly: bool) -> Answer:
        load_state(self._made[number], arrays, partly)
        return {}

    def run(self, number: int, arrays: dict[str, np.ndarray], dtype: str, taps: Any, nudge: int | None) -> Answer:
        images = arrays.pop("images")
        given = {name.removeprefix("given/"): array for name, array in arrays.items()}
        keep = lambda name, value: self._send({"more": True}, {f"tap/{name}": value})  # noqa: E731
        run = run_reference(self._made[number], images, dtype, taps, given=given, keep=keep, nudge=nudge)
        self._send({"more": True}, {f"output/{name}": value for name, value in run.outputs.items()})
        return {"leaves": run.leaves}

    def drop(self, numbers: list[int]) -> None:
        """Forgets references that the client has no more."""
        for number in numbers:
            self._made.pop(number, None)

    def _keep(self, reference: Reference) -> Answer:
        number = next(self._numbers)
        self._made[number] = reference
        return {"number": number}


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answers each message until there are no more."""
    server = Server(lambda message, arrays: send(answers, message, arrays))
    while True:
        try:
            message, arrays = receive(requests)
        except EOFError:
            return
        server.drop(message.pop("dropped"))
        try:
            ask = getattr(server, message.pop("do"))
            answer = ask(**message, **({"arrays": arrays} if arrays else {}))
        except ZooError as error:
            answer = {"refused": str(error)}
        except Exception as error:  # a library raises whatever it meets
            answer = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        send(answers, answer)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client, which is interrupted too, ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for file in sys.argv[1:]:
        import_file(Path(file))
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
