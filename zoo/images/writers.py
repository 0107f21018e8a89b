"""Annotated pictures and videos to files, each whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from zoo.errors import ZooError
from zoo.files import replacing


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write `image` (H, W, 3) uint8 BGR in the format that the suffix of `path` names, creating its folder.

    Raises `ZooError` when the format is unknown or the file cannot be written.
    """
    path = Path(path)
    try:
        found, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        found = False
    if not found:
        raise ZooError(f"'{path}' does not end like an image that OpenCV can write; use .jpg or .png.")
    with replacing(path) as file:
        file.write(data)


class VideoSink:
    """A video file (.mp4) that appears under its name when it is closed; as a context manager, not after an error, but
    after Ctrl-C.

    `size` is the (width, height) of its frames. Raises `ZooError` when it cannot be written.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int]) -> None:
        self.path, self.size = Path(path), size
        self._frames = 0
        self._temporary = _temporary(self.path)
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
        if not self._writer.isOpened():
            self.discard()
            raise ZooError(
                f"'{self.path}' cannot be written as a video; use a name that ends in .mp4 in a writable folder."
            )

    def write(self, image: np.ndarray) -> None:
        """Append one frame (height, width, 3) uint8 BGR."""
        if image.shape != (self.size[1], self.size[0], 3):  # OpenCV would drop it without a word
            raise ZooError(
                f"A frame of shape {image.shape} does not fit a video of {self.size[0]}x{self.size[1]} pixels."
            )
        self._writer.write(image)
        self._frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. Raises `ZooError` when it is not whole: full disks are silent."""
        self._writer.release()
        found = _readable_frames(self._temporary)
        if found < self._frames:
            self.discard()
            raise ZooError(
                f"'{self.path}' could not be written whole, only {found} of {self._frames} frames; is the disk full?"
            )
        try:
            os.replace(self._temporary, self.path)
        except OSError as error:
            self.discard()
            raise ZooError(f"'{self.path}' cannot be written: {error.strerror}.") from error

    def discard(self) -> None:
        """Leave nothing behind."""
        self._writer.release()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):  # what was seen until then is whole
            self.close()
        else:
            self.discard()


def _temporary(path: Path) -> Path:
    """A hidden name beside `path` with its suffix, by which OpenCV picks the format; its folder is created."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"The folder '{path.parent}' cannot be created: {error.strerror}.") from error
    return path.with_name(f".{secrets.token_hex(6)}{path.suffix}")


def _readable_frames(path: Path) -> int:
    """How many frames the index of a video names, if its last one can be read."""
    capture = cv2.VideoCapture(str(path))
    try:
        count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.set(cv2.CAP_PROP_POS_FRAMES, max(count - 1, 0))
        return count if count and capture.read()[0] else 0
    finally:
        capture.release()
