"""The folder that drawn pictures and videos go to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from zoo.errors import ZooError
from zoo.images.sources import Frame
from zoo.images.writers import VideoSink, save_image

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
RECORD = ".zoo-files"  # the names of what was written to a folder, as JSON strings, one a line
LONGEST_STEM = 200  # bytes; a file system allows 255 for the whole name


class Gallery:
    """Writes drawn frames under their sources' names: pictures one by one, the frames of a video into one .mp4.

    Only files that a gallery wrote are overwritten, in this run or an earlier one: a record in the folder names them.
    What else lies there, and each of `sources`, stays as it is, and another name is taken. Raises ZooError for a folder
    that cannot be written to.
    """

    def __init__(self, folder: Path, sources: Iterable[str] = ()) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}  # source -> file
        self._taken: set[Path] = set()  # the same files, resolved
        self._sinks: dict[str, VideoSink] = {}
        self._open = ExitStack()
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):  # before any work is done
            raise ZooError(f"pictures cannot be saved in '{folder}': '{there}' is not a folder that can be written to.")
        self._sources = {Path(source).resolve() for source in sources if os.path.isfile(source)}
        self._ours = _recorded(folder)

    def place(self, frame: Frame) -> Path:
        """The file that a frame goes to: one for all frames of a source. One thread at a time."""
        if frame.name not in self._paths:
            self._paths[frame.name] = self._new_path(frame)
            self._taken.add(self._paths[frame.name].resolve())
        return self._paths[frame.name]

    def write(self, frame: Frame, drawn: np.ndarray, path: Path) -> None:
        """Writes `drawn` (H, W, 3) uint8 BGR to its place. Pictures may be written by many threads, frames of videos by
        one, in their order."""
        if not frame.is_video:
            save_image(path, drawn)
            return
        if frame.name not in self._sinks:
            size = (drawn.shape[1], drawn.shape[0])
            self._sinks[frame.name] = self._open.enter_context(VideoSink(path, frame.fps or 30.0, size))
        self._sinks[frame.name].write(drawn)

    def claim(self, name: str) -> Path:
        """The file `name` in the folder, or `name-2` … where a file is that no gallery wrote. It counts as ours."""
        return self._claim(Path(name).stem, Path(name).suffix)

    def _new_path(self, frame: Frame) -> Path:
        """A name of its own: never a source, nor that of a file of the same name from another folder."""
        source = Path(frame.name)
        stem = source.stem if source.suffix else f"webcam{frame.name}" if frame.name.isdecimal() else source.name
        stem = os.fsdecode(os.fsencode(stem)[:LONGEST_STEM])
        suffix = ".mp4" if frame.is_video else source.suffix if source.suffix.lower() in PICTURE_SUFFIXES else ".png"
        return self._claim(stem, suffix, source.resolve())

    def _claim(self, stem: str, suffix: str, source: Path | None = None) -> Path:
        path, count = self.folder / f"{stem}{suffix}", 1
        while (
            (resolved := path.resolve()) == source
            or resolved in self._taken
            or resolved in self._sources
            or (os.path.lexists(path) and path.name not in self._ours)
        ):
            count += 1
            path = self.folder / f"{stem}-{count}{suffix}"
        if path.name not in self._ours:
            self._ours.add(path.name)
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / RECORD, "a", encoding="ascii") as record:
                record.write(json.dumps(path.name) + "\n")
        return path

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def _recorded(folder: Path) -> set[str]:
    """The names that earlier galleries wrote to `folder`; a line that is damaged names nothing."""
    names: set[str] = set()
    if (folder / RECORD).is_file():
        for line in (folder / RECORD).read_text(encoding="ascii", errors="replace").splitlines():
            try:
                name = json.loads(line)
            except ValueError:
                continue
            if isinstance(name, str) and os.path.basename(name) == name:
                names.add(name)
    return names
