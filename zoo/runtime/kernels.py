"""Frames to network inputs and YOLO outputs to detections, on the GPU.

The arithmetic of the kernels in `kernels/` is that of `zoo.preprocess` and `zoo.tasks.detect`, bit by bit.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import ZooError
from zoo.nvrtc import compile_source
from zoo.preprocess import Placement, Preprocess
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.cuda import Buffer, Cuda, Stream

_SOURCES = Path(__file__).with_name("kernels")
_BLOCK = (32, 8, 1)
_NMS_THREADS, _RANK_THREADS, _RANK_TILE, _SELECT_ANCHORS, _CLASS_GROUPS = 512, 256, 1024, 32, 8  # as in detect.cu
_MAX_DETECTIONS = 1024


@functools.cache
def _module(cuda: Cuda, file: str) -> Any:
    """A kernel file, compiled for the device of `cuda` and loaded for the life of the process."""
    source = (_SOURCES / file).read_text()
    return cuda.load_module(compile_source(source, file, cuda.device().compute_capability))


@functools.cache
def _function(cuda: Cuda, file: str, name: str) -> Any:
    return cuda.function(_module(cuda, file), name)


# ---- the kernels ----------------------------------------------------------------------------------------------------


class Preprocessor:
    """uint8 frames of one size to network input, by the tables of their preprocessing. Must be used inside
    `cuda.active()`."""

    def __init__(
        self, cuda: Cuda, preprocess: Preprocess, frame: tuple[int, int], size: tuple[int, int], rgb: bool = False
    ) -> None:
        """`frame` and `size` are the (height, width) of the frames and of the network input."""
        self.placement = preprocess.placement(frame, size)
        tables = preprocess.resampling(self.placement)
        if tables is None:
            raise ZooError(f"{preprocess} has no GPU kernel; prepare the picture on the CPU with its `apply`")
        self._cuda, self._size, self._tables = cuda, size, []
        self._function = _function(cuda, "preprocess.cu", "preprocess")
        self._args = []
        for axis, length in ((tables.columns, frame[1]), (tables.rows, frame[0])):
            self._args += [self._table(axis.starts), self._table(axis.weights)]
            self._args += [np.int32(value) for value in (axis.weights.shape[1], len(axis.starts), length)]
        whole = (*tables.corner, tables.fixed_point == "cv2", tables.rows_first, tables.pad)
        self._args += [*map(np.int32, whole), np.float32(tables.divisor)]
        self._args += [self._table(np.float32(tables.mean)), self._table(np.float32(tables.std))]
        self._args += [np.int32(size[1]), np.int32(size[0]), np.int32(tables.bgr == rgb)]

    def _table(self, values: np.ndarray) -> np.uint64:
        self._tables.append(self._cuda.upload(values))
        return np.uint64(self._tables[-1].ptr)

    def enqueue(self, frame: int, pitch: int, output: DeviceArray, stream: Stream) -> None:
        """Fills `output` (1, 3, H, W), float32 or float16, from the frame at address `frame`, `pitch` bytes a row."""
        height, width = self._size
        if output.shape != (1, 3, height, width) or output.dtype not in (np.float32, np.float16):
            raise ZooError(f"expected an output of (1, 3, {height}, {width}) float32 or float16, got {output}")
        args = [np.uint64(frame), np.int64(pitch), *self._args]
        args += [np.int32(output.dtype == np.float16), np.uint64(output.ptr)]
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
        self._dirty = True  # whether the counts may not be zero, as a frame needs them and leaves them
        shape = (images, 1 + 6 * max_det)
        buffer = cuda.alloc(4 * images * shape[1])
        self.output = DeviceArray(cuda, buffer.ptr, shape, np.dtype(np.float32), stream, buffer)
        names = ("select_candidates", "rank_candidates", "suppress")
        self._functions = [_function(cuda, "detect.cu", name) for name in names]

    def placements(self, placements: Sequence[Placement]) -> Buffer:
        """The device copy of where the pictures lie in the network input, for `enqueue`."""
        rows = [(*p.offset, *p.scale, *p.picture) for p in placements]
        return self._cuda.upload(np.array(rows, np.float32))

    def enqueue(self, placements: Buffer, stream: Stream) -> None:
        select, rank, suppress = self._functions
        pointer = {name: np.uint64(buffer.ptr) for name, buffer in self._scratch.items()}
        boxes, scores = np.uint64(self._boxes.ptr), np.uint64(self._scores.ptr)
        anchors, classes = np.int32(self._anchors), np.int32(self._scores.shape[1])
        launch, blocks = self._cuda.launch, lambda size: -(-self._anchors // size)
        if self._dirty:
            for name in ("rank", "state"):
                self._cuda.zero(self._scratch[name].ptr, self._scratch[name].nbytes, stream)
        self._dirty = True
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
        self._dirty = False

    def parse(self, rows: np.ndarray) -> list[Boxes]:
        """The detections of each picture from a host copy of `output`. Raises ZooError for NaN or infinity."""
        return [_parse(row) for row in rows]


class Boxes(NamedTuple):
    """What one picture holds, best first: boxes (K, 4) x1, y1, x2, y2 in its pixels, scores (K,), classes (K,)."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def _parse(row: np.ndarray) -> Boxes:
    count = int(row[:1].view(np.int32)[0])
    if count < 0:
        raise ZooError("Boxes or scores hold NaN or infinity: the network overflowed; build it with fp32 or bf16.")
    table = row[1 : 1 + 6 * count].reshape(count, 6).copy()
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
