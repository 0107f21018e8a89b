"""Frame to result on the GPU: preprocessing kernel, engine and decoding on one stream, as one CUDA graph."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement, Preprocess
from zoo.runtime.arrays import DeviceArray, Source, check_device, interface_of, producer_stream, read_source
from zoo.runtime.borrowing import Borrowing
from zoo.runtime.cuda import Buffer, Cuda, Graph, Stream
from zoo.runtime.gpu import GpuSession
from zoo.runtime.kernels import Preprocessor

MAX_GRAPHS = 32  # frame sizes and addresses that a pipeline remembers
MAX_SIZES, MAX_STAGING = 32, 256 << 20  # frame sizes with their tables, and bytes of their staging memory on each side


class Decoder(Protocol):
    """Outputs to results on the GPU, where they lie. Nothing waits for the host: it can be captured in a graph."""

    output: DeviceArray  # what is copied to the host, a row for each picture

    def placements(self, placements: Sequence[Placement]) -> Buffer:
        """The device copy of where the pictures lie in the network input."""

    def enqueue(self, placements: Buffer, stream: Stream) -> None:
        """Fills `output`."""

    def parse(self, rows: np.ndarray) -> Sequence[Any]:
        """What each picture gave, from a host copy of `output`. Raises ZooError for what cannot be decoded."""


MakeDecoder = Callable[[Cuda, Mapping[str, DeviceArray], Stream], "Decoder | None"]


class _Frames:
    """What a pipeline keeps for one frame size: tables, staging memory, where the picture lies."""

    def __init__(self, preprocessor: Preprocessor, placements: Buffer | None) -> None:
        self.preprocessor, self.placements = preprocessor, placements
        self.staging: np.ndarray | None = None  # pinned, (H, W, 3), for frames from the host
        self.buffer: Buffer | None = None

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes if self.buffer is not None else 0


class PendingFrame:
    """The promise of `FramePipeline.submit`."""

    def __init__(self, pipeline: FramePipeline, placement: Placement) -> None:
        self._pipeline = pipeline
        self.placement = placement  # where the frame lies in the network input
        self._outcome: Any = None  # None while it is under way

    def result(self) -> Any:
        """The result for the frame; waits for it. Raises ZooError for what cannot be decoded, and when CUDA failed."""
        if self._outcome is None:
            self._pipeline._settle()
        assert self._outcome is not None
        if isinstance(self._outcome, ZooError):
            raise self._outcome
        return self._outcome


class FramePipeline:
    """Frame to result on one stream: preprocessing kernel, engine, decoding, replayed as one CUDA graph.

    A frame is uint8 (H, W, 3), BGR unless `rgb`, on the host or on the GPU (its rows may be pitched). `decoder` makes
    what decodes the outputs (see `zoo.tasks.Task.gpu_decoder`): the result is then what it parses. Without one, the
    result is the outputs by name, as numpy arrays. Frames written to `buffer(height, width)` need no staging copy. One
    thread at a time.

    `submit` returns while the GPU works on the frame. A pipeline has room for one frame; two pipelines that take turns
    copy one frame while the other's network runs.
    """

    def __init__(
        self,
        session: GpuSession,
        spec: Preprocess,
        *,
        size: tuple[int, int] | None = None,
        decoder: MakeDecoder | None = None,
        rgb: bool = False,
    ) -> None:
        """`size` is the (height, width) of the network input, without it the published one."""
        self._cuda, self._spec, self._rgb = session.cuda, spec, rgb
        self._size = size or spec.input[1:]
        self._graphs = session.graphs
        if len(session.inputs) != 1:
            raise ZooError(f"a frame pipeline needs an engine with 1 input, this one has {len(session.inputs)}")
        name = next(iter(session.inputs))
        with self._cuda.active():
            self._stream = self._cuda.stream()
            self._bound = session.bind({name: (1, 3, *self._size)}, self._stream)
            self._input, outputs = self._bound.inputs[name], self._bound.outputs
            self.shapes = {name: array.shape[1:] for name, array in outputs.items()}  # of one picture's outputs
            self._decoder = decoder(self._cuda, outputs, self._stream) if decoder else None
            self.decodes = self._decoder is not None  # whether results are a decoder's, not the outputs
            arrays = outputs if self._decoder is None else {"decoded": self._decoder.output}
            self._results = {n: (array, self._cuda.pinned(array.nbytes)) for n, array in arrays.items()}
            self._borrowing = Borrowing(self._cuda, self._stream)
        self._frames: OrderedDict[tuple[int, int], _Frames] = OrderedDict()
        self._graph_of: OrderedDict[tuple[int, ...], Graph | None] = OrderedDict()  # None until a key is seen again
        self._pending: PendingFrame | None = None

    def buffer(self, height: int, width: int) -> np.ndarray:
        """The pinned (H, W, 3) uint8 array that frames of this size are sent from; fill it and pass it.

        Ask for it anew for each frame: sizes that were not seen for long are forgotten.
        """
        self._open()
        self._settle()
        with self._cuda.active():
            return self._host_frames(height, width).staging

    def __call__(self, frame: Any) -> Any:
        """The result for one frame, complete on return. Raises ZooError for another shape or dtype."""
        return self.submit(frame).result()

    def submit(self, frame: Any) -> PendingFrame:
        """Starts on a frame and returns; waits for the frame before. Raises ZooError for another shape or dtype.

        A frame on the host is copied first, unless it is `buffer`'s, which must stay as it is. One on the GPU is kept,
        and the stream that it was made on waits until it was read.
        """
        self._open()
        self._settle()
        with self._cuda.active():
            source, pitch = _read_frame(frame, self._stream, self._cuda)
            height, width = source.shape[:2]
            if source.ptr is None:
                frames = self._host_frames(height, width)
                if source.keep is not frames.staging:
                    np.copyto(frames.staging, source.keep)
                self._run((height, width), frames, frames.buffer.ptr, 3 * width)
            else:
                frames = self._prepare(height, width)
                others = self._borrowing.begin([source])
                try:
                    self._run((height, width, source.ptr, pitch), frames, source.ptr, pitch)
                finally:
                    self._borrowing.end([source], others)
        self._pending = PendingFrame(self, frames.preprocessor.placement)
        return self._pending

    def _settle(self) -> None:
        """Waits for the frame under way, if there is one, and keeps its outcome."""
        if self._pending is None:
            return
        try:
            with self._cuda.active():
                self._cuda.synchronize(self._stream)
            self._borrowing.settled()
            self._pending._outcome = self._read()
        except ZooError as error:
            self._pending._outcome = error.with_traceback(None)
        self._pending = None

    def _open(self) -> None:
        if self._bound is None:
            raise ZooError("the pipeline is closed; make a new one")

    def _prepare(self, height: int, width: int) -> _Frames:
        frames = self._frames.get((height, width))
        if frames is not None:
            self._frames.move_to_end((height, width))
        else:
            preprocessor = Preprocessor(self._cuda, self._spec, (height, width), self._size, self._rgb)
            placements = self._decoder.placements([preprocessor.placement]) if self._decoder else None
            frames = self._frames[height, width] = _Frames(preprocessor, placements)
            self._forget_sizes()
        return frames

    def _host_frames(self, height: int, width: int) -> _Frames:
        frames = self._prepare(height, width)
        if frames.staging is None:
            frames.buffer = self._cuda.alloc(3 * height * width)
            frames.staging = self._cuda.pinned(3 * height * width).reshape(height, width, 3)
            self._forget_sizes()
        return frames

    def _forget_sizes(self) -> None:
        """Frees what the sizes unused for longest hold: pictures of a folder may each have their own."""
        while len(self._frames) > 1 and (
            len(self._frames) > MAX_SIZES or sum(frames.nbytes for frames in self._frames.values()) > MAX_STAGING
        ):
            self._cuda.synchronize(self._stream)
            size = next(iter(self._frames))
            for key in [key for key in self._graph_of if key[:2] == size]:
                del self._graph_of[key]
            del self._frames[size]

    def _run(self, key: tuple[int, ...], frames: _Frames, address: int, pitch: int) -> None:
        """The first frame of a kind runs directly, the second is captured, the others are replayed."""
        graph = self._graph_of.get(key)
        if graph is not None:
            self._graph_of.move_to_end(key)
            self._cuda.launch_graph(graph, self._stream)
            return
        seen = key in self._graph_of
        self._remember(key)
        if seen and self._graphs:
            graph = self._cuda.capture(self._stream, lambda: self._work(frames, address, pitch))
            self._graph_of[key] = graph
            self._graphs = graph is not None
        if graph is None:
            self._work(frames, address, pitch)

    def _work(self, frames: _Frames, address: int, pitch: int) -> None:
        if frames.buffer is not None and address == frames.buffer.ptr:
            self._cuda.h2d(address, frames.staging.reshape(-1), self._stream)
        frames.preprocessor.enqueue(address, pitch, self._input, self._stream)
        self._bound.enqueue(self._stream)
        if self._decoder is not None:
            self._decoder.enqueue(frames.placements, self._stream)
        for array, pinned in self._results.values():
            self._cuda.d2h(pinned, array.ptr, self._stream)

    def _remember(self, key: tuple[int, ...]) -> None:
        self._graph_of[key] = None
        while len(self._graph_of) > MAX_GRAPHS:
            self._cuda.synchronize(self._stream)
            self._graph_of.popitem(last=False)

    def _read(self) -> Any:
        arrays = {n: pinned.view(array.dtype).reshape(array.shape) for n, (array, pinned) in self._results.items()}
        if self._decoder is not None:
            return self._decoder.parse(arrays["decoded"])[0]
        return {name: array.copy() for name, array in arrays.items()}

    def close(self) -> None:
        """Waits for the frame under way, and frees the graphs, the context and the buffers. The session stays open."""
        if self._bound is None:
            return
        self._settle()
        try:
            with self._cuda.active():
                self._cuda.synchronize(self._stream)
        finally:
            self._graph_of.clear()  # before the context that they were captured from
            self._frames.clear()
            self._results.clear()
            self._bound = self._decoder = None

    def __enter__(self) -> FramePipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # it was never made, or the interpreter or the driver is shutting down
            pass


class _Packed:
    """A pitched frame as if its rows were packed: who reads it must know the pitch."""

    def __init__(self, interface: dict[str, Any], stream: int | None, owner: object) -> None:
        self.__cuda_array_interface__ = {**interface, "strides": None, "stream": stream}
        self.owner = owner


def _read_frame(frame: Any, stream: Stream, cuda: Cuda) -> tuple[Source, int]:
    """Where the frame lies, and the bytes from row to row. Raises ZooError unless it is uint8 (H, W, 3)."""
    pitch = None
    interface = interface_of(frame) if hasattr(frame, "__cuda_array_interface__") else {}
    if interface.get("strides") and len(interface["shape"]) == 3:
        pitch, *inner = interface["strides"]
        if tuple(inner) != (3, 1):
            raise ZooError(
                f"the frame's pixels are not packed (strides {interface['strides']}); make a contiguous copy"
            )
        frame = _Packed(interface, producer_stream(frame), frame)
    source = read_source(frame, stream, cuda)
    if source.ptr is not None:
        check_device(cuda.device_of(source.ptr), cuda)
    shape, dtype = tuple(source.shape), np.dtype(source.dtype)
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise ZooError(f"Expected a frame (H, W, 3) of uint8, got {shape} of {dtype}.")
    return source, 3 * shape[1] if pitch is None else pitch
