"""segmentation-models-pytorch: a decoder over an encoder, "unet_resnet34", with that package's own defaults."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from zoo.verify.references import Library
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import nn

DECODERS = ("unet", "unetplusplus", "fpn", "pspnet", "linknet", "deeplabv3plus")
ENCODERS = ("resnet34", "resnet50")


class SegmentationModels(Library):
    name = "segmentation_models_pytorch"
    package = "segmentation_models_pytorch"
    install = "pip install --no-deps segmentation-models-pytorch==0.6.0"

    def names(self) -> Collection[str]:
        return [f"{decoder}_{encoder}" for decoder in DECODERS for encoder in ENCODERS]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which it imports
        import segmentation_models_pytorch as smp
        from torch import nn

        if name not in self.names():
            raise self.unknown(name)
        decoder, _, encoder = name.partition("_")
        module = smp.create_model(decoder, encoder, encoder_weights=None, classes=classes or 1)
        if decoder == "pspnet":  # it sees three of the five stages, and the others never run
            module.encoder.layer3 = module.encoder.layer4 = nn.Identity()
        return module


LIBRARY = SegmentationModels()
