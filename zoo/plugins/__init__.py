"""Custom ops: what TensorRT has no layer for, one file each, used in a definition as any other op.

A definition calls the function (`deform_conv2d(net / "dcn", x, …)`) and never says how: as layers of the
network, as kernels of our own or as NVIDIA's plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.plugins.core.op import Op


def all_ops() -> dict[str, type[Op]]:
    """Every custom op by name, found by a scan of this folder."""
    from zoo.discovery import load
    from zoo.plugins.core.op import registered

    load("zoo.plugins")
    return dict(sorted(registered().items()))


def find_op(name: str) -> type[Op] | None:
    """The op `name`, or None."""
    return all_ops().get(name)
