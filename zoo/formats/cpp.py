"""A small C++ program without other dependencies than TensorRT and CUDA: it runs the engine of a model, and with
`--definition` there is a second one that builds the network itself, by TensorRT's C++ API.

What stands in `zoo/cpp/sources` is copied; `model.h`, and for a definition `network.cpp` and its weights, are written
for the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

import zoo.cpp
from zoo.cli import Bf16, Fp16, Json, Output, Size, WeightsOption, note, precision_name, print_json, size_of
from zoo.errors import ZooError
from zoo.files import adding_to
from zoo.formats import Format
from zoo.formats.onnx import Batch

SOURCES = Path(zoo.cpp.__file__).with_name("sources")
WEIGHTS = "weights.safetensors"
RUNNER = ("CMakeLists.txt", "run.cpp", "picture.h", "picture.cpp", "results.h", "results.cpp", "logger.h")
BUILDER = ("build.cpp", "definition.h", "definition.cpp", "weights.h", "weights.cpp")

WithDefinition = Annotated[
    bool, typer.Option("--definition", help="Add the network itself, as C++ that builds it, and its weights.")
]


def export(
    model: str,
    *,
    weights: WeightsOption = None,
    fp16: Fp16 = False,
    bf16: Bf16 = False,
    batch: Batch = None,
    size: Size = None,
    definition: WithDefinition = False,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Writes the program for `model`, a name or an engine file."""
    from zoo.api import is_engine

    folder = output or Path("cpp")
    if is_engine(model):
        given = {"--weights": weights, "--fp16": fp16, "--bf16": bf16, "--batch": batch, "--size": size}
        for option, value in {**given, "--definition": definition}.items():
            if value:
                raise ZooError(f"{model} is an engine, in which that is built in; leave {option} away")
        program = _engine(Path(model))
    else:
        precision = precision_name(fp16, bf16)
        program = _model(model, weights, precision, -1 if batch is None else batch, size, definition)
    written = program.files
    copied = (*RUNNER, *(BUILDER if definition else ()))
    with adding_to(folder, [*copied, *written]) as temporary:
        for file in copied:
            shutil.copyfile(SOURCES / file, temporary / file)
        for file, content in written.items():
            _write(temporary / file, content)
    files = sorted([*copied, *written])
    result = {"model": program.model, "folder": str(folder), "files": files, **program.facts}
    if as_json:
        print_json(result)
        return
    network = f", and its network in {result['layers']} layers" if definition else ""
    print(f"{folder}: the program for {program.model}{network}")
    print(f"to compile it: cmake -S {folder} -B {folder}/build -DTENSORRT_INCLUDE=DIR -DTENSORRT_LIB=DIR")
    if bf16:
        note("bf16 needs TensorRT 10 or later")


@dataclass(frozen=True)
class Program:
    """What is written for a model: files by name (text, a file to copy, or arrays), and what is told of them. `keep`
    holds the memory of the arrays."""

    model: str
    files: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    keep: Any = None


def _write(path: Path, content: Any) -> None:
    """Text, an existing file to copy, or arrays."""
    from zoo.weights import save_safetensors

    if isinstance(content, str):
        path.write_text(content, "utf-8")
    elif isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        save_safetensors(path, content)


def _engine(path: Path) -> Program:
    """The engine, and its description for the runner."""
    from zoo.cpp.model import header
    from zoo.engine.end2end import end2end_of
    from zoo.engine.passport import load_engine
    from zoo.engine.plugins import uses_shell

    engine = load_engine(path)
    about = engine.description
    if about["flavour"] == "rtx":
        raise ZooError(f"{path} is an engine of TensorRT-RTX, and the program loads those of full TensorRT")
    plugins = about.get("plugins") or {}
    if uses_shell(plugins.get("ops", {})) and not plugins.get("self_contained"):
        raise ZooError(f"{path} needs the zoo's library of kernels: build it with --self-contained or --plugins native")
    if end2end_of(about):
        raise ZooError(
            f"{path} takes frames of any size (--end2end), which the program does not feed: build it without"
        )
    return Program(about["model"], {"model.h": header(about), path.name: path})


def _model(
    name: str, weights: str | None, precision: Any, batch: int, size: str | None, with_definition: bool
) -> Program:
    """The program of a model, with its network where that is asked for."""
    from zoo.api import adapted, find_weights
    from zoo.cpp.model import about_model, header
    from zoo.engine.definition import define
    from zoo.engine.shapes import input_shapes
    from zoo.network import Precision
    from zoo.registry import get_model
    from zoo.trt import load_to_define

    entry = get_model(name)
    input_shapes(entry, max(batch, 1), size_of(size))  # refused before weights are read
    source = find_weights(entry, weights)
    entry = adapted(entry, source)
    shape = input_shapes(entry, max(batch, 1), size_of(size)).opt
    definition = define(entry, source, load_to_define(precision), (batch, *shape[1:]), Precision(precision))
    files: dict[str, Any] = {"model.h": header(about_model(entry, source))}
    if not with_definition:
        return Program(entry.name, files)
    api = definition.api
    network, arrays = zoo.cpp.to_cpp(
        definition.network, api.trt, strong=api.strong, arrays=definition.arrays, islands=definition.islands
    )
    facts = {"layers": definition.network.num_layers, "tensors": len(arrays)}
    return Program(entry.name, {**files, "network.cpp": network, WEIGHTS: arrays}, facts, keep=definition)


FORMAT = Format("cpp", export)
