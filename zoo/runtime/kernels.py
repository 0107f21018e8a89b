"""Frames to network inputs and YOLO outputs to detections on the GPU, and the pipeline that joins them to an engine.

The kernels in `kernels/` are compiled by NVRTC for the GPU at hand and kept in ~/.cache/zoo. Their arithmetic is that of
`zoo.tasks.preprocess` and `zoo.tasks.detect`, which say what is right.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.files import replacing
from zoo.runtime.cuda import Buffer, Cuda, Stream
from zoo.runtime.gpu import DeviceArray, GpuSession, Source, order_streams, producer_stream, read_source, record
from zoo.tasks.spec import CenterCrop, Letterbox, Preprocess

_SOURCES = Path(__file__).with_name("kernels")
_OPTIONS = ("--fmad=false", "--std=c++17")  # separate multiply and add, as numpy computes
_BLOCK = (32, 8, 1)
_NMS_THREADS, _RANK_THREADS, _RANK_TILE, _SELECT_ANCHORS, _CLASS_GROUPS = 512, 256, 1024, 32, 8  # as in detect.cu
_MAX_DETECTIONS = 1024
_MAX_GRAPHS = 32  # frame sizes and addresses that a pipeline remembers


# ---- compiling ------------------------------------------------------------------------------------------------------


@functools.cache
def nvrtc() -> ctypes.CDLL:
    """NVIDIA's run-time compiler, from LD_LIBRARY_PATH, a pip package or a CUDA toolkit. Raises ZooError without one."""
    for path in _nvrtc_paths():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise ZooError(
        'NVRTC (libnvrtc.so), which compiles the GPU kernels, was not found; install it: pip install "nvidia-cuda-nvrtc" '
        "(nvidia-cuda-nvrtc-cu12 for CUDA 12), or set CUDA_HOME to a CUDA toolkit"
    )


def _nvrtc_paths() -> list[str]:
    """Where libnvrtc may be, best first; plain names go through LD_LIBRARY_PATH and the system's cache."""
    names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
    found: list[str] = []
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home:
            found += [f"{home}/{folder}/{name}" for folder in ("lib64", "lib") for name in names]
    found += names
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        found.append(load_nvidia_dynamic_lib("nvrtc").abs_path)
    except Exception:  # the package is optional, and raises its own error when it finds nothing
        pass
    for folder in sys.path:
        found += sorted(glob.glob(f"{glob.escape(folder)}/nvidia/*/lib/libnvrtc.so.*"), reverse=True)
    found += [f"/usr/local/cuda/lib64/{name}" for name in names]
    return found


def nvrtc_version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_source(source: str, name: str, compute_capability: str) -> bytes:
    """CUDA C++ compiled for one GPU generation («9.0»): machine code, or PTX when the compiler is older than the GPU.

    The result is kept under $XDG_CACHE_HOME/zoo, keyed by source, generation and compiler version. Raises ZooError with
    the compiler's log.
    """
    version = nvrtc_version()
    key = hashlib.sha256(repr((source, name, compute_capability, version, _OPTIONS)).encode()).hexdigest()[:32]
    cached = _cache_folder() / f"{Path(name).stem}-{key}.bin"
    try:
        return cached.read_bytes()
    except OSError:
        image = _compile(source, name, int(compute_capability.replace(".", "")))
    _keep(cached, image)
    return image


