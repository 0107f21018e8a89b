"""Many pictures and streams: what threads and batches give is what one picture after the other gives."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from zoo import load
from zoo import run as command
from zoo.errors import ZooError
from zoo.images import sources
from zoo.images.gallery import Gallery
from zoo.images.sources import BadSource, open_sources
from zoo.runtime.predict import BatchPredictor, Predictor, make_predictor
from zoo.session import Session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with load("lenet5", device="cpu", threads=1) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several sizes, two bad ones, and a video."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(11):
        shape = (24 + 3 * index, 40 - index, 3)
        cv2.imwrite(str(folder / f"{index:02}.png"), random.integers(0, 256, shape, np.uint8))
    (folder / "03.png").write_bytes(b"no picture")
    (folder / "10.png").write_bytes(b"")
    film(folder / "05.avi", 7)
    return folder


def film(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for index in range(frames):
        writer.write(np.full((32, 32, 3), 30 * index, np.uint8))
    writer.release()


def ran(predictor: Any, folder: Path, save: Path, draws: bool = True) -> tuple[Any, list[str]]:
    """What a run gave, without times, and the names that it told of."""
    told: list[str] = []
    show = lambda frame, prediction, path: told.append(frame.name)  # noqa: E731
    with predictor:
        outcome = command._predict_all(predictor, open_sources([str(folder)]), Gallery(save), draws, show)
    items = [{key: value for key, value in item.items() if key not in ("ms", "picture")} for item in outcome.items]
    return (items, outcome.bad), told


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".png", ".mp4")}


def test_threads_give_what_one_gives(
    session: Session, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: Predictor, image: np.ndarray) -> Any:
        """The first pictures take longest: whoever is done first is not the first."""
        time.sleep(0.02 if image.shape[0] < 40 else 0)
        return call(self, image)

    call = Predictor.__call__
    monkeypatch.setattr(sources, "DECODERS", 1)
    monkeypatch.setattr(command, "WRITERS", 1)
    alone = ran(make_predictor(session), folder, tmp_path / "one")
    monkeypatch.setattr(sources, "DECODERS", 8)
    monkeypatch.setattr(command, "WRITERS", 8)
    monkeypatch.setattr(Predictor, "__call__", slow)
    threaded = ran(make_predictor(session), folder, tmp_path / "many")
    assert threaded == alone
    (items, bad), told = alone
    assert len(items) == len(told) == 9 + 7 and [Path(b["source"]).name for b in bad] == ["03.png", "10.png"]
    assert [Path(item["source"]).name for item in items] == sorted(Path(item["source"]).name for item in items)
    assert written(tmp_path / "many") == written(tmp_path / "one") and len(written(tmp_path / "one")) == 10


@pytest.mark.parametrize("batch", [3, 64])
def test_batches_give_what_single_pictures_give(session: Session, folder: Path, tmp_path: Path, batch: int) -> None:
    sizes: list[int] = []

    class Counting:
        """The session, which notes how many images it is given at once."""

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def __call__(self, images: np.ndarray) -> Any:
            sizes.append(len(images))
            return session(images)

    alone, told = ran(make_predictor(session), folder, tmp_path / "one", draws=False)
    assert written(tmp_path) == {} and not (tmp_path / "one").exists()
    found, told_in_batches = ran(make_predictor(Counting(), batch=batch), folder, tmp_path / "many", draws=False)  # type: ignore[arg-type]
    assert told_in_batches == told and found[1] == alone[1]
    for mine, other in zip(found[0], alone[0], strict=True):
        assert [entry["label"] for entry in mine["classes"]] == [entry["label"] for entry in other["classes"]]
        scores = [[entry["score"] for entry in item["classes"]] for item in (mine, other)]
        assert np.allclose(*scores, atol=2e-6)  # a matrix product of many rows sums in another order
    assert sizes == ([3, 3, 3, 3, 3, 1] if batch == 3 else [16])


def test_a_picture_that_fails_costs_its_batch_nothing(session: Session) -> None:
    with make_predictor(session, batch=3) as predictor:
        assert isinstance(predictor, BatchPredictor)
        good = np.zeros((20, 20, 3), np.uint8)
        pending = [predictor.submit(image) for image in (good, np.zeros((20, 20), np.uint8), good, good)]
        with pytest.raises(ZooError, match="Expected a picture"):
            pending[1].result()
        results = [pending[index].result().result.scores for index in (0, 2, 3)]
    assert np.allclose(results[0], results[1]) and np.allclose(results[0], results[2])


def test_what_takes_one_picture_at_a_time_says_so() -> None:
    with (
        load("mtcnn", device="cpu", weights="random") as cascade,
        pytest.raises(ZooError, match="is a cascade.*one by"),
    ):
        make_predictor(cascade, batch=2)


def test_of_each_video_so_many_frames(folder: Path) -> None:
    film(folder / "06.avi", 2)
    found = [frame for frame in open_sources([str(folder)], frames=3) if not isinstance(frame, BadSource)]
    assert [frame.index for frame in found if frame.is_video] == [0, 1, 2, 0, 1]
    assert sum(not frame.is_video for frame in found) == 9


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_video_from_a_pipe(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 5)
    os.mkfifo(tmp_path / "pipe")
    data = (tmp_path / "a.avi").read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    writer.start()
    found = list(open_sources([str(tmp_path / "pipe")]))
    writer.join()
    assert [frame.index for frame in found] == [0, 1, 2, 3, 4]
    assert abs(float(found[4].image.mean()) - 120) < 3


def test_a_video_on_standard_input(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 2)
    kept = os.dup(0)
    with open(tmp_path / "a.avi", "rb") as file:
        os.dup2(file.fileno(), 0)
        try:
            found = list(open_sources(["-"]))
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    assert [(frame.name, frame.index) for frame in found] == [("stdin", 0), ("stdin", 1)]
