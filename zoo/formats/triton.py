"""A Triton model repository: the network as a TensorRT plan, as ONNX or on the zoo's CPU session, and around it models
that make its input of pictures and results of its outputs.

A repository holds `MODEL`, an ensemble that takes the bytes of image files and gives the JSON of `zoo.run`, and its
parts `MODEL_prepare`, `MODEL_network` and `MODEL_decode`. An engine that takes frames (`zoo.build --end2end`) needs no
parts: then `MODEL` is the plan. The configuration is Triton's protobuf, `model_config.proto`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli import Fp16, Json, Output, Size, WeightsOption, note, precision_name, print_json, size_of
from zoo.errors import ZooError, one_of
from zoo.files import adding_to
from zoo.formats import Format
from zoo.runtime.triton import ABOUT, IMAGES, PICTURE, PLACEMENT, PLACEMENT_SIZE, RESULT
from zoo.text import LONGEST_LABEL, clean

if TYPE_CHECKING:
    from zoo.network import Definition
    from zoo.registry import Model

VERSION = "1"  # of each model in the repository
LABELS = "labels.txt"
Write = Callable[[Path], Any]

WARM_SIDE = 64  # pixels of a frame's sides that may vary
GRAPHS = 8  # batch sizes at most for which a CUDA graph is captured
MATRIX = "https://docs.nvidia.com/deeplearning/frameworks/support-matrix/index.html"

# TensorRT's version -> the latest of NVIDIA's Triton containers that has it, and who says so. Only what was read there.
# 8.6.1 is missing on purpose: containers 23.04 and 23.05 have its build 8.6.1.2, and pip installs 8.6.1.6, whose plans
# they refuse (github.com/triton-inference-server/server/issues/5812 and 5975). NVIDIA's compatibility page
# (user-guide/docs/introduction/compatibility.html) has the versions of the trtllm containers only, which are others.
CONTAINERS = {
    "8.6.3": ("nvcr.io/nvidia/tritonserver:24.04-py3", "github.com/triton-inference-server/server/issues/7221"),
    "10.3.0": (
        "nvcr.io/nvidia/tritonserver:24.08-py3",
        "docs.nvidia.com/deeplearning/triton-inference-server/release-notes/rel-24-08.html",
    ),
}

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="onnxruntime or python (the zoo's CPU session). Default: onnxruntime; an engine is for tensorrt.",
        show_default=False,
    ),
]
MaxBatch = Annotated[
    int | None,
    typer.Option(
        "--max-batch", min=1, help="Pictures computed together. Default: 8; an engine's own.", show_default=False
    ),
]
Instances = Annotated[
    int | None,
    typer.Option("--instances", min=1, help="Copies of the network that run at once. Default: 1.", show_default=False),
]
QueueDelay = Annotated[
    int | None,
    typer.Option(
        "--queue-delay",
        min=0,
        help="Microseconds that a request may wait for others to be computed with. Default: 500.",
        show_default=False,
    ),
]


def export(
    model: str,
    *,
    weights: WeightsOption = None,
    fp16: Fp16 = False,
    size: Size = None,
    backend: Backend = None,
    max_batch: MaxBatch = None,
    instances: Instances = None,
    queue_delay: QueueDelay = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Writes a model repository of `model`, a name or an engine file."""
    from zoo.api import is_engine

    protobuf()  # before minutes of work
    serving = Serving(instances or 1, 500 if queue_delay is None else queue_delay)
    if is_engine(model):
        given = {"--weights": weights, "--fp16": fp16, "--size": size, "--backend": backend, "--max-batch": max_batch}
        for option, value in given.items():
            if value:
                raise ZooError(f"{model} is an engine, in which that is built in; leave {option} away")
        network = _plan(Path(model), serving)
    else:
        kind = one_of("backend", backend or "onnxruntime", ("onnxruntime", "python"))
        make = _onnx if kind == "onnxruntime" else _session
        network = make(model, weights, precision_name(fp16, False), size_of(size), max_batch or 8, serving)
    parts = network.models()
    folder = output or Path("repository")
    with adding_to(folder, parts) as temporary:
        for name, part in parts.items():
            part.write(temporary / name)
    result = {"model": network.name, "repository": str(folder), "models": list(parts), **network.facts}
    if as_json:
        print_json(result)
        return
    print(f"{folder}: {', '.join(parts)} ({network.kind}, up to {network.max_batch} pictures at once)")
    if network.kind == "tensorrt_plan":
        print(f"the plan is for {result['gpu']} and {result['container']} (by {result['source']})")
    for argument in result.get("arguments", ()):
        print(f"start tritonserver with {argument}")
    if not network.whole:
        note("the server's Python needs the package tensorrt-zoo, which pictures and results pass through")