def _compile(source: str, name: str, generation: int) -> bytes:
    library, program = nvrtc(), ctypes.c_void_p()
    count = ctypes.c_int()
    _check(library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    known = (ctypes.c_int * count.value)()
    _check(library.nvrtcGetSupportedArchs(known))
    native = generation in list(known)
    if not native and generation < max(known):
        raise ZooError(f"NVRTC {'.'.join(map(str, nvrtc_version()))} cannot compile for compute capability {generation / 10}")
    target = f"sm_{generation}" if native else f"compute_{max(known)}"
    options = [option.encode() for option in (f"--gpu-architecture={target}", *_OPTIONS)]
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        code = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        if code != 0:
            log = _output(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
            raise ZooError(f"{name} does not compile for {target}: {log.rstrip(bytes(1)).decode(errors='replace')}")
        if native:
            return _output(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
        return _output(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _output(get_size: Any, get: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(get_size(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(get(program, data))
    return data.raw


def _check(code: int) -> None:
    if code != 0:
        raise ZooError(f"NVRTC failed: {nvrtc().nvrtcGetErrorString(code).decode()}")


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zoo"


def _keep(path: Path, data: bytes) -> None:
    """Writes a cache file; a folder that cannot be written costs a compilation next time, no more."""
    try:
        with replacing(path) as file:
            file.write(data)
    except ZooError:
        pass


@functools.cache
def _module(cuda: Cuda, file: str) -> Any:
    """A kernel file, compiled for the device of `cuda` and loaded for the life of the process."""
    source = (_SOURCES / file).read_text()
    return cuda.load_module(compile_source(source, file, cuda.device().compute_capability))


@functools.cache
def _function(cuda: Cuda, file: str, name: str) -> Any:
    return cuda.function(_module(cuda, file), name)


# ---- where a picture lies, and the resampling tables ----------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies in the network input: input = picture x scale + offset, in pixels; sizes are (width, height).

    The same numbers as `zoo.tasks.preprocess.Placement`, which needs no pixels to be known.
    """

    picture: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        return self.resized[0] / self.picture[0], self.resized[1] / self.picture[1]


def letterbox_geometry(picture: tuple[int, int], size: tuple[int, int]) -> Geometry:
    """ultralytics' LetterBox(auto=False, center=True); sizes are (width, height)."""
    ratio = min(size[1] / picture[1], size[0] / picture[0])
    resized = (max(round(picture[0] * ratio), 1), max(round(picture[1] * ratio), 1))
    return Geometry(picture, resized, (round((size[0] - resized[0]) / 2 - 0.1), round((size[1] - resized[1]) / 2 - 0.1)))


def center_crop_geometry(picture: tuple[int, int], size: tuple[int, int], spec: CenterCrop) -> Geometry:
    """torchvision's Resize and CenterCrop; sizes are (width, height). Raises ZooError when the crop is the larger."""
    short = round(spec.resize * max(size) / spec.size)
    if short < max(size):
        raise ZooError(f"a picture resized to {short} is too small for a crop of {size[1]}x{size[0]}; raise `resize`")
    long = int(short * max(picture) / min(picture))
    resized = (short, long) if picture[0] < picture[1] else (long, short)
    return Geometry(picture, resized, (-round((resized[0] - size[0]) / 2), -round((resized[1] - size[1]) / 2)))


def bilinear_table(length: int, resized: int, clamp: bool) -> np.ndarray:
    """cv2's INTER_LINEAR along one axis: (resized, 4) int32 of two pixels and their weights in 1/2048.

    cv2 clamps the weights at the borders of its horizontal pass (`clamp`), and the pixels in the vertical one.
    """
    scale = 1 / (resized / length)
    position = ((np.arange(resized) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    weight = position - first.astype(np.float32)
    if clamp:
        weight[(first < 0) | (first >= length - 1)] = 0
    weights = [np.rint((1 - weight) * np.float32(2048)), np.rint(weight * np.float32(2048))]
    pixels = [np.clip(first, 0, length - 1), np.clip(first + 1, 0, length - 1)]
    if clamp:
        pixels[1] = np.minimum(pixels[0] + 1, length - 1)
    return np.stack(pixels + weights, 1).astype(np.int32)


def antialias_table(length: int, resized: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's BILINEAR along one axis, for the pixels `start` to `stop` of `resized`: first input pixels (M,), weights
    (M, taps) in 1/2^22, both int32."""
    scale = length / resized
    support = max(scale, 1.0)
    centres = (np.arange(start, stop) + 0.5) * scale
    taps = min(int(np.ceil(2 * support)) + 2, length)
    first = np.clip(np.floor(centres - support).astype(np.int64), 0, length - taps)
    pixels = first + np.arange(taps)[:, None]
    weights = np.maximum(1 - np.abs(pixels + 0.5 - centres) / support, 0)
    weights = np.floor(weights / weights.sum(0) * (1 << 22) + 0.5)
    return first.astype(np.int32), np.ascontiguousarray(weights.T.astype(np.int32))


# ---- the kernels ----------------------------------------------------------------------------------------------------


class Preprocessor:
    """uint8 frames of one size to network input. Must be used inside `cuda.active()`."""

    def __init__(
        self, cuda: Cuda, spec: Preprocess, frame: tuple[int, int], size: tuple[int, int], rgb: bool = False
    ) -> None:
        """`frame` and `size` are the (height, width) of the frames and of the network input."""
        self._cuda, self._size = cuda, size
        picture, target = (frame[1], frame[0]), (size[1], size[0])
        bgr = np.int32(not rgb)
        if isinstance(spec, Letterbox):
            self.geometry = geometry = letterbox_geometry(picture, target)
            self._function = _function(cuda, "preprocess.cu", "letterbox")
            columns = bilinear_table(picture[0], geometry.resized[0], clamp=True)
            rows = bilinear_table(picture[1], geometry.resized[1], clamp=False)
            self._tables = [cuda.upload(columns), cuda.upload(rows)]
            whole = (*geometry.resized, *geometry.offset, *target, spec.fill)
            self._args = [np.uint64(table.ptr) for table in self._tables] + [np.int32(value) for value in whole] + [bgr]
        elif isinstance(spec, CenterCrop):
            self.geometry = geometry = center_crop_geometry(picture, target, spec)
            self._function = _function(cuda, "preprocess.cu", "center_crop")
            self._tables, self._args = [], []
            for axis in (0, 1):
                start = -geometry.offset[axis]
                first, weights = antialias_table(picture[axis], geometry.resized[axis], start, start + target[axis])
                self._args += [self._table(first), self._table(weights), np.int32(weights.shape[1])]
            self._args += [self._table(np.float32(spec.mean)), self._table(np.float32(spec.std))]
            self._args += [np.int32(target[0]), np.int32(target[1]), bgr]
        else:
            raise ZooError(f"{type(spec).__name__} has no GPU kernel; preprocess on the CPU with zoo.tasks.preprocess")

    def _table(self, values: np.ndarray) -> np.uint64:
        self._tables.append(self._cuda.upload(values))
        return np.uint64(self._tables[-1].ptr)

    def enqueue(self, frame: int, pitch: int, output: DeviceArray, stream: Stream) -> None:
        """Fills `output` (1, 3, H, W), float32 or float16, from the frame at address `frame`, `pitch` bytes a row."""
        height, width = self._size
        if output.shape != (1, 3, height, width) or output.dtype not in (np.float32, np.float16):
            raise ZooError(f"expected an output of (1, 3, {height}, {width}) float32 or float16, got {output}")
        args = [np.uint64(frame), np.int64(pitch), *self._args, np.int32(output.dtype == np.float16), np.uint64(output.ptr)]
        grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), 1)
        self._cuda.launch(self._function, grid, _BLOCK, stream, args)


class Detector:
    """Boxes (N, 4, A) cx, cy, w, h and scores (N, C, A) on the GPU to detections. Must be used inside `cuda.active()`.

    The decisions of `zoo.tasks.detect.non_max_suppression`. Nothing waits for the host: `enqueue` may be captured in a
    CUDA graph, then read `output` (N, 1 + max_det x 6) float32 and give its host copy to `parse`.
    """

    def __init__(
        self,
        cuda: Cuda,
        boxes: DeviceArray,
        scores: DeviceArray,
        stream: Stream,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
    ) -> None:
        images, classes, anchors = scores.shape
        if boxes.shape != (images, 4, anchors) or boxes.dtype != np.float32 or scores.dtype != np.float32:
            raise ZooError(f"expected float32 boxes (N, 4, A) and scores (N, C, A), got {boxes} and {scores}")
        if not 0 < max_det <= _MAX_DETECTIONS:
            raise ZooError(f"max_det is {max_det}; the GPU keeps 1 to {_MAX_DETECTIONS} boxes a picture")
        if conf < 0:
            raise ZooError(f"conf is {conf}; it must not be negative")
        self._cuda, self._boxes, self._scores = cuda, boxes, scores
        self._images, self._anchors = images, anchors
        self._conf, self._iou, self._max_det = np.float32(conf), np.float32(iou), max_det
        count = images * anchors
        sizes = {"keys": 8 * count, "labels": 4 * count, "rank": 4 * count, "order": 4 * count, "state": 8 * images}
        self._scratch = {name: cuda.alloc(size) for name, size in sizes.items()}
        for name in ("rank", "state"):
            cuda.zero(self._scratch[name].ptr, sizes[name], stream)
        shape = (images, 1 + 6 * max_det)
        buffer = cuda.alloc(4 * images * shape[1])
        self.output = DeviceArray(cuda, buffer.ptr, shape, np.dtype(np.float32), stream, buffer)
        names = ("select_candidates", "rank_candidates", "suppress")
        self._functions = [_function(cuda, "detect.cu", name) for name in names]

    def placements(self, geometries: Sequence[Geometry]) -> Buffer:
        """The device copy of where the pictures lie in the network input, for `enqueue`."""
        rows = [(*g.offset, *g.scale, *g.picture) for g in geometries]
        return self._cuda.upload(np.array(rows, np.float32))

    def enqueue(self, placements: Buffer, stream: Stream) -> None:
        select, rank, suppress = self._functions
        pointer = {name: np.uint64(buffer.ptr) for name, buffer in self._scratch.items()}
        boxes, scores = np.uint64(self._boxes.ptr), np.uint64(self._scores.ptr)
        anchors, classes = np.int32(self._anchors), np.int32(self._scores.shape[1])
        launch, blocks = self._cuda.launch, lambda size: -(-self._anchors // size)
        launch(
            select, (blocks(_SELECT_ANCHORS), self._images, 1), (_SELECT_ANCHORS, _CLASS_GROUPS, 1), stream,
            [boxes, scores, anchors, classes, self._conf, pointer["keys"], pointer["labels"], pointer["state"]],
        )  # fmt: skip
        launch(
            rank, (blocks(_RANK_THREADS), blocks(_RANK_TILE), self._images), (_RANK_THREADS, 1, 1), stream,
            [pointer["keys"], anchors, pointer["state"], pointer["rank"]],
        )  # fmt: skip
        launch(
            suppress, (self._images, 1, 1), (_NMS_THREADS, 1, 1), stream,
            [boxes, pointer["keys"], pointer["labels"], pointer["rank"], pointer["order"], pointer["state"], anchors,
             self._iou, np.int32(self._max_det), np.uint64(placements.ptr), np.uint64(self.output.ptr)],
        )  # fmt: skip

    def parse(self, rows: np.ndarray) -> list[Detections]:
        """The detections of each picture from a host copy of `output`. Raises ZooError for NaN or infinity."""
        return [_parse(row) for row in rows]


@dataclass(frozen=True)
class Detections:
    """What one picture holds, best first: boxes (K, 4) x1, y1, x2, y2 in its pixels, scores (K,), classes (K,)."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def _parse(row: np.ndarray) -> Detections:
    count = int(row[:1].view(np.int32)[0])
    if count < 0:
        raise ZooError("Boxes or scores hold NaN or infinity: the network overflowed; build it with fp32 or bf16.")
    table = row[1 : 1 + 6 * count].reshape(count, 6).copy()
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


# ---- frame to result ------------------------------------------------------------------------------------------------


class _Frames:
    """What a pipeline keeps for one frame size: tables, staging memory, where the picture lies."""

    def __init__(self, preprocessor: Preprocessor, placements: Buffer | None) -> None:
        self.preprocessor, self.placements = preprocessor, placements
        self.staging: np.ndarray | None = None  # pinned, (H, W, 3), for frames from the host
        self.buffer: Buffer | None = None


class FramePipeline:
    """Frame to result on one stream: preprocessing kernel, engine, decoding, replayed as one CUDA graph.

    A frame is uint8 (H, W, 3), BGR unless `rgb`, on the host or on the GPU (its rows may be pitched). A detector
    (outputs `boxes` and `scores`) gives `Detections` in pixels of the frame; other networks give their outputs as
    numpy arrays. Frames written to `buffer(height, width)` need no staging copy. One thread at a time.
    """

    def __init__(
        self,
        session: GpuSession,
        spec: Preprocess,
        *,
        size: tuple[int, int] | None = None,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        rgb: bool = False,
    ) -> None:
        """`size` is the (height, width) of the network input, without it the square of `spec.size`."""
        self._cuda, self._spec, self._rgb = session.cuda, spec, rgb
        self._size = size or (spec.size, spec.size)
        self._graphs = session.graphs
        if len(session.inputs) != 1:
            raise ZooError(f"a frame pipeline needs an engine with 1 input, this one has {len(session.inputs)}")
        name = next(iter(session.inputs))
        with self._cuda.active():
            self._stream = self._cuda.stream()
            self._bound = session.bind({name: (1, 3, *self._size)}, self._stream)
            self._input, outputs = self._bound.inputs[name], self._bound.outputs
            self._detector = None
            if {"boxes", "scores"} <= set(outputs):
                self._detector = Detector(
                    self._cuda, outputs["boxes"], outputs["scores"], self._stream, conf, iou, max_det
                )
            arrays = outputs if self._detector is None else {"detections": self._detector.output}
            self._results = {n: (array, self._cuda.pinned(array.nbytes)) for n, array in arrays.items()}
        self._frames: dict[tuple[int, int], _Frames] = {}
        self._graph_of: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # None until a key is seen again

    def buffer(self, height: int, width: int) -> np.ndarray:
        """The pinned (H, W, 3) uint8 array that frames of this size are sent from; fill it and pass it."""
        self._open()
        with self._cuda.active():
            return self._host_frames(height, width).staging

    def __call__(self, frame: Any) -> Detections | dict[str, np.ndarray]:
        """The result for one frame, complete on return. Raises ZooError for another shape or dtype."""
        self._open()
        with self._cuda.active():
            source, pitch = _read_frame(frame, self._stream)
            height, width = source.shape[:2]
            if isinstance(source, np.ndarray):
                frames = self._host_frames(height, width)
                if source is not frames.staging:
                    np.copyto(frames.staging, source)
                self._run((height, width), frames, frames.buffer.ptr, 3 * width)
            else:
                frames = self._prepare(height, width)
                if source.stream not in (None, self._stream.handle):
                    order_streams(self._cuda, self._cuda.wrap_stream(source.stream), self._stream)
                self._run((height, width, source.ptr, pitch), frames, source.ptr, pitch)
            self._cuda.synchronize(self._stream)
            return self._read()

    def _open(self) -> None:
        if self._bound is None:
            raise ZooError("the pipeline is closed; make a new one")

    def _prepare(self, height: int, width: int) -> _Frames:
        frames = self._frames.get((height, width))
        if frames is None:
            preprocessor = Preprocessor(self._cuda, self._spec, (height, width), self._size, self._rgb)
            placements = self._detector.placements([preprocessor.geometry]) if self._detector else None
            frames = self._frames[height, width] = _Frames(preprocessor, placements)
        return frames

    def _host_frames(self, height: int, width: int) -> _Frames:
        frames = self._prepare(height, width)
        if frames.staging is None:
            frames.buffer = self._cuda.alloc(3 * height * width)
            frames.staging = self._cuda.pinned(3 * height * width).reshape(height, width, 3)
        return frames

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
            graph = record(self._cuda, self._stream, lambda: self._work(frames, address, pitch))
            self._graph_of[key] = graph
            self._graphs = graph is not None
        if graph is None:
            self._work(frames, address, pitch)

    def _work(self, frames: _Frames, address: int, pitch: int) -> None:
        if frames.buffer is not None and address == frames.buffer.ptr:
            self._cuda.h2d(address, frames.staging.reshape(-1), self._stream)
        frames.preprocessor.enqueue(address, pitch, self._input, self._stream)
        self._bound.enqueue(self._stream)
        if self._detector is not None:
            self._detector.enqueue(frames.placements, self._stream)
        for array, pinned in self._results.values():
            self._cuda.d2h(pinned, array.ptr, self._stream)

    def _remember(self, key: tuple[int, ...]) -> None:
        self._graph_of[key] = None
        while len(self._graph_of) > _MAX_GRAPHS:
            self._drop(self._graph_of.popitem(last=False)[1])

    def _drop(self, graph: Any) -> None:
        if graph is not None:
            self._cuda.synchronize(self._stream)
            self._cuda.destroy_graph(graph)

    def _read(self) -> Detections | dict[str, np.ndarray]:
        arrays = {n: pinned.view(array.dtype).reshape(array.shape) for n, (array, pinned) in self._results.items()}
        if self._detector is not None:
            return self._detector.parse(arrays["detections"])[0]
        return {name: array.copy() for name, array in arrays.items()}

    def close(self) -> None:
        """Frees the graphs, the context and the buffers. The session stays open."""
        if self._bound is None:
            return
        with self._cuda.active():
            self._cuda.synchronize(self._stream)
            for graph in self._graph_of.values():
                self._drop(graph)
        self._graph_of.clear()
        self._frames.clear()
        self._results.clear()
        self._bound = self._detector = None

    def __enter__(self) -> FramePipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Packed:
    """A pitched frame as if its rows were packed: who reads it must know the pitch."""

    def __init__(self, interface: dict[str, Any], stream: int | None, owner: object) -> None:
        self.__cuda_array_interface__ = {**interface, "strides": None, "stream": stream}
        self.owner = owner


def _read_frame(frame: Any, stream: Stream) -> tuple[np.ndarray | Source, int]:
    """Where the frame lies, and the bytes from row to row. Raises ZooError unless it is uint8 (H, W, 3), packed pixels."""
    pitch = 0
    interface = getattr(frame, "__cuda_array_interface__", None)
    if interface is not None and interface.get("strides") and len(interface["shape"]) == 3:
        pitch, *inner = interface["strides"]
        if tuple(inner) != (3, 1):
            raise ZooError(f"the frame's pixels are not packed (strides {interface['strides']}); make a contiguous copy")
        frame = _Packed(interface, producer_stream(frame), frame)
    source = read_source(frame, stream)
    shape, dtype = tuple(source.shape), np.dtype(source.dtype)
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise ZooError(f"Expected a frame (H, W, 3) of uint8, got {shape} of {dtype}.")
    return source, pitch or 3 * shape[1]
