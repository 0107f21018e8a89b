"""The Python API: what the commands do, as functions."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from zoo.cascades import Cascade
from zoo.device import parse_device
from zoo.engine.effort import Effort
from zoo.engine.end2end import EndToEnd
from zoo.engine.flags import Flags
from zoo.engine.io import Io, check_io
from zoo.engine.passport import Engine, labels
from zoo.engine.plugins import Plugins
from zoo.engine.shapes import Shapes, input_shapes
from zoo.errors import ZooError, one_of
from zoo.network import PluginPolicy, Precision, PrecisionName
from zoo.preprocess import from_dict
from zoo.registry import Model, get_cascade, get_model
from zoo.session import CascadeSession, Session
from zoo.trt import Flavour
from zoo.weights import Weights, load_weights, parse_weights

Progress = Callable[[str], None]
CUDA_PACKAGES = ("cuda-python", "pycuda")
_OLD_KINDS = ("CenterCrop", "Letterbox", "Gray")  # of dumps from before there was one kind; they have no more fields


def find_weights(model: Model, weights: str | os.PathLike[str] | Weights | None = None) -> Weights:
    """`weights` opened: a path, "random[:SEED]", or by default the `weights_file` of the model, else the published.

    Those are downloaded once, from the address that their project gives, and that is said on stderr.
    """
    if isinstance(weights, Weights):
        return weights
    source = weights or weights_file(model)
    if source is not None:
        return _with_published_labels(model, parse_weights(path_of("weights are", source), model.name))
    try:
        return find_published(model)
    except ZooError as error:
        path = f"weights/{model.name}.safetensors"
        raise ZooError(
            f"no weights file {path}, and no published weights ({error}); make one with: python -m zoo.gen_wts "
            f"{model.name}, or give --weights random"
        ) from None


def path_of(what: str, value: Any) -> str:
    """A name or a path as text. Raises ZooError for what is neither: «the model is 5; …»."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise ZooError(f"the {what} {value!r}; a name or a path was expected") from None


def find_published(model: Model) -> Weights:
    """The weights that the authors of the model publish, from the cache or downloaded. Raises ZooError without any."""
    from zoo.labels import known_labels
    from zoo.verify.references import published
    from zoo.weights.published import fetch

    known = published(model.reference)
    file = fetch(known.url, known.sha256, known.size, name=known.file)
    weights = parse_weights(os.fspath(file), model.name)
    weights.metadata |= {"model": model.name, "origin": known.origin, "licence": known.licence}
    if known.labels is not None:
        weights.metadata.setdefault("classes", json.dumps(known_labels(known.labels)))
    return weights


def origin_of_weights(model: Model) -> Literal["file", "package", "kept", "published"] | None:
    """Where `find_weights` would find the weights of `model`, without reading any: a file of its name, one that an
    installed package brings, one that was downloaded and kept, or a download. None: nowhere."""
    from zoo.verify.references import published
    from zoo.weights.published import comes_with_a_package, place

    if weights_file(model) is not None:
        return "file"
    try:
        known = published(model.reference)
        if comes_with_a_package(known.url):
            return "package"
        return "kept" if place(known.url, name=known.file).is_file() else "published"
    except ZooError:
        return None


def _with_published_labels(model: Model, weights: Weights) -> Weights:
    """`weights` with the names of the published classes, if they are the published file and say no names themselves."""
    from zoo.labels import known_labels
    from zoo.verify.references import published

    if weights.generated or "classes" in weights.metadata:
        return weights
    try:
        known = published(model.reference)
    except ZooError:
        return weights
    if known.labels and known.sha256 and weights.digest().startswith(known.sha256):
        weights.metadata["classes"] = json.dumps(known_labels(known.labels))
    return weights


def model_in(source: str | os.PathLike[str]) -> tuple[str, str | None]:
    """(model's name, file of weights) of what a user wants to run: a name, or weights that say which model they are of.

    Raises ZooError for weights that do not say it.
    """
    path = path_of("model is", source)
    if Path(path).suffix not in (".safetensors", ".wts", ".pt", ".pth") or not Path(path).is_file():
        return path, None
    name = load_weights(path).metadata.get("model")
    if name is None:
        raise ZooError(
            f"{path} holds weights and does not say of which model; name it: "
            f"python -m zoo.run MODEL SOURCE --weights {shlex.quote(path)}"
        )
    return name, path


