"""Weights by name: safetensors and .wts files, arrays in memory, random numbers; every value accounted for.

Weights are data: nothing here unpickles, and a damaged file is an error that says where.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from zoo.errors import ZooError, closest

# dtype names of safetensors. bfloat16 has no numpy dtype: its 16 bits are the upper half of a float32.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}


class Weights:
    """A named set of tensors that knows which of them were read.

    name:      the file's path, "random:0" … for messages
    metadata:  what a safetensors file says about itself; {} elsewhere
    generated: True for random weights: any name exists and there is nothing to read a configuration from
    """

    generated = False

    def __init__(self, name: str, metadata: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.metadata = dict(metadata or {})
        self._used: set[str] = set()
        self._digest: str | None = None

    def names(self) -> list[str]:
        """All tensor names, in the order of the source."""
        raise NotImplementedError

    def size(self, name: str) -> int:
        """Number of values of a tensor."""
        raise NotImplementedError

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor; None where the source has none (.wts)."""
        raise NotImplementedError

    def _load(self, name: str) -> np.ndarray:
        raise NotImplementedError

    def _hash(self) -> str:
        raise NotImplementedError

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def read(self, name: str, shape: Iterable[int]) -> np.ndarray:
        """The tensor as a read-only C-contiguous array of exactly this shape, and mark it used.

        Floating point becomes float32, integers and booleans keep their dtype. Raises ZooError if the name is missing or the
        shape (for .wts: the number of values) differs.
        """
        shape = tuple(int(n) for n in shape)
        self._require(name, f" {shape}")
        found = self.shape(name)
        if found is not None and found != shape:
            raise ZooError(f"'{name}' is {found} in {self.name}, the definition says {shape}")
        if self.size(name) != math.prod(shape):
            raise ZooError(
                f"'{name}' has {self.size(name)} values in {self.name}, the definition says {shape}, which is {math.prod(shape)}"
            )
        self._used.add(name)
        array = np.require(_float32(self._load(name)), requirements="CA").reshape(shape).view()
        array.flags.writeable = False
        return array

    def unused(self, ignore: Callable[[str], bool] | Iterable[str] = ()) -> list[str]:
        """Sorted names never read, less those that `ignore` accepts: a predicate or shell-style patterns."""
        if not callable(ignore):
            patterns = [ignore] if isinstance(ignore, str) else list(ignore)
            ignore = lambda name: any(fnmatch.fnmatchcase(name, p) for p in patterns)  # noqa: E731
        left = (n for n in self.names() if n not in self._used and n.rpartition(".")[2] != "num_batches_tracked")
        return sorted(n for n in left if not ignore(n))

    def digest(self) -> str:
        """sha256 (hex) of the content, computed on first use: of the whole file for files."""
        if self._digest is None:
            self._digest = self._hash()
        return self._digest

    def _require(self, name: str, wanted: str = "") -> None:
        if name not in self:
            raise ZooError(f"{self.name} has no '{name}'{wanted}{closest(name, self.names())}")


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


