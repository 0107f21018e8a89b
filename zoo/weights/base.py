"""`Weights`: named tensors that know which of them were read, and arrays in memory as such."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import ZooError, closest

AnyPath = str | os.PathLike[str]

# What is no weight: BatchNorm's counter, those of thop (a profiler) and of torch.optim.swa_utils.
COUNTERS = ("*num_batches_tracked", "*total_ops", "*total_params", "n_averaged")
RANGES = ("*_quantizer._amax",)  # what int8 rounds over, of checkpoints that were trained for it


class Entry(NamedTuple):
    """A tensor not read yet: how many values, their shape where the source knows it, and how to get them."""

    size: int
    shape: tuple[int, ...] | None
    load: Callable[[], np.ndarray]


class Module(NamedTuple):
    """A module of a whole pickled network: its path, the name of its class and its attributes."""

    path: str
    kind: str
    attributes: Mapping[Any, Any]


class Weights:
    """A named set of tensors that knows which of them were read.

    name:      the path of the file, "random:0" …; for messages
    metadata:  what the file says about itself: "model", "classes", "input" …
    modules:   the modules that a checkpoint with a whole network holds; () elsewhere
    generated: True for random weights: any name exists and there is nothing to read a configuration from
    """

    generated = False

    def __init__(
        self,
        name: str,
        entries: Mapping[str, Entry] | None = None,
        metadata: Mapping[str, str] | None = None,
        digest: Callable[[], str] | None = None,
        modules: tuple[Module, ...] = (),
    ) -> None:
        self.name = name
        self.modules = modules
        self.metadata = dict(metadata or {})
        self._entries = dict(entries or {})
        self._hash = digest or (lambda: hashlib.sha256(name.encode()).hexdigest())
        self._digest: str | None = None
        self._used: set[str] = set()

    def names(self) -> list[str]:
        """All tensor names, in the order of the source."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def size(self, name: str) -> int:
        """Number of values of a tensor."""
        return self._entry(name).size

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor; None where the source has no shapes (.wts)."""
        return self._entry(name).shape

    def read(self, name: str, shape: Iterable[int]) -> np.ndarray:
        """The tensor as a read-only, C-contiguous array of exactly `shape`; from now on it counts as used.

        Floating point comes as float32, integers and booleans as they are. What needs no conversion is not copied: it
        stays in the memory-mapped file. Raises ZooError if there is no such tensor, if its shape (in a .wts: its number
        of values) differs, or if the file is damaged there.
        """
        shape = tuple(int(n) for n in shape)
        entry = self._entry(name, f" {shape}")
        if entry.shape is not None and entry.shape != shape:
            raise ZooError(f"'{name}' is {entry.shape} in {self.name}, the definition says {shape}")
        if entry.size != math.prod(shape):
            wanted = f"{shape}, which takes {math.prod(shape)}"
            raise ZooError(f"'{name}' has {entry.size} values in {self.name}, the definition says {wanted}")
        values = entry.load()
        if values.dtype.kind == "c":
            raise ZooError(f"'{name}' in {self.name} holds complex numbers, which no network here takes")
        array = np.require(float32(values), requirements="CA").reshape(shape)
        array.flags.writeable = False
        self._used.add(name)
        return array

    def unused(self, ignore: Callable[[str], bool] | Iterable[str] = ()) -> list[str]:
        """Sorted names of the tensors never read, less those that `ignore` (a predicate or shell patterns) accepts.

        Counters (`COUNTERS`) never count.
        """
        left = [name for name in self.names() if name not in self._used and not is_counter(name)]
        if callable(ignore):
            return sorted(name for name in left if not ignore(name))
        patterns = [ignore] if isinstance(ignore, str) else list(ignore)
        return sorted(name for name in left if not any(fnmatch.fnmatchcase(name, p) for p in patterns))

    def renamed(self, rename: Callable[[str], str]) -> Weights:
        """The same tensors, metadata and modules under the names that `rename` gives them."""
        modules = tuple(module._replace(path=rename(module.path)) for module in self.modules)
        entries = {rename(name): entry for name, entry in self._entries.items()}
        return Weights(self.name, entries, self.metadata, self.digest, modules)

    def digest(self) -> str:
        """sha256 of the content in hex: of the file for files, of names, dtypes, shapes and values for arrays."""
        if self._digest is None:
            self._digest = self._hash()
        return self._digest

    def _entry(self, name: str, wanted: str = "") -> Entry:
        if name not in self._entries:
            raise ZooError(f"{self.name} has no '{name}'{wanted}{closest(name, self._entries)}")
        return self._entries[name]


def check_finite(array: np.ndarray, name: str, weights: Weights) -> None:
    """Raises ZooError for a tensor with values that are NaN or infinite: no answer could come of it."""
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind != "f" or np.isfinite(np.sum(array)):  # quick, and nearly always enough
            return
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise ZooError(
            f"'{name}' in {weights.name} has {bad} of {array.size} values that are NaN or infinite: its training "
            "diverged; take an earlier checkpoint"
        )


def is_counter(name: str) -> bool:
    """Whether a tensor of that name only counts something."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in COUNTERS)


def float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, as torch's .float() has it
        floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"  # of ml_dtypes, which numpy calls void
        return array.astype(np.float32, copy=False) if floating else array


def from_arrays(
    arrays: Mapping[str, np.ndarray], name: str = "arrays", metadata: Mapping[str, str] | None = None
) -> Weights:
    """Weights held in memory; the arrays are shared, not copied."""
    arrays = {key: np.asarray(array) for key, array in arrays.items()}
    entries = {key: Entry(array.size, array.shape, partial(arrays.__getitem__, key)) for key, array in arrays.items()}
    return Weights(name, entries, metadata, lambda: _digest(arrays))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8) if array.size else b"")
    return sha.hexdigest()
