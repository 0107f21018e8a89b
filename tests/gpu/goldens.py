"""Golden files for the proof on a GPU: everything that `prove.py` needs on a machine without PyTorch, in a few MB.

    python tests/gpu/goldens.py --out .gpu/goldens [MODEL ...]

The weights of all models together are gigabytes. So every tensor of two or more dimensions is drawn by
`zoo.weights.RandomWeights`, which gives the same bits everywhere, times one factor per filter; a file holds these
factors, the small tensors (BatchNorm statistics measured from data, scales, biases, constants) and a checksum of every
tensor. To that come an image, the reference's outputs in fp32, fp64 and fp16, and for some models a sample of every
layer. A file is also a golden file in the sense of `zoo.verify.golden`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs from a checkout, without installation

from zoo.errors import ZooError
from zoo.registry import get_model, list_models
from zoo.verify.compare import Run
from zoo.verify.golden import FORMAT, load_golden
from zoo.weights import Entry, RandomWeights, Weights, load_weights, save_safetensors

if TYPE_CHECKING:
    from zoo.verify.references import Reference

SEED = 0
WITH_LAYERS = ("resnet50", "vit_b_16", "yolov8n")
LAYER_SAMPLE = 1024  # values kept of each layer


@dataclass(frozen=True)
class Golden:
    """Weights, one image (1, C, H, W), and what the reference makes of them; `ref16` is its run in half precision."""

    weights: Weights
    images: np.ndarray
    ref32: Run
    ref64: Run
    ref16: Run


def read(folder: Path, model: str) -> Golden:
    """The golden of `model`. Raises ZooError when there is none, or a weight comes out with other bits."""
    path = folder / f"{model}.safetensors"
    images, ref32, ref64 = load_golden(path, model)
    file = load_weights(path)
    arrays = {name: file.read(name, file.shape(name) or ()) for name in file.names() if name.startswith("weights/")}
    half = {name: file.read(name, file.shape(name) or ()) for name in file.names() if name.startswith("float16/")}
    ref16 = Run({name.removeprefix("float16/"): array for name, array in half.items()})
    return Golden(_weights(model, json.loads(file.metadata["tensors"]), arrays), images, ref32, ref64, ref16)


def _weights(model: str, tensors: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Weights:
    entries = {}
    for name, (shape, checksum) in tensors.items():
        load = partial(_checked, name, tuple(shape), checksum, arrays[f"weights/{name}"])
        entries[name] = Entry(math.prod(shape), tuple(shape), load)
    return Weights(f"golden weights of {model}", entries)


def _checked(name: str, shape: tuple[int, ...], checksum: int, stored: np.ndarray) -> np.ndarray:
    array = stored if stored.shape == shape else generate(name, shape, stored)
    if zlib.crc32(np.ascontiguousarray(array)) != checksum:
        raise ZooError(f"'{name}' has other bits here than where its golden was made; make the goldens on this machine")
    return array


def generate(name: str, shape: tuple[int, ...], factors: np.ndarray) -> np.ndarray:
    """A tensor of two or more dimensions: random numbers times one factor per filter (the first axis)."""
    return RandomWeights(SEED).read(name, shape) * factors.reshape(-1, *[1] * (len(shape) - 1))


def sample(array: np.ndarray) -> np.ndarray:
    """About LAYER_SAMPLE values spread over a layer's output; all of them when there are fewer."""
    step = max(1, array.size // LAYER_SAMPLE) | 1  # odd: a power of two would see few channels and columns
    return array.reshape(-1)[::step].copy()


# Making them: with PyTorch


def make(folder: Path, model: str, size: tuple[int, int, int]) -> Path:
    """Writes the golden of `model` for images of `size` (C, H, W)."""
    from zoo.verify.calibration import sample_images
    from zoo.verify.running import run_reference

    entry = get_model(model)
    reference, arrays, tensors = _calibrated(entry.reference, size)
    images = sample_images(1, size, SEED + 1)
    arrays["images"] = images
    for dtype in ("float32", "float64", "float16"):
        run = run_reference(reference, images, dtype, taps=model in WITH_LAYERS and dtype != "float16")
        for name, value in run.outputs.items():
            if not np.isfinite(value).all():
                raise ZooError(f"{name} of {model} is not finite in {dtype}, so it proves nothing")
            arrays[f"{dtype}/{name}"] = value.astype(np.float16) if dtype == "float16" else value
        arrays |= {f"{dtype}/tap/{name}": sample(value) for name, value in run.taps.items()}
    path = folder / f"{model}.safetensors"
    save_safetensors(path, arrays, {"format": FORMAT, "model": model, "tensors": json.dumps(tensors)})
    return path


def _calibrated(
    source: str, size: tuple[int, int, int]
) -> tuple[Reference, dict[str, np.ndarray], dict[str, tuple[list[int], int]]]:
    """The reference with calibrated weights, what a file keeps of them, and shape and checksum of every tensor.

    They are drawn as by `zoo.verify.calibration.calibrated`; large tensors then keep only the size of their filters.
    """
    import torch

    from zoo.verify import calibration as ref
    from zoo.verify.references import load_reference

    with ref._no_initialisation():
        reference = load_reference(source)
    module = reference.module
    generator = torch.Generator().manual_seed(zlib.crc32(f"{source} {SEED}".encode()))
    ref._draw_parameters(module, generator)
    arrays = {}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2 and parameter.requires_grad:
                drawn = parameter.numpy()
                rms = np.sqrt((drawn.astype(np.float64) ** 2).mean(axis=tuple(range(1, drawn.ndim))))
                arrays[f"weights/{name}"] = (rms / math.sqrt(2 / math.prod(drawn.shape[1:]))).astype(np.float32)
                parameter.copy_(torch.from_numpy(generate(name, drawn.shape, arrays[f"weights/{name}"])))
    ref._measure_statistics(module, size, SEED, generator)
    images = ref.sample_images(2, size, SEED + 1000)
    for output, value in ref.dependence(reference, images[:1], images[1:]).items():
        if not value > ref.MIN_DEPENDENCE:
            raise ZooError(f"{output} of {source} changes by {value:.1e} between two images: it proves nothing")
    state = {name: np.ascontiguousarray(array) for name, array in ref.state_arrays(reference).items()}
    arrays |= {f"weights/{name}": array for name, array in state.items() if f"weights/{name}" not in arrays}
    return reference, arrays, {name: (list(array.shape), zlib.crc32(array)) for name, array in state.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = _rows()
    for model in args.models or list_models():
        start = time.perf_counter()
        path = make(args.out, get_model(model).name, tuple(rows[model]["input"]))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - start:.0f} s", flush=True)


def _rows() -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:
        import tomli as tomllib
    return tomllib.loads((Path(__file__).parents[1] / "models.toml").read_text("utf-8"))


if __name__ == "__main__":
    main()
