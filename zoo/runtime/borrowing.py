"""What a stream of ours owes the owners of the arrays that it works on: an order with their streams, and time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from zoo.runtime.arrays import Source
from zoo.runtime.cuda import Buffer, Cuda, Event, Stream

MOST_KEPT = 64  # calls whose arrays are kept while the GPU is behind


class Borrowing:
    """The arrays of others that one stream works on. Must be used inside `cuda.active()`.

    Around each use, `begin` makes the stream wait for everybody who works on the arrays, and `end` makes them wait for
    it. Arrays whose memory is not ours are kept until the GPU has read them: their owners may give that memory to
    somebody else as soon as they are dropped.
    """

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self._cuda, self._stream = cuda, stream
        self._event = cuda.event()
        self._streams: dict[int, Stream] = {}
        self._kept: deque[tuple[Event, list[Source]]] = deque()

    def begin(self, sources: Sequence[Source], ours: Iterable[Buffer] = ()) -> list[Stream]:
        """Makes the stream wait; `ours` is memory that is written, or read beside that of `sources`. Returns who else
        works on all of it, for `end`."""
        handles = {source.stream for source in sources}
        for buffer in (*ours, *(source.buffer for source in sources if source.buffer is not None)):
            handles.update(tuple(buffer.borrowers))
            while buffer.returned:
                self._cuda.wait(self._stream, buffer.returned.popitem()[1])
        others = [self._foreign(h) for h in handles if h is not None and h != self._stream.handle]
        for other in others:
            self._order(other, self._stream)
        return others

    def end(self, sources: Sequence[Source], others: Iterable[Stream]) -> None:
        """Makes `others` wait: they may write to the arrays as soon as their own streams get there."""
        for other in others:
            self._order(self._stream, other)
        foreign = [source for source in sources if source.ptr is not None and source.buffer is None]
        if foreign:
            self._keep(foreign)

    def settled(self) -> None:
        """Lets go of everything: the stream is known to be idle."""
        self._kept.clear()

    def _keep(self, sources: list[Source]) -> None:
        event = None
        while self._kept and (len(self._kept) >= MOST_KEPT or self._cuda.passed(self._kept[0][0])):
            event = self._kept[0][0]
            self._cuda.wait_on_host(event)
            self._kept.popleft()
        event = event or self._cuda.event()
        self._cuda.record(event, self._stream)
        self._kept.append((event, sources))

    def _order(self, first: Stream, then: Stream) -> None:
        self._cuda.record(self._event, first)
        self._cuda.wait(then, self._event)

    def _foreign(self, handle: int) -> Stream:
        if handle not in self._streams:
            self._streams[handle] = self._cuda.wrap_stream(handle)
        return self._streams[handle]
