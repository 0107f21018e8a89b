"""Golden files for the proof on a GPU: everything that `prove.py` needs on a machine without PyTorch, in a few MB.

    python tests/gpu/goldens.py --out .gpu/goldens [MODEL ...]

They are those of `zoo.verify.packed`, for some models with a sample of every layer. With --shipped, those that the
package brings for `zoo.check` are written anew.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # runs from a checkout, without installation

from zoo.errors import ZooError
from zoo.registry import get_model, list_models
from zoo.verify.golden import FORMAT
from zoo.verify.packed import SEED, SHIPPED, generate
from zoo.verify.references import library_of
from zoo.weights import save_safetensors

if TYPE_CHECKING:
    from zoo.verify.references import Reference

WITH_LAYERS = ("resnet50", "vit_b_16", "yolov8n")
IN_THE_PACKAGE = {  # small, and different in kind: tanh, residuals, attention and boxes, LayerNorm and GELU
    "lenet5": (1, 32, 32), "resnet18": (3, 64, 64), "yolo11n": (3, 64, 96), "convnext_tiny": (3, 64, 64),
}  # fmt: skip
TRIES = 32  # images for a reference that chooses
LAYER_SAMPLE = 1024  # values kept of each layer


def sample(array: np.ndarray) -> np.ndarray:
    """About LAYER_SAMPLE values spread over a layer's output; all of them when there are fewer."""
    step = max(1, array.size // LAYER_SAMPLE) | 1  # odd: a power of two would see few channels and columns
    return array.reshape(-1)[::step].copy()


def images_for(reference: Reference, size: tuple[int, int, int]) -> np.ndarray:
    """One image. Where the reference chooses by scores, the one of several that leaves the least to rounding, and whose
    half-precision run is finite: PyTorch's grid_sample on the CPU is not always.
    """
    from zoo.verify.calibration import sample_images
    from zoo.verify.running import run_reference

    def gap(image: np.ndarray) -> float:
        scores = run_reference(reference, image, taps=reference.choosers).taps.values()
        return min(np.diff(np.sort(found.max(-1), axis=1), axis=1).min() for found in scores)

    def finite(image: np.ndarray) -> bool:
        return all(np.isfinite(value).all() for value in run_reference(reference, image, "float16").outputs.values())

    if not reference.choosers:
        return sample_images(1, size, SEED + 1)
    images = sorted((sample_images(1, size, SEED + 1 + i) for i in range(TRIES)), key=gap, reverse=True)
    return next(filter(finite, images), images[0])


def may_have_one(name: str) -> bool:
    """Of the thousands of anchors that an R-CNN chooses among, some always score alike: rounding chooses otherwise."""
    return not hasattr(get_model(name).config, "proposals")


# Making them: with PyTorch


def make(folder: Path, model: str, size: tuple[int, int, int], layers: bool = True) -> Path:
    """Writes the golden of `model` for images of `size` (C, H, W); `layers` allows samples of these."""
    from zoo.verify.running import run_reference

    entry = get_model(model)
    reference, arrays, tensors = _calibrated(entry.reference, size)
    images = images_for(reference, size)
    arrays["images"] = images
    for dtype in ("float32", "float64", "float16"):
        run = run_reference(reference, images, dtype, taps=layers and model in WITH_LAYERS and dtype != "float16")
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
        reference = replace(reference, module=reference.library.resized(reference.module, size))
    module = reference.module
    generator = torch.Generator().manual_seed(zlib.crc32(f"{source} {SEED}".encode()))
    ref._draw_parameters(reference, generator)
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
    parser.add_argument("--out", type=Path, help="folder for the files")
    parser.add_argument("--shipped", action="store_true", help="those that the package brings")
    args = parser.parse_args()
    if args.shipped:
        for model, size in IN_THE_PACKAGE.items():
            print(make(SHIPPED, model, size, layers=False))
    if args.out is None:
        return
    args.out.mkdir(parents=True, exist_ok=True)
    rows = _rows()
    for model in args.models or filter(may_have_one, list_models()):
        start = time.perf_counter()
        elsewhere = library_of(get_model(model).reference)[0].elsewhere
        if elsewhere is not None:  # this very script, where the library is
            command = [sys.executable, __file__, model, "--out", str(args.out)]
            subprocess.run(command, check=True, env=elsewhere.variables)
            continue
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