def adapted(model: Model, weights: Weights) -> Model:
    """`model` with the training size and normalisation that the metadata of `weights` say, where they say any."""
    try:
        said = json.loads(weights.metadata.get("input", "{}"))
        if "kind" in said and said["kind"] not in _OLD_KINDS:  # a dump, which says all
            shape = tuple(said["shape"])
            made = replace(model, preprocess=from_dict(said), input=shape if len(shape) == 3 else model.input)
            return made if made != model else model
        fields = {key: tuple(said[key]) for key in ("mean", "std") if key in said}
        fields |= {"interpolation": f"pillow:{said['interpolation']}"} if "interpolation" in said else {}
        fields |= {"resize": said["resize"]} if "resize" in said else {}
        size = model.input[1:]
        if "size" in said:
            size = (said["size"],) * 2 if isinstance(said["size"], int) else tuple(said["size"])
            fields["size"] = size[0] if size[0] == size[1] else size
        made = replace(model, preprocess=replace(model.preprocess, **fields), input=(model.input[0], *size))
        return made if made != model else model
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ZooError(f"{weights.name} says in its metadata what its input is, but wrongly ({error})") from None


def weights_file(model: Model) -> Path | None:
    """NAME.safetensors or NAME.wts in the folder that ZOO_WEIGHTS names, in ./weights, beside the package's source, or
    in the package, which brings LeNet-5's; None when there is none."""
    package = _from_here(Path(__file__).resolve().parent)
    places = (os.environ.get("ZOO_WEIGHTS"), "weights", package.parent / "weights", package / "weights")
    names = [f"{model.name}{suffix}" for suffix in (".safetensors", ".wts")]
    paths = (Path(folder) / name for folder in places if folder for name in names)
    return next((path for path in paths if path.is_file()), None)


