"""facexlib: what Real-ESRGAN's authors use on faces: RetinaFace of biubug6, ArcFace and MobileFaceNet of TreB1eN."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

URL = "https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
FILES = {
    "arcface_ir_se50": "recognition_arcface_ir_se50.pth",
    "retinaface_mobile025": "detection_mobilenet0.25_Final.pth",
    "retinaface_resnet50": "detection_Resnet50_Final.pth",
}
SLOPES = re.compile(r"(.*\.)?prelu\.weight|(.*\.)?(res|input)_layer\.2\.weight")  # of PReLUs


class Facexlib(Library):
    name = "facexlib"
    package = "facexlib"
    install = "pip install --no-deps facexlib==0.3.0"

    def names(self) -> Collection[str]:
        return [*FILES, "mobilefacenet"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which it imports
        from facexlib.recognition.arcface_arch import Backbone, MobileFaceNet

        if name not in self.names():
            raise self.unknown(name)
        if name.startswith("retinaface"):
            return _retinaface(name)
        return MobileFaceNet(512) if name == "mobilefacenet" else Backbone(50, 0.4, "ir_se")

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"embedding": result} if not isinstance(result, tuple) else _in_pixels(module, *result)

    def forget(self, module: nn.Module) -> None:
        module.size = None

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Slopes of a PReLU are no scales: with those around 1 nothing would bend."""
        if not SLOPES.fullmatch(name):
            return False
        parameter.data.uniform_(0.05, 0.5, generator=generator)
        return True

    def published(self, name: str) -> Published:
        if name not in FILES:
            return super().published(name)
        return Published(URL + FILES[name], None, None, "MIT", "facexlib v0.1.0 on GitHub, by Xintao Wang")


def _retinaface(name: str) -> nn.Module:
    """The detector, which will keep the size (H, W) of its last input: its anchors depend on it."""
    from facexlib.detection.retinaface import RetinaFace

    module = RetinaFace({"retinaface_mobile025": "mobile0.25", "retinaface_resnet50": "resnet50"}[name], device="cpu")
    module.register_forward_pre_hook(lambda detector, inputs: setattr(detector, "size", inputs[0].shape[2:]))
    return module


def _in_pixels(module: nn.Module, boxes: Tensor, scores: Tensor, landmarks: Tensor) -> dict[str, Tensor]:
    """What the detector returned, decoded by facexlib's own functions, as pixels of the input."""
    from facexlib.detection.retinaface_utils import PriorBox, batched_decode, batched_decode_landm

    height, width = module.size
    anchors, variances = PriorBox(module.cfg, (height, width)).forward().to(boxes.dtype)[None], module.cfg["variance"]
    scale = boxes.new_tensor([width, height])
    first, second = (batched_decode(boxes, anchors, variances) * scale.repeat(2)).split(2, dim=2)
    points = batched_decode_landm(landmarks, anchors, variances).unflatten(2, (5, 2)) * scale
    return {
        "boxes": _last((first + second) / 2, second - first),
        "scores": scores[..., 1],
        "landmarks": points.permute(0, 2, 3, 1),
    }


def _last(*parts: Tensor) -> Tensor:
    """Joined, with the anchors last."""
    import torch

    return torch.cat(parts, dim=2).transpose(1, 2)


LIBRARY = Facexlib()