@dataclass(frozen=True)
class Serving:
    """How the server runs a network: copies of it, and microseconds that a request may wait for others."""

    instances: int
    queue_delay: int


@dataclass(frozen=True)
class Part:
    """A model of the repository: its configuration, and what writes its files, by their paths in the model's folder."""

    model_config: Any
    files: Mapping[str, Write]

    def write(self, folder: Path) -> None:
        from google.protobuf import text_format

        (folder / VERSION).mkdir(parents=True)
        (folder / "config.pbtxt").write_text(text_format.MessageToString(self.model_config), "utf-8")
        for name, write in self.files.items():
            write(folder / name)


@dataclass(frozen=True)
class Network:
    """A network to be served: its name, Triton's name for what runs it, its input and outputs as (type, shape of one
    picture), what its pictures and results need, and what writes its files.

    `kind` is "tensorrt_plan", "onnxruntime_onnx" or "python". `facts` are told to the user.
    """

    name: str
    kind: str
    input: tuple[str, str, tuple[int, ...]]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    max_batch: int
    task: str
    preprocess: dict[str, Any]
    options: dict[str, Any]
    labels: list[str] | None
    files: Mapping[str, Write]
    facts: Mapping[str, Any]
    serving: Serving
    opt_batch: int = 1

    @property
    def whole(self) -> bool:
        """Whether it takes frames and gives results by itself."""
        return self.input[0] != IMAGES

    def models(self) -> dict[str, Part]:
        """The models of the repository by name, an ensemble after its parts."""
        if self.whole:
            return {self.name: self._network(self.name)}
        network, prepare, decode = (f"{self.name}_{part}" for part in ("network", "prepare", "decode"))
        return {
            network: self._network(network),
            prepare: self._prepare(prepare),
            decode: self._decode(decode),
            self.name: self._ensemble(network, prepare, decode),
        }

    def _network(self, name: str) -> Part:
        model_config = self._config(name)
        model_config.platform, model_config.backend = _BACKENDS[self.kind]
        input_name, dtype, shape = self.input
        _add(model_config.input, input_name, dtype, shape)
        for output, (dtype, shape) in self.outputs.items():
            _add(model_config.output, output, dtype, shape)
        on_gpu = self.kind == "tensorrt_plan"
        self._instances(model_config, self.serving.instances, on_gpu)
        self._batching(model_config)
        files = dict(self.files)
        if self.labels is not None:
            files[LABELS] = _text("".join(f"{clean(label, LONGEST_LABEL)}\n" for label in self.labels))
            for output in model_config.output:
                if tuple(output.dims) == (len(self.labels),):  # what Triton's classification extension is for
                    output.label_filename = LABELS
        if on_gpu and not self.whole:
            self._graphs(model_config)
        if self.kind != "python":
            warm = model_config.model_warmup.add(name="black", batch_size=1)
            warmed = warm.inputs[input_name]
            warmed.data_type, warmed.zero_data = model_config.input[0].data_type, True
            warmed.dims.extend(size if size > 0 else WARM_SIDE for size in self.input[2])
        return Part(model_config, files)

    def _graphs(self, model_config: Any) -> None:
        """Asks for a CUDA graph of each batch up to the engine's, of few where that is large."""
        cuda = model_config.optimization.cuda
        cuda.graphs = True
        step = math.ceil(self.max_batch / GRAPHS)
        for batch in sorted({1, self.opt_batch, *range(step, self.max_batch + 1, step)}):
            spec = cuda.graph_spec.add(batch_size=batch)
            spec.input[IMAGES].dim.extend(self.input[2])

    def _prepare(self, name: str) -> Part:
        model_config = self._python(name)
        _add(model_config.input, PICTURE, "TYPE_STRING", (1,))
        _add(model_config.output, IMAGES, "TYPE_FP32", self.input[2])
        _add(model_config.output, PLACEMENT, "TYPE_INT64", (PLACEMENT_SIZE,))
        about = {"preprocess": self.preprocess, "size": self.input[2][1:]}
        return Part(model_config, _python_files("Prepare", about))

    def _decode(self, name: str) -> Part:
        model_config = self._python(name)
        for output, (dtype, shape) in self.outputs.items():
            _add(model_config.input, output, dtype, shape)
        _add(model_config.input, PLACEMENT, "TYPE_INT64", (PLACEMENT_SIZE,))
        _add(model_config.output, RESULT, "TYPE_STRING", (1,))
        about = {"task": self.task, "options": self.options, "labels": self.labels}
        return Part(model_config, _python_files("Decode", about))

    def _ensemble(self, network: str, prepare: str, decode: str) -> Part:
        model_config = self._config(self.name)
        model_config.platform = "ensemble"
        _add(model_config.input, PICTURE, "TYPE_STRING", (1,))
        _add(model_config.output, RESULT, "TYPE_STRING", (1,))
        outputs = list(self.outputs)
        for model, inputs, results in (
            (prepare, [PICTURE], [IMAGES, PLACEMENT]),
            (network, [IMAGES], outputs),
            (decode, [*outputs, PLACEMENT], [RESULT]),
        ):
            step = model_config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
            step.input_map.update({name: name for name in inputs})
            step.output_map.update({name: name for name in results})
        return Part(model_config, {})

    def _python(self, name: str) -> Any:
        """The configuration of a model that the zoo's code is; as many run at once as networks do."""
        model_config = self._config(name)
        model_config.backend = "python"
        self._instances(model_config, self.serving.instances, False)
        return model_config

    def _config(self, name: str) -> Any:
        return protobuf().ModelConfig(name=name, max_batch_size=self.max_batch)

    def _instances(self, model_config: Any, count: int, on_gpu: bool) -> None:
        kinds = protobuf().ModelInstanceGroup
        model_config.instance_group.add(count=count, kind=kinds.KIND_GPU if on_gpu else kinds.KIND_CPU)

    def _batching(self, model_config: Any) -> None:
        model_config.dynamic_batching.max_queue_delay_microseconds = self.serving.queue_delay


