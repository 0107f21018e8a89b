"""Memory for results that callers own: what they let go of is given to later results.

CUDA's own allocation and freeing cost more than the copy that fills the memory, as freeing waits for the whole device.
"""

from __future__ import annotations

from collections.abc import Iterable

from zoo.errors import ZooError
from zoo.runtime.cuda import Buffer, Cuda, Event, Stream

MOST_SPARE = 64 << 20  # bytes that one context keeps for later; larger results cost their allocation


class ResultMemory:
    """The memory of the results that are made on one stream.

    Later results are written on that stream too, and behind whatever the streams of borrowers had to do. So memory is
    given again without waiting, unless somebody has its address who does not say when he is done: that is freed, for
    which CUDA waits.
    """

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self._cuda, self._stream = cuda, stream
        self._spare: list[tuple[Buffer, list[Event]]] = []
        self._closed = False

    def take(self, nbytes: int) -> Buffer:
        """Memory that nobody uses when `stream` gets there. Inside `cuda.active()`."""
        for spare in tuple(self._spare):
            memory, events = spare
            if memory.nbytes == nbytes:
                self._spare.remove(spare)
                for event in events:
                    self._cuda.wait(self._stream, event)
                return _Result(self, memory)
        try:
            return _Result(self, self._cuda.alloc(nbytes))
        except ZooError:
            if not self._spare:
                raise
            self._spare.clear()  # of other sizes
            return _Result(self, self._cuda.alloc(nbytes))

    def put(self, memory: Buffer, events: Iterable[Event]) -> None:
        """Keeps memory for later, if it is not too much. Destructors call it, in any thread and at any point of it: it
        changes the list in one step only."""
        kept = sum(spare.nbytes for spare, _ in tuple(self._spare))
        if not self._closed and kept + memory.nbytes <= MOST_SPARE:
            self._spare.append((memory, [*events]))

    def close(self) -> None:
        """Frees what is spare; what callers have is freed when they let go of it."""
        self._closed = True
        self._spare.clear()


class _Result(Buffer):
    """Memory in a caller's hands."""

    __slots__ = ("_results", "_memory")

    def __init__(self, results: ResultMemory, memory: Buffer) -> None:
        super().__init__(memory._cuda, memory.ptr, memory.nbytes)
        self._results, self._memory = results, memory

    def __del__(self) -> None:
        if not self.untold:
            self._results.put(self._memory, self.returned.values())
