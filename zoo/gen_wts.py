"""`python -m zoo.gen_wts`: the weights of a PyTorch model as .safetensors (default) or tensorrtx's .wts.

    python -m zoo.gen_wts resnet50                             # the published weights (needs internet)
    python -m zoo.gen_wts yolov8n --checkpoint best.pt         # your own, of any form; no PyTorch needed
    python -m zoo.gen_wts resnet50 --random 0 --golden         # calibrated random weights, golden inputs and outputs

Checkpoints are read as data: nothing of them is executed. Only --random and --golden need PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from zoo.api import adapted, find_published
from zoo.cli import Names, command
from zoo.engine.passport import labels as said_labels
from zoo.errors import ZooError
from zoo.labels import given_names
from zoo.registry import Model, get_cascade, get_model
from zoo.weights import Weights, check_finite, from_arrays, load_weights, save_safetensors, save_wts
from zoo.weights.base import is_counter


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", "-c", help="A .pt, .pth, .safetensors or .wts file instead of the published weights."
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", help="Calibrated random weights with this seed instead.")
    ] = None,
    names: Names = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: weights/MODEL.safetensors.")] = None,
    wts: Annotated[bool, typer.Option("--wts", help="Write tensorrtx's text format instead of safetensors.")] = False,
    golden: Annotated[
        bool, typer.Option("--golden", help="Also write inputs with the reference's fp32 and fp64 outputs.")
    ] = False,
) -> None:
    """Writes the weights of MODEL where `zoo` looks for them, after checking that its definition takes every one.

    Of a cascade, such as mtcnn, it writes those of every network.
    """
    if checkpoint is names is output is None and (cascade := get_cascade(model)) is not None:
        for part in cascade.parts:
            run(part, random=random, wts=wts, golden=golden)
        return
    entry = get_model(model)
    if checkpoint is not None and random is not None:
        raise ZooError("--checkpoint and --random exclude each other; give one")
    if checkpoint is not None:
        weights, source = from_checkpoint(checkpoint, model), checkpoint.name
    elif random is not None:
        weights, source = from_random(entry, random), f"calibrated random weights, seed {random}"
    else:
        weights, source = find_published(entry), f"{entry.reference}, published weights"
    weights, count, classes = check(entry, weights)
    labels = _labels(names, weights, classes)
    arrays = arrays_of(weights)
    path = output or Path("weights") / f"{entry.name}{'.wts' if wts else '.safetensors'}"
    if wts or path.suffix == ".wts":
        save_wts(path, arrays)
    else:
        save_safetensors(path, arrays, metadata(adapted(entry, weights), weights, source, labels))
    print(f"{path}: {len(arrays)} tensors, {count:,} parameters, {path.stat().st_size / 1e6:.1f} MB ({source})")
    if golden:
        write_golden(entry, arrays, path.with_suffix(".golden.safetensors"))


def metadata(model: Model, weights: Weights, source: str, classes: list[str] | None) -> dict[str, str]:
    """What a .safetensors dump says about itself; `classes` are the names, where there are any."""
    data = {
        "model": model.name,
        "source": source,
        "input": json.dumps({"shape": model.input, **model.preprocess.to_dict()}),
    }
    kept = {key: weights.metadata[key] for key in ("origin", "licence") if key in weights.metadata}
    return data | kept | ({"classes": json.dumps(classes)} if classes else {})


def check(model: Model, weights: Weights) -> tuple[Weights, int, int | None]:
    """(weights under the definition's names, parameters, classes); what does not fit is never written."""
    from zoo.engine.definition import define
    from zoo.trt import load_to_define

    definition = define(model, weights, load_to_define(), (1, *model.input))
    count = sum(int(np.prod(shape)) for shape in definition.parameters.values())
    return definition.weights, count, getattr(model.configured(definition.weights).config, "num_classes", None)


def arrays_of(weights: Weights) -> dict[str, np.ndarray]:
    """Every tensor but counters. Raises ZooError, naming it, for one that is not finite."""
    arrays = {}
    for name in weights.names():
        if not is_counter(name):
            shape = weights.shape(name)
            array = weights.read(name, (weights.size(name),) if shape is None else shape)
            check_finite(array, name, weights)
            arrays[name] = array
    return arrays


def _labels(names: str | None, weights: Weights, classes: int | None) -> list[str] | None:
    """The names of the classes, given or the weights' own. Raises ZooError unless there is one for each class."""
    labels = given_names(names) if names is not None else said_labels(weights.metadata)
    if labels is not None and classes is not None and len(labels) != classes:
        raise ZooError(
            f"{weights.name} has {classes} classes and {len(labels)} names; give one for each with --names FILE"
        )
    return labels


def from_random(model: Model, seed: int) -> Weights:
    """Random weights whose BatchNorm statistics are measured, so that the output depends on the input."""
    from zoo.verify.calibration import calibrated, state_arrays

    return from_arrays(
        state_arrays(calibrated(model.reference, seed, model.input, fixed=model.ignored)),
        f"random weights, seed {seed}",
    )


def from_checkpoint(path: Path, model: str) -> Weights:
    """The weights of a checkpoint or of a file of weights, whatever its form."""
    if not path.is_file():
        raise ZooError(f"no checkpoint {path}; give the path of a .pt, .pth, .safetensors or .wts file")
    return load_weights(path, model)


def write_golden(model: Model, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Two inputs and what the reference makes of them in fp32 and in fp64: `verify --golden` needs no PyTorch."""
    from zoo.verify.calibration import sample_images
    from zoo.verify.golden import save_golden
    from zoo.verify.pretrained import load_state
    from zoo.verify.references import load_reference
    from zoo.verify.running import run_reference

    config = model.configured(from_arrays(arrays, "checkpoint")).config
    reference = load_state(load_reference(model.reference, getattr(config, "num_classes", None)), arrays)
    images = sample_images(2, model.input, seed=1)
    runs = [run_reference(reference, images, dtype) for dtype in ("float32", "float64")]
    save_golden(path, model.name, images, *runs)
    print(f"{path}: golden inputs and outputs, {path.stat().st_size / 1e6:.1f} MB")


main = command(run)

if __name__ == "__main__":
    main()
