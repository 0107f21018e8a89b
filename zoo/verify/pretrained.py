"""References with real weights: the published ones, which are downloaded, or given arrays."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from zoo.errors import ZooError
from zoo.verify.references import Reference, libraries, load_reference, published
from zoo.verify.torchvision_shim import import_torchvision


def download_published(source: str) -> Path:
    """The file of the published weights of a reference, in PyTorch's cache. Raises ZooError when it cannot be had."""
    known = published(source)
    path = Path(torch.hub.get_dir()) / "checkpoints" / known.url.rpartition("/")[2]
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(known.url, str(path), known.sha256)
    except Exception as error:  # whatever a download meets
        raise ZooError(
            f"the published weights of {source} could not be downloaded ({_first_line(error)}); "
            "give --checkpoint FILE, or --random SEED for calibrated random weights"
        ) from None
    return path


def open_checkpoint(path: Path, unpickle: bool) -> Any:
    """What torch.save wrote into a file, on the CPU: plain tensors, or with `unpickle` also a pickled model.

    Without `unpickle` no code of the file can run. Raises ZooError when it holds more than tensors, or is damaged.
    """
    with open(path, "rb") as file:
        if not file.read(4).startswith((b"PK\3\4", b"\x80")):
            raise ZooError(f"{path} is not a PyTorch checkpoint: it is neither a zip archive nor a pickle")
    try:
        return _unpickled(path) if unpickle else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if unpickle:
            raise ZooError(f"{path} cannot be opened as a PyTorch checkpoint: {_first_line(error)}") from None
        raise ZooError(
            f"{path} holds more than plain tensors, and opening it can run code; if you trust it, add --unpickle"
        ) from None
    except ModuleNotFoundError as error:
        hint = libraries()["yolov5"].install if error.name in ("models", "yolov5") else f"pip install {error.name}"
        raise ZooError(f"{path} was written with the package '{error.name}', which is missing: {hint}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise ZooError(f"{path} cannot be opened as a PyTorch checkpoint: {_first_line(error)}") from None


def _unpickled(path: Path) -> Any:
    """Opens a checkpoint with its classes, which yolov5's own repository calls `models.yolo` and so on."""
    import_torchvision()  # which these packages import
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources, in yolov5
            return torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        if error.name != "models" or importlib.util.find_spec("yolov5") is None:
            raise
    load_reference("yolov5:yolov5n")  # imports the package quietly
    names = ("models", "models.common", "models.yolo", "models.experimental")
    with mock.patch.dict(sys.modules, {name: importlib.import_module(f"yolov5.{name}") for name in names}):
        return torch.load(path, map_location="cpu", weights_only=False)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def load_state(reference: Reference, arrays: Mapping[str, np.ndarray]) -> Reference:
    """`reference` with the parameters and buffers in `arrays`, by name; every one must fit.

    Raises ZooError naming what is missing or too much.
    """
    state = {name: torch.from_numpy(np.array(array, copy=True)) for name, array in arrays.items()}
    try:
        missing, unexpected = reference.module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ZooError(f"the weights do not fit the reference: {' '.join(str(error).split())[:500]}") from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ZooError(f"the weights do not fit the reference: missing {missing[:5]}, unknown {list(unexpected)[:5]}")
    return reference
