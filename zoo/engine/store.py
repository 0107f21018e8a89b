"""Engines that were built at first use, kept so that they need not be built again.

The store only saves time: where it cannot be written, or holds something damaged, an engine is built and used all the
same. Each engine is a folder of its own with its description, which appears at once and whole; a lock per key lets the
second of two builders wait for the first. The engines unused for longest go when there are too many bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zoo.engine.passport import Engine, load_engine
from zoo.errors import ZooError
from zoo.files import cache_folder, locked, mark_used
from zoo.units import parse_bytes

Progress = Callable[[str], None]
ENGINE = "engine.plan"  # the name of the file in each folder
MOST_BYTES = 20 << 30  # unless ZOO_CACHE_BYTES says otherwise


@dataclass(frozen=True)
class Kept:
    """An engine of the store: its folder's name, its size in bytes, and when it was last used (seconds since 1970)."""

    path: Path
    size: int
    used: float


def store_folder() -> Path:
    """Where engines are kept. Raises ZooError where there is no place for caches."""
    return cache_folder() / "engines"


def kept_engine(name: str, build: Callable[[], Engine], progress: Progress = lambda text: None) -> tuple[Engine, Path]:
    """The engine that is kept as `name`, or the one that `build` makes, which is then kept; and its path, which names
    a file only where it could be kept. `name` says all that the engine depends on.
    """
    try:
        folder, bound = store_folder() / name, most_bytes()
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ZooError) as error:
        return _unkept(name, build, progress, error)
    try:
        with locked(folder.with_suffix(".lock")):
            engine = _read(folder)
            if engine is not None:
                return engine, folder / ENGINE
            engine = build()
            try:
                _write(folder, engine)
                shrink(bound, but=folder)
            except (OSError, ZooError) as error:
                progress(f"the engine is not kept for the next time: {error}")
            return engine, folder / ENGINE
    except OSError as error:  # the lock cannot be had
        return _unkept(name, build, progress, error)


def _unkept(name: str, build: Callable[[], Engine], progress: Progress, why: Exception) -> tuple[Engine, Path]:
    progress(f"the engine will not be kept for the next time: {why}")
    return build(), Path(f"{name}.engine")


def _read(folder: Path) -> Engine | None:
    """The engine in a folder of the store; None for one that is not there, or is damaged, which is then removed."""
    if not folder.is_dir():
        return None
    try:
        engine = load_engine(folder / ENGINE)
    except ZooError:
        remove(folder)
        return None
    mark_used(folder)
    return engine


def _write(folder: Path, engine: Engine) -> None:
    remove(folder)
    with _new_folder(folder.parent) as new:
        engine.save(new / ENGINE)
        os.replace(new, folder)


def remove(folder: Path) -> None:
    """Removes an engine, at once for whoever looks for it. What cannot be removed stays."""
    with suppress(OSError), _new_folder(folder.parent) as new:
        os.replace(folder, new / folder.name)


@contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """A folder for the block, which is gone afterwards unless it was renamed."""
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def kept() -> list[Kept]:
    """What the store holds, the engine unused for longest first."""
    try:
        folders = [path for path in store_folder().iterdir() if path.is_dir() and not path.name.startswith(".")]
    except (OSError, ZooError):
        return []
    found = []
    for folder in folders:
        try:
            size = sum(file.stat().st_size for file in folder.iterdir())
            found.append(Kept(folder, size, folder.stat().st_mtime))
        except OSError:
            continue  # removed by another process just now
    return sorted(found, key=lambda entry: entry.used)


def shrink(most_bytes: int, but: Path | None = None) -> list[Kept]:
    """Removes the engines unused for longest until the store holds at most `most_bytes`; `but` stays. What went."""
    entries, gone = kept(), []
    total = sum(entry.size for entry in entries)
    for entry in entries:
        if total <= most_bytes:
            break
        if entry.path != but:
            remove(entry.path)
            total -= entry.size
            gone.append(entry)
    return gone


def most_bytes() -> int:
    """How many bytes of engines are kept. Raises ZooError for a bound in ZOO_CACHE_BYTES that is none."""
    wanted = os.environ.get("ZOO_CACHE_BYTES")
    return parse_bytes("ZOO_CACHE_BYTES", wanted) if wanted else MOST_BYTES
