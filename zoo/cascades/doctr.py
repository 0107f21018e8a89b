"""docTR: text is found, and read word by word, on pages that are upright (docTR 1.1 with `split_wide_crops=False`).

A word goes to the reader as it lies in the picture, one pixel wider and higher than its box. Words that are more than
four times as wide as high are made smaller, so that they fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.cascades import Cascade, Run
from zoo.tasks.text import Texts


class Doctr(Cascade):
    """DBNet over ResNet-50 finds the words, CRNN over VGG-16 reads them."""

    name = "doctr"
    task = "text"
    parts = ("db_resnet50", "crnn_vgg16_bn")
    paper = "https://github.com/mindee/doctr"

    def __call__(self, image: np.ndarray, run: Run, options: Mapping[str, Any]) -> Texts:
        finder, reader = self.parts
        (found,) = run.results(finder, [image], **options)
        boxes = found.boxes.round().astype(int)
        read = run.results(reader, [np.ascontiguousarray(image[y1 : y2 + 1, x1 : x2 + 1]) for x1, y1, x2, y2 in boxes])
        sure = [reading.scores for reading in read] or [np.zeros(0, np.float32)]
        return replace(found, texts=tuple(r.texts[0] for r in read), sure=np.concatenate(sure))


class DoctrMobile(Doctr):
    """The same over MobileNetV3."""

    name = "doctr_mobile"
    parts = ("db_mobilenet_v3_large", "crnn_mobilenet_v3_small")
