"""doctr: networks of Mindee that find text (DBNet) and read it (CRNN)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SITE = "https://doctr-static.mindee.com/models?id="
FILES = {
    "db_resnet34": "v0.7.0/db_resnet34-cb6aed9e.pt",
    "db_resnet50": "v0.7.0/db_resnet50-79bd7d70.pt",
    "db_mobilenet_v3_large": "v0.8.1/db_mobilenet_v3_large-21748dd0.pt",
    "crnn_vgg16_bn": "v0.12.0/crnn_vgg16_bn-0417f351.pt",
    "crnn_mobilenet_v3_small": "v0.3.1/crnn_mobilenet_v3_small_pt-3b919a02.pt",
    "crnn_mobilenet_v3_large": "v0.3.1/crnn_mobilenet_v3_large_pt-f5259ec2.pt",
}


class Doctr(Library):
    name = "doctr"
    package = "doctr"
    install = (
        "pip install --no-deps python-doctr==1.1.0 shapely==2.1.1 pyclipper==1.4.0 anyascii==0.3.3 rapidfuzz==3.14.5 "
        "langdetect==1.0.9 pypdfium2==5.0.0 validators==0.35.0 h5py==3.14.0 defusedxml==0.7.1 six==1.17.0"
    )

    def names(self) -> Collection[str]:
        return list(FILES)

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which it imports
        if name not in FILES:
            raise self.unknown(name)
        from doctr.models import detection, recognition

        if name.startswith("db_"):
            module = getattr(detection, name)(pretrained=False, pretrained_backbone=False, exportable=True)
            del module.thresh_head  # for training
            return module
        letters = {} if classes is None else {"vocab": "".join(chr(0x4E00 + i) for i in range(classes - 1))}
        return getattr(recognition, name)(pretrained=False, pretrained_backbone=False, exportable=True, **letters)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        logits = result["logits"]
        return {"logits": logits} if hasattr(module, "vocab") else {"text": logits.sigmoid()[:, 0]}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """What an LSTM multiplies and adds, as PyTorch draws it."""
        if not name.startswith("decoder."):
            return False
        limit = (len(parameter) / 4) ** -0.5
        parameter.data.uniform_(-limit, limit, generator=generator)
        return True

    def published(self, name: str) -> Published:
        file = FILES[name]
        begins = file.rpartition("-")[2].removesuffix(".pt")
        labels = "doctr_french" if name.startswith("crnn") else None
        return Published(
            f"{SITE}{file}&src=0", begins, None, "Apache-2.0", f"docTR {file}", labels, file.rpartition("/")[2]
        )


LIBRARY = Doctr()
