"""References with real weights: the published ones, which the reference library downloads, or given arrays."""

from __future__ import annotations

import contextlib
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
from torch import nn

from zoo.errors import ZooError
from zoo.verify.references import YOLOV5_HINT, load_reference
from zoo.verify.torchvision_shim import import_torchvision

YOLOV5_RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"


def load_published(source: str) -> tuple[nn.Module, list[str] | None]:
    """The reference with its published weights, and its class names where it knows them.

    The reference's own library downloads them. Raises ZooError when it cannot.
    """
    kind, _, name = source.rpartition(":")
    load = {"torchvision": _torchvision, "ultralytics": _ultralytics, "yolov5": _yolov5}.get(kind)
    if load is None:
        raise ZooError(f"{source} publishes no weights; train them with its script, or give --checkpoint or --random")
    load_reference(source)  # a missing package or a wrong name gets its own message
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what downloads say is no result
            return load(name)
    except Exception as error:  # the libraries raise whatever their download meets
        raise ZooError(
            f"the published weights of {source} could not be downloaded ({_first_line(error)}); "
            "give --checkpoint FILE, or --random SEED for calibrated random weights"
        ) from None


def _torchvision(name: str) -> tuple[nn.Module, list[str]]:
    models = import_torchvision().models
    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    return models.get_model(name, weights=weights).eval(), list(weights.meta["categories"])


def _ultralytics(name: str) -> tuple[nn.Module, list[str]]:
    from ultralytics import YOLO

    model = YOLO(f"{name}.pt").model
    return model.float().eval(), list(model.names.values())


def _yolov5(name: str) -> tuple[nn.Module, list[str]]:
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{name}.pt"
    if not path.exists():  # the package's own download needs an old huggingface_hub
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(f"{YOLOV5_RELEASE}/{name}.pt", str(path))
    content = open_checkpoint(path, unpickle=True)
    model = content.get("ema") or content["model"]
    names = model.names
    return model.float().eval(), list(names.values() if isinstance(names, dict) else names)


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
        hint = YOLOV5_HINT if error.name in ("models", "yolov5") else f"pip install {error.name}"
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


def load_state(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """`module` with the parameters and buffers in `arrays`, by name; every one must fit.

    Raises ZooError naming what is missing or too much.
    """
    state = {name: torch.from_numpy(np.array(array, copy=True)) for name, array in arrays.items()}
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ZooError(f"the weights do not fit the reference: {' '.join(str(error).split())[:500]}") from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ZooError(f"the weights do not fit the reference: missing {missing[:5]}, unknown {list(unexpected)[:5]}")
    return module.eval()
