"""facenet-pytorch: MTCNN, whose trained weights are in the package, and FaceNet's Inception-ResNet.

It asks for a PyTorch of 2024 and works with today's: it is installed without what it asks for. Its MTCNN is converted
from David Sandberg's facenet, and that from the authors' Caffe models.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LICENCE = "MIT"
ORIGIN = "facenet-pytorch 2.6.0 on PyPI, by Tim Esler, converted from David Sandberg's facenet"
FACENET = (  # trained on VGGFace2
    "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt"
)
STAGES = {"pnet": "PNet", "rnet": "RNet", "onet": "ONet"}
SHA256 = {  # of the files in the package
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


class FacenetPytorch(Library):
    name = "facenet_pytorch"
    package = "facenet_pytorch"
    install = "pip install --no-deps facenet-pytorch==2.6.0"

    def names(self) -> Collection[str]:
        return [*STAGES, "facenet"]

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which it imports
        from facenet_pytorch import InceptionResnetV1
        from facenet_pytorch.models import mtcnn

        if name not in self.names():
            raise self.unknown(name)
        if name == "facenet":
            return InceptionResnetV1()
        return getattr(mtcnn, STAGES[name])(pretrained=False)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        """Of MTCNN boxes first, scores last, landmarks between them if there are any; of FaceNet the embedding."""
        if not isinstance(result, tuple):
            return {"embedding": result}
        boxes, *landmarks, scores = result
        return {"scores": scores, "boxes": boxes} | dict(zip(["landmarks"], landmarks))

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """Slopes of a PReLU are no scales: with those around 1 nothing would bend."""
        if not name.startswith("prelu"):
            return False
        parameter.data.uniform_(0.05, 0.5, generator=generator)
        return True

    def published(self, name: str) -> Published:
        if name == "facenet":
            return Published(FACENET, None, None, LICENCE, ORIGIN.replace("2.6.0 on PyPI", "2.2.9 on GitHub"))
        if name not in SHA256:
            return super().published(name)
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ZooError(
                f"the published weights of {name} are in the package {self.package!r}, which is missing: {self.install}"
            )
        url = (Path(spec.origin).parent / "data" / f"{name}.pt").as_uri()
        return Published(url, SHA256[name], None, LICENCE, ORIGIN)


LIBRARY = FacenetPytorch()
