"""PyTorch checkpoints (.pt, .pth) without PyTorch: both of its containers, and TorchScript's archives.

A checkpoint is a pickle with the values of its tensors beside it: in a zip (PyTorch 1.6 and later), or one after the
other in one file (before). The pickle is read as data (`zoo.weights.pickles`): nothing that it names is imported or
called. Values stay in the memory-mapped file until they are read, and there where nothing is to be converted.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.weights.pickles import Damaged, Global, Known, load_pickle
from zoo.weights.tensors import NUMPY, TENSORS, Storage, itemsize, storage_dtype

MAGIC = 0x1950A86A20F9469CFC6C
PICKLE_BYTES = 256 << 20  # of a zip; a whole pickled YOLOv8x has 300 kB
INFLATED = 64  # a compressed member may be so many times its size; PyTorch compresses none
_BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    IndexError,
)


def is_checkpoint(data: mmap.mmap) -> bool:
    """True for a zip, and for a pickle of protocol 2 or later."""
    return data[:4] == b"PK\3\4" or (data[:1] == b"\x80" and data[1:2] in (b"\2", b"\3", b"\4", b"\5"))


def read_checkpoint(file: str, data: mmap.mmap) -> Any:
    """What torch.save wrote: containers and numbers as they are, `Tensor` for tensors, `Inert` for all other objects.

    `file` is the name for messages. Raises ZooError for what is damaged, and for archives of another kind.
    """
    try:
        return _read_zip(file, data) if data[:4] == b"PK\3\4" else _read_stream(data, _KNOWN)
    except Damaged as error:
        raise ZooError(f"{file} cannot be read as a PyTorch checkpoint: {error}") from None


# The zip


def _read_zip(file: str, data: mmap.mmap) -> Any:
    members = _members(data)
    roots = [name.removesuffix("data.pkl") for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ZooError(f"{file} is no PyTorch checkpoint but {_other_archive(members)}")
    root = roots[0]
    if f"{root}byteorder" in members and _member(data, members[f"{root}byteorder"], 16) == b"big":
        raise Damaged("it was written on a big-endian machine; save it anew on a usual one")
    storages: dict[tuple[str, str], Storage] = {}

    def persistent(identifier: Any) -> Any:
        dtype, name, count = _storage_id(identifier)
        if (name, dtype) not in storages:
            entry = members.get(f"{root}data/{name}")
            size = count * itemsize(dtype)
            if entry is None or entry.file_size < size:
                found = "missing" if entry is None else f"{entry.file_size} bytes long"
                raise Damaged(f"the storage {name[:40]} should have {size} bytes and is {found}")
            if entry.compress_type != zipfile.ZIP_STORED and size > INFLATED * max(entry.compress_size, 1 << 10):
                raise Damaged(f"the storage {name[:40]} would grow from {entry.compress_size} bytes to {size}")
            storages[name, dtype] = Storage(dtype, size, lambda: _values(data, entry, size))
        return storages[name, dtype]

    pickle = members[f"{root}data.pkl"]
    if pickle.file_size > PICKLE_BYTES:
        raise Damaged(f"its pickle has {pickle.file_size:,} bytes")
    content = bytes(_member(data, pickle, PICKLE_BYTES))
    return load_pickle(io.BytesIO(content), _KNOWN, persistent)


def _members(data: mmap.mmap) -> dict[str, zipfile.ZipInfo]:
    """The entries of the archive by name; its directory is at the file's end."""
    try:
        entries = zipfile.ZipFile(data).infolist()  # type: ignore[arg-type]  # an mmap reads, seeks and tells
    except _BROKEN as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise Damaged(f"its archive is damaged or cut short ({why})") from None
    members = {entry.filename: entry for entry in entries}
    if len(members) != len(entries):
        raise Damaged("two entries of its archive have one name")
    return members


def _values(data: mmap.mmap, entry: zipfile.ZipInfo, size: int) -> np.ndarray:
    content = _member(data, entry, size)
    if len(content) < size:
        raise Damaged("an entry of its archive is shorter than it says")
    return np.frombuffer(content, np.uint8, size)


def _member(data: mmap.mmap, entry: zipfile.ZipInfo, size: int) -> memoryview | bytes:
    """The first `size` bytes of an entry: of a stored one, which is the rule, as they lie in the mapped file.

    Raises Damaged where they do not have the checksum that the archive says. (PyTorch can be told to leave it out.)
    """
    if entry.flag_bits & 1:
        raise Damaged("its archive is encrypted")
    head = data[entry.header_offset : entry.header_offset + 30]
    if len(head) < 30 or head[:4] != b"PK\3\4":
        raise Damaged("an entry of its archive is not where it should be")
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
    if start + entry.compress_size > len(data):
        raise Damaged("an entry of its archive reaches beyond the file's end")
    content: memoryview | bytes = memoryview(data)[start : start + entry.compress_size]
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size)
        except zlib.error:
            raise Damaged("a compressed entry of its archive is damaged") from None
    elif entry.compress_type != zipfile.ZIP_STORED:
        raise Damaged("its archive is compressed in a way that PyTorch does not use")
    content = content[:size]
    if entry.CRC and len(content) == entry.file_size and zlib.crc32(content) != entry.CRC:
        raise Damaged("the checksum of an entry is wrong: the file was changed or damaged")
    return content


