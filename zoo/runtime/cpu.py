"""The CPU executor: the network definition itself, walked into ONNX and run by onnxruntime."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from zoo.engine.io import outer_shapes
from zoo.engine.shapes import INPUT, Shapes, nearest
from zoo.errors import ZooError
from zoo.network import Definition
from zoo.onnx import to_onnx
from zoo.onnx.means import write_means_out
from zoo.onnx.sigmoids import write_sigmoids_out
from zoo.runtime.arrays import CLOSED, host_array

MOST_SUBMITTED = 64
# The first rounds otherwise (see where it is used), the others end onnxruntime 1.31 where a clip's values become fp8.
_HARMFUL = ["MatMulAddFusion", "ClipQuantRewrite", "ReluQuantRewrite"]
Half = Literal["declared", "float", "round"]


class CpuSession:
    """Runs a definition on the CPU: `session(images)` takes float32 (N, C, H, W), or what else the definition takes,
    and returns the outputs by name.

    `taps` names tensors of the definition to return besides the outputs. Half precision is emulated: `half="round"`
    computes in fp32 and rounds after every layer, so that overflow becomes infinite as it does on a GPU. `batches` are
    the smallest and the largest batch that it takes, and `shapes` say which heights and widths, where those are open;
    None: any.
    """

    def __init__(
        self,
        definition: Definition,
        taps: Iterable[str] = (),
        half: Half = "round",
        threads: int = 0,
        batches: tuple[int, int] | None = None,
        shapes: Shapes | None = None,
    ) -> None:
        import onnxruntime

        taps = list(taps)
        names = [definition.taps[tap].name for tap in taps]
        network, api, arrays = definition.network, definition.api, definition.arrays
        weights: dict[str, np.ndarray] = {}
        model = to_onnx(network, api.trt, arrays=arrays, taps=names, half=half, weights=weights)
        if half != "declared":  # in 16 bits exp(-x) would not fit
            write_sigmoids_out(model.graph, _single_places(network))
            write_means_out(model.graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its warnings are about optimisations that it skips, its errors are raised
        options.intra_op_num_threads = threads
        # Pairs of Q and DQ are computed as they stand: fused, products of two int8 saturate on some processors.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        self._alive = definition, values  # the session computes with their memory
        # Joined with its bias, a sum of 1024 terms for a single class is off by three times as much as PyTorch's.
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=_HARMFUL
        )
        outputs = [output.name for output in self._session.get_outputs()]
        self._names = outputs[: len(outputs) - len(names)] + taps
        self.dtype = _declared(network.get_input(0))
        declared = [_declared(network.get_output(i)) for i in range(network.num_outputs)]
        self._halves = {name for name, dtype in zip(self._names, declared) if dtype == np.float16}  # computed in fp32
        self._owner = os.getpid()
        self._submitted = ThreadPoolExecutor(1)  # its thread starts with the first submission
        self._room = threading.BoundedSemaphore(MOST_SUBMITTED)
        self._closed = False
        self._batches, self._shapes, self._multiple = batches, shapes, definition.multiple
        self.shape = tuple(self._session.get_inputs()[0].shape)
        self.runs_on = f"onnxruntime {onnxruntime.__version__} on the CPU, from the {api.name} network"

    def __call__(self, images: Any, *, views: bool = False) -> dict[str, np.ndarray]:
        """The outputs (and taps) by name for images of `self.dtype` and `self.shape`: an array, or a dict
        {"images": array}.

        They are the caller's own: `views`, which saves a copy on a GPU, saves none here. Raises ZooError for another
        name, type or shape, and after `close`.
        """
        if self._closed:
            raise ZooError(CLOSED)
        return self._run(self._checked(images))

    def submit(self, images: Any) -> Future[dict[str, np.ndarray]]:
        """Starts the network on a copy of `images` and returns at once; `.result()` waits for the outputs.

        While `MOST_SUBMITTED` are under way, it waits: their copies must not fill the memory.
        """
        if os.getpid() != self._owner:  # the pool's thread stayed behind in the process that was forked
            self._owner, self._submitted = os.getpid(), ThreadPoolExecutor(1)
            self._room = threading.BoundedSemaphore(MOST_SUBMITTED)
        if self._closed:
            raise ZooError(CLOSED)
        copy = self._checked(images).copy()
        self._room.acquire()
        try:
            future = self._submitted.submit(self._run, copy)
        except RuntimeError:  # closed by another thread
            self._room.release()
            raise ZooError(CLOSED) from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _checked(self, images: Any) -> np.ndarray:
        """`images` as the array that the network takes."""
        if isinstance(images, Mapping):
            if set(images) != {INPUT}:
                raise ZooError(
                    f"the inputs are {', '.join(map(str, images)) or 'none'}; the network has one, '{INPUT}'"
                )
            images = images[INPUT]
        array = host_array(images)
        if array.dtype != self.dtype:
            raise ZooError(f"input '{INPUT}' is {array.dtype}, the network takes {self.dtype}; convert it first")
        fixed = [n if isinstance(n, int) else None for n in self.shape]
        if array.ndim != 4 or 0 in array.shape or any(want not in (None, n) for want, n in zip(fixed, array.shape)):
            wanted = "x".join("N" if n is None else str(n) for n in fixed)
            raise ZooError(f"the images are {'x'.join(map(str, array.shape))}, this network takes {wanted}")
        self._check_sides(array)
        if self._batches and not self._batches[0] <= len(array) <= self._batches[1]:
            low, high = self._batches
            allowed = f"{low}" if low == high else f"{low} to {high}"
            raise ZooError(f"{len(array)} images were given, this session takes {allowed}; load it with another batch")
        return array

    def _check_sides(self, array: np.ndarray) -> None:
        """Raises ZooError, naming the nearest size, for one that an open height and width may not have."""
        bytes_in = self.dtype == np.uint8
        axes = (1, 2) if bytes_in else (2, 3)
        steps = {axis: self._multiple for axis in axes if not isinstance(self.shape[axis], int)}
        if not steps:
            return
        ranges: list[Any] = [([steps.get(axis, 1) for axis in range(4)], (), (2**31,) * 4)]
        if self._shapes is not None:
            outside = outer_shapes(self._shapes, "uint8" if bytes_in else "fp32")
            ranges = [(part.min, part.opt, part.max) for part in outside.profiles]
        found = nearest(array.shape, ranges, steps)
        if any(array.shape[axis] != found[axis] for axis in axes):
            given, close = ("x".join(str(shape[axis]) for axis in axes) for shape in (array.shape, found))
            taken = f"this session takes {self._shapes}, " if self._shapes else ""
            raise ZooError(
                f"the images are {given}; {taken}sides that are multiples of {self._multiple}; the nearest is {close}"
            )

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

        try:
            images = images.astype(np.float32) if images.dtype == np.float16 else np.ascontiguousarray(images)
            found = self._session.run(None, {INPUT: images})
        except (Fail, InvalidArgument, RuntimeException) as error:  # a batch that the definition holds as a constant
            raise ZooError(_refusal(str(error), images.shape)) from None
        named = zip(self._names, found)
        with np.errstate(over="ignore"):  # what half precision cannot hold is infinite, as on a GPU
            return {name: value.astype(np.float16) if name in self._halves else value for name, value in named}

    def close(self) -> None:
        """Waits for what was submitted; from now on every call is refused."""
        self._closed = True
        self._submitted.shutdown()

    def __enter__(self) -> CpuSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal(words: str, shape: tuple[int, ...]) -> str:
    """What onnxruntime says of images that the network cannot take, as a sentence that names the layer."""
    images = f"{shape[0]} images of {'x'.join(map(str, shape[1:]))}"
    named = re.search(r"Name:'([^']*)' Status Message: (?:\S+:\d+ .* was false\. )?(.*)", words)
    if named is None:
        return f"onnxruntime refused {images}: {words.splitlines()[0]}"
    layer, why = named.groups()
    return f"the layer '{layer}' cannot take {images}; is a batch or a size written into it? onnxruntime: {why}"


def _declared(tensor: Any) -> np.dtype:
    """The type of an input or output in the definition, which onnxruntime may not compute in."""
    names = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "UINT8": np.uint8}
    return np.dtype(names[tensor.dtype.name])


def _single_places(network: Any) -> set[str]:
    """The tensors that hold one value for each channel."""
    outputs = (network.get_layer(i).get_output(0) for i in range(network.num_layers))
    return {tensor.name for tensor in outputs if set(tuple(tensor.shape)[2:]) == {1}}
