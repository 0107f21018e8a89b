"""The engine's passport: a JSON description beside it that says what it is, where it runs and how to build it again."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import shlex
from collections import Counter
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from zoo.driver import compute_capability, device_name
from zoo.engine import end2end as whole
from zoo.engine import flags as further
from zoo.engine import plugins as custom
from zoo.engine.effort import Effort
from zoo.engine.end2end import EndToEnd
from zoo.engine.flags import Flags
from zoo.engine.io import DTYPES, Io
from zoo.engine.plugins import Plugins
from zoo.engine.schema import check_fields
from zoo.engine.shapes import INPUT, Shapes
from zoo.errors import ZooError
from zoo.files import checked_destination, locked_folder, replacing
from zoo.measure.machine import smi
from zoo.network import Definition, Precision
from zoo.preprocess import from_dict
from zoo.quantization import scales_from
from zoo.registry import Model, get_model
from zoo.text import LONGEST, clean
from zoo.trt import Api

FORMAT = "zoo engine 1"


@dataclass(frozen=True)
class Engine:
    """A serialised engine and its description (JSON data)."""

    data: bytes
    description: dict[str, Any]

    def save(self, path: str | Path) -> Path:
        """Writes the engine to `path` and its description to `path`.json; neither is ever half written, nor is one
        ever left beside the other of another process that writes to the same path."""
        path = checked_destination(path)
        checked_destination(description_path(path))
        try:
            with locked_folder(path.parent), replacing(path) as engine:
                engine.write(self.data)
                engine.flush()  # what has no room is refused before the description is replaced
                write_description(path, self.description)
        except OSError as error:
            raise ZooError(f"cannot write {path}: {error.strerror}") from None
        return path


def description_path(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def write_description(engine: Path, description: dict[str, Any]) -> Path:
    """Puts `description` in the place of the engine's own."""
    with replacing(description_path(engine)) as file:
        file.write(_json(description))
    return description_path(engine)


