"""Writing files so that none is ever half written, and where caches are kept."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from zoo.errors import ZooError

_STALE = 24 * 3600  # seconds after which a temporary file has no owner any more
_SUFFIX = ".zoo-part"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a new file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    A link stays a link: the file that it names is replaced. What is no regular file (a device, a pipe) is written to.
    The mode of a file that is replaced stays.
    """
    path = checked_destination(path)
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise ZooError(f"cannot write {path}: its links lead in a circle")
    try:
        if target.exists() and not target.is_file():
            with open(target, "wb") as file:
                yield file
            return
        _remove_stale(target.parent)
        temporary = target.with_name(f".{secrets.token_hex(6)}{_SUFFIX}")
        try:
            with open(temporary, "xb") as file:
                yield file
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def adding_to(folder: str | os.PathLike[str], names: Iterable[str]) -> Iterator[Path]:
    """An empty folder beside `folder`. When the block ends well, what it then holds under `names` moves into `folder`,
    in this order; otherwise nothing does.

    Raises ZooError where one of the names is taken there, and where nothing can be written.
    """
    folder, names = Path(folder), list(names)
    for name in names:
        if os.path.lexists(folder / name):
            raise ZooError(f"{folder / name} is there already; remove it, or name another folder")
    temporary = folder.absolute().with_name(f".{secrets.token_hex(6)}{_SUFFIX}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for name in names:
            os.rename(temporary / name, folder / name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise ZooError(f"{folder} is where another file system begins; name a folder in it") from None
        raise ZooError(f"cannot write to {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def checked_destination(path: str | os.PathLike[str]) -> Path:
    """`path`, where a file can be written: its folder is made. Raises ZooError, before any work is done, otherwise."""
    text = os.fspath(path)
    if "\0" in text:
        raise ZooError(f"cannot write {text!r}: a file's name has no zero byte")
    try:
        path = Path(text)
        if not text or not path.name or text.endswith(os.sep) or path.is_dir():
            raise ZooError(f"cannot write '{text}': it is a folder, and a file is to be written; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
            raise ZooError(f"cannot write {path}: its folder is not writable")
        if path.exists() and not os.access(path, os.W_OK):
            raise ZooError(f"cannot write {path}: it is there and not writable")
    except OSError as error:
        raise ZooError(f"cannot write {text!r}: {error.strerror}") from None
    return path


def _remove_stale(folder: Path) -> None:
    """Temporary files of processes that were killed long ago."""
    for temporary in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _STALE:
                temporary.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is in such a block with this lock file. Raises OSError where it cannot be had."""
    with _locked(os.open(path, os.O_RDWR | os.O_CREAT, 0o666)):
        yield


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """The same for all who write into `folder`, without a lock file. Raises OSError where it cannot be had."""
    with _locked(os.open(folder, os.O_RDONLY) if os.name == "posix" else None):
        yield


@contextmanager
def _locked(descriptor: int | None) -> Iterator[None]:
    try:
        if descriptor is not None and os.name == "posix":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def mark_used(path: Path) -> None:
    """Notes on what is kept that it was used now: what was unused for longest goes first."""
    with suppress(OSError):  # of another user: good to read, and its age is not ours to tell
        os.utime(path)


def cache_folder() -> Path:
    """Where engines, timing caches and compiled kernels are kept: $XDG_CACHE_HOME/zoo or ~/.cache/zoo.

    Raises ZooError where there is neither.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen) / "zoo"
    try:
        return Path.home() / ".cache" / "zoo"
    except RuntimeError:  # a user without an entry and without HOME
        raise ZooError("there is no home folder to keep caches in; set XDG_CACHE_HOME to a folder") from None
