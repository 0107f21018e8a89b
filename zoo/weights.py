"""Weights by name: safetensors and .wts files, arrays in memory, random numbers; every tensor accounted for.

Weights are data: nothing here unpickles, and a damaged file is an error that says where.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.errors import ZooError, closest
from zoo.files import replacing

AnyPath = str | os.PathLike[str]


class Entry(NamedTuple):
    """A tensor not read yet: how many values, their shape where the source knows it, and how to get them."""

    size: int
    shape: tuple[int, ...] | None
    load: Callable[[], np.ndarray]


class Weights:
    """A named set of tensors that knows which of them were read.

    name:      the path of the file, "random:0" …; for messages
    metadata:  what a safetensors file says about itself; {} elsewhere
    generated: True for random weights: any name exists and there is nothing to read a configuration from
    """

    generated = False

    def __init__(
        self,
        name: str,
        entries: Mapping[str, Entry] | None = None,
        metadata: Mapping[str, str] | None = None,
        digest: Callable[[], str] | None = None,
    ) -> None:
        self.name = name
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
        array = np.require(_float32(entry.load()), requirements="CA").reshape(shape)
        array.flags.writeable = False
        self._used.add(name)
        return array

    def unused(self, ignore: Callable[[str], bool] | Iterable[str] = ()) -> list[str]:
        """Sorted names of the tensors never read, less those that `ignore` (a predicate or shell patterns) accepts.

        BatchNorm's counter `num_batches_tracked` never counts.
        """
        left = (name for name in self.names() if name not in self._used and not name.endswith("num_batches_tracked"))
        if callable(ignore):
            return sorted(name for name in left if not ignore(name))
        patterns = [ignore] if isinstance(ignore, str) else list(ignore)
        return sorted(name for name in left if not any(fnmatch.fnmatchcase(name, p) for p in patterns))

    def digest(self) -> str:
        """sha256 of the content in hex: of the file for files, of names, dtypes, shapes and values for arrays."""
        if self._digest is None:
            self._digest = self._hash()
        return self._digest

    def _entry(self, name: str, wanted: str = "") -> Entry:
        if name not in self._entries:
            raise ZooError(f"{self.name} has no '{name}'{wanted}{closest(name, self._entries)}")
        return self._entries[name]


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, as torch's .float() has it
        floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"  # of ml_dtypes, which numpy calls void
        return array.astype(np.float32, copy=False) if floating else array


# Where weights come from


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
    if _is_safetensors(data) or str(path).endswith(".safetensors"):
        entries, metadata = _read_safetensors(str(path), data)
        return Weights(str(path), entries, metadata, lambda: hashlib.sha256(data).hexdigest())
    if data[:4] == b"PK\3\4" or data[:1] == b"\x80":
        why = f"{path} is a PyTorch checkpoint, which can run code when it is read"
        raise ZooError(f"{why}; convert it with: {command} --checkpoint {path}")
    return Weights(str(path), _read_wts(str(path), data), digest=lambda: hashlib.sha256(data).hexdigest())


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


class RandomWeights(Weights):
    """Any tensor one asks for, made up from (seed, name, shape) alone: the same in any order and in any process.

    Drawn so that a deep network keeps a signal: matrices and kernels with variance 2 / fan-in, scales of normalisations
    near 1, variances in 0.5 … 1.5, biases and means small. All uniform: fast, and without outliers.
    """

    generated = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__(f"random:{seed}")
        self.seed = seed

    def __contains__(self, name: object) -> bool:
        return True

    def size(self, name: str) -> int:
        raise ZooError(f"{self.name} has a '{name}' of any size: random weights do not tell a configuration")

    def shape(self, name: str) -> None:
        return None

    def read(self, name: str, shape: Iterable[int]) -> np.ndarray:
        """float32 values for this name and shape."""
        shape = tuple(int(n) for n in shape)
        low, high = _range(name, shape)
        seed = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = np.random.Generator(np.random.SFC64(int.from_bytes(seed, "big")))
        array = generator.random(math.prod(shape), dtype=np.float32)
        array *= high - low
        array += low
        array.flags.writeable = False
        return array.reshape(shape)


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    kind = name.rpartition(".")[2]
    if kind == "running_var":
        return 0.5, 1.5
    if len(shape) >= 2:
        bound = math.sqrt(6 / max(1, math.prod(shape[1:])))  # uniform in ±b has the variance b² / 3
        return -bound, bound
    if kind in ("weight", "gamma", "scale"):
        return 0.8, 1.2
    return -0.1, 0.1


# safetensors: an 8-byte length, a JSON header of that length, then the values. Read here and not by its library because
# that copies every tensor and has no bfloat16 for numpy; written here because that orders the metadata at random, while
# the same weights should have the same hash.

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip
_DTYPE_NAMES = {code: name for name, code in _DTYPES.items() if name != "BF16"}  # which numpy does not have


def _is_safetensors(data: mmap.mmap) -> bool:
    """No text file has the zeros that end the length of a header below 4 GiB."""
    return data[4:9] == b"\0\0\0\0{"


def _read_safetensors(file: str, data: mmap.mmap) -> tuple[dict[str, Entry], dict[str, str]]:
    start = 8 + int.from_bytes(data[:8], "little")
    if not 8 < start <= len(data):
        raise ZooError(f"{file} is damaged: its header ends at byte {start}, the file at byte {len(data)}")
    try:
        header = json.loads(data[8:start].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{file} is damaged: its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise ZooError(f"{file} is damaged: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ZooError(f"{file} is damaged: its metadata is not a table of strings")
    places = {name: _place(file, name, entry) for name, entry in header.items()}
    _check_cover(file, places, len(data) - start)
    return {name: Entry(p.size, p.shape, partial(p.view, data, start)) for name, p in places.items()}, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in table if names.count(name) > 1)}' stands there twice")
    return table


class _Place(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes after the header
    end: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def view(self, data: mmap.mmap, start: int) -> np.ndarray:
        array = np.frombuffer(data, _DTYPES[self.dtype], self.size, start + self.begin)
        if self.dtype == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.reshape(self.shape)


def _place(file: str, name: str, entry: Any) -> _Place:
    try:
        place = _Place(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
        known = place.dtype in _DTYPES and all(
            type(n) is int and n >= 0 for n in (*place.shape, place.begin, place.end)
        )
    except (TypeError, KeyError):
        known = False
    if not known:
        raise ZooError(f"{file}: '{name}' is described as {entry}; its dtype, shape and offsets should be known ones")
    needed = place.size * np.dtype(_DTYPES[place.dtype]).itemsize
    if place.end - place.begin != needed:
        found = f"{place.end - place.begin} bytes at {place.begin}"
        raise ZooError(f"{file} is damaged: '{name}' has {found}, {place.dtype} {place.shape} takes {needed}")
    return place


def _check_cover(file: str, places: Mapping[str, _Place], length: int) -> None:
    """The tensors must follow each other without a gap or an overlap, to the end of the file."""
    end, last = 0, "the header"
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != end:
            raise ZooError(
                f"{file} is damaged: '{name}' begins at byte {place.begin} of the data, {last} ends at {end}"
            )
        end, last = place.end, f"'{name}'"
    if end != length:
        raise ZooError(f"{file} is damaged: {last} ends at byte {end} of the data, the file at {length}")


def save_safetensors(
    path: AnyPath, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays with their dtypes and shapes, and a table of strings. The same content gives the same bytes.

    Raises ZooError for a dtype that safetensors, or numpy itself (bfloat16), does not have.
    """
    if not all(isinstance(text, str) for text in (metadata or {}).values()):
        raise ZooError(f"metadata of safetensors are strings, not {metadata}")
    arrays = {name: _little_endian(name, np.asarray(array)) for name, array in arrays.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # widest first, so that all are aligned
    end = 0
    for name in names:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPE_NAMES[array.dtype.str], "shape": array.shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).data)


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype.str not in _DTYPE_NAMES:
        raise ZooError(f"'{name}' is {array.dtype}, which safetensors cannot hold; convert it to float32 first")
    return array


