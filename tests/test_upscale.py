"""Super-resolution: tiles against the whole picture, with a network whose view is known, and what is told and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import zoo
from zoo.errors import ZooError
from zoo.models.realesr_compact import Config as Compact
from zoo.models.realesrgan import Config as Dense
from zoo.preprocess import Placement, Resize, tiles
from zoo.registry import get_model
from zoo.runtime.predict import make_predictor
from zoo.session import Session
from zoo.tasks import get_task
from zoo.weights import from_arrays

VIEW = 3  # pixels on each side that `Blur` sees


class Blur:
    """Twice the size, of means of 7x7 pixels with zeros beside the input, as a convolution pads; `phase` is darker in
    every second row and column, counted from the input's corner, as a network that joins 2x2 pixels might be."""

    def __init__(self, phase: float = 0.0) -> None:
        self.phase, self.batches = phase, list[int]()

    def __call__(self, images: np.ndarray, *, views: bool = False) -> dict[str, np.ndarray]:
        self.batches.append(len(images))
        side = 2 * VIEW + 1
        means = [[cv2.blur(channel, (side, side), borderType=cv2.BORDER_CONSTANT) for channel in x] for x in images]
        found = np.stack(means).repeat(2, 2).repeat(2, 3)
        found[..., ::4, ::4] *= 1 - self.phase
        return {"picture": found}

    def close(self) -> None: ...


def session(size: tuple[int, int], stride: int = 1, network: Any = None) -> Session:
    model = get_model("realesrgan_x2plus")
    return Session(model, network or Blur(), "here", Resize(size, stride=stride), size, None, "none")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("picture", "tile", "overlap", "stride"),
    [((40, 57), (16, 20), 3, 1), ((31, 16), (16, 16), 4, 1), ((17, 90), (8, 31), 3, 1), ((46, 62), (16, 24), 4, 2)],
)
def test_tiles_give_what_the_whole_picture_gives(
    picture: tuple[int, int], tile: tuple[int, int], overlap: int, stride: int
) -> None:
    image, phase = noise(*picture), 0.5 if stride == 2 else 0.0
    whole = session(picture, stride, Blur(phase)).predict(image)
    assert whole.picture.shape == (2 * picture[0], 2 * picture[1], 3) and whole.scale == 2
    tiled = session(tile, stride, Blur(phase)).predict(image, overlap=overlap)
    assert np.array_equal(tiled.picture, whole.picture)
    less = session(tile, stride, Blur(phase)).predict(image, overlap=VIEW - 1)
    assert not np.array_equal(less.picture, whole.picture)


def test_tiles_go_through_together_and_the_channels_stay_blue_green_red() -> None:
    image, network = np.full((30, 30, 3), (10, 120, 240), np.uint8), Blur()
    with make_predictor(session((12, 12), network=network), batch=4, overlap=3) as predictor:
        found = predictor(image).result
    assert network.batches == [4, 4, 4, 4]
    assert found.picture[30, 30].tolist() == [10, 120, 240]


def test_a_picture_that_is_smaller_than_a_tile_is_continued_by_its_edge() -> None:
    image = np.full((9, 5, 3), 200, np.uint8)
    found = session((16, 16)).predict(image)
    assert found.picture.shape == (18, 10, 3)
    assert (found.picture[2 * VIEW :, 2 * VIEW :] == 200).all()  # zeros would be darker at the edge
    assert session((16, 16), 2).predict(noise(19, 33), overlap=4).picture.shape == (38, 66, 3)


def test_every_pixel_is_answered_for_once() -> None:
    for length in range(1, 60):
        for side, overlap, stride in ((16, 4, 1), (16, 3, 2), (12, 0, 4)):
            spans = [tile.columns for tile in tiles((5, length), (side, side), overlap, stride)]
            assert [i for span in spans for i in range(span.first, span.end)] == list(range(length))
            for span in spans:
                assert span.start % stride == 0 and span.first < span.end
                assert span.start == 0 or span.first - span.start >= overlap
                assert span.end == length or span.start + side - span.end >= overlap


def test_tiles_that_are_all_overlap_are_refused() -> None:
    with pytest.raises(ZooError, match=r"tiles of 32 pixels that overlap by 16 .*more than 32"):
        session((32, 32)).predict(noise(40, 40))
    assert session((32, 32)).predict(noise(32, 30)).picture.shape == (64, 60, 3)


def test_it_is_drawn_and_told() -> None:
    task = get_task("upscale")
    values = np.stack([np.full((8, 12), value, np.float32) for value in (1.2, 0.5, -0.1)])
    found = task({"picture": values}, Placement((5, 3), (5, 3), (0, 0), (6, 4)), None, task.settings({}))
    assert found.picture.shape == (6, 10, 3) and found.picture[0, 0].tolist() == [0, 128, 255]
    assert np.array_equal(task.draw(noise(3, 5), found), found.picture)
    assert task.describe(found) == ["2 times as large: 10x6"]
    assert json.loads(json.dumps(task.to_json(found))) == {"scale": 2, "upscaled": {"width": 10, "height": 6}}
    with pytest.raises(ZooError, match="overflowed"):
        task({"picture": values * np.nan}, Placement((6, 4), (6, 4), (0, 0), (6, 4)), None, task.settings({}))


def test_weights_tell_scale_and_depth() -> None:
    arrays = {"conv_first.weight": np.zeros((64, 12, 3, 3)), "body.3.rdb1.conv1.bias": np.zeros(32)}
    arrays |= {f"body.{i}.rdb1.conv1.bias": np.zeros(32) for i in range(3)}
    model = get_model("realesrgan_x4plus").configured(from_arrays(arrays, "here"))
    assert model.config == Dense(blocks=4, scale=2)
    arrays = {f"body.{i}.bias": np.zeros(64) for i in (0, 2, 4)} | {"body.6.bias": np.zeros(12)}
    assert get_model("realesr_general_x4v3").configured(from_arrays(arrays, "here")).config == Compact(2, scale=2)


def test_a_picture_is_run(tmp_path: Path) -> None:
    from zoo.run import run

    cv2.imwrite(str(tmp_path / "a.png"), noise(21, 30))
    with pytest.raises(SystemExit) as status:
        run("realesr_animevideov3", [str(tmp_path / "a.png")], weights="random", size="24x24", save=tmp_path, overlap=8,
            device="cpu")  # fmt: skip
    assert status.value.code == 0
    record = json.loads((tmp_path / "results.json").read_text())["results"][0]
    assert cv2.imread(record["picture"]).shape == (84, 120, 3)
    with zoo.load("realesr_animevideov3", weights="random", size=(24, 24), device="cpu") as loaded:
        assert loaded.predict(noise(21, 30), overlap=8).scale == 4
