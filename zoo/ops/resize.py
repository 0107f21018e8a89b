"""Resizing. Source of the semantics: torch.nn.Upsample."""

from __future__ import annotations

from zoo.network import Net, Tensor, configured


def upsample_nearest(net: Net, x: Tensor, factor: int) -> Tensor:
    """Upsample(scale_factor=factor, mode="nearest"): (N, C, H, W) -> (N, C, H * factor, W * factor)."""
    trt = net.trt
    x = net.enter(x)
    layer = configured(
        net.network.add_resize(x),
        resize_mode=trt.InterpolationMode.NEAREST,
        scales=(1.0, 1.0, float(factor), float(factor)),
        coordinate_transformation=trt.ResizeCoordinateTransformation.ASYMMETRIC,
        nearest_rounding=trt.ResizeRoundMode.FLOOR,
    )
    return net.done(layer, "upsample", x)
