"""What a --weights option may name: a file of any format, told apart by its content, or random weights."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from pathlib import Path

from zoo.errors import ZooError
from zoo.weights.base import AnyPath, Weights
from zoo.weights.random import RandomWeights
from zoo.weights.safetensors import is_safetensors, read_safetensors
from zoo.weights.wts import read_wts


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
    """Opens a safetensors or .wts file, which it tells apart by their content.

    `model` completes the advice when there is no usable file. Raises ZooError for that, and for a damaged file.
    """
    command = f"python scripts/gen_wts.py {model or 'MODEL'}"
    data = _map(Path(path), command)
    if is_safetensors(data) or str(path).endswith(".safetensors"):
        entries, metadata = read_safetensors(str(path), data)
        return Weights(str(path), entries, metadata, lambda: hashlib.sha256(data).hexdigest())
    if data[:4] == b"PK\3\4" or data[:1] == b"\x80":
        why = f"{path} is a PyTorch checkpoint, which can run code when it is read"
        raise ZooError(f"{why}; convert it with: {command} --checkpoint {path}")
    return Weights(str(path), read_wts(str(path), data), digest=lambda: hashlib.sha256(data).hexdigest())


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
