"""Text: found and read as docTR's own code does, and the cascade of the two."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import pytest

import zoo
from zoo.errors import ZooError
from zoo.labels import known_labels
from zoo.preprocess import Placement
from zoo.registry import get_cascade, get_model
from zoo.session import CascadeSession
from zoo.tasks import get_task
from zoo.tasks.read import Reading, best_path
from zoo.tasks.text import Texts, words

UNMOVED = Placement((96, 64), (96, 64), (0, 0), (96, 64))


def likely(seed: int) -> np.ndarray:
    """A map with words of many sizes, some at the edge and some of a pixel or two."""
    noise = np.random.default_rng(seed).random((64, 96), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5 + seed, sigmaY=1.2)
    return ((smooth - smooth.min()) / np.ptp(smooth)) ** 2


@pytest.mark.parametrize(("seed", "conf"), [(0, 0.1), (1, 0.25), (2, 0.1)])
def test_words_are_those_of_doctr(seed: int, conf: float) -> None:
    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from doctr.models.detection.differentiable_binarization.base import DBPostProcessor

    ((expected,),) = DBPostProcessor(box_thresh=conf)(likely(seed)[None, ..., None])
    found = get_task("text")({"text": likely(seed)}, UNMOVED, None, {"conf": conf, "bin_thresh": 0.3})
    assert len(expected) > 10 - 3 * seed
    expected = expected[np.lexsort((expected[:, 0], expected[:, 1]))]
    assert np.abs(found.boxes - expected[:, :4] * np.float32([96, 64, 96, 64])).max() < 1e-3
    assert np.abs(found.scores - expected[:, 4]).max() < 1e-6


def test_words_are_in_pixels_of_the_picture() -> None:
    text = np.zeros((64, 96), np.float32)
    text[30:36, 20:60] = 0.8
    box = np.float32([20 - 3.9, 30 - 3.9, 60 + 3.9, 36 + 3.9])  # 240 pixels * 1.5 over a circumference of 92
    (found,), (score,) = words(text, 0.3, 0.1)
    assert np.abs(found - box).max() < 1.5 and score == pytest.approx(0.8 * 240 / (41 * 7))
    placement = Placement((192, 64), (96, 32), (0, 16), (96, 64))
    moved = get_task("text")({"text": text}, placement, None, {"conf": 0.1, "bin_thresh": 0.3}).boxes[0]
    assert moved.tolist() == [2 * found[0], 2 * (found[1] - 16), 2 * found[2], 2 * (found[3] - 16)]
    beside = get_task("text")({"text": np.roll(text, 25, 0)}, placement, None, {"conf": 0.1, "bin_thresh": 0.3})
    assert not len(beside.boxes)  # below the picture


def test_letters_are_those_of_doctr() -> None:
    import torch

    from zoo.verify.torchvision_shim import import_torchvision

    import_torchvision()
    from doctr.datasets import VOCABS
    from doctr.models.recognition.crnn.pytorch import CTCPostProcessor

    letters = known_labels("doctr_french")
    assert "".join(letters[:-1]) == VOCABS["french"] and len(letters) == get_model("crnn_vgg16_bn").config.num_classes
    steps = np.random.default_rng(3).choice([4, 5, 60, 126, 126], (8, 16))
    logits = np.random.default_rng(4).normal(size=(8, 16, 127)).astype(np.float32)
    np.put_along_axis(logits, steps[..., None], 9.0, 2)
    for mine, (text, score) in zip(logits, CTCPostProcessor(vocab=VOCABS["french"])(torch.from_numpy(logits))):
        found = best_path(mine, letters)
        assert found[0] == text and found[1] == pytest.approx(score, abs=1e-6)
    assert best_path(np.eye(4)[[0, 3, 0, 1, 1]], [f"class {i}" for i in range(4)])[0] == "class 0 class 0 class 1"
    with pytest.raises(ZooError, match="overflowed"):
        best_path(np.full((2, 3), np.nan), ["a", "b", ""])


class Readers:
    """Two words, and a reader that tells the width of what it is shown."""

    def results(self, part: str, pictures: Iterable[np.ndarray], **options: Any) -> list[Any]:
        if part == "db_resnet50":
            return [Texts(np.float32([[2, 1, 8.6, 6], [0, 10, 30, 20]]), np.float32([0.5, 0.75]))]
        self.seen = list(pictures)
        return [Reading((f"{picture.shape[1]}",), np.float32([0.25])) for picture in self.seen]


def test_every_word_is_read_where_it_was_found() -> None:
    cascade, run, task = get_cascade("doctr"), Readers(), get_task("text")
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    found = cascade(image, run, task.settings(cascade.options))
    assert np.array_equal(run.seen[0], image[1:7, 2:10]) and np.array_equal(run.seen[1], image[10:20])
    assert found.texts == ("8", "30") and found.sure.tolist() == [0.25, 0.25]
    told = json.loads(json.dumps(task.to_json(found)))["words"]
    assert told[1] == {"text": "30", "sure": 0.25, "score": 0.75, "box": [0, 10, 30, 20]}
    assert task.describe(found)[1] == " 0.25  at 0, 10, 30, 20  30" and task.summarize(found) == "2 words: 8 30"
    assert task.draw(image, found).any()


def test_a_part_answers_with_its_own_task_and_letters() -> None:
    sizes = {"db_mobilenet_v3_large": (64, 64), "crnn_mobilenet_v3_small": (32, 12)}

    def opened(part: str, size: tuple[int, int] | None) -> Any:
        assert size is None
        return zoo.load(part, weights="random", size=sizes[part], device="cpu", threads=1)

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    with CascadeSession(get_cascade("doctr_mobile"), opened, "here", "random") as session:  # type: ignore[arg-type]
        found = session.predict(image, bin_thresh=0.0, conf=0.0)  # all of it is one word
        assert found.boxes.tolist() == [[0, 0, 70, 50]] and len(found.texts) == 1
        assert [key[0] for key in session._sessions] == list(sizes)
        none = session.predict(image, bin_thresh=1.0)
        assert get_task("text").describe(none) == ["no text found"] and none.texts == () and len(none.sure) == 0


def test_one_word_is_read() -> None:
    task = get_task("read")
    logits = np.full((3, 4), -9.0, np.float32)
    logits[[0, 1, 2], [1, 3, 0]] = 9.0
    found = task({"logits": logits}, UNMOVED, ["a", "b", "c", "none"], {})
    assert found.texts == ("ba",) and json.loads(json.dumps(task.to_json(found))) == {"text": "ba", "score": 1.0}
    assert task.describe(found) == [" 1.00  ba"]
    assert task.draw(np.zeros((32, 128, 3), np.uint8), found).any()


@pytest.mark.parametrize(
    ("size", "words"), [((28, 20), "do not fit the LSTM, which reads one row"), ((32, 18), "multiples of 4"),
                        ((-1, 20), "the LSTMs are unrolled over the columns")],
)  # fmt: skip
def test_lines_of_another_height_are_refused(size: tuple[int, int], words: str, rtx: Any) -> None:
    from zoo.engine.definition import define
    from zoo.weights import RandomWeights

    with pytest.raises(ZooError, match=words):
        define(get_model("crnn_mobilenet_v3_small"), RandomWeights(0), rtx, (1, 3, *size))
