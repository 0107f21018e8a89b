"""The CPU executor: the network definition itself, walked into ONNX and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np

from zoo.engine.definition import INPUT
from zoo.errors import ZooError
from zoo.network import Definition
from zoo.onnx import to_onnx
from zoo.onnx.sigmoids import write_sigmoids_out

Half = Literal["declared", "float", "round"]


class CpuSession:
    """Runs a definition on the CPU: `session(images)` takes float32 (N, C, H, W) and returns the outputs by name.

    `taps` names tensors of the definition to return besides the outputs. Half precision is emulated: `half="round"`
    computes in fp32 and rounds after every layer, so that overflow becomes infinite as it does on a GPU.
    """

    def __init__(
        self, definition: Definition, taps: Iterable[str] = (), half: Half = "round", threads: int = 0
    ) -> None:
        import onnxruntime

        taps = list(taps)
        names = [definition.taps[tap].name for tap in taps]
        network, api, arrays = definition.network, definition.api, definition.arrays
        weights: dict[str, np.ndarray] = {}
        model = to_onnx(network, api.trt, arrays=arrays, taps=names, half=half, weights=weights)
        if half != "declared":  # in 16 bits exp(-x) would not fit
            write_sigmoids_out(model.graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are about optimisations that it skips
        options.intra_op_num_threads = threads
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        self._alive = definition, values  # the session computes with their memory
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        outputs = [output.name for output in self._session.get_outputs()]
        self._names = outputs[: len(outputs) - len(names)] + taps
        self._submitted = ThreadPoolExecutor(1)  # its thread starts with the first submission
        self.shape = tuple(self._session.get_inputs()[0].shape)
        self.runs_on = f"onnxruntime {onnxruntime.__version__} on the CPU, from the {api.name} network"

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs (and taps) by name for float32 images (N, C, H, W)."""
        fixed = [n if isinstance(n, int) else None for n in self.shape]
        if images.ndim != 4 or any(want not in (None, got) for want, got in zip(fixed, images.shape)):
            wanted = "x".join("N" if n is None else str(n) for n in fixed)
            raise ZooError(f"the images are {'x'.join(map(str, images.shape))}, this network takes {wanted}")
        return dict(zip(self._names, self._session.run(None, {INPUT: np.ascontiguousarray(images, np.float32)})))

    def submit(self, images: np.ndarray) -> Future[dict[str, np.ndarray]]:
        """Starts the network on a copy of `images` and returns at once; `.result()` waits for the outputs."""
        try:
            return self._submitted.submit(self, images.copy())
        except RuntimeError as error:  # the pool is shut down
            raise ZooError("the session is closed; load the model again") from error

    def close(self) -> None:
        """Waits for what was submitted."""
        self._submitted.shutdown()

    def __enter__(self) -> CpuSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
