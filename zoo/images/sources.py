"""Where pictures come from: image files, folders, globs, videos, streams and webcams, one frame at a time."""

from __future__ import annotations

import glob
import itertools
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from zoo.errors import ZooError

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .dib .gif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .pnm .ppm .ras .sr .tif .tiff .webp".split()
)
DECODERS = min(os.cpu_count() or 1, 32)  # threads; OpenCV lets them run side by side
STDIN = "-"  # the source that is a video on the standard input
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .ts .webm .wmv".split()
)


@dataclass(frozen=True)
class Frame:
    """One picture: an image file (`fps` is None) or frame `index` of a video, stream or webcam."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8, BGR
    index: int = 0
    fps: float | None = None

    @property
    def is_video(self) -> bool:
        return self.fps is not None


@dataclass(frozen=True)
class BadSource:
    """A source that gave no picture, and one sentence that says why."""

    name: str
    message: str


def open_sources(sources: Sequence[str], frames: int | None = None) -> Iterator[Frame | BadSource]:
    """Every frame of every source, in the given order; a folder's or glob's files in sorted order.

    A source is an image or video file, a folder (its image and video files, not those of its subfolders), a glob, a
    stream's URL, a named pipe, "-" (a video on the standard input), or a webcam's number. `frames` is the most that is
    read of each video, stream or webcam. What cannot be read comes as a `BadSource` and the iteration goes on. Image
    files are decoded ahead, by `DECODERS` threads.
    """
    underway: deque[Future[Frame | BadSource] | Iterable[Frame | BadSource]] = deque()
    with ThreadPoolExecutor(DECODERS) as pool:
        for found in itertools.chain.from_iterable(map(_open, map(str, sources))):
            if isinstance(found, str):
                underway.append(pool.submit(_read_image, found))
            else:
                underway.append(itertools.islice(found, frames))
            if len(underway) > DECODERS:
                yield from _frames(underway.popleft())
        while underway:
            yield from _frames(underway.popleft())


def _frames(opened: Future[Frame | BadSource] | Iterable[Frame | BadSource]) -> Iterable[Frame | BadSource]:
    return [opened.result()] if isinstance(opened, Future) else opened


def _open(source: str) -> Iterator[str | Iterable[Frame | BadSource]]:
    """What a source is: the names of image files, and what gives the frames of all else."""
    if os.path.isdir(source):
        yield from _open_files(source, _pictures(source), "is not a folder with image or video files")
    elif os.path.isfile(source):
        yield _open_file(source)
    elif source == STDIN:
        yield _read_video("stdin", "pipe:0")
    elif source.isdecimal():
        yield _read_video(source, int(source))
    elif "://" in source or _is_pipe(source):
        yield _read_video(source, source)
    elif glob.has_magic(source):
        files = [name for name in glob.glob(source, recursive=True) if os.path.isfile(name)]
        yield from _open_files(source, files, "matches no file")
    else:
        problem = f"'{source}' does not exist; give an image, a video, a folder, a glob or a webcam number."
        yield [BadSource(source, problem)]


def _is_pipe(source: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(source).st_mode)
    except (OSError, ValueError):  # not there, or no path at all
        return False


def _pictures(folder: str) -> list[str]:
    """Image and video files of `folder` by their suffix."""
    return [name for name in _files(folder) if _is_known(name)]


def passed_over(source: str) -> list[str]:
    """The files of a folder that are not read, since their suffixes are none of a picture or a video."""
    if not os.path.isdir(source):
        return []
    return sorted(name for name in _files(source) if not _is_known(name) and os.path.isfile(name))


def _files(folder: str) -> list[str]:
    """What is in `folder`; hidden files are other programs' business."""
    try:
        return [str(Path(folder, name)) for name in os.listdir(folder) if name[0] != "."]
    except OSError:
        return []