# .wts, the text format of tensorrtx: the number of tensors, then a line `name count value value …` for each. A value is
# a float32 in big-endian hex; there are no shapes. Exporters differ: most put a second blank after the count, one has
# 0x3f800000 and for short 0x0, and some files have been to Windows.

_FIRST = re.compile(rb"[ \t]*([0-9]{1,18})[ \t\r]*(?:\n|\Z)")
_HEAD = re.compile(rb"[ \t]*(\S+)[ \t]+([0-9]{1,18})(?=\s|\Z)[ \t]*")
_END = re.compile(rb"[ \t\r]*(?:\n|\Z)")
_BLANK = np.isin(np.arange(256), list(b" \t\n\v\f\r"))
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[list(b"0123456789abcdef")] = _NIBBLE[list(b"0123456789ABCDEF")] = range(16)
_BLOCK = 1 << 14  # values at a time: their text stays in the processor's cache


class _Line(NamedTuple):
    file: str
    number: int
    name: str
    count: int
    start: int  # byte where the values begin

    @property
    def stop(self) -> int:
        """Byte after the last value if all of them have 8 digits and one blank between them, as they should."""
        return self.start + max(0, 9 * self.count - 1)

    def damaged(self, what: str) -> ZooError:
        return ZooError(f"{self.file} is damaged in line {self.number}, '{self.name}': {what}")


