"""One function per PyTorch operation: `f(net, x, …) -> tensor`, thin over `INetworkDefinition.add_*`.

An op knows the shapes of its weights and PyTorch's conventions (padding, eps, layout); it knows nothing of models.
Every public function of the modules below that takes a `net` first is exported: a new op is listed nowhere.
"""

# ruff: noqa: F403
import inspect
import re

from zoo.ops.activation import *
from zoo.ops.attention import *
from zoo.ops.conv import *
from zoo.ops.elementwise import *
from zoo.ops.linear import *
from zoo.ops.norm import *
from zoo.ops.pool import *
from zoo.ops.recurrent import *
from zoo.ops.reduce import *
from zoo.ops.reparam import *
from zoo.ops.resize import *
from zoo.ops.shape import *


def _is_op(value: object) -> bool:
    """A function of a public module here whose first parameter is the place in the network."""
    ours = inspect.isfunction(value) and re.match(rf"{__name__}\.[a-z]", value.__module__)
    return bool(ours) and next(iter(inspect.signature(value).parameters), "") == "net"


__all__ = sorted(name for name, value in globals().items() if not name.startswith("_") and _is_op(value))  # noqa: PLE0605
