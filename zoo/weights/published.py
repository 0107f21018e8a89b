"""Published weights: one file from the address that its project gives, kept in the cache of downloads.

What was cut off goes on where it stopped, if the server says that the file is still the same. Nothing is ever used
before its size and, where the project publishes one, its hash are right.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import cache_folder, mark_used

TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 18


def fetch(
    url: str,
    sha256: str | None = None,
    size: int | None = None,
    folder: Path | None = None,
    name: str | None = None,
) -> Path:
    """The file at `url`, from `folder` (default: weights/ in the cache) or downloaded into it; says so on stderr.

    `sha256` is a hash or its beginning, `size` is in bytes, `name` what the file is kept as, if not by its own name.
    Raises ZooError when the file cannot be had or is another; with ZOO_OFFLINE in the environment none is downloaded.
    """
    path = place(url, folder, name)
    if comes_with_a_package(url):
        _check(url, path, sha256, size)
        return path
    folder = path.parent
    if path.is_file():
        mark_used(path)
        return path
    if os.environ.get("ZOO_OFFLINE"):
        raise ZooError(f"{url} could not be downloaded (ZOO_OFFLINE is set)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_suffix(".lock")):
            if not path.is_file():  # another process may have had it meanwhile
                part = path.with_name(f"{path.name}.part")
                _download(url, part)
                _tag(part).unlink(missing_ok=True)
                _check(url, part, sha256, size)  # what is another file is begun anew the next time
                os.replace(part, path)
    except urllib.error.HTTPError as error:
        raise ZooError(f"{url} could not be downloaded (the server answers {error.code} {error.reason})") from None
    except urllib.error.URLError as error:
        raise ZooError(f"{url} could not be downloaded ({_reason(error.reason)})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ZooError(f"{url} could not be downloaded ({_reason(error)}); start again to go on") from None
    return path


def place(url: str, folder: Path | None = None, name: str | None = None) -> Path:
    """Where the file of `url` is, or would be kept. Raises ZooError where there is no place for caches."""
    if comes_with_a_package(url):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
    return (folder or cache_folder() / "weights") / (name or url.rpartition("/")[2])


def comes_with_a_package(url: str) -> bool:
    """Whether an installed package brings the file."""
    return url.startswith("file:")


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__


def _tag(part: Path) -> Path:
    """Where the server's name for the version of an unfinished file is kept."""
    return part.with_name(f"{part.name}.tag")


def _download(url: str, part: Path) -> None:
    """Writes the content of `url` to `part`, after what is there if it is of the same version."""
    have = part.stat().st_size if part.is_file() else 0
    known = _tag(part).read_text("utf-8") if have and _tag(part).is_file() else ""
    headers = {"User-Agent": "zoo", "Accept-Encoding": "identity"}
    if known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is longer than the file
            raise
        part.unlink(missing_ok=True)
        return _download(url, part)
    with response:
        start = have if response.status == 206 else 0
        if start and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            raise ValueError("the server sent another part than was asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        tag = response.headers.get("ETag") or ""
        _tag(part).write_text("" if tag.startswith("W/") else tag, "utf-8")
        with open(part, "ab" if start else "wb") as file, _bar(url, total) as report:
            done = start
            while block := response.read(_BLOCK):
                done += file.write(block)
                report(done)
    if total is not None and done != total:
        raise ValueError(f"the connection ended after {done:,} of {total:,} bytes")


def _check(url: str, path: Path, sha256: str | None, size: int | None) -> None:
    """Raises ZooError unless the file has this size and hash."""
    found = path.stat().st_size
    if size is not None and found != size:
        raise ZooError(f"{url} has {found:,} bytes, {size:,} are published: it is not the file that it should be")
    if sha256 is not None:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if not digest.hexdigest().startswith(sha256):
            raise ZooError(
                f"{url} has the sha256 {digest.hexdigest()}, {sha256} is published: it is damaged or replaced"
            )


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Lets one process at a time go on."""
    with open(path, "ab") as file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _bar(url: str, total: int | None) -> Iterator[Any]:
    """Says what is downloaded, and on a terminal how far it is."""
    if sys.stderr is None:  # as for services that close it
        yield lambda done: None
        return
    terminal, last = sys.stderr.isatty(), -1
    megabytes = f" ({total / 1e6:.1f} MB)" if total else ""
    print(f"downloading {url}{megabytes}", file=sys.stderr, flush=True)

    def report(done: int) -> None:
        nonlocal last
        percent = 100 * done // total if total else done >> 20
        if terminal and percent != last:
            print(f"\r  {percent} {'%' if total else 'MiB'}", end="", file=sys.stderr, flush=True)
        last = percent

    yield report
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