def _read_wts(file: str, data: mmap.mmap) -> dict[str, Entry]:
    """Finds the lines. Regular values are decoded when they are asked for, all others at once."""
    first = _FIRST.match(data)
    if not first:
        raise ZooError(f"{file} is not safetensors, nor .wts, which begins with a number of tensors, not {data[:16]!r}")
    entries: dict[str, Entry] = {}
    at, number = first.end(), 1
    while at < len(data):
        number += 1
        end = _END.match(data, at)
        if not end:
            line = _line(file, number, data, at)
            if line.name in entries:
                raise line.damaged("an earlier line has that name")
            end = _regular_end(data, line)
            load = partial(_decode, data, line) if end else partial(np.asarray, _decode_words(data, line))
            entries[line.name] = Entry(line.count, None, load)
        at = end.end() if end else _line_end(data, at) + 1
    if len(entries) != int(first[1]):
        raise ZooError(f"{file} is damaged: its first line says {int(first[1])} tensors, {len(entries)} follow")
    return entries


def _line(file: str, number: int, data: mmap.mmap, at: int) -> _Line:
    head = _HEAD.match(data, at)
    if not head:
        found = data[at : min(at + 40, _line_end(data, at))]
        raise ZooError(f"{file} is damaged in line {number}: {found!r} is not a name and a number of values")
    return _Line(file, number, head[1].decode(errors="replace"), int(head[2]), head.end())


def _regular_end(data: mmap.mmap, line: _Line) -> re.Match[bytes] | None:
    """The end of a line where it would be if its values are regular. None if it is not there, or the values have 0x."""
    regular = line.stop <= len(data) and data[line.start + 1 : line.start + 2] not in (b"x", b"X")
    return _END.match(data, line.stop) if regular else None


def _line_end(data: mmap.mmap, at: int) -> int:
    end = data.find(b"\n", at)
    return len(data) if end < 0 else end


def _decode(data: mmap.mmap, line: _Line) -> np.ndarray:
    """The values of a line that looks regular; of any other if that was deceptive."""
    values = np.empty(line.count, np.uint32)
    for done in range(0, line.count, _BLOCK):
        begin = line.start + 9 * done
        end = min(begin + 9 * _BLOCK, line.stop)
        block = _decode_block(data[begin:end])
        if block is None:
            return _decode_words(data, line)
        values[done : done + _BLOCK] = block
        _release(data, begin, end)
    return values.view(np.float32)


