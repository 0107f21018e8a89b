"""PyTorch as a rival: `python -m zoo.verify.rivals` serves one client that measures, through stdin and stdout.

Each line in is a command, each line out its answer, both JSON objects. `zoo.measure.contest` is the client; it may run
under another interpreter, with other versions of everything. Arrays travel as safetensors files.

All rivals take float32 images and give float32 outputs, as our engines do, and compute in channels_last in the wanted
precision with cuDNN's autotuner on:

    torch     the reference as published, eager, replayed as a CUDA graph
    compile   the reference under torch.compile as documented: default mode, static shapes, called
    graphed   the same code, replayed as a CUDA graph
    frozen    the same with inductor's freezing, which makes constants of the weights and so folds BatchNorms into
              convolutions; PyTorch calls it experimental, and it is off by default; replayed as a CUDA graph

The mode "max-autotune" is left out, since it tunes for minutes per model.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from zoo.discovery import import_file
from zoo.errors import ZooError
from zoo.verify.calibration import calibrated, sample_images, state_arrays
from zoo.verify.pretrained import load_state
from zoo.verify.references import Reference, load_reference
from zoo.verify.remote import RemoteReference

Code = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
Run = Callable[[], tuple[torch.Tensor, ...]]
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WARM = 3
CODE = {"torch": "eager", "compile": "compiled", "graphed": "compiled", "frozen": "frozen"}  # what a rival runs


class Whole(nn.Module):
    """The reference from float32 images to float32 outputs in our form, computed in `dtype` and `layout`."""

    def __init__(self, reference: Reference, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self.module, self.reference, self.dtype, self.layout = reference.module, reference, dtype, layout

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.module(images.to(self.dtype, memory_format=self.layout))
        return tuple(output.float() for output in self.reference.outputs(result).values())


class Worker:
    """What the commands do. `device` is the GPU; the CPU, where a measurement is wall time, is for tests."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.rivals: dict[str, Run] = {}
        self._code: dict[tuple[str, str], Code] = {}
        self._kept: list[Any] = []  # graphs and what they read and write
        self._stream = torch.cuda.Stream() if device == "cuda" else None

    # Commands: each takes the keys of its line as keywords and returns the answer

    def about(self) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        return {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "gpu": torch.cuda.get_device_name() if on_gpu else None,
            "python": ".".join(map(str, sys.version_info[:3])),
        }

    def calibrate(self, reference: str, size: list[int], path: str) -> dict[str, Any]:
        """Writes calibrated random weights of a reference, measured on images of `size` (C, H, W)."""
        arrays = state_arrays(calibrated(reference, 0, tuple(size)))
        save_file({name: array.copy() for name, array in arrays.items()}, path)
        return {"tensors": len(arrays)}

    def load(self, reference: str, classes: int | None, weights: str, shape: list[int], path: str) -> dict[str, Any]:
        """Loads a reference with weights; writes sample images of `shape` and its fp32 outputs for them to `path`."""
        self.release()
        loaded = load_reference(reference, classes)
        if isinstance(loaded, RemoteReference):
            raise ZooError(f"{reference} runs in an environment of its own, and is no rival: leave it out of --against")
        self.reference = load_state(loaded, load_file(weights))
        images = sample_images(shape[0], tuple(shape[1:]), 1)
        self.reference.module.to(self.device)
        self.images = torch.from_numpy(images).to(self.device)
        self._set_tf32(False)
        with torch.no_grad():
            self.reference.forget()
            outputs = self.reference.outputs(self.reference.module(self.images))
        self.names, outputs = list(outputs), {name: value.float().cpu().numpy() for name, value in outputs.items()}
        save_file({"images": images} | {f"output/{name}": value.copy() for name, value in outputs.items()}, path)
        return {"outputs": self.names}

    def export(self, path: str, precision: str) -> dict[str, Any]:
        """Writes the reference as ONNX, opset 17, static shape; inside in `precision`, float32 at both ends."""
        module = self._whole(precision, torch.preserve_format)
        torch.backends.mha.set_fastpath_enabled(False)  # the fused operator has no ONNX counterpart
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module, (self.images,), path, dynamo=False, opset_version=17, do_constant_folding=True,
                    input_names=["images"], output_names=self.names,
                )  # fmt: skip
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        return {"bytes": Path(path).stat().st_size}

    def prepare(self, kind: str, precision: str) -> dict[str, Any]:
        """Makes a rival ready: "torch", "compile", "graphed" or "frozen"."""
        self._set_tf32(precision == "tf32")
        torch.backends.cudnn.benchmark = True
        with torch.no_grad():
            code, images = self._ready(CODE[kind], precision), self.images
            run = _without_gradients(lambda: code(images))
            self.rivals[kind] = run if kind == "compile" else self._captured(run)
        return {}

    def outputs(self, kind: str, path: str) -> dict[str, Any]:
        """Writes what a rival makes of the images."""
        values = self.rivals[kind]()
        self._synchronize()
        save_file({name: value.cpu().numpy().copy() for name, value in zip(self.names, values)}, path)
        return {}

    def measure(self, kind: str, count: int, lead: int) -> dict[str, Any]:
        """The milliseconds of `count` runs, each between two events; `lead` runs before them are not measured."""
        run = self.rivals[kind]
        if self.device.type != "cuda":
            return {"ms": [_wall_ms(run) for _ in range(count)]}
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        with torch.cuda.stream(self._stream):
            for _ in range(lead):
                run()
            for start, end in events:
                start.record()
                run()
                end.record()
        torch.cuda.synchronize()
        return {"ms": [start.elapsed_time(end) for start, end in events]}

    def matrix_rate(self, precision: str, size: int) -> dict[str, Any]:
        """The best TFLOP/s of ten products of two random size x size matrices."""
        self._set_tf32(precision == "tf32")
        a, b = (torch.randn(size, size, device=self.device, dtype=DTYPES[precision]) for _ in range(2))
        self._synchronize()
        self.rivals["matrix"] = lambda: (a @ b,)
        times = self.measure("matrix", 10, WARM)["ms"]
        del self.rivals["matrix"]
        return {"tflops": 2 * size**3 / min(times) / 1e9}

    def release(self) -> dict[str, Any]:
        """Frees the rivals and the reference."""
        self.rivals.clear()
        self._code.clear()
        self._kept.clear()
        self.reference = self.images = None
        torch.compiler.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {}

    # How

    def _whole(self, precision: str, layout: torch.memory_format) -> Whole:
        dtype = DTYPES[precision]
        self.reference.forget()
        module = copy.deepcopy(self.reference.module).to(dtype)
        if layout == torch.channels_last:
            torch.nn.utils.convert_conv2d_weight_memory_format(module, layout)
        return Whole(replace(self.reference, module=module), dtype, layout).eval()

    def _ready(self, how: str, precision: str) -> Code:
        """The reference in `precision`, "eager", "compiled" or "frozen", run once. Rivals of the same code share it."""
        if (how, precision) not in self._code:
            module = self._whole(precision, torch.channels_last)
            module(self.images)  # anchors are made at the first call, which is not to be compiled
            code = module if how == "eager" else _compiled(module, self.images, frozen=how == "frozen")
            self._code[how, precision] = code
        return self._code[how, precision]

    def _captured(self, run: Run) -> Run:
        """`run` as the replay of a CUDA graph; on the CPU as it is."""
        if self.device.type != "cuda":
            return run
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = run()
        self._kept.append((graph, outputs, run))

        def replay() -> tuple[torch.Tensor, ...]:
            graph.replay()
            return outputs

        return replay

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _set_tf32(self, allowed: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def _compiled(module: nn.Module, images: torch.Tensor, frozen: bool) -> Code:
    """`module` under torch.compile, compiled for `images`. It raises where inductor cannot freeze the weights.

    The rivals of a row live side by side, without torch.compiler.reset() between them: folded weights, which a CUDA
    graph reads, belong to the compiled code. The option keeps them apart, for dynamo would give the one the code of the
    other. It does not freeze by itself: dynamo looks at the configuration when it compiles.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    dynamo.recompile_limit = 1000  # yolov5's forward is compiled block by block, each for several shapes
    compiled = torch.compile(module, dynamic=False, options={"freezing": True} if frozen else None)
    with inductor.patch(freezing=frozen):
        compiled(images)
    return compiled


def _without_gradients(run: Run) -> Run:
    def call() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return run()

    return call


def _wall_ms(run: Run) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


COMMANDS = ("about", "calibrate", "load", "export", "prepare", "outputs", "measure", "matrix_rate", "release")


def serve(worker: Worker, lines: Any, answers: Any) -> None:
    """Answers each line until there are no more; what fails is answered with {"error": …}."""
    for line in lines:
        command = json.loads(line)
        name = command.pop("do")
        try:
            if name not in COMMANDS:
                raise ZooError(f"'{name}' is no command; they are {', '.join(COMMANDS)}")
            answer = getattr(worker, name)(**command)
        except Exception as error:  # whatever PyTorch meets is the client's to report
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:1500]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serves the client on stdin and stdout. Libraries that print get stderr. Arguments are files with references."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for file in sys.argv[1:]:
        import_file(Path(file))
    device = os.environ.get("ZOO_RIVAL_DEVICE", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        answers.write(json.dumps({"error": f"PyTorch {torch.__version__} sees no GPU"}) + "\n")
        answers.flush()
        return
    worker = Worker(device)
    answers.write(json.dumps(worker.about()) + "\n")
    answers.flush()
    serve(worker, sys.stdin, answers)


if __name__ == "__main__":
    main()
