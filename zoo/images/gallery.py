"""The folder that drawn pictures and videos go to."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from zoo.images.sources import Frame
from zoo.images.writers import VideoSink, save_image

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class Gallery:
    """Writes drawn frames under their sources' names: pictures one by one, the frames of a video into one .mp4."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}  # source -> file
        self._sinks: dict[str, VideoSink] = {}
        self._open = ExitStack()

    def add(self, frame: Frame, drawn: np.ndarray) -> Path:
        """Writes `drawn` (H, W, 3) uint8 BGR and returns the file it goes to."""
        path = self._paths.get(frame.name) or self._new_path(frame)
        self._paths[frame.name] = path
        if not frame.is_video:
            save_image(path, drawn)
            return path
        if frame.name not in self._sinks:
            size = (drawn.shape[1], drawn.shape[0])
            self._sinks[frame.name] = self._open.enter_context(VideoSink(path, frame.fps or 30.0, size))
        self._sinks[frame.name].write(drawn)
        return path

    def _new_path(self, frame: Frame) -> Path:
        """A name of its own: never the source itself, nor that of a file of the same name from another folder."""
        source = Path(frame.name)
        stem = source.stem if source.suffix else f"webcam{frame.name}" if frame.name.isdecimal() else source.name
        suffix = ".mp4" if frame.is_video else source.suffix if source.suffix.lower() in PICTURE_SUFFIXES else ".png"
        taken = {source.resolve(), *(path.resolve() for path in self._paths.values())}
        path, count = self.folder / f"{stem}{suffix}", 1
        while path.resolve() in taken:
            count += 1
            path = self.folder / f"{stem}-{count}{suffix}"
        return path

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
