"""PSPNet over the first half of a ResNet (Zhao et al. 2016, arXiv:1612.01105).

The map is an eighth of the input's size, since the last two stages are left out and nothing dilates. The branch of one
pixel has a bias and no normalisation, windows of the others overlap where sizes do not divide. Scopes are those of
segmentation-models-pytorch, whose default is one class; parameters are counted without the stages that never run.
"""

from __future__ import annotations

from zoo.blocks.encoder_decoder import Config, conv_relu, encode, head
from zoo.blocks.resnet import Stages
from zoo.network import Net, Tensor
from zoo.ops import adaptive_avg_pool, concat, conv2d, open_size, relu, upsample
from zoo.preprocess import stretched
from zoo.registry import Variant, classes_from, register

SIZES = (1, 2, 3, 6)
WIDTH = 512


def pooled(net: Net, x: Tensor, size: int) -> Tensor:
    """What the means of size x size windows say, at each place."""
    at, out = net / "pool" / 1, x.shape[1] // len(SIZES)
    y = adaptive_avg_pool(net / "pool" / 0, x, size)
    y = relu(at / 2, conv2d(at / 0, y, out, 1)) if size == 1 else conv_relu(at, y, out, 1)
    return net.tap(upsample(net.functional, y, size=open_size(net, x), mode="bilinear", align_corners=True))


@register(
    task="segment",
    reference="segmentation_models_pytorch:{name}",
    preprocess=stretched(512, stride=8),
    paper="arXiv:1612.01105",
    configure=classes_from("segmentation_head.0.bias"),
    ignored=("encoder.layer3.*", "encoder.layer4.*"),
    pspnet_resnet34=Variant(Config(Stages((3, 4), bottleneck=False)), params=1_501_217),
    pspnet_resnet50=Variant(Config(Stages((3, 4))), params=2_237_889),
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    open_size(net, x, 8)
    x, psp = encode(net, x, cfg)[-1], net / "decoder" / "psp"
    x = psp.tap(concat(psp, [*(pooled(psp / "blocks" / i, x, size) for i, size in enumerate(SIZES)), x]))
    return head(net, conv_relu(net / "decoder" / "conv", x, WIDTH, 1), cfg, 3, factor=8)
