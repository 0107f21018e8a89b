"""Dumps the weights of a PyTorch model: .safetensors (default) or tensorrtx's .wts, with golden outputs if asked.

    python scripts/gen_wts.py resnet50                                  # published pretrained weights (needs
    internet) python scripts/gen_wts.py resnet50 --checkpoint my_state_dict.pth   # your own python scripts/gen_wts.py
    yolov8n --checkpoint best.pt --unpickle   # an ultralytics or yolov5 checkpoint python scripts/gen_wts.py resnet50
    --random 0 --golden              # calibrated random weights, golden inputs and outputs

Checkpoints are opened as plain tensors. One that holds a pickled model (ultralytics, yolov5) can run code when it is
opened, and is refused without --unpickle: give that for files that you trust.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import typer

from zoo.cli import command, note
from zoo.errors import ZooError
from zoo.registry import Model, get_model
from zoo.weights import from_arrays, load_weights, save_safetensors, save_wts


def run(
    model: Annotated[str, typer.Argument(help="A name from python -m zoo.list.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", "-c", help="A .pt, .pth or .safetensors file instead of the published weights."),
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", help="Calibrated random weights with this seed instead.")
    ] = None,
    unpickle: Annotated[
        bool, typer.Option("--unpickle", help="Open a checkpoint that may run code. Only for files that you trust.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: weights/MODEL.safetensors.")] = None,
    wts: Annotated[bool, typer.Option("--wts", help="Write tensorrtx's text format instead of safetensors.")] = False,
    golden: Annotated[
        bool, typer.Option("--golden", help="Also write inputs with the reference's fp32 and fp64 outputs.")
    ] = False,
) -> None:
    """Writes the weights of MODEL where `zoo` looks for them, after checking that its definition takes every one."""
    entry = get_model(model)
    if checkpoint is not None and random is not None:
        raise ZooError("--checkpoint and --random exclude each other; give one")
    if checkpoint is not None:
        arrays, classes, source = *from_checkpoint(checkpoint, unpickle), checkpoint.name
    elif random is not None:
        arrays, classes, source = *from_random(entry, random), f"calibrated random weights, seed {random}"
    else:
        arrays, classes, source = *from_published(entry), f"{entry.reference}, published weights"
    count = check(entry, arrays, source)
    path = output or Path("weights") / f"{entry.name}{'.wts' if wts else '.safetensors'}"
    if wts or path.suffix == ".wts":
        save_wts(path, arrays)
    else:
        save_safetensors(path, arrays, metadata(entry, source, classes))
    print(f"{path}: {len(arrays)} tensors, {count:,} parameters, {path.stat().st_size / 1e6:.1f} MB ({source})")
    if golden:
        write_golden(entry, arrays, path.with_suffix(".golden.safetensors"))


def metadata(model: Model, source: str, classes: list[str] | None) -> dict[str, str]:
    """What a .safetensors dump says about itself; `classes` are the names, where the source has them."""
    data = {
        "model": model.name,
        "source": source,
        "input": json.dumps({"shape": model.input, **model.preprocess.to_dict()}),
    }
    return data | ({"classes": json.dumps(classes)} if classes else {})


def check(model: Model, arrays: dict[str, np.ndarray], source: str) -> int:
    """The parameter count; defines the network, so that a dump that does not fit it is never written."""
    from zoo.engine.definition import define
    from zoo.trt import load

    definition = define(model, from_arrays(arrays, source), load("rtx"), (1, *model.input))
    return sum(int(np.prod(shape)) for shape in definition.parameters.values())


def from_published(model: Model) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """The weights that the authors of the reference publish."""
    from zoo.verify.pretrained import download_published

    note(f"loading the published weights of {model.reference}")
    return from_checkpoint(download_published(model.reference), unpickle=True)


def from_random(model: Model, seed: int) -> tuple[dict[str, np.ndarray], None]:
    """Random weights whose BatchNorm statistics are measured, so that the output depends on the input."""
    from zoo.verify.calibration import calibrated, state_arrays

    return state_arrays(calibrated(model.reference, seed, model.input, fixed=model.ignored)), None


def from_checkpoint(path: Path, unpickle: bool) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """The tensors of a .safetensors file, a state_dict, or (with `unpickle`) a pickled ultralytics or yolov5 model."""
    if not path.is_file():
        raise ZooError(f"no checkpoint {path}; give the path of a .pt, .pth or .safetensors file")
    if path.suffix == ".safetensors":
        weights = load_weights(path)
        arrays = {name: weights.read(name, weights.shape(name) or ()) for name in weights.names()}
        return arrays, _classes(weights.metadata)
    from zoo.verify.pretrained import open_checkpoint

    return _tensors(open_checkpoint(path, unpickle), path)


def _tensors(content: Any, path: Path) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """The state_dict in what a checkpoint holds: itself, under a usual key, or a model (the averaged one first)."""
    import torch

    for key in ("ema", "model_ema", "model", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and content.get(key) is not None:
            content = content[key]
            break
    classes = None
    if isinstance(content, torch.nn.Module):
        names = getattr(content, "names", None)
        classes = list(names.values()) if isinstance(names, dict) else names
        content = content.state_dict()
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise ZooError(f"{path} holds no state_dict and no model; found {type(content).__name__}")
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {
        k: v.detach().cpu().float().numpy() for k, v in tensors.items() if not k.endswith("num_batches_tracked")
    }, classes


def _classes(metadata: dict[str, str]) -> list[str] | None:
    return json.loads(metadata["classes"]) if "classes" in metadata else None


def write_golden(model: Model, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Two inputs and what the reference makes of them in fp32 and in fp64: `verify --golden` needs no PyTorch."""
    from zoo.verify.calibration import sample_images
    from zoo.verify.golden import save_golden
    from zoo.verify.pretrained import load_state
    from zoo.verify.references import load_reference
    from zoo.verify.running import run_reference

    reference = load_state(load_reference(model.reference, classes_of(model, arrays)), arrays)
    images = sample_images(2, model.input, seed=1)
    runs = [run_reference(reference, images, dtype) for dtype in ("float32", "float64")]
    save_golden(path, model.name, images, *runs)
    print(f"{path}: golden inputs and outputs, {path.stat().st_size / 1e6:.1f} MB")


def classes_of(model: Model, arrays: dict[str, np.ndarray]) -> int | None:
    """The class count that the weights have."""
    config = model.configured(from_arrays(arrays, "checkpoint")).config
    return getattr(config, "num_classes", None)


main = command(run)

if __name__ == "__main__":
    main()
