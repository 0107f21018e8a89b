"""LeNet-5 (LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", doi:10.1109/5.726791).

Activations are tanh and pooling averages, as in the paper; later imitations use ReLU and maxima. Scopes are those of
`scripts/train_lenet5.py`, which trains it and says how it differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.network import Net, Tensor
from zoo.ops import avg_pool, conv2d, fixed_size, flatten, linear, tanh
from zoo.preprocess import gray
from zoo.registry import Variant, classes_from, register


@dataclass(frozen=True)
class Config:
    num_classes: int = 10


@register(
    task="classify",
    reference="scripts/train_lenet5.py:LeNet5",
    preprocess=gray(32),
    paper="doi:10.1109/5.726791",
    configure=classes_from("fc3.bias"),
    lenet5=Variant(Config(), params=156 + 2_416 + 48_120 + 10_164 + 850),  # the layers, counted by hand
)
def build(net: Net, x: Tensor, cfg: Config) -> Tensor:
    height, width = fixed_size(net, x, 1, "its first linear layer reads every place of a map")
    if (height, width) != (32, 32):
        raise ZooError(f"images of {height}x{width} do not fit the first fully connected layer; use 32x32")
    x = avg_pool(net / "pool", tanh(net / "tanh", conv2d(net / "conv1", x, 6, 5, pad=0)), 2)
    x = avg_pool(net / "pool", tanh(net / "tanh", conv2d(net / "conv2", x, 16, 5, pad=0)), 2)
    x = tanh(net / "tanh", linear(net / "fc1", flatten(net, x), 120))
    x = tanh(net / "tanh", linear(net / "fc2", x, 84))
    return linear(net / "fc3", x, cfg.num_classes)
