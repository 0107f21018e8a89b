"""safetensors, both ways: an 8-byte length, a JSON header of that length, then the values.

Read here and not by its library because that copies every tensor and has no bfloat16 for numpy; written here because
that orders the metadata at random, while the same weights should have the same hash.
"""

from __future__ import annotations

import json
import math
import mmap
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np

from zoo.errors import ZooError
from zoo.files import replacing
from zoo.text import LONGEST, clean
from zoo.weights.base import AnyPath, Entry

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip
_DTYPE_NAMES = {code: name for name, code in _DTYPES.items() if name != "BF16"}  # which numpy does not have


def is_safetensors(data: mmap.mmap) -> bool:
    """No text file has the zeros that end the length of a header below 4 GiB."""
    return data[4:9] == b"\0\0\0\0{"


def read_safetensors(file: str, data: mmap.mmap) -> tuple[dict[str, Entry], dict[str, str]]:
    start = 8 + int.from_bytes(data[:8], "little")
    if not 8 < start <= len(data):
        raise ZooError(f"{file} is damaged: its header ends at byte {start}, the file at byte {len(data)}")
    try:
        header = json.loads(data[8:start].decode(), object_pairs_hook=_unique, parse_constant=_no_json)
        json.dumps(header, ensure_ascii=False).encode()  # halves of characters are no text
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{file} is damaged: its header is not JSON ({clean(str(error), LONGEST)})") from None
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
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"'{clean(name, LONGEST)}' stands there twice")
    return table


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


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
        known = isinstance(entry["shape"], list) and isinstance(entry["data_offsets"], list)
        known = (
            known
            and place.dtype in _DTYPES
            and all(type(n) is int and 0 <= n < 2**53 for n in (*place.shape, place.begin, place.end))
        )
        known = known and len(place.shape) <= 64
    except (TypeError, KeyError):
        known = False
    if not known:
        found = f"'{clean(name, LONGEST)}' is described as {clean(str(entry), LONGEST)}"
        raise ZooError(f"{file}: {found}; its dtype, shape and offsets should be known ones")
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
    try:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ZooError(f"safetensors holds text in UTF-8, which {clean(error.object[error.start])} is not") from None
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
