"""Resizing. Source of the semantics: torch.nn.Upsample."""

from __future__ import annotations

from zoo.network import Net, Tensor


def upsample_nearest(net: Net, x: Tensor, factor: int) -> Tensor:
    """Upsample(scale_factor=factor, mode="nearest"): (N, C, H, W) -> (N, C, H * factor, W * factor)."""
    trt = net.trt
    x = net.enter(x)
    layer = net.network.add_resize(x)
    layer.resize_mode = trt.InterpolationMode.NEAREST
    layer.scales = (1.0, 1.0, float(factor), float(factor))
    layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ASYMMETRIC
    layer.nearest_rounding = trt.ResizeRoundMode.FLOOR
    return net.done(layer, "upsample", x)
