"""Pictures by their addresses: files, objects of a store (s3://…, gs://…), and rows of Parquet files.

An address is text. `FILE.parquet#7` is row 7 of that file. What is no local picture needs pyarrow.
"""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, closest
from zoo.images.sources import IMAGE_SUFFIXES

_ROW = re.compile(r"(.+\.parquet)#([0-9]+)")
_LISTS = (".txt", ".lst")
_INSTALL = 'pip install "tensorrt-zoo[batch]"'


def list_addresses(sources: Iterable[str], column: str | None = None) -> Iterator[str]:
    """The address of each picture of the sources, in their order.

    A source is a picture, a folder (its pictures, not those of its subfolders), a glob, a list (a .txt file with one
    address a line), a Parquet file, or a folder, picture or Parquet file in an object store. `column` is the one of
    Parquet files that has the pictures (bytes, or structs with `bytes`) or their addresses; without it, the only one
    that has bytes. Raises ZooError for a source that has no picture.
    """
    for source in sources:
        found = False
        for address in _open(source, column):
            found = True
            yield address
        if not found:
            raise ZooError(
                f"'{source}' has no pictures; give a picture, a folder, a glob, a list (.txt), a Parquet file, or the "
                "address of a folder or file in an object store"
            )


def _open(source: str, column: str | None) -> Iterator[str]:
    if "://" in source:
        yield from _open_remote(source, column)
    elif os.path.isdir(source):
        yield from (str(path) for path in sorted(Path(source).iterdir()) if _is_picture(path.name))
    elif source.endswith(".parquet") and os.path.isfile(source):
        yield from _rows(source, column)
    elif source.endswith(_LISTS) and os.path.isfile(source):
        yield from filter(None, map(str.strip, Path(source).read_text("utf-8").splitlines()))
    elif os.path.isfile(source):
        yield source
    elif glob.has_magic(source):
        for name in sorted(glob.glob(source, recursive=True)):
            if os.path.isfile(name):
                yield from _open(name, column)


def _is_picture(name: str) -> bool:
    """By its suffix; hidden files are other programs' business."""
    return name[0] != "." and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _open_remote(source: str, column: str | None) -> Iterator[str]:
    system, path = _file_system(source)
    from pyarrow.fs import FileSelector, FileType

    with _told(source):
        kind = system.get_file_info(path).type
        if kind == FileType.Directory:
            names = sorted(info.base_name for info in system.get_file_info(FileSelector(path)) if info.is_file)
            yield from (f"{source.rstrip('/')}/{name}" for name in names if _is_picture(name))
        elif kind == FileType.File and source.endswith(".parquet"):
            yield from _rows(source, column)
        elif kind == FileType.File:
            yield source


def read_address(address: str, column: str | None = None) -> bytes:
    """The bytes of the picture at an address of `list_addresses`. Raises ZooError where there are none to read."""
    row = _ROW.fullmatch(address)
    if row:
        return _read_row(row[1], int(row[2]), column)
    if "://" in address:
        system, path = _file_system(address)
        with _told(address), system.open_input_file(path) as file:
            return file.read()
    try:
        return Path(address).read_bytes()
    except OSError as error:
        raise ZooError(f"'{address}' cannot be read: {error.strerror}.") from None


class _told:  # noqa: N801  (a context manager, used like a function)
    """What pyarrow raises inside, as a ZooError that names the address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import pyarrow

        if isinstance(error, (OSError, pyarrow.ArrowException)):
            raise ZooError(f"'{self.address}' cannot be read: {error}") from None


def _file_system(address: str) -> tuple[Any, str]:
    """The file system that an address is in, and the path there."""
    try:
        import pyarrow
        from pyarrow.fs import FileSystem
    except ImportError:
        raise ZooError(f"'{address}' is read by pyarrow, which is not installed: {_INSTALL}") from None
    try:
        return FileSystem.from_uri(address)
    except (OSError, pyarrow.ArrowException) as error:
        raise ZooError(f"'{address}' cannot be read: {error}") from None


def _rows(file: str, column: str | None) -> Iterator[str]:
    """The address of each row, or what the column has as addresses."""
    table = _Parquet.open(file, column)
    if table.holds_addresses:
        for group in range(table.file.num_row_groups):
            yield from table.group(group)
    else:
        yield from (f"{file}#{row}" for row in range(table.file.metadata.num_rows))


def _read_row(file: str, row: int, column: str | None) -> bytes:
    table = _Parquet.open(file, column)
    group = next((i for i, end in enumerate(table.ends) if row < end), None)
    if group is None:
        raise ZooError(f"'{file}' has {table.ends[-1] if table.ends else 0} rows, and no row {row}")
    start = table.ends[group - 1] if group else 0
    value = table.group(group)[row - start]
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ZooError(f"'{file}#{row}' holds no picture: the column '{table.column}' is empty there")
    return data


class _Parquet:
    """A Parquet file, and its column with pictures or their addresses; the last row group read is kept."""

    def __init__(self, file: str, column: str | None) -> None:
        from pyarrow import parquet

        with _told(file):
            if "://" in file:
                system, path = _file_system(file)
                self.file = parquet.ParquetFile(system.open_input_file(path))
            else:
                self.file = parquet.ParquetFile(file)
        self.column = _picture_column(file, self.file.schema_arrow, column)
        self.holds_addresses = _is_text(self.file.schema_arrow.field(self.column).type)
        sizes = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        self._kept: tuple[int, list[Any]] = (-1, [])

    @staticmethod
    @functools.lru_cache(maxsize=4)
    def open(file: str, column: str | None) -> _Parquet:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ZooError(f"'{file}' is read by pyarrow, which is not installed: {_INSTALL}") from None
        return _Parquet(file, column)

    def group(self, index: int) -> list[Any]:
        """The values of a row group."""
        if self._kept[0] != index:
            self._kept = (index, self.file.read_row_group(index, columns=[self.column])[self.column].to_pylist())
        return self._kept[1]


def _picture_column(file: str, schema: Any, wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in schema.names:
            raise ZooError(f"'{file}' has no column '{wanted}'{closest(wanted, schema.names)}")
        return wanted
    found = [field.name for field in schema if _has_bytes(field.type)]
    if len(found) != 1:
        raise ZooError(
            f"which column of '{file}' has the pictures, or their addresses, is not certain; say it with --column: "
            f"{', '.join(schema.names)}"
        )
    return found[0]


def _has_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_string(kind) or types.is_large_string(kind)