def _from_here(path: Path) -> Path:
    """`path` as people would write it: from the current folder on, where it lies in that."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path


def build_engine(
    name: str | Model,
    *,
    weights: str | os.PathLike[str] | Weights | None = None,
    precision: PrecisionName | Precision = "fp32",
    batch: int | tuple[int, int, int] = 1,
    size: tuple[int, int] | None = None,
    shapes: Shapes | None = None,
    target: Literal["tensorrt", "rtx"] | None = None,
    level: int | None = None,
    heuristic: bool = False,
    tf32: bool = False,
    workspace: int | None = None,
    plugins: PluginPolicy = "auto",
    self_contained: bool = False,
    end2end: EndToEnd | None = None,
    io: Io = "fp32",
    flags: Flags = Flags(),
    timing_cache: str | os.PathLike[str] | None = None,
    progress: Progress = lambda text: None,
) -> Engine:
    """Defines the model `name`, or one that `Model.features` gives, and compiles it into an engine; `.save(path)`
    writes it with its description.

    `weights` as in `find_weights`. `batch` is fixed, or (min, opt, max); `shapes` gives the whole profile instead.
    `level`, `heuristic`, `tf32` and `workspace` are those of `zoo.engine.effort.Effort`, `plugins` (the policy) and
    `self_contained`
    those of `zoo.engine.plugins.Plugins`. With `end2end` (`zoo.engine.end2end.EndToEnd`) a detector's engine takes
    uint8 frames and gives final boxes; `io` says what else it takes and gives (`zoo.engine.io`),
    and `flags` what it can do elsewhere or later (`zoo.engine.flags.Flags`).
    `target` is full TensorRT where a GPU and the package are there, else TensorRT-RTX, which compiles ahead of time
    without a GPU.
    """
    from zoo.engine.build import build
    from zoo.trt import load as load_api

    effort, custom = Effort(level, heuristic, tf32, workspace), Plugins(plugins, self_contained)
    wanted = _precision(precision)
    model = get_model(name)
    check_io(io, model)
    _check_shapes(shapes)
    if shapes is None:
        input_shapes(model, batch, size)  # refused before weights are read
    found = find_weights(model, weights)
    model = adapted(model, found)
    shapes = shapes or input_shapes(model, batch, size)
    api = load_api(None if target is None else one_of("target", target, get_args(Flavour)))
    return build(
        model,
        found,
        api,
        shapes,
        wanted,
        effort,
        custom,
        end2end,
        io=io,
        flags=flags,
        timing_cache=Path(path_of("timing cache is", timing_cache)) if timing_cache else None,
        progress=progress,
    )


def load(
    source: str | os.PathLike[str] | Model,
    *,
    weights: str | os.PathLike[str] | Weights | None = None,
    precision: PrecisionName | Precision = "fp32",
    size: tuple[int, int] | None = None,
    batch: int | tuple[int, int, int] | None = None,
    shapes: Shapes | None = None,
    device: str | int = "auto",
    level: int | None = None,
    heuristic: bool = False,
    workspace: int | None = None,
    plugins: PluginPolicy = "auto",
    io: Io = "fp32",
    host_code: bool = False,
    auto_rebuild: bool = False,
    cuda: str = "cuda-python",
    graphs: bool = True,
    contexts: int = 1,
    stream: Any = None,
    threads: int = 0,
    progress: Progress = lambda text: None,
) -> Session | CascadeSession:
    """A session for a model's name, a model that `Model.features` gives, an engine file, or weights that say which
    model they are of.

    For the name of a cascade it is a `CascadeSession`, which has `predict` only; its networks have sizes and batches of
    their own, and weights under their own names.

    `device` is "auto", "cpu", or a GPU: "gpu", "cuda:1" or its index. On the CPU the network definition is walked into
    ONNX and run by onnxruntime on `threads` threads (0: as many as there are cores). On a GPU a model name is compiled
    first (once: the engine is kept in a cache) with `level`, `heuristic` and `workspace` as in
    `zoo.engine.effort.Effort` and custom ops as `plugins` says, and an engine file is loaded, whose weights, precision,
    size, batch and `io` (`zoo.engine.io`: what the session takes and gives) are its own; `host_code` allows one to run
    the library that it carries.

    `batch` is fixed, or (min, opt, max); `shapes` (`zoo.engine.shapes.Shapes`) gives the whole range instead, in which
    height and width may vary too where the network allows it. Without them, any number of images may be given, on a GPU
    in steps of at most 16. `auto_rebuild`, `cuda`, `graphs`, `contexts` and `stream` are those of
    `zoo.runtime.engines.load_engine_session` and mean nothing on the CPU.

    Raises ZooError for what cannot be meant, on every machine in the same way.
    """
    given = source if isinstance(source, Model) else None
    source = path_of("model is", source.name if isinstance(source, Model) else source)
    if weights is None and given is None:
        source, weights = model_in(source)
    where, wanted, effort = parse_device(device), _precision(precision), Effort(level, heuristic, workspace=workspace)
    custom = Plugins(plugins)
    _check_gpu_options(cuda, contexts, stream)
    if not isinstance(threads, int) or threads < 0:
        raise ZooError(f"threads is {threads!r}; it must be a number of threads, or 0 for one on each core")
    on_gpu = {"cuda": cuda, "graphs": graphs, "contexts": contexts, "stream": stream}
    if given is None and is_engine(source):
        if where.kind == "cpu":
            raise ZooError(f"{source} is an engine, which needs a GPU; for the CPU, give the model's name instead")
        built_in = (wanted, effort, custom, io) != (Precision(), Effort(), Plugins(), "fp32")
        if any(option is not None for option in (weights, size, batch, shapes)) or built_in:
            raise ZooError(
                f"{source} is an engine, in which weights, size, batch, precision, plugins and TensorRT's effort are "
                "built in; leave those options away, or give the model's name instead"
            )
        from zoo.runtime.engines import load_engine_session

        return load_engine_session(
            Path(source), auto_rebuild=auto_rebuild, device=where.index, **on_gpu, host_code=host_code,
            progress=progress,
        )  # fmt: skip
    if (cascade := get_cascade(source)) is not None:
        if size is not None or batch is not None:
            raise ZooError(f"the networks of {cascade.name} have sizes and batches of their own; give neither")
        return _cascade_session(
            cascade, weights, precision=wanted, device=device, level=level, heuristic=heuristic, workspace=workspace,
            plugins=plugins, **on_gpu, threads=threads, progress=progress,
        )  # fmt: skip
    if os.path.isdir(source) and os.path.basename(source) != source:
        raise ZooError(f"{source} is a folder; give a model's name, an engine file or weights")
    model = get_model(source if given is None else given)
    check_io(io, model)
    _check_shapes(shapes, batch, size)
    input_shapes(model, 1 if batch is None else batch, size)  # refused before weights are read
    opened = find_weights(model, weights)
    model = adapted(model, opened)
    if where.kind == "gpu" or (where.kind == "auto" and _uses_gpu()):
        from zoo.runtime.engines import load_model_session

        return load_model_session(
            model, opened, wanted, size, batch=batch, shapes=shapes, effort=effort, plugins=custom, io=io,
            device=where.index, **on_gpu, progress=progress,
        )  # fmt: skip
    return _cpu_session(model, opened, wanted, size, batch, threads, plugins, io, shapes)


def _precision(wanted: PrecisionName | Precision) -> Precision:
    return wanted if isinstance(wanted, Precision) else Precision(wanted)


def _check_shapes(shapes: Any, *instead: Any) -> None:
    """Raises ZooError for what are no shapes, or are given beside what they say."""
    if shapes is not None and not isinstance(shapes, Shapes):
        raise ZooError(f"the shapes are {shapes!r}; they must be zoo.engine.shapes.Shapes, or give a batch")
    if shapes is not None and any(option is not None for option in instead):
        raise ZooError("shapes say batch and size already; leave those options away")


def _check_gpu_options(cuda: str, contexts: int, stream: Any) -> None:
    """Raises ZooError for options of GPU sessions that none could have, also where no GPU is."""
    one_of("CUDA package", cuda, CUDA_PACKAGES)
    if not isinstance(contexts, int) or isinstance(contexts, bool) or contexts < 1:
        raise ZooError(f"contexts is {contexts!r}; it must be a whole number of at least 1")
    if stream is not None and contexts > 1:
        raise ZooError(f"one stream cannot serve {contexts} contexts; give no stream, or contexts=1")


def _cpu_session(
    model: Model, weights: Weights, precision: Precision, size: tuple[int, int] | None,
    batch: int | tuple[int, int, int] | None, threads: int, plugins: PluginPolicy, io: Io = "fp32",
    given: Shapes | None = None,
) -> Session:  # fmt: skip
    from zoo.engine.definition import check_sides, define
    from zoo.runtime.cpu import CpuSession
    from zoo.trt import load_to_define

    shapes = given or input_shapes(model, 1 if batch is None else batch, size)
    api = load_to_define(precision.name)
    check_sides(model.configured(weights), api, shapes)
    definition = define(model, weights, api, (-1, *shapes.network[1:]), precision, plugins, io=io)
    batches = shapes.batches if given or batch is not None else None
    executor = CpuSession(definition, threads=threads, batches=batches, shapes=shapes)
    return Session(
        model, executor, executor.runs_on, model.preprocess, shapes.opt[2:], labels(weights.metadata), weights.name,
        io=io, shapes=shapes,
    )  # fmt: skip


def _cascade_session(cascade: Cascade, weights: Any, **options: Any) -> CascadeSession:
    """The parts' weights are opened now, and the last part's network is loaded, so that what is wrong with them is told
    now; `options` are those of `load`."""
    if weights is not None and not str(weights).startswith("random"):
        raise ZooError(
            f"{cascade.name} takes the weights of several networks, {', '.join(cascade.parts)}; put a file of the name "
            "of each into one folder, which ZOO_WEIGHTS names, or give --weights random"
        )
    opened = {part: find_weights(get_model(part), weights) for part in cascade.parts}
    *_, last = cascade.parts
    with load(last, weights=opened[last], **options) as session:
        runs_on = session.runs_on
    names = dict.fromkeys(found.name for found in opened.values())
    return CascadeSession(
        cascade,
        lambda part, size: load(part, weights=opened[part], size=size, **options),  # type: ignore[arg-type, return-value]
        runs_on,
        ", ".join(names),
    )


def is_engine(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is an engine file, not a model's name."""
    return Path(source).suffix in (".engine", ".plan", ".trt") or Path(source).is_file()


def _uses_gpu() -> bool:
    """Whether a GPU can be used. One that only lacks its TensorRT is told of: it would be missed."""
    from zoo.driver import has_driver
    from zoo.trt import installed

    if has_driver() and not installed("tensorrt"):
        logging.getLogger("zoo").warning(
            "the GPU is not used, since TensorRT is not installed: pip install 'tensorrt-zoo[gpu]', or ask for the CPU"
        )
    return has_driver() and installed("tensorrt")
