"""References with real weights: the published ones, which the reference library downloads, or given arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.verify.reference import load_reference
from zoo.verify.torchvision_shim import import_torchvision


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
        return load(name)
    except Exception as error:  # the libraries raise whatever their download meets
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ZooError(
            f"the published weights of {source} could not be downloaded ({reason}); "
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
    from yolov5.models.experimental import attempt_load

    model = attempt_load(f"{name}.pt", fuse=False)
    names = model.names
    return model.float().eval(), list(names.values() if isinstance(names, dict) else names)


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