class ArrayWeights(Weights):
    """Weights held in memory."""

    def __init__(
        self, arrays: Mapping[str, np.ndarray], name: str = "arrays", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(name, metadata)
        self._arrays = {key: np.asarray(value) for key, value in arrays.items()}

    def names(self) -> list[str]:
        return list(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def size(self, name: str) -> int:
        self._require(name)
        return self._arrays[name].size

    def shape(self, name: str) -> tuple[int, ...]:
        self._require(name)
        return self._arrays[name].shape

    def _load(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def _hash(self) -> str:
        sha = hashlib.sha256()
        for name, array in sorted(self._arrays.items()):
            sha.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            sha.update(np.ascontiguousarray(array).data if array.size else b"")
        return sha.hexdigest()


from_arrays = ArrayWeights


class RandomWeights(Weights):
    """Values made up from (seed, tensor name, shape) alone: the same in any order and any process.

    Drawn so that a deep network keeps a signal: matrices and kernels with variance 2 / fan-in, norm scales near 1, biases and
    means small, variances in 0.5 … 1.5. Any name exists.
    """

    generated = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__(f"random:{seed}")
        self.seed = seed
        self._shapes: dict[str, tuple[int, ...]] = {}

    def names(self) -> list[str]:
        """The names read so far."""
        return list(self._shapes)

    def __contains__(self, name: object) -> bool:
        return True

    def size(self, name: str) -> int:
        raise ZooError(f"{self.name} has any size: a configuration cannot be read from random weights ('{name}')")

    def shape(self, name: str) -> None:
        return None

    def read(self, name: str, shape: Iterable[int]) -> np.ndarray:
        """float32 values for this name and shape."""
        shape = self._shapes[name] = tuple(int(n) for n in shape)
        self._used.add(name)
        low, high = _random_range(name, shape)
        key = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        array = np.random.Generator(np.random.SFC64(int.from_bytes(key, "big"))).random(shape, dtype=np.float32)
        array = np.asarray(array)
        array *= np.float32(high - low)
        array += np.float32(low)
        array.flags.writeable = False
        return array

    def _hash(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def _random_range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    last = name.rpartition(".")[2]
    if last == "running_var":
        return 0.5, 1.5
    if len(shape) >= 2:
        bound = math.sqrt(6 / max(math.prod(shape[1:]), 1))  # uniform in ±b has the variance b²/3
        return -bound, bound
    if last in ("weight", "gamma", "scale"):
        return 0.8, 1.2
    return -0.1, 0.1


def load_weights(path: str | os.PathLike[str], model: str | None = None) -> Weights:
    """Open a safetensors or .wts file, told apart by content. `model` completes the advice when there is no such file."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    except FileNotFoundError:
        raise ZooError(f"no weights file {path}; make it with: python scripts/gen_wts.py {model or 'MODEL'}") from None
    except OSError as error:
        raise ZooError(f"cannot read the weights file {path}: {error.strerror}") from None
    if not data:
        raise ZooError(f"{path} is empty; make it again with: python scripts/gen_wts.py {model or 'MODEL'}")
    if data[:4] == b"PK\3\4" or data[:1] == b"\x80":
        raise ZooError(
            f"{path} is a PyTorch checkpoint, which is not read here (unpickling runs code); convert it with: "
            f"python scripts/gen_wts.py {model or 'MODEL'} --checkpoint {path}"
        )
    if _looks_like_safetensors(data) or path.suffix == ".safetensors":
        return SafetensorsWeights(str(path), data)
    return WtsWeights(str(path), data)


def parse_weights(text: str, model: str | None = None) -> Weights:
    """What a --weights option takes: "random", "random:7" (a seed) or the path of a file."""
    if text == "random":
        return RandomWeights(0)
    if text.startswith("random:"):
        seed = text.removeprefix("random:")
        if not (seed.isascii() and seed.isdigit()):
            raise ZooError(f"'{text}' needs a number for its seed, such as random:7")
        return RandomWeights(int(seed))
    return load_weights(text, model)


class _FileWeights(Weights):
    """Weights in a memory-mapped file."""

    def __init__(self, name: str, data: mmap.mmap) -> None:
        super().__init__(name)
        self._data = data

    def _hash(self) -> str:
        return hashlib.sha256(self._data).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- safetensors


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file
    stop: int


def _looks_like_safetensors(data: mmap.mmap) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 32


class SafetensorsWeights(_FileWeights):
    """A safetensors file. Read here rather than by its library, which copies every tensor and knows no bfloat16 for numpy."""

    def __init__(self, name: str, data: mmap.mmap) -> None:
        super().__init__(name, data)
        self._entries, self.metadata = _safetensors_header(name, data)

    def names(self) -> list[str]:
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def size(self, name: str) -> int:
        self._require(name)
        return math.prod(self._entries[name].shape)

    def shape(self, name: str) -> tuple[int, ...]:
        self._require(name)
        return self._entries[name].shape

    def _load(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        array = np.frombuffer(self._data, _DTYPES[entry.dtype], math.prod(entry.shape), entry.start)
        if entry.dtype == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array


def _safetensors_header(name: str, data: mmap.mmap) -> tuple[dict[str, _Entry], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ZooError(f"{name} is damaged: its header should take {length} bytes after the first 8, the file has {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_unique)
    except ValueError as error:
        raise ZooError(f"{name} is damaged: its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise ZooError(f"{name} is damaged: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    entries = {key: _entry(name, key, value, 8 + length) for key, value in header.items()}
    end, last = 8 + length, "the header"
    for key, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if entry.start != end:
            raise ZooError(f"{name} is damaged: '{key}' starts at byte {entry.start}, {last} ends at {end}")
        end, last = entry.stop, f"'{key}'"
    if end != len(data):
        raise ZooError(f"{name} is damaged: {last} ends at byte {end}, the file at {len(data)}")
    return entries, metadata


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"'{key}' appears twice")
        found[key] = value
    return found


def _entry(name: str, key: str, value: object, start: int) -> _Entry:
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        numbers = (*shape, begin, end)
        sane = all(type(n) is int and n >= 0 for n in numbers) and dtype in _DTYPES
    except (TypeError, KeyError, ValueError):
        sane = False
    if not sane:
        raise ZooError(f"{name}: '{key}' is described as {value}, which is not a tensor this reader knows")
    if end - begin != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
        raise ZooError(f"{name} is damaged: '{key}' takes {end - begin} bytes, {dtype} {shape} needs another number")
    return _Entry(dtype, shape, start + begin, start + end)


# ----------------------------------------------------------------------------------------------------------------------- .wts


class _Line(NamedTuple):
    number: int
    count: int
    start: int  # of the values, in the file
    stop: int


class WtsWeights(_FileWeights):
    """tensorrtx's text format: a count, then one line `name count hex hex …` a tensor; big-endian float32, no shapes."""

    def __init__(self, name: str, data: mmap.mmap) -> None:
        super().__init__(name, data)
        self._lines = _wts_index(name, data)

    def names(self) -> list[str]:
        return list(self._lines)

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def size(self, name: str) -> int:
        self._require(name)
        return self._lines[name].count

    def shape(self, name: str) -> None:
        self._require(name)
        return None

    def _load(self, name: str) -> np.ndarray:
        line = self._lines[name]
        text = self._data[line.start : line.stop]
        words = text.split()
        if len(words) != line.count:
            raise ZooError(f"{self.name} is damaged: line {line.number}, '{name}': {line.count} values expected, {len(words)} found")
        if b"x" in text or b"X" in text or len(text.strip()) != max(9 * line.count - 1, 0):
            text = b" ".join(w[2:].zfill(8) if w[:2].lower() == b"0x" else w for w in words)
        try:
            values = bytes.fromhex(text.decode("ascii"))
        except ValueError as error:
            raise ZooError(f"{self.name} is damaged: line {line.number}, '{name}': {error}") from None
        if len(values) != 4 * line.count:
            raise ZooError(f"{self.name} is damaged: line {line.number}, '{name}': values of 8 hex digits expected")
        return np.frombuffer(values, ">f4").astype(np.float32)


def _wts_index(name: str, data: mmap.mmap) -> dict[str, _Line]:
    header, *_ = data[: max(data.find(b"\n"), 0)].split() or [b""]
    if not header.isdigit():
        raise ZooError(f"{name} is neither safetensors nor .wts: its first line is not a number of tensors")
    lines: dict[str, _Line] = {}
    at, number = data.find(b"\n") + 1, 1
    while at < len(data):
        number += 1
        stop = data.find(b"\n", at)
        stop = len(data) if stop < 0 else stop
        words = data[at : min(stop, at + 4096)].split(None, 2)
        if words:
            if len(words) < 2 or not words[1].isdigit():
                raise ZooError(f"{name} is damaged: line {number} does not start with a name and a count")
            key = words[0].decode()
            if key in lines:
                raise ZooError(f"{name} is damaged: line {number} repeats '{key}' of line {lines[key].number}")
            start = data.find(words[1], data.find(words[0], at) + len(words[0])) + len(words[1])
            lines[key] = _Line(number, int(words[1]), start, stop)
        at = stop + 1
    if len(lines) != int(header):
        raise ZooError(f"{name} is damaged: its first line says {int(header)} tensors, {len(lines)} found")
    return lines


# -------------------------------------------------------------------------------------------------------------------- writing


def save_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays with their dtypes and shapes, and metadata of strings."""
    from safetensors.numpy import save

    content = save({k: np.array(v, order="C", copy=None) for k, v in arrays.items()}, dict(metadata or {}))
    with _replacing(path) as file:
        file.write(content)


def save_wts(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write tensorrtx's form, byte for byte: one space before each value, LF; everything as float32."""
    with _replacing(path) as file:
        file.write(f"{len(arrays)}\n".encode())
        for name, array in arrays.items():
            if not name or name.split() != [name]:
                raise ZooError(f"'{name}' cannot stand in a .wts file: a name there has no blanks; write safetensors instead")
            values = np.asarray(array).astype(">f4").tobytes()
            text = " " + values.hex(" ", 4) if values else ""
            file.write(f"{name} {len(values) // 4}{text}\n".encode())


@contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
