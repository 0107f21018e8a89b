"""What a --weights option may name: a file of any format, told apart by its content, or random weights."""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
import re
from pathlib import Path

import numpy as np

from zoo.errors import ZooError
from zoo.text import LONGEST, clean
from zoo.weights.base import AnyPath, Entry, Weights, is_counter
from zoo.weights.checkpoint import is_checkpoint, read_checkpoint
from zoo.weights.contents import understand
from zoo.weights.pickles import Damaged
from zoo.weights.random import RandomWeights
from zoo.weights.safetensors import is_safetensors, read_safetensors
from zoo.weights.tensors import Tensor
from zoo.weights.wts import read_wts

WRAPPERS = ("module.", "_orig_mod.")


def parse_weights(text: str, model: str | None = None) -> Weights:
    """What every --weights option takes: "random", "random:7" (with a seed) or the path of a file."""
    if text == "random":
        return RandomWeights(0)
    if text.startswith("random:"):
        seed = text.removeprefix("random:")
        if not re.fullmatch(r"[0-9]{1,18}", seed):
            raise ZooError(f"'{text}' has no number for a seed; write random:7 for example")
        return RandomWeights(int(seed))
    return load_weights(text, model)


def load_weights(path: AnyPath, model: str | None = None) -> Weights:
    """Opens a safetensors or .wts file or a PyTorch checkpoint, which it tells apart by their content.

    Nothing of a checkpoint is executed; of several sets of weights in it the averaged one (EMA) is taken.

    `model` completes the advice when there is no usable file. Raises ZooError for that, and for a damaged file.
    """
    command = f"python -m zoo.gen_wts {model or 'MODEL'}"
    data = _map(Path(path), command)
    digest = functools.partial(_sha256, data)
    if is_safetensors(data) or str(path).endswith(".safetensors"):
        entries, metadata = read_safetensors(str(path), data)
        return _unwrapped(Weights(str(path), entries, metadata, digest))
    if is_checkpoint(data):
        contents = understand(str(path), read_checkpoint(str(path), data))
        entries = {name: _entry(f"'{name}' in {path}", tensor) for name, tensor in contents.state.items()}
        return _unwrapped(Weights(str(path), entries, contents.metadata, digest, contents.modules))
    if str(path).endswith((".pt", ".pth")):
        raise ZooError(f"{path} is no checkpoint of PyTorch: it begins with {data[:8]!r}; it may be cut short")
    return _unwrapped(Weights(str(path), read_wts(str(path), data), digest=digest))


def _sha256(data: mmap.mmap) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(what: str, tensor: Tensor) -> Entry:
    def load() -> np.ndarray:
        try:
            return tensor.array()
        except Damaged as error:
            raise ZooError(f"{what} cannot be read: {error}") from None

    return Entry(tensor.size, tensor.shape, load)


def _unwrapped(weights: Weights) -> Weights:
    """Without what DataParallel ("module.") and torch.compile ("_orig_mod.") put before every name."""
    names = [name for name in weights.names() if not is_counter(name)]
    prefix = next((p for p in WRAPPERS if names and all(name.startswith(p) for name in names)), "")
    return _unwrapped(weights.renamed(lambda name: name.removeprefix(prefix))) if prefix else weights


def _map(path: Path, command: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ZooError(f"{path} is empty; make it with: {command}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ZooError(f"no weights file {path}; make it with: {command}") from None
    except OSError as error:
        raise ZooError(f"cannot read the weights file {path}: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the name
        raise ZooError(f"cannot read the weights file {clean(str(path), LONGEST)}: {error}") from None
