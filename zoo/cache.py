"""`python -m zoo.cache`: what is kept so that it need not be built, compiled or downloaded again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli import Json, command, note, print_json
from zoo.engine import store
from zoo.engine.passport import load_engine
from zoo.errors import ZooError, one_of
from zoo.files import cache_folder
from zoo.nvrtc import machine_code
from zoo.text import LONGEST, clean
from zoo.units import age_text, bytes_text, parse_age

ABANDONED = 24 * 3600  # seconds after which what is unfinished has no owner any more


@dataclass(frozen=True)
class Entry:
    """Something that is kept: bytes, seconds since it was used last, what it is, and why it is of no use, if so."""

    kind: str
    path: Path
    size: int
    unused: float
    about: str
    damaged: str | None

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON data."""
        unused = round(self.unused)
        return {**vars(self), "path": str(self.path), "unused": unused}


def _engine(path: Path) -> str:
    if path.is_file():
        raise ZooError("it is of a former version, which kept files")
    said = load_engine(path / store.ENGINE).description
    return f"{said['model']} {said['precision']}, {said['flavour']} {said['version']}, {said['gpu'] or 'any GPU'}"


def _timings(path: Path) -> str:
    with open(path, "rb") as file:
        header = file.readline(10_000)
    try:
        said = json.loads(header)
        return f"{said['timing_cache']}, {said['gpu']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ZooError("it does not begin with what it is of") from None


def _kernel(path: Path) -> str:
    if machine_code(path.read_bytes()) is None:
        raise ZooError("its content has another hash")
    return path.stem.rpartition("-")[0]


def _library(path: Path) -> str:
    if path.stat().st_size == 0:
        raise ZooError("it is empty")
    return "the shell of the plugins"


def _stand_ins(path: Path) -> str:
    if not any(path.iterdir()):
        raise ZooError("it is empty")
    return "stands in for CUDA's libraries beside torchvision's operators"


def _weights(path: Path) -> str:
    if path.stat().st_size == 0:
        raise ZooError("it is empty")
    return "published weights"


def _unfinished(path: Path) -> str:
    raise ZooError("it was not finished")


# Where each kind lies in the folder of caches, and what tells what a file or folder of it is (ZooError: why it is of
# no use). The first pattern that a path matches says its kind; what matches none is not ours.
KINDS: dict[str, tuple[tuple[str, ...], Callable[[Path], str]]] = {
    "unfinished": ((".*.zoo-part", ".new-*", ".libzoo_plugins-*", "engines/.new-*", "weights/*.part"), _unfinished),
    "engine": (("engines/*",), _engine),
    "timings": (("timing-*.cache",), _timings),
    "kernel": (("*.bin",), _kernel),
    "library": (("libzoo_plugins-*.so",), _library),
    "stand-ins": (("torchvision-*",), _stand_ins),
    "weights": (("weights/*",), _weights),
}
_BESIDE = (".lock", ".part.tag", ".engine.json")  # files that go with an entry of the same name


def entries(kinds: tuple[str, ...] = ()) -> list[Entry]:
    """What is kept, or only these kinds of it, what was unused for longest first. Nothing is changed."""
    folder, now, found = cache_folder(), time.time(), {}
    for kind, (patterns, tell) in KINDS.items():
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            if path not in found and not path.name.endswith(_BESIDE):
                with suppress(FileNotFoundError):  # another process removed it just now
                    found[path] = _entry(kind, path, tell, now)
    chosen = [entry for entry in found.values() if not kinds or entry.kind in kinds]
    return sorted(chosen, key=lambda entry: -entry.unused)


def _entry(kind: str, path: Path, tell: Callable[[Path], str], now: float) -> Entry:
    files = path.rglob("*") if path.is_dir() else [path]
    size, used = sum(file.lstat().st_size for file in files if file.is_file()), path.lstat().st_mtime
    try:
        about, damaged = tell(path), None
    except FileNotFoundError:
        raise
    except OSError as error:
        about, damaged = "", f"it cannot be read: {error.strerror}"
    except ZooError as error:
        about, damaged = "", str(error)
    return Entry(kind, path, size, max(now - used, 0.0), about, damaged)


def clear(found: list[Entry]) -> list[Entry]:
    """Removes entries and returns those that are gone. What another process may be writing just now stays."""
    return [
        entry for entry in found if (entry.kind != "unfinished" or entry.unused > ABANDONED) and _remove(entry.path)
    ]


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        store.remove(path)
    else:
        with suppress(OSError):
            path.unlink()
    if path.exists():
        return False
    for suffix in _BESIDE:
        with suppress(OSError):
            path.with_suffix(suffix).unlink()
    return True


def run(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help=f"Only these of {', '.join(KINDS)}.")
    ] = None,
    clear_them: Annotated[bool, typer.Option("--clear", help="Remove what is listed.")] = False,
    older: Annotated[
        str | None,
        typer.Option("--older", help="Only what was unused for longer: 30d, 12h, 2w.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Lists what is kept (engines, kernel timings, compiled kernels, downloaded weights), or clears it.

    It lies in $XDG_CACHE_HOME/zoo or ~/.cache/zoo, and only saves time. Of engines at most ZOO_CACHE_BYTES are kept
    (20G unless set), those used last. What is damaged is made anew when it is needed.
    """
    for kind in kinds or ():
        one_of("kind", kind, KINDS)
    least, bound = parse_age(older) if older is not None else 0.0, store.most_bytes()
    found = [entry for entry in entries(tuple(kinds or ())) if entry.unused >= least]
    gone = clear(found) if clear_them else []
    if as_json:
        print_json({
            "folder": str(cache_folder()),
            "bytes": sum(entry.size for entry in found),
            "most_bytes_of_engines": bound,
            "entries": [entry.to_json() for entry in found],
            "removed": [str(entry.path) for entry in gone],
        })  # fmt: skip
    else:
        _print(found, bound)
    left = [entry for entry in found if entry not in gone] if clear_them else []
    if clear_them:
        note(f"removed {bytes_text(sum(entry.size for entry in gone))} in {len(gone)} entries")
    for entry in left:
        why = "another process may be writing it" if entry.kind == "unfinished" else "it may be another user's"
        note(f"not removed: {entry.path}; {why}")


def _print(found: list[Entry], bound: int) -> None:
    for entry in found:
        what = f"damaged: {entry.damaged}" if entry.damaged else entry.about
        size, name = bytes_text(entry.size), entry.path.relative_to(cache_folder())
        print(f"{entry.kind:10} {size:>9}  unused for {age_text(entry.unused):10}  {clean(f'{name}: {what}', LONGEST)}")
    total = bytes_text(sum(entry.size for entry in found))
    engines = bytes_text(sum(entry.size for entry in found if entry.kind == "engine"))
    print(f"{clean(str(cache_folder()))}: {total} in {len(found)} entries; engines {engines} of {bytes_text(bound)}")


main = command(run)

if __name__ == "__main__":
    main()
