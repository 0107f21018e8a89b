"""ultralytics: YOLOv3u, v5u, v8 and later, from the descriptions in its package.

The class of a model follows the task in its description; `-cls` returns (probabilities, logits), the others a tensor
(N, 4 + classes + extra, A) of boxes, scores and what else is found, before any selection.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor, nn

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
LICENCE = "AGPL-3.0"
DATA = {"cls": "ImageNet", "obb": "DOTAv1"}  # that weights are trained on, by the ending of their names; else COCO
TRAINED_CLASSES = {"pose": 1, "obb": 15}  # the classes of its weights, where its descriptions say others


class Ultralytics(Library):
    name = "ultralytics"
    package = "ultralytics"
    install = "pip install 'tensorrt-zoo[reference]'"

    def split(self, source: str) -> str | None:
        """Names here have no hyphens; ultralytics' have nothing else: yolov8n_cls is yolov8n-cls there."""
        name = super().split(source)
        return None if name is None else name.replace("_", "-")

    def names(self) -> Collection[str]:
        quiet()
        import ultralytics

        folder = Path(ultralytics.__file__).parent / "cfg" / "models"
        found = [(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/*.yaml"))]
        names = []
        for stem, text in found:
            sized = re.fullmatch(r"yolov?\d+[a-z]", stem)  # such as yolov10n.yaml, a file for each size
            sizes = "" if sized or "\nscales:" not in text else "nsmlx"
            names += [re.sub(r"(\d+)", rf"\1{size}", stem, count=1) for size in sizes] or [stem]
        return [*names, *(f"{name.replace('-p6', '6')}u" for name in names if re.match(r"yolov[35]", name))]

    def load(self, name: str, classes: int | None) -> nn.Module:
        quiet()
        from ultralytics.nn import tasks
        from ultralytics.utils import LOGGER

        LOGGER.setLevel(logging.WARNING)  # it tells of every class count that is not its description's
        kinds = {
            "detect": tasks.DetectionModel,
            "classify": tasks.ClassificationModel,
            "pose": tasks.PoseModel,
            "segment": tasks.SegmentationModel,
            "obb": tasks.OBBModel,
        }
        # yolov5nu is yolov5n.yaml there, and yolov5n6u yolov5n-p6.yaml
        file = re.sub(r"^(yolov[35].*?)u?$", r"\1", re.sub(r"6u$", "-p6u", name)) + ".yaml"
        try:
            description = tasks.yaml_model_load(file)
        except FileNotFoundError:
            raise self.unknown(name) from None
        task = "detect" if name.startswith("rtdetr") else tasks.guess_model_task(description)
        if task not in kinds:
            raise ZooError(f"{name} of ultralytics does {task}; its models here are those that {' and '.join(kinds)}")
        classes = classes or TRAINED_CLASSES.get(task)
        kind = tasks.RTDETRDetectionModel if name.startswith("rtdetr") else kinds[task]
        return self.adopt(kind(file, verbose=False, **{} if classes is None else {"nc": classes}))

    def adopt(self, module: nn.Module) -> nn.Module:
        from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

        if isinstance(module, RTDETRDetectionModel):
            _without_training(module.model[-1])
        elif isinstance(module, DetectionModel):
            _without_selection(module.model[-1])
        return module

    def choosers(self, module: nn.Module) -> Collection[str]:
        head = len(module.model) - 1
        return [f"model.{head}.enc_score_head"] if hasattr(module.model[head], "enc_score_head") else []

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        import torch
        from ultralytics.nn.tasks import (
            ClassificationModel,
            OBBModel,
            PoseModel,
            RTDETRDetectionModel,
            SegmentationModel,
        )

        if isinstance(module, RTDETRDetectionModel):
            boxes, scores = result[0].transpose(1, 2).split((4, module.model[-1].nc), dim=1)
            height, width = (8 * side for side in module.model[-1].shapes[0])
            return {"boxes": boxes * boxes.new_tensor([width, height] * 2)[:, None], "scores": scores}
        if isinstance(module, ClassificationModel):
            return {"logits": result[1]}
        masked, head = isinstance(module, SegmentationModel), module.model[-1]
        found = result[0][0] if masked else result[0]
        if head.end2end:
            found = found.transpose(1, 2)  # (N, A, 4 + classes + extra)
        boxes, scores, extra = found.split((4, head.nc, found.shape[1] - 4 - head.nc), dim=1)
        if head.end2end and not isinstance(module, OBBModel):  # by their corners
            left_top, right_bottom = boxes[:, :2], boxes[:, 2:]
            boxes = torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=1)
        outputs = {"boxes": boxes, "scores": scores}
        if isinstance(module, PoseModel):
            outputs["keypoints"] = extra.unflatten(1, head.kpt_shape)
        if isinstance(module, OBBModel):
            outputs["angles"] = extra
        if masked:
            outputs |= {"coefficients": extra, "prototypes": result[0][1]}
        return outputs

    def forget(self, module: nn.Module) -> None:
        """Its heads keep the anchor grid of the last input, in the precision of that run."""
        for head in module.modules():
            if hasattr(head, "shape") and hasattr(head, "strides"):
                head.shape = None
            if hasattr(head, "valid_mask"):
                head.shapes = []

    def published(self, name: str) -> Published:
        file = f"{name}u.pt" if re.fullmatch(r"yolov[35]\w*(?<!u)", name) else f"{name}.pt"
        data = DATA.get(name.rpartition("-")[2], "COCO")
        return Published(
            f"{RELEASE}/{file}", None, None, LICENCE, f"ultralytics {name}, trained by Ultralytics on {data}"
        )


def _without_selection(head: Any) -> None:
    """The head gives all boxes and scores, before any are selected.

    Heads that need no suppression (v10, 26) have two: one for training, which goes with whatever else serves training
    only, as it does when ultralytics fuses a model, and the one that answers.
    """
    head.end2end = getattr(head, "one2one_cv2", None) is not None
    if head.end2end:
        head.fuse()
        head.postprocess = _as_they_are


def _without_training(head: Any) -> None:
    """RT-DETR's head without what serves training only, and with all classes of all queries for a result."""
    import torch
    from torch import nn

    head.denoising_class_embed = nn.Identity()
    head.denoising_class_embed.weight = None
    for i in range(len(head.dec_score_head) - 1):
        head.dec_score_head[i] = nn.Identity()
    head.postprocess = lambda boxes, scores: torch.cat([boxes, scores], dim=-1)


def _as_they_are(found: Tensor) -> Tensor:
    return found


def quiet() -> None:
    """Before the import of ultralytics: no network, no banner, and its settings file in a folder that goes away."""
    import_torchvision()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = folder = tempfile.mkdtemp(prefix="zoo-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


LIBRARY = Ultralytics()
