"""CSRNet (Li et al. 2018, arXiv:1802.10062), which counts people in crowds.

The first ten convolutions of VGG-16, then six that dilate. The map is of an eighth of the size; its sum is the number
of people, and with no activation at the end it may be negative in places. Scopes are lwcc's.
"""

from __future__ import annotations

from itertools import count

from zoo.network import Net, Tensor
from zoo.ops import conv2d, max_pool, open_size, relu, reshape
from zoo.preprocess import stretched
from zoo.registry import Variant, register

FRONTEND, BACKEND = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512)), (512, 512, 512, 256, 128, 64)


@register(
    task="count",
    reference="lwcc:{name}",
    preprocess=stretched((768, 1024)),
    paper="arXiv:1802.10062",
    csrnet=Variant(None, params=16_263_489),
)
def build(net: Net, x: Tensor, cfg: None) -> dict[str, Tensor]:
    at, i = net / "frontend", count()
    for stage, widths in enumerate(FRONTEND):
        if stage:
            x = max_pool(at / next(i), x, 2)
        for width in widths:
            x = conv2d(at / next(i), x, width, 3)
            x = relu(at / next(i), x)
    x, at, i = at.tap(x), net / "backend", count()
    for width in BACKEND:
        x = conv2d(at / next(i), x, width, 3, dilation=2)
        x = relu(at / next(i), x)
    x = conv2d(net / "output_layer", at.tap(x), 1, 1)
    return {"density": reshape(net, x, (0, *open_size(net, x)), "map")}
