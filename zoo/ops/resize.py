"""Resizing. Source of the semantics: torch.nn.Upsample (torch.nn.functional.interpolate) and grid_sample."""

from __future__ import annotations

from typing import Literal

from zoo.errors import ZooError
from zoo.network import Net, Tensor, configured
from zoo.ops._sizes import Extent, Size, as_tensor, is_open, shape_with


def upsample(
    net: Net,
    x: Tensor,
    factor: float | None = None,
    *,
    size: tuple[Size, Size] | None = None,
    mode: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Upsample by a factor or to a size (height, width): (N, C, H, W) -> (N, C, H', W'). Not antialiased."""
    if (factor is None) == (size is None):
        raise ZooError(f"'{net.scope}' is resized by a factor or to a size: give one of the two")
    trt = net.trt
    x = net.enter(x)
    coordinates = trt.ResizeCoordinateTransformation
    modes = trt.InterpolationMode
    kind = {"nearest": modes.NEAREST, "bilinear": modes.LINEAR, "bicubic": modes.CUBIC}[mode]
    layer = configured(net.network.add_resize(x), resize_mode=kind)
    if mode == "nearest":
        configured(layer, coordinate_transformation=coordinates.ASYMMETRIC, nearest_rounding=trt.ResizeRoundMode.FLOOR)
    else:
        aligned = coordinates.ALIGN_CORNERS if align_corners else coordinates.HALF_PIXEL
        configured(layer, coordinate_transformation=aligned, cubic_coeff=-0.75)
    if factor is not None:
        layer.scales = (1.0, 1.0, float(factor), float(factor))
    elif is_open(*size):
        open_one = next(side for side in size if isinstance(side, Extent))
        batch = Extent(open_one.tensor, 0) if x.shape[0] == -1 else x.shape[0]
        layer.set_input(1, as_tensor(net, (batch, x.shape[1], *size)))
    elif -1 in tuple(x.shape):
        layer.set_input(1, shape_with(net, x, {2: size[0], 3: size[1]}))
    else:
        layer.shape = (*tuple(x.shape)[:2], *size)
    return net.done(layer, "upsample", x)


def grid_sample(
    net: Net,
    x: Tensor,
    grid: Tensor,
    *,
    border: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """x (N, C, H, W) read between its pixels at `grid` (N, H', W', 2), x then y from -1 to 1: (N, C, H', W').

    In fp32: half precision cannot place a point between two pixels of a large map. The grid must be made in fp32 too.
    """
    trt, at = net.trt, net.fp32
    x, grid = at.enter(x), at.enter(grid)
    modes = trt.SampleMode
    layer = configured(
        net.network.add_grid_sample(x, grid),
        interpolation_mode=trt.InterpolationMode.LINEAR,
        sample_mode={"zeros": modes.FILL, "border": modes.CLAMP, "reflection": modes.REFLECT}[border],
        align_corners=align_corners,
    )
    return at.step(layer, "grid_sample", x, grid)