def describe(
    definition: Definition, model: Model, shapes: Shapes, data: bytes, effort: Effort = Effort(),
    plugins: Plugins = Plugins(), end2end: EndToEnd | None = None, io: Io = "fp32", flags: Flags = Flags(),
    device: int = 0, seconds: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Everything needed to load the engine, to feed it, to say why it does not load, and to rebuild it.

    `seconds` is what defining and compiling took.
    """
    api, weights = definition.api, definition.weights
    outputs = [definition.network.get_output(i) for i in range(definition.network.num_outputs)]
    description = {
        "format": FORMAT,
        "model": model.name,
        "task": model.task,
        "features": list(model.ends),
        "flavour": api.flavour,
        "version": api.version,
        "compute_capability": compute_capability(device)
        if not api.rtx
        else None,  # RTX compiles for all from Ampere on
        "gpu": device_name(device) if not api.rtx else None,
        "driver": smi("driver_version") or None,
        "built": {"date": now(), "seconds": round(seconds, 2)},
        "proof": None,
        "precision": definition.precision.name,
        "islands": list(definition.precision.islands),
        "scales": definition.precision.scales.to_dict() if definition.precision.scales else None,
        **asdict(effort),
        "plugins": custom.describe(definition, plugins),
        "end2end": whole.describe(end2end),
        "io": io,
        "flags": further.describe(flags),
        "input": _input(definition, shapes, io),
        "outputs": {o.name: {"dtype": _dtype(api, o), "shape": list(o.shape)} for o in outputs},
        "preprocess": model.preprocess.to_dict(),
        "labels": labels(weights.metadata),
        "config": plain(model.config),
        "parameters": sum(math.prod(shape) for shape in definition.parameters.values()),
        "weights": {"file": _from_anywhere(weights.name), "sha256": weights.digest()},
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "modules": modules_of(definition),
    }
    return {**description, "rebuild": rebuild_command(description)}


def _input(definition: Definition, shapes: Shapes, io: Io) -> dict[str, Any]:
    """The input's name and type, and the range of (N, C, H, W) of the network inside."""
    about = {"name": INPUT, "dtype": DTYPES[io].name, "min": shapes.min, "opt": shapes.opt, "max": shapes.max}
    if shapes.open_sides:
        about["multiple"] = definition.multiple
    if shapes.parts:
        about["profiles"] = [(part.min, part.opt, part.max) for part in shapes.parts]
    return about


def modules_of(definition: Definition) -> dict[str, dict[str, Any]]:
    """What the network is made of, by module path: the op (None where it is several), the shape of what it gives (None
    where the host folded it into another; -1 where it is open) and its own parameters."""
    counts: Counter[str] = Counter()
    for name, shape in definition.parameters.items():
        counts[name.rpartition(".")[0]] += math.prod(shape)
    found = {}
    for path in dict.fromkeys([*definition.claims, *counts]):
        tensor, op = definition.taps.get(path), definition.claims.get(path)
        shape = None if tensor is None else list(tensor.shape)
        found[path] = {"op": None if op == "net.tap" else op, "shape": shape, "parameters": counts[path]}
    return found


def plain(config: Any) -> Any:
    """A model's configuration as JSON data: what it names (an activation, a normalisation) by its name."""
    data = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    return json.loads(json.dumps(data, default=lambda value: getattr(value, "__name__", str(value))))


def now() -> str:
    """The time in UTC, to the second: 2026-01-31T12:00:00Z."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dtype(api: Api, output: Any) -> str:
    """Outputs are counts or values."""
    return {api.trt.int32: "int32", api.trt.float16: "float16"}.get(output.dtype, "float32")


def _from_anywhere(weights: str) -> str:
    """A weights file by its whole path: an engine may be rebuilt from another folder."""
    return os.path.abspath(weights) if os.path.isfile(weights) else weights


def labels(metadata: dict[str, str]) -> list[str] | None:
    """The class names that a dump carries, if it does. Raises ZooError unless they are a list of names."""
    if "classes" not in metadata:
        return None
    try:
        names = json.loads(metadata["classes"])
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ZooError(
            f"the class names in the weights' metadata are {clean(metadata['classes'], LONGEST)}; "
            "a JSON list of names was expected; convert the weights again"
        )
    return names


def model_of(description: dict[str, Any]) -> Model:
    """The model of a description."""
    model = get_model(description["model"])
    return model.features(*description["features"]) if description.get("features") else model


def gpus_of(description: dict[str, Any]) -> str:
    """The GPUs that an engine is for, in words: one, or those that TensorRT-RTX compiles for."""
    return description["gpu"] or f"GPUs from {'Ada' if description['precision'] == 'fp8' else 'Ampere'} on"


def shapes_of(description: dict[str, Any]) -> Shapes:
    """The input shapes of a description."""
    about = description["input"]
    parts = tuple(Shapes(*map(tuple, profile)) for profile in about.get("profiles") or ())
    return Shapes(*(tuple(about[key]) for key in ("min", "opt", "max")), parts)


def effort_of(description: dict[str, Any]) -> Effort:
    """The effort of a description."""
    return Effort(**{field.name: description[field.name] for field in fields(Effort) if field.name in description})


def io_of(description: dict[str, Any]) -> Io:
    """What the engine of a description takes and gives."""
    return description.get("io") or "fp32"


def precision_of(description: dict[str, Any]) -> Precision:
    """The precision of a description, with the scales of int8."""
    found = description.get("scales")
    scales = scales_from(found, "the engine's description") if found else None
    return Precision(description["precision"], tuple(description.get("islands") or ()), scales)


def rebuild_command(description: dict[str, Any]) -> str:
    """The command line that builds the engine of `description` again on the machine that runs it."""
    shapes, precision = shapes_of(description), description["precision"]
    command = f"python -m zoo.build {description['model']}" + ("" if precision == "fp32" else f" --{precision}")
    command += "".join(f" --features {shlex.quote(path)}" for path in description.get("features") or ())
    command += f" --scales {shlex.quote(description['scales']['file'])}" if description.get("scales") else ""
    command += "".join(f" --fp32-layers {shlex.quote(pattern)}" for pattern in description.get("islands") or ())
    command += "" if description["level"] is None else f" --level {description['level']}"
    command += "".join(f" --{option}" for option in ("heuristic", "tf32") if description[option])
    command += "" if effort_of(description).workspace is None else f" --workspace {description['workspace']}B"
    command += "" if io_of(description) == "fp32" else f" --io {io_of(description)}"
    command += further.command_options(further.flags_of(description))
    command += custom.command_options(custom.plugins_of(description))
    command += whole.command_options(whole.end2end_of(description))
    command += f" --weights {shlex.quote(description['weights']['file'])}"
    if not shapes.dynamic:
        return f"{command} --batch {shapes.min[0]} --size {shapes.min[2]}x{shapes.min[3]}"
    for part in shapes.profiles:
        low, best, high = ("x".join(map(str, shape)) for shape in (part.min, part.opt, part.max))
        command += f" --min-shapes {low} --opt-shapes {best} --max-shapes {high}"
    return command


def rebuild_at(path: str | Path, description: dict[str, Any]) -> str:
    """The command line that builds the engine of `description` again in the place of `path`.

    It is made of the fields, which are checked, and never read from the file: people paste it into a shell.
    """
    return f"{rebuild_command(description)} --save-engine {shlex.quote(str(path))}"


def load_description(engine: str | Path) -> dict[str, Any]:
    """Reads the description beside an engine. Raises ZooError when it is missing, garbled or of another file."""
    engine = Path(engine)
    path = description_path(engine)
    try:
        description = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ZooError(_why_no_description(engine, path)) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ZooError(
            f"the description {path} cannot be read ({reason}); rebuild the engine with python -m zoo.build"
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ZooError(
            f"{path} is not the description of an engine ({FORMAT}); rebuild the engine with python -m zoo.build"
        )
    try:
        check_fields(f"the description {path}", description)
        shapes_of(description)
        from_dict(description["preprocess"])
    except ZooError as error:
        raise ZooError(f"{error}; rebuild the engine with python -m zoo.build") from None
    return description


# How files that are often taken for engines begin, and what they are.
_BEGINNINGS = (
    (b"PK\3\4", "a PyTorch checkpoint; give the model's name and --weights with this file"),
    (b"\x80", "a PyTorch checkpoint; give the model's name and --weights with this file"),
    (b"\x08", "an ONNX file; give the model's name, or build it with trtexec"),
)


def _why_no_description(engine: Path, path: Path) -> str:
    """What to do about an engine without its description, or about what is no engine."""
    try:
        with open(engine, "rb") as file:
            beginning = file.read(16)
    except IsADirectoryError:
        return f"{engine} is a folder; give the engine file in it"
    except OSError as error:
        return f"the engine {engine} cannot be read: {error.strerror}; to build one: python -m zoo.build MODEL"
    if beginning[4:5] == b"{":
        return f"{engine} begins with metadata as ultralytics writes it; build the engine with python -m zoo.build"
    if engine.suffix == ".onnx":
        return f"{engine} is not an engine but {_BEGINNINGS[-1][1]}"
    for start, what in _BEGINNINGS:
        if beginning.startswith(start):
            return f"{engine} is not an engine but {what}"
    if beginning[8:9] == b"{":
        return f"{engine} is not an engine but a weights file; give the model's name and --weights with this file"
    return (
        f"{engine} has no description {path.name} beside it, which python -m zoo.build writes: copy it along, or "
        "rebuild the engine with python -m zoo.build; zoo.runtime.gpu.GpuSession runs it without one"
    )


def load_engine(path: str | Path) -> Engine:
    """Reads an engine with its description and checks that they belong together. Nothing is executed."""
    description = load_description(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ZooError(
            f"cannot read the engine {path}: {error.strerror}; to build it: {rebuild_at(path, description)}"
        ) from None
    if hashlib.sha256(data).hexdigest() != description["sha256"]:
        raise ZooError(
            f"{path} is not the engine that its description was written for ({len(data)} bytes, "
            f"{description.get('size', '?')} expected): it is damaged or replaced; "
            f"to rebuild it: {rebuild_at(path, description)}"
        )
    return Engine(data, description)


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
