"""The CPU executor: the network definition itself, walked into ONNX and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np

from zoo.engine.definition import INPUT
from zoo.errors import ZooError
from zoo.network import Definition
from zoo.onnx import to_onnx

if TYPE_CHECKING:
    import onnx

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


def write_sigmoids_out(graph: onnx.GraphProto) -> None:
    """Writes each Sigmoid as 1 / (1 + exp(-x)), in place, but for those that gate their own input (SiLU).

    onnxruntime's Sigmoid has an absolute error of 6e-8: scores lose digits from 1e-4 downwards and are 0 below 2e-8.
    Written out they are as exact as PyTorch's. x * sigmoid(x) loses nothing that matters beside its larger values, and
    would take a third more of a YOLO's time.
    """
    from onnx import TensorProto, helper

    users: dict[str, list[onnx.NodeProto | None]] = {output.name: [None] for output in graph.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def gates_its_input(node: onnx.NodeProto) -> bool:
        return all(
            user is not None and user.op_type == "Mul" and node.input[0] in user.input
            for user in users.get(node.output[0], ())
        )

    nodes = []
    for node in graph.node:
        if node.op_type != "Sigmoid" or gates_its_input(node):
            nodes.append(node)
            continue
        x, y = node.input[0], node.output[0]
        one = helper.make_tensor("", TensorProto.FLOAT, (), [1.0])
        nodes += [
            helper.make_node("Constant", [], [f"{y}/one"], value=one),
            helper.make_node("Neg", [x], [f"{y}/negated"]),
            helper.make_node("Exp", [f"{y}/negated"], [f"{y}/exp"]),
            helper.make_node("Add", [f"{y}/exp", f"{y}/one"], [f"{y}/sum"]),
            helper.make_node("Reciprocal", [f"{y}/sum"], [y], name=node.name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
