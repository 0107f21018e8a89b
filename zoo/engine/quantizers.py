"""The scales of a network whose checkpoint brings its own ranges (`zoo.weights.ranges`)."""

from __future__ import annotations

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.quantization import TRAINED, Scales
from zoo.registry import Model
from zoo.trt import load_to_define
from zoo.weights import Weights
from zoo.weights.ranges import INPUT, SHORTCUT, range_name, tensor_range


def scales_in(model: Model, weights: Weights) -> tuple[Scales, list[str]]:
    """The scales of `model` that stand in `weights`, and sentences on what is not as it was trained.

    A tensor without a range stays in fp16. Raises ZooError where there is none at all, and for one that is no number.
    """
    sites = define(model, weights, load_to_define(), (1, *model.input)).sites
    names = {site: range_name(weights, *_place(site)) for site in sites}
    amax = {site: tensor_range(weights, name) for site, name in names.items() if name in weights}
    if not amax:
        raise ZooError(
            f"{weights.name} brings no ranges, such as '{names[next(iter(names))]}' of ModelOpt or "
            "pytorch-quantization; calibrate with pictures: --data DIR"
        )
    keep = tuple(site for site in sites if site not in amax)
    said = [f"{len(keep)} tensors have no range and stay in fp16, the first is '{keep[0]}'"] if keep else []
    return Scales(model.name, weights.digest(), amax, TRAINED, 0, keep), said


def _place(site: str) -> tuple[str, str]:
    """The module that reads the tensor of a site, and what it is to it."""
    path, _, last = site.replace(".conv2d()", "").replace(".linear()", "").rpartition(".")
    adds = last.partition(":")[0] == "add"
    return (path, SHORTCUT) if adds else (f"{path}.{last}".lstrip("."), INPUT)
