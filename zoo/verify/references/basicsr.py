"""BasicSR: the networks of Real-ESRGAN, by its authors, as the wheel of new-basicsr has them, file for file."""

from __future__ import annotations

import functools
from collections.abc import Collection
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.verify.alone import load_alone
from zoo.verify.references import Library, Published
from zoo.verify.torchvision_shim import import_torchvision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DENSE = {  # scale, blocks
    "realesrgan_x4plus": (4, 23),
    "realesrgan_x2plus": (2, 23),
    "realesrgan_x4plus_anime_6b": (4, 6),
}
COMPACT = {"realesr_general_x4v3": 32, "realesr_animevideov3": 16}  # convolutions
RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
FILES = {
    "realesrgan_x4plus": "v0.1.0/RealESRGAN_x4plus.pth",
    "realesrgan_x2plus": "v0.2.1/RealESRGAN_x2plus.pth",
    "realesrgan_x4plus_anime_6b": "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
    "realesr_general_x4v3": "v0.2.5.0/realesr-general-x4v3.pth",
    "realesr_animevideov3": "v0.2.5.0/realesr-animevideov3.pth",
}


class BasicSR(Library):
    name = "basicsr"
    package = "basicsr"
    install = "pip install --no-deps new-basicsr==1.0.0"

    def names(self) -> Collection[str]:
        return list(FILES)

    def load(self, name: str, classes: int | None) -> nn.Module:
        if name in DENSE:
            scale, blocks = DENSE[name]
            return _networks("rrdbnet_arch").RRDBNet(num_in_ch=3, num_out_ch=3, scale=scale, num_block=blocks)
        if name in COMPACT:
            return _networks("srvgg_arch").SRVGGNetCompact(num_conv=COMPACT[name], upscale=4)
        raise self.unknown(name)

    def outputs(self, module: nn.Module, result: Any) -> dict[str, Tensor]:
        return {"picture": result}

    def draw(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> bool:
        """All that is 1-D and no bias are slopes of PReLUs: with those around 1 nothing would bend."""
        if parameter.ndim != 1 or name.endswith("bias"):
            return False
        parameter.data.uniform_(0.05, 0.5, generator=generator)
        return True

    def published(self, name: str) -> Published:
        return Published(RELEASES + FILES[name], None, None, "BSD-3-Clause", f"Real-ESRGAN {FILES[name]} on GitHub")


@functools.cache
def _networks(file: str) -> ModuleType:
    import_torchvision()  # which the files import
    return load_alone("basicsr", f"archs/{file}.py")


LIBRARY = BasicSR()
