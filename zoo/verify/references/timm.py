"""timm: PyTorch image models, with `timm.create_model`.

Its weights lie on the Hugging Face hub, each in a repository of its own; timm publishes hashes of the older files only.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    from torch import nn

HUB = "https://huggingface.co/timm"
# The repositories of the weights that timm loads by default, by their licences: names of models, and of their training.
WEIGHTS = {
    "mit": """
repvgg_a0.rvgg_in1k repvgg_a1.rvgg_in1k repvgg_a2.rvgg_in1k repvgg_b0.rvgg_in1k repvgg_b1.rvgg_in1k
repvgg_b1g4.rvgg_in1k repvgg_b2.rvgg_in1k repvgg_b2g4.rvgg_in1k repvgg_b3.rvgg_in1k repvgg_b3g4.rvgg_in1k
""",
    "mobileone-license": """
mobileone_s0.apple_in1k mobileone_s1.apple_in1k mobileone_s2.apple_in1k mobileone_s3.apple_in1k mobileone_s4.apple_in1k
""",
}
_REPOSITORIES = {
    repository.partition(".")[0]: (repository, licence)
    for licence, repositories in WEIGHTS.items()
    for repository in repositories.split()
}


class Timm(Library):
    name = "timm"
    package = "timm"
    install = "pip install timm"

    def names(self) -> Collection[str]:
        import timm

        return timm.list_models()

    def load(self, name: str, classes: int | None) -> nn.Module:
        import_torchvision()  # which timm imports
        import timm

        if name not in timm.list_models():
            raise self.unknown(name)
        return timm.create_model(name, **{} if classes is None else {"num_classes": classes})

    def published(self, name: str) -> Published:
        if name not in _REPOSITORIES:
            return super().published(name)
        repository, licence = _REPOSITORIES[name]
        address = f"{HUB}/{repository}/resolve/main/model.safetensors"
        origin, file = f"timm {repository}", f"{repository}.safetensors"
        return Published(address, None, None, licence, origin, labels="imagenet", file=file)


LIBRARY = Timm()