_BACKENDS = {  # kind -> (platform, backend), as Triton's documentation names them
    "tensorrt_plan": ("tensorrt_plan", "tensorrt"),
    "onnxruntime_onnx": ("onnxruntime_onnx", "onnxruntime"),
    "python": ("", "python"),
}
_TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32"}


def protobuf() -> Any:
    """The messages of Triton's model configuration. Raises ZooError where tritonclient is not installed."""
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise ZooError(
            f"config.pbtxt is written by tritonclient, which cannot be imported ({error}); "
            'install it: pip install "tensorrt-zoo[triton]"'
        ) from None
    return model_config_pb2


def _add(tensors: Any, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    tensors.add(name=name, data_type=protobuf().DataType.Value(dtype), dims=list(shape))


def _python_files(kind: str, about: Mapping[str, Any]) -> dict[str, Write]:
    """The files of a model that is the class `kind` of zoo.runtime.triton."""
    code = f"from zoo.runtime.triton import {kind} as TritonPythonModel  # noqa: F401\n"
    return {f"{VERSION}/model.py": _text(code), f"{VERSION}/{ABOUT}": _text(json.dumps(about, indent=1) + "\n")}


def _text(text: str) -> Write:
    return lambda path: path.write_text(text, "utf-8")


def _copy(source: Path) -> Write:
    return lambda path: shutil.copyfile(source, path)


# What runs the network


def _plan(engine: Path, serving: Serving) -> Network:
    """An engine of full TensorRT, with the container that can load it. Raises ZooError for those that none can."""
    from zoo.engine.end2end import FRAMES
    from zoo.engine.passport import io_of, load_engine, model_of, rebuild_command, shapes_of
    from zoo.engine.plugins import uses_shell

    about = load_engine(engine).description
    if about["flavour"] == "rtx":
        raise ZooError(
            f"{engine} is an engine of TensorRT-RTX, and Triton's tensorrt backend loads those of full TensorRT: build "
            f"it with --target tensorrt, or export the model '{about['model']}' itself, as ONNX"
        )
    plugins = about.get("plugins") or {}
    if uses_shell(plugins.get("ops", {})) and not plugins.get("self_contained"):
        raise ZooError(
            f"{engine} needs the zoo's library of kernels, which Triton does not load: build it with --self-contained "
            "or --plugins native"
        )
    if io_of(about) != "fp32":
        raise ZooError(
            f"{engine} was built with --io {io_of(about)}, and pictures are prepared in float32: build it without"
        )
    shapes = shapes_of(about)
    low, high = shapes.batches
    if low == high:
        raise ZooError(
            f"{engine} takes exactly {low} picture(s), and Triton collects as many as come: build it for a range, with "
            f"--minShapes, --optShapes and --maxShapes; it was built by: {rebuild_command(about)}"
        )
    container, source = container_of(about["version"])
    end2end = about.get("end2end")
    return Network(
        name=about["model"],
        kind="tensorrt_plan",
        input=(FRAMES, "TYPE_UINT8", (-1, -1, 3)) if end2end else (IMAGES, "TYPE_FP32", shapes.opt[1:]),
        outputs={name: (_TYPES[o["dtype"]], tuple(o["shape"][1:])) for name, o in about["outputs"].items()},
        max_batch=high,
        opt_batch=shapes.opt[0],
        task=about["task"],
        preprocess=about["preprocess"],
        options=dict(model_of(about).options),
        labels=about["labels"],
        files={f"{VERSION}/model.plan": _copy(engine)},
        facts={
            "container": container,
            "source": source,
            "gpu": about["gpu"],
            "arguments": ["--backend-config=tensorrt,version-compatible=true"] if plugins.get("self_contained") else [],
        },
        serving=serving,
    )


def container_of(version: str) -> tuple[str, str]:
    """NVIDIA's container of Triton whose TensorRT loads plans of this version, and the source of that.

    Raises ZooError for a version that the table has not: only the same version is certain to load a plan.
    """
    release = ".".join(version.split(".")[:3])
    if release not in CONTAINERS:
        raise ZooError(
            f"the engine is of TensorRT {version}, and of which Triton container has nothing certain is known here "
            f"(only of {', '.join(CONTAINERS)}): look in NVIDIA's support matrix, {MATRIX}, and build the engine in "
            "that container, or in nvcr.io/nvidia/tensorrt of the same month, whose TensorRT fits it"
        )
    return CONTAINERS[release]


def _onnx(
    name: str, weights: str | None, precision: Any, size: tuple[int, int] | None, max_batch: int, serving: Serving
) -> Network:
    """The network definition as ONNX, for Triton's onnxruntime backend on the CPU."""
    from zoo.formats import onnx

    entry, definition = _defined(name, weights, precision, size)
    network = _described(entry, definition, "onnxruntime_onnx", max_batch, serving)
    return replace(network, files={f"{VERSION}/model.onnx": lambda path: onnx.write(entry, definition, path)})


def _session(
    name: str, weights: str | None, precision: Any, size: tuple[int, int] | None, max_batch: int, serving: Serving
) -> Network:
    """The zoo's CPU session in Triton's python backend, with a copy of the weights."""
    if precision != "fp32":
        raise ZooError(f"the zoo's CPU session computes in fp32; leave --{precision} away, or use another --backend")
    entry, definition = _defined(name, weights, precision, size)
    network = _described(entry, definition, "python", max_batch, serving)
    source = Path(definition.weights.name)
    file = f"weights{source.suffix}"
    kept = {} if definition.weights.generated else {f"{VERSION}/{file}": _copy(source)}
    about = {
        "model": entry.name,
        "weights": file if kept else definition.weights.name,
        "size": network.input[2][1:],
    }
    return replace(network, files={**_python_files("Network", about), **kept})


def _defined(name: str, weights: str | None, precision: Any, size: tuple[int, int] | None) -> tuple[Model, Definition]:
    """The model as its weights say, and its network for any batch."""
    from zoo.api import adapted, find_weights
    from zoo.engine.definition import define
    from zoo.engine.shapes import input_shapes
    from zoo.network import Precision
    from zoo.registry import get_model
    from zoo.trt import load_to_define

    entry = get_model(name)
    input_shapes(entry, 1, size)  # refused before weights are read
    source = find_weights(entry, weights)
    entry = adapted(entry, source)
    shape = input_shapes(entry, 1, size).opt
    return entry, define(entry, source, load_to_define(precision), (-1, *shape[1:]), Precision(precision))


def _described(entry: Model, definition: Definition, kind: str, max_batch: int, serving: Serving) -> Network:
    from zoo.engine.passport import labels

    network = definition.network
    outputs = (network.get_output(index) for index in range(network.num_outputs))
    int32 = definition.api.trt.int32
    return Network(
        name=entry.name,
        kind=kind,
        input=(IMAGES, "TYPE_FP32", tuple(network.get_input(0).shape)[1:]),
        outputs={o.name: (_TYPES["int32" if o.dtype == int32 else "float32"], tuple(o.shape)[1:]) for o in outputs},
        max_batch=max_batch,
        task=entry.task,
        preprocess=entry.preprocess.to_dict(),
        options=dict(entry.options),
        labels=labels(definition.weights.metadata),
        files={},
        facts={"weights": definition.weights.name},
        serving=serving,
    )


FORMAT = Format("triton", export)
