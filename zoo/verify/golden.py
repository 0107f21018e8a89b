"""Golden files: inputs with what the reference made of them, so that a machine without PyTorch can prove itself.

A golden file is a safetensors file that holds "images" and, for every output, "float32/NAME" and "float64/NAME" from
the reference's runs in those precisions: enough for the same rule as with the reference at hand.
"""

from __future__ import annotations

import os

import numpy as np

from zoo.errors import ZooError
from zoo.verify.compare import Run
from zoo.weights import save_safetensors

FORMAT = "zoo golden 1"
_MAKE = "to make one: python -m zoo.gen_wts {} --golden"


def save_golden(path: str | os.PathLike[str], model: str, images: np.ndarray, ref32: Run, ref64: Run) -> None:
    """Writes images (N, C, H, W) float32 and both runs' outputs and taps."""
    arrays = {"images": images}
    for precision, run in (("float32", ref32), ("float64", ref64)):
        arrays |= {f"{precision}/{name}": array for name, array in run.outputs.items()}
        arrays |= {f"{precision}/tap/{name}": array for name, array in run.taps.items()}
    save_safetensors(path, arrays, {"format": FORMAT, "model": model})


def load_golden(path: str | os.PathLike[str], model: str) -> tuple[np.ndarray, Run, Run]:
    """(images, fp32 run, fp64 run). Raises ZooError when the file is none, or is of another model."""
    from safetensors import SafetensorError, safe_open

    if os.path.isdir(path):
        raise ZooError(f"the golden file {path} is a folder; name the file in it")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, arrays = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise ZooError(f"the golden file {path} cannot be read ({error}); {_MAKE.format(model)}") from None
    if metadata.get("format") != FORMAT or "model" not in metadata or "images" not in arrays:
        raise ZooError(f"{path} is not a golden file; {_MAKE.format(model)}")
    if metadata["model"] != model:
        raise ZooError(f"{path} is the golden file of {metadata['model']}, not of {model}")
    images, ref32, ref64 = arrays["images"], _run(arrays, "float32"), _run(arrays, "float64")
    if images.ndim != 4 or images.dtype != np.float32 or 0 in images.shape:
        raise ZooError(f"the images in {path} are {images.dtype} {images.shape}, float32 (N, C, H, W) was expected")
    for kind, in32, in64 in (("outputs", ref32.outputs, ref64.outputs), ("layers", ref32.taps, ref64.taps)):
        if {n: a.shape for n, a in in32.items()} != {n: a.shape for n, a in in64.items()}:
            raise ZooError(f"the {kind} in {path} differ between fp32 and fp64 in name or shape; {_MAKE.format(model)}")
    if not ref64.outputs:
        raise ZooError(f"{path} holds no outputs; {_MAKE.format(model)}")
    return images, ref32, ref64


def _run(arrays: dict[str, np.ndarray], precision: str) -> Run:
    """The outputs and taps that were stored for one precision."""
    values = {name.removeprefix(f"{precision}/"): array for name, array in arrays.items() if name.startswith(precision)}
    taps = {name.removeprefix("tap/"): array for name, array in values.items() if name.startswith("tap/")}
    return Run({name: array for name, array in values.items() if not name.startswith("tap/")}, taps)
