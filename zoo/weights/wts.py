""".wts, the text format of tensorrtx, both ways: the number of tensors, then for each a line `name count value …`.

A value is a float32 in big-endian hex; there are no shapes. Exporters differ: most put a second blank after the count,
one has 0x3f800000 and for short 0x0, and some files have been to Windows.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from zoo.errors import ZooError
from zoo.files import replacing
from zoo.weights.base import AnyPath, Entry, float32

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


def read_wts(file: str, data: mmap.mmap) -> dict[str, Entry]:
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
                bits = float32(values[done : done + _BLOCK]).astype(">f4")
                file.write(b" " + bits.tobytes().hex(" ", 4).encode())
            file.write(b"\n")