def _is_known(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _open_files(source: str, names: list[str], if_none: str) -> Iterator[str | Iterable[Frame | BadSource]]:
    if not names:
        yield [BadSource(source, f"'{source}' {if_none}.")]
    yield from map(_open_file, sorted(names))


def _open_file(name: str) -> str | Iterable[Frame | BadSource]:
    try:
        size = os.path.getsize(name)
    except OSError as error:  # a link to nowhere, or gone since the folder was read
        return [BadSource(name, f"'{name}' cannot be read: {error.strerror}.")]
    if size == 0:
        return [BadSource(name, f"'{name}' is empty (0 bytes).")]
    suffix = Path(name).suffix.lower()
    return _read_video(name, name) if suffix in VIDEO_SUFFIXES or suffix == ".gif" and _moves(name) else name


def _moves(name: str) -> bool:
    """Whether an image file holds several pictures, as an animated GIF does."""
    try:
        with _named_in_utf8(name) as opened:
            return cv2.imcount(opened) > 1
    except (cv2.error, OSError, MemoryError):
        return False


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture (H, W, 3) uint8 BGR in an image file. Raises `ZooError` when there is none to read."""
    return _picture(_read_image(os.fspath(path)))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The picture (H, W, 3) uint8 BGR in the bytes of an image file. Raises `ZooError`, with `name`, without one."""
    return _picture(_decode(name, np.frombuffer(data, np.uint8)))


def _picture(found: Frame | BadSource) -> np.ndarray:
    if isinstance(found, BadSource):
        raise ZooError(found.message)
    return found.image


def _read_image(name: str) -> Frame | BadSource:
    try:
        data = np.fromfile(name, np.uint8)  # not cv2.imread, which cannot say why it failed
    except OSError as error:
        return BadSource(name, f"'{name}' cannot be read: {error.strerror}.")
    except MemoryError:
        return BadSource(name, f"'{name}' cannot be decoded: there is not enough memory.")
    return _decode(name, data)


def _decode(name: str, data: np.ndarray) -> Frame | BadSource:
    """The picture in the bytes of an image file."""
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)  # grey, alpha and 16 bits become 8-bit BGR; obeys EXIF rotation
    except (cv2.error, MemoryError) as error:
        if "OPENCV_IO_MAX_IMAGE" in str(error):
            most = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
            return BadSource(name, f"'{name}' has more than {most} pixels; make it smaller, or raise the limit with "
                                   "OPENCV_IO_MAX_IMAGE_PIXELS.")  # fmt: skip
        return BadSource(name, f"'{name}' cannot be decoded: {getattr(error, 'err', 'there is not enough memory')}.")
    if image is None or image.ndim != 3 or image.dtype != np.uint8:
        return BadSource(
            name, f"'{name}' is not an image that OpenCV can decode; is it damaged, or another kind of file?"
        )
    return Frame(name, image)


def _read_video(name: str, device: str | int) -> Iterator[Frame | BadSource]:
    """Frames of a file, URL, pipe or webcam (`device` is a number)."""
    with _named_in_utf8(device) as opened:
        # Of a pipe nothing may be read by a backend that then gives up.
        piped = isinstance(opened, str) and (opened.startswith("pipe:") or _is_pipe(opened))
        capture = cv2.VideoCapture(opened, cv2.CAP_FFMPEG if piped else cv2.CAP_ANY)
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps < 1000 else 30.0  # webcams and damaged headers report 0, NaN or nonsense
        index = 0
        while capture.isOpened():
            found, image = capture.read()
            if not found:
                break
            yield Frame(name, image, index, fps)
            index += 1
    finally:
        capture.release()
    if index == 0:
        what = f"webcam {name}" if isinstance(device, int) else f"'{name}'"
        yield BadSource(name, f"No frame could be read from {what}; check that it exists and that it is a video.")


@contextmanager
def _named_in_utf8(device: str | int) -> Iterator[str | int]:
    """The same file under a name that OpenCV can take: others crash it."""
    try:
        if isinstance(device, str):
            device.encode()
    except UnicodeEncodeError:
        with open(device, "rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
        return
    yield device