def _decode_block(text: bytes) -> np.ndarray | None:
    """The bits of values of exactly 8 digits with one blank between them; None for any other text."""
    if text[8::9].count(b" ") != len(text) // 9:
        return None
    try:
        values = bytes.fromhex(text.decode("ascii"))  # as fast as arithmetic on whole arrays; skips blanks, anywhere
    except ValueError:
        return None
    return np.frombuffer(values, ">u4") if len(values) == (len(text) + 1) // 9 * 4 else None


def _release(data: mmap.mmap, begin: int, end: int) -> None:
    """Gives back pages of the file that would count as memory of this process."""
    if hasattr(mmap, "MADV_DONTNEED"):
        begin -= begin % (1 << 16)  # Linux maps the 64 KiB around the page that is asked for
        data.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def _decode_words(data: mmap.mmap, line: _Line) -> np.ndarray:
    """The values of any line: any blanks between them; 0x in front, and then also fewer digits."""
    stop = _line_end(data, line.start)
    cut = "" if stop < len(data) else "; the file ends in this line, it was probably cut short"
    blocks = [np.empty(0, np.uint32)]
    found = 0
    for text, starts, ends in _words(data, line.start, stop):
        bits, good = _parse_words(text, starts, ends)
        if not good.all():
            i = int(good.argmin())
            word = text[starts[i] : min(ends[i], starts[i] + 24)].tobytes()
            raise line.damaged(f"value {found + i + 1} of {line.count} is {word!r}, not 8 hex digits{cut}")
        found += len(bits)
        blocks.append(bits)
    if found != line.count:
        raise line.damaged(f"{line.count} values expected, {found} found{cut}")
    if cut:  # a last 0x3f80 may be what is left of 0x3f800000
        raise line.damaged(cut.removeprefix("; "))
    return np.concatenate(blocks).view(np.float32)


def _parse_words(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bits that words of hex digits stand for, and which words are such."""
    second = text[np.minimum(starts + 1, ends - 1)] | 32  # in lower case
    prefixed = (text[starts] == ord("0")) & (second == ord("x")) & (ends - starts > 2)
    digits = ends - starts - 2 * prefixed
    columns = ends[:, None] + np.arange(-8, 0)
    nibbles = np.where(columns >= (ends - digits)[:, None], _NIBBLE[text[np.maximum(columns, 0)]], 0)
    good = (nibbles < 16).all(axis=1) & ((digits == 8) | prefixed & (digits < 8))
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    return np.bitwise_or.reduce(nibbles.astype(np.uint32) << shifts, axis=1), good


def _words(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of text (bytes), with where their words start and end; no word is divided."""
    while start < stop:
        text = np.frombuffer(data[start : min(start + 9 * _BLOCK, stop)], np.uint8)
        blanks = np.flatnonzero(_BLANK[text])
        if start + len(text) < stop and len(blanks):
            text = text[: blanks[-1] + 1]
        edges = np.flatnonzero(np.diff(_BLANK[text], prepend=True, append=True))
        yield text, edges[::2], edges[1::2]
        start += len(text)


def save_wts(path: AnyPath, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes tensorrtx's form byte for byte: one space before each value, LF; every value as float32, shapes are lost.

    Raises ZooError for a name that is empty or has blanks in it.
    """
    for name in arrays:
        if name.encode().split() != [name.encode()]:
            raise ZooError(
                f"a .wts file cannot hold the name '{name}': it must have no blanks; write safetensors instead"
            )
    with replacing(path) as file:
        file.write(b"%d\n" % len(arrays))
        for name, array in arrays.items():
            values = np.ravel(array)
            file.write(f"{name} {values.size}".encode())
            for done in range(0, values.size, _BLOCK):
                bits = _float32(values[done : done + _BLOCK]).astype(">f4")
                file.write(b" " + bits.tobytes().hex(" ", 4).encode())
            file.write(b"\n")
