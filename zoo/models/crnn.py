"""CRNN (Shi et al. 2015, arXiv:1507.05717) with the backbones of docTR: a word is read from its columns.

The last halvings are of the height alone, so that 32 rows become one and four columns a step. Two LSTMs run over the
steps both ways, unrolled here for a width that is fixed. The last class is no letter. Scopes are docTR's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from zoo.blocks.mobilenet_v3 import LARGE, SMALL, Row, features
from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import conv_bn, fixed_size, linear, lstm, max_pool, relu, reshape, transpose
from zoo.preprocess import Resize
from zoo.registry import Variant, classes_from, register

HEIGHT, WIDTH, HIDDEN = 32, 4, 128  # pixels of a line, pixels of a step, size of an LSTM's state
VGG16 = ((64, 2, 2), (128, 2, 2), (256, 3, 1), (512, 3, 1), (512, 3, 1))  # channels, convolutions, columns pooled


def flat(rows: Sequence[Row], *places: int) -> tuple[Row, ...]:
    """MobileNet's rows, of which some halve the height alone."""
    return tuple((*row[:-1], (2, 1)) if i in places else row for i, row in enumerate(rows))


@dataclass(frozen=True)
class Config:
    rows: tuple[Row, ...] = ()  # of MobileNetV3, else VGG-16
    num_classes: int = 127


def vgg(net: Net, x: Tensor) -> Tensor:
    i = count()
    for width, depth, columns in VGG16:
        for _ in range(depth):
            x = conv_bn(net, x, width, 3, bias=True, conv=next(i), bn=next(i))
            x = relu(net / next(i), x)
        x = max_pool(net / next(i), x, (2, columns))
    return x


@register(
    task="read",
    reference="doctr:{name}",
    preprocess=Resize(
        (HEIGHT, 128), "fit", mean=(0.694, 0.695, 0.693), std=(0.299, 0.296, 0.301), align="corner", rounding="down",
        stride=WIDTH,
    ),
    paper="arXiv:1507.05717",
    configure=classes_from("linear.bias"),
    crnn_vgg16_bn=Variant(Config(), params=15_808_447),
    crnn_mobilenet_v3_small=Variant(Config(flat(SMALL, 1, 3, 8)), params=2_077_855),
    crnn_mobilenet_v3_large=Variant(Config(flat(LARGE, 3, 6, 12)), params=4_516_015),
)  # fmt: skip
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    """Logits (N, steps, classes)."""
    height, width = fixed_size(net, x, WIDTH, "the LSTMs are unrolled over the columns")
    if height != HEIGHT:
        raise ZooError(f"images of {height}x{width} do not fit the LSTM, which reads one row; use {HEIGHT}x{width}")
    at = net / "feat_extractor"
    x = features(at, x, cfg.rows)[-1] if cfg.rows else vgg(at, x)
    x = reshape(at, x, (0, x.shape[1], width // WIDTH), "row")
    x = lstm(net / "decoder", transpose(net, x, (0, 2, 1)), HIDDEN, 2)
    return linear(net / "linear", x, cfg.num_classes)
