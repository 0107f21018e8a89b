"""MTCNN (Zhang et al. 2016, arXiv:1604.02878): three small networks that find faces together, from coarse to fine.

P-Net looks at every place of a picture in many sizes, R-Net and O-Net each at what the one before let through;
`zoo.cascades.mtcnn` runs them. Poolings round up, and maps are flattened column by column, as Caffe with transposed
pictures did: 3x3 cells give no shape that would tell. Scopes are facenet-pytorch's, whose package has trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import conv2d, fixed_size, flatten, linear, max_pool, prelu, softmax, transpose
from zoo.preprocess import Resize
from zoo.registry import Variant, register

PAPER = "arXiv:1604.02878"


@dataclass(frozen=True)
class Config:
    layers: tuple[tuple[int, int, int], ...]  # channels, kernel, window of the pooling after it (0: none)
    side: int = 0  # of the only size that its fully connected layers take
    hidden: int = 0  # units of the first of them
    landmarks: bool = False


PNET = Config(((10, 3, 2), (16, 3, 0), (32, 3, 0)))
RNET = Config(((28, 3, 3), (48, 3, 3), (64, 2, 0)), 24, 128)
ONET = Config(((32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)), 48, 256, landmarks=True)


def seen(size: int) -> Resize:
    """Bytes as (x - 127.5) / 128."""
    return Resize(size, interpolation="cv2:area", divisor=128.0, mean=(127.5 / 128,))


def features(net: Net, x: Tensor, cfg: Config) -> Tensor:
    for i, (channels, k, window) in enumerate(cfg.layers, 1):
        x = prelu(net / f"prelu{i}", conv2d(net / f"conv{i}", x, channels, k, pad=0), channels)
        if window:
            x = max_pool(net / f"pool{i}", x, window, 2, ceil_mode=True)
    return x


@register(
    task="part",
    reference="facenet_pytorch:pnet",
    preprocess=seen(12),
    paper=PAPER,
    mtcnn_pnet=Variant(PNET, params=6_632),
)
def proposals(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    """`scores` (N, 2, h, w), of no face and of a face in 12x12 pixels every 2, and `boxes` (N, 4, h, w), how far the
    sides of each face are from those of its window, in window sides."""
    x = features(net, x, cfg)
    scores = softmax(net / "softmax4_1", conv2d(net / "conv4_1", x, 2, 1), 1)
    return {"scores": scores, "boxes": conv2d(net / "conv4_2", x, 4, 1)}


@register(
    task="part",
    reference="facenet_pytorch:onet",
    preprocess=seen(48),
    paper=PAPER,
    mtcnn_rnet=Variant(RNET, params=100_178, reference="facenet_pytorch:rnet", preprocess=seen(24)),
    mtcnn_onet=Variant(ONET, params=389_040),
)
def refinement(net: Net, x: Tensor, cfg: Config) -> dict[str, Tensor]:
    """`scores` (N, 2) and `boxes` (N, 4) as above, of a whole input; `landmarks` (N, 10), five x and then five y, in
    shares of the window."""
    height, width = fixed_size(net, x, 1, "its first fully connected layer reads every place of a map")
    if (height, width) != (cfg.side, cfg.side):
        needed = f"the first fully connected layer; use {cfg.side}x{cfg.side}"
        raise ZooError(f"images of {height}x{width} do not fit {needed}")
    x = flatten(net, transpose(net, features(net, x, cfg), (0, 3, 2, 1)))
    i = len(cfg.layers) + 1
    x = prelu(net / f"prelu{i}", linear(net / f"dense{i}", x, cfg.hidden), cfg.hidden)
    scores = softmax(net / f"softmax{i + 1}_1", linear(net / f"dense{i + 1}_1", x, 2), 1)
    outputs = {"scores": scores, "boxes": linear(net / f"dense{i + 1}_2", x, 4)}
    return outputs | ({"landmarks": linear(net / f"dense{i + 1}_3", x, 10)} if cfg.landmarks else {})
