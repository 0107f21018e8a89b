"""References with given weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.verify.references import AnyReference
from zoo.verify.remote import RemoteReference


def load_state(reference: AnyReference, arrays: Mapping[str, np.ndarray], partly: bool = False) -> AnyReference:
    """`reference` with the parameters and buffers in `arrays`, by name; every one must fit, and none may be missing
    unless the reference is filled `partly`.

    Raises ZooError naming what is missing or too much.
    """
    if isinstance(reference, RemoteReference):
        reference.load_state(arrays, partly)
        return reference
    state = OrderedDict((name, torch.from_numpy(np.array(array, copy=True))) for name, array in arrays.items())
    state._metadata = reference.module.state_dict()._metadata  # MNASNet loads no state of an unknown version
    try:
        missing, unexpected = reference.module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ZooError(f"the weights do not fit the reference: {' '.join(str(error).split())[:500]}") from None
    missing = [name for name in missing if not partly and not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ZooError(f"the weights do not fit the reference: missing {missing[:5]}, unknown {list(unexpected)[:5]}")
    return reference


def with_own_module(reference: AnyReference, path: Path) -> AnyReference:
    """`reference` with the module that PyTorch unpickles from `path` in place of its own: the file's code runs.

    Raises ZooError when it cannot be unpickled here, or is no module.
    """
    if isinstance(reference, RemoteReference):
        return reference.with_own_module(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # the file's own code may raise anything
        words = " ".join(str(error).split())[:200]
        raise ZooError(
            f"{path} cannot be unpickled: {type(error).__name__}: {words}; "
            "the classes of its modules must be importable"
        ) from None
    if isinstance(content, dict):  # as YOLO is saved: the averaged weights are those that answer
        content = next((content[key] for key in ("ema", "model") if isinstance(content.get(key), nn.Module)), content)
    if not isinstance(content, nn.Module):
        raise ZooError(
            f"{path} holds a {type(content).__name__} and no module, so only its weights can be compared: "
            f"give --weights {path}"
        )
    return replace(reference, module=reference.library.adopt(content.float()).eval())