def _other_archive(members: dict[str, zipfile.ZipInfo]) -> str:
    names = [name.rpartition("/")[2] for name in members]
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "a program of torch.export; save the module's state_dict() instead"
    if ".data" in "".join(members) and "python_version" in names:
        return "an archive of torch.package; save the module's state_dict() instead"
    if "config.json" in names and "model.weights.h5" in names:
        return "a Keras model"
    return "another zip archive (it has no data.pkl); if it is packed, unpack it first"


# One file after the other


def _read_stream(data: mmap.mmap, known: Known) -> Any:
    """The older container: a magic number, the protocol, facts of the machine, the object, storage keys, storages."""
    data.seek(0)
    first = load_pickle(data, known)
    if first != MAGIC:  # a plain pickle.dump, whose tensors carry their storages with them
        return first
    protocol, system = load_pickle(data, {}), load_pickle(data, {})
    if protocol != 1001:
        raise Damaged("its container is of an unknown version")
    if type(system) is dict and system.get("little_endian") is False:
        raise Damaged("it was written on a big-endian machine; save it anew on a usual one")
    storages: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Any:
        if type(identifier) is tuple and len(identifier) == 4 and identifier[0] == "module":
            return identifier[1]  # a class, with its source code
        dtype, name, count = _storage_id(identifier)
        size = count * itemsize(dtype)
        if size > len(data):
            raise Damaged(f"the storage {name[:40]} should have {size} bytes, more than the file")
        storage = storages.setdefault(name, Storage(dtype, size, _nowhere))
        if (storage.dtype, storage.size) != (dtype, size):
            raise Damaged(f"the storage {name[:40]} is described in two ways")
        return _part(storage, identifier[5]) if len(identifier) > 5 and identifier[5] is not None else storage

    content = load_pickle(data, known, persistent)
    keys = load_pickle(data, {})
    if type(keys) is not list or not all(type(name) is str for name in keys):
        raise Damaged("its storages have no list of names")
    for name in keys:
        if name not in storages:
            raise Damaged(f"a storage {name[:40]} is listed that no tensor has")
        _place(storages[name], data)
    if len(set(keys)) != len(storages):
        raise Damaged("a storage is missing: it was probably cut short")
    return content


def _place(storage: Storage, data: mmap.mmap) -> None:
    """Finds the values of the storage that begins at the position of `data`, and goes behind them."""
    head = data.read(8)
    start, count = data.tell(), int.from_bytes(head, "little")
    if len(head) < 8 or count * itemsize(storage.dtype) != storage.size or start + storage.size > len(data):
        raise Damaged("a storage is cut short")
    storage.load = lambda: np.frombuffer(data, np.uint8, storage.size, start)
    data.seek(start + storage.size)


def _part(storage: Storage, view: Any) -> Storage:
    """A view of a storage, as PyTorch had them before 1.0: (key, offset, size) in values."""
    plain = type(view) is tuple and len(view) == 3 and all(type(n) is int and n >= 0 for n in view[1:])
    begin, size = (n * itemsize(storage.dtype) for n in view[1:]) if plain else (0, 0)
    if not plain or begin + size > storage.size:
        raise Damaged("a storage is a part of another that does not have it")
    return Storage(storage.dtype, size, lambda: storage.load()[begin : begin + size])


def _nowhere() -> np.ndarray:
    raise Damaged("a storage is missing: it was probably cut short")


def _storage_id(identifier: Any) -> tuple[str, str, int]:
    """(type, name, number of values) of a persistent id ("storage", class, name, device, number of values, …)."""
    if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise Damaged("its pickle refers to something that is no storage")
    _, kind, name, _, count = identifier[:5]
    if type(name) is not str or type(count) is not int or not 0 <= count <= 1 << 42:
        raise Damaged("its pickle refers to a storage by no name or by an impossible size")
    return storage_dtype(kind), name, count


def _from_bytes(content: Any = b"", *_: Any) -> Storage:
    """A storage that pickle.dump wrote: torch.save's older container, in bytes."""
    if type(content) is not bytes or not content:
        raise Damaged("a storage is made of no bytes")
    with mmap.mmap(-1, len(content)) as anonymous:
        anonymous.write(content)
        made = _read_stream(anonymous, {})
        if not isinstance(made, Storage):
            raise Damaged("a storage is made of something else")
        values = made.load().copy()
        made.load = lambda: values
    return made


_KNOWN: Known = {**TENSORS, **NUMPY, Global("torch.storage", "_load_from_bytes"): _from_bytes}
