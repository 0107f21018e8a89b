"""What real users' files and habits do to `zoo.run`: names, links, limits, Ctrl-C, and pictures that are theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.images.draw import Pen, draw_bars, draw_boxes
from zoo.images.gallery import Gallery
from zoo.images.sources import BadSource, Frame, open_sources
from zoo.images.writers import VideoSink
from zoo.text import clean

ROOT = Path(__file__).resolve().parent.parent
LENET = ROOT / "zoo" / "weights" / "lenet5.safetensors"
DRAWN = np.full((40, 40, 3), 7, np.uint8)


def picture(path: Path, value: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(path.suffix, np.full((30, 30, 3), value, np.uint8))[1]
    path.write_bytes(data.tobytes())
    return path


def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo.run", "lenet5", "-w", str(LENET), "--device", "cpu", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", **options)  # type: ignore[call-overload]


# Users' files are theirs


def test_pictures_beside_the_drawn_ones_stay(tmp_path: Path) -> None:
    """The folder that is read is the folder that is written to, and names meet."""
    pics = tmp_path / "pics"
    before = {name: picture(pics / name, value).read_bytes() for value, name in ((10, "a.png"), (20, "a-2.png"))}
    (pics / "results.json").write_text("mine")
    result = run(pics, "--save", pics)
    assert result.returncode == 0, result.stderr
    assert all((pics / name).read_bytes() == data for name, data in before.items())
    assert (pics / "results.json").read_text() == "mine"
    assert sorted(path.name for path in pics.iterdir()) == [
        ".zoo-files", "a-2-2.png", "a-2.png", "a-3.png", "a.png", "results-2.json", "results.json",
    ]  # fmt: skip


def test_a_source_of_the_same_name_from_elsewhere_is_not_lost(tmp_path: Path) -> None:
    mine, other = picture(tmp_path / "x" / "a.png", 10), picture(tmp_path / "y" / "a.png", 20)
    before = mine.read_bytes()
    assert run(other, mine, "--save", mine.parent).returncode == 0
    assert mine.read_bytes() == before


def test_what_a_run_wrote_the_next_one_replaces(tmp_path: Path) -> None:
    source, out = picture(tmp_path / "a.png"), tmp_path / "out"
    for _ in range(2):
        with Gallery(out) as gallery:
            frame = Frame(str(source), DRAWN)
            assert gallery.place(frame) == out / "a.png"
            gallery.write(frame, DRAWN, gallery.place(frame))
            assert gallery.claim("results.json") == out / "results.json"


@pytest.mark.parametrize("line", ['"../../a.png"', "[]", "no json", '"/etc/passwd"', "\xff"])
def test_a_forged_record_gives_nothing_away(tmp_path: Path, line: str) -> None:
    (tmp_path / ".zoo-files").write_text(line + "\n", encoding="latin-1")
    picture(tmp_path / "a.png", 1)
    with Gallery(tmp_path) as gallery:
        assert gallery.place(Frame("elsewhere/a.png", DRAWN)).name == "a-2.png"


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(picture(tmp_path / "a.png"), "--save", tmp_path / "file" / "out")
    assert result.returncode == 2 and "cannot be saved" in result.stderr and "Traceback" not in result.stderr


# One bad file does not lose the run


def test_every_bad_source_is_one_sentence(tmp_path: Path) -> None:
    pics = tmp_path / "pics"
    picture(pics / "good.png")
    picture(pics / os.fsdecode(b"caf\xe9.png"))
    picture(pics / ("n" * 251 + ".png"))
    (pics / "dangling.png").symlink_to(tmp_path / "nowhere")
    (pics / "loop.png").symlink_to(pics / "loop.png")
    (pics / "grey.png").write_bytes(b"Pf\n2 2\n-1.0\n" + np.zeros(4, np.float32).tobytes())
    (pics / os.fsdecode(b"film\xe9.mp4")).write_bytes(b"no film")
    result = run(pics, "--save", tmp_path / "out")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    answer = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert {Path(item["source"]).name[:4] for item in answer["results"]} == {"good", "caf\udce9"[:4], "nnnn"}
    assert {Path(item["source"]).name[:4] for item in answer["errors"]} == {"dang", "loop", "grey", "film"}


def test_pictures_of_browsers_and_phones_are_read_in_folders(tmp_path: Path) -> None:
    data = picture(tmp_path / "a.jpg").read_bytes()
    for name in ("b.jfif", "c.mpo"):
        (tmp_path / name).write_bytes(data)
    assert [Path(frame.name).name for frame in open_sources([str(tmp_path)])] == ["a.jpg", "b.jfif", "c.mpo"]


def test_a_folder_says_what_it_passes_over(tmp_path: Path) -> None:
    data = picture(tmp_path / "pics" / "a.png").read_bytes()
    for name in ("b", "c.data", "d.picture", "e.txt", ".hidden"):
        (tmp_path / "pics" / name).write_bytes(data)
    (tmp_path / "pics" / "inner").mkdir()
    result = run(tmp_path / "pics", "--save", tmp_path / "out")
    words = "4 files passed over, which are no pictures or videos by their suffix: b, c.data, d.picture, …"
    assert result.returncode == 0 and f"{tmp_path / 'pics'}: {words}" in result.stderr.splitlines()
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["results"]) == 1


@pytest.mark.parametrize(("pictures", "frames"), [(1, [None]), (3, [0, 1, 2])])
def test_a_gif_that_moves_is_a_video(pictures: int, frames: list[int | None], tmp_path: Path) -> None:
    from PIL import Image

    first, *rest = (Image.new("L", (30, 30), 80 * i) for i in range(pictures))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    found = [*open_sources([str(tmp_path)])]
    assert [frame.index if frame.is_video else None for frame in found] == frames  # type: ignore[union-attr]
    assert [int(frame.image.mean()) for frame in found] == [80 * i for i in range(pictures)]  # type: ignore[union-attr]


def test_names_given_to_a_run(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n")
    seven = ROOT / "samples" / "digit_7.png"
    result = run(seven, "--names", names, "--save", tmp_path / "out")
    assert result.returncode == 0 and "  seven (7)" in result.stdout, result.stdout + result.stderr
    result = run(seven, "--names", "a,b", "--save", tmp_path / "out")
    assert result.returncode == 2 and "10 classes but 2 labels were given; give one per class" in result.stderr
    part = [sys.executable, "-m", "zoo.run", "mtcnn", str(seven), "--weights", "random", "--names", "a,b"]
    result = subprocess.run(
        part, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True
    )
    last = "error: the task 'faces' of mtcnn has no classes; leave --names away"
    assert result.returncode == 2 and result.stderr.splitlines()[-1] == last
    result = run(seven, "--names", ",", "--save", tmp_path / "out")
    assert result.returncode == 2 and result.stderr.startswith("error: --names ',' holds no name")


def test_a_picture_of_too_many_pixels(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = bytearray(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    header[16:24] = (1 << 20).to_bytes(4, "big") * 2  # width and height
    path.write_bytes(header)
    (found,) = open_sources([str(path)])
    assert isinstance(found, BadSource)


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (3, 4000)])
def test_ribbons_are_drawn_with_a_pen_that_fits(shape: tuple[int, int]) -> None:
    ribbon = np.zeros((*shape, 3), np.uint8)
    drawn = draw_bars(ribbon, ["a name", "another"], [0.9, 0.1])
    assert drawn.nbytes < 60 * ribbon.nbytes + 10_000_000
    assert draw_boxes(ribbon, np.zeros((1, 4)), ["tag"], [(1, 2, 3)]).shape == ribbon.shape


@pytest.mark.parametrize("text", ["\ud800", "a\x1b[2Jb", "x" * 100_000, "\u202egnp.exe", "é" * 5000])
def test_any_text_can_be_drawn_quickly(text: str) -> None:
    started = time.monotonic()
    pen = Pen(np.zeros((480, 640, 3), np.uint8))
    assert pen.width(pen.fitted(text, 300)) <= 300
    pen.text(text, 5, 50, (255, 255, 255))
    assert time.monotonic() - started < 2


def test_text_is_cleaned() -> None:
    assert clean("café, 猫 and 🐈") == "café, 猫 and 🐈"
    assert clean("a\x1b[31m\nb\x9b\u202e\udc80") == "a\\x1b[31m\\nb\\x9b\\u202e\\udc80"
    assert clean("x" * 500, 10) == "x" * 10 + "… (500 characters)"


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = picture(tmp_path / "a\x1b[2J\nerror: forged.png")
    result = run(evil, tmp_path / "b\x1b]0;title\x07.png", "--save", tmp_path / "out")
    assert "\x1b" not in result.stdout + result.stderr and "\x07" not in result.stderr
    assert not any(line.startswith("error: forged") for line in (result.stdout + result.stderr).splitlines())


# Videos


def frames(count: int) -> list[np.ndarray]:
    return [np.full((32, 48, 3), 5 * i % 255, np.uint8) for i in range(count)]


def test_a_video_that_is_not_whole_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = VideoSink(tmp_path / "v.mp4", 10, (48, 32))
    for frame in frames(5):
        sink.write(frame)
    sink._writer.release()
    data = sink._temporary.read_bytes()
    sink._temporary.write_bytes(data[: len(data) // 2])  # what a full disk leaves
    with pytest.raises(ZooError, match="could not be written whole, only 0 of 5 frames"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_finishes_the_video_and_the_results(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"mp4v"), 25, (48, 32))
    for frame in frames(60) * 200:
        writer.write(frame)
    writer.release()
    command = [sys.executable, "-m", "zoo.run", "lenet5", "-w", str(LENET), "--device", "cpu", str(film)]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*command, "--save", str(out)], env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(20):  # twenty frames are done
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    answer = json.loads((out / "results.json").read_text())
    capture = cv2.VideoCapture(str(out / "film.mp4"))
    assert 20 <= len(answer["results"]) == int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) < 12_000
