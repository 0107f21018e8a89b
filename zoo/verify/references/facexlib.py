"""facexlib: what Real-ESRGAN's authors use on faces: RetinaFace of biubug6, ArcFace and MobileFaceNet of TreB1eN, and
for the parts of faces BiSeNet of zllrunning and ParseNet of PSFR-GAN."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

URL = "https://github.com/xinntao/facexlib/releases/download/"
FILES = {
    "arcface_ir_se50": "v0.1.0/recognition_arcface_ir_se50.pth",
    "bisenet_face": "v0.2.0/parsing_bisenet.pth",
    "parsenet": "v0.2.2/parsing_parsenet.pth",
    "retinaface_mobile025": "v0.1.0/detection_mobilenet0.25_Final.pth",
    "retinaface_resnet50": "v0.1.0/detection_Resnet50_Final.pth",
}
LABELS = {"bisenet_face": "face_parts", "parsenet": "celebamask"}
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
        if name == "bisenet_face":
            return _bisenet(classes or 19)
        if name == "parsenet":
            return _parsenet(classes or 19)
        return MobileFaceNet(512) if name == "mobilefacenet" else Backbone(50, 0.4, "ir_se")

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        if hasattr(module, "conv_out") or hasattr(module, "out_mask_conv"):  # the last layers of what parses
            return {"logits": result[0]}
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
        file, labels = FILES[name], LABELS.get(name)
        origin = f"facexlib {file.partition('/')[0]} on GitHub, by Xintao Wang"
        return Published(URL + file, None, None, "MIT", origin, labels)


def _retinaface(name: str) -> nn.Module:
    """The detector, which will keep the size (H, W) of its last input: its anchors depend on it."""
    from facexlib.detection.retinaface import RetinaFace

    module = RetinaFace({"retinaface_mobile025": "mobile0.25", "retinaface_resnet50": "resnet50"}[name], device="cpu")
    module.register_forward_pre_hook(lambda detector, inputs: setattr(detector, "size", inputs[0].shape[2:]))
    return module


def _bisenet(classes: int) -> nn.Module:
    """Without the layers of two heads for training."""
    from facexlib.parsing.bisenet import BiSeNet
    from torch import nn

    module = BiSeNet(classes)
    for head in (module.conv_out16, module.conv_out32):
        head.conv, head.conv_out = nn.Identity(), nn.Identity()
    return module


def _parsenet(classes: int) -> nn.Module:
    from facexlib.parsing.parsenet import ParseNet
    from torch import nn

    module = ParseNet(in_size=512, out_size=512, parsing_ch=classes)
    module.out_img_conv = nn.Identity()  # draws a face, for training
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
