"""From pictures to the scales of an int8 network: it runs on the CPU, and what its layers read is counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.engine.definition import define
from zoo.errors import ZooError, one_of
from zoo.measure.ranges import METHODS, Histogram
from zoo.network import Definition
from zoo.onnx.reading import Layer
from zoo.quantization import Scales
from zoo.registry import Model
from zoo.runtime.cpu import CpuSession
from zoo.trt import load
from zoo.weights import Weights

Progress = Callable[[str], None]


def calibrate(
    model: Model,
    weights: Weights,
    images: Iterable[np.ndarray],
    *,
    method: str = "mse",
    keep: Iterable[str] = (),
    threads: int = 0,
    progress: Progress = lambda text: None,
) -> Scales:
    """The scales of `model` with `weights`, from `images`: float32 (N, C, H, W), prepared as the model wants them.

    `images` is read once, one after the other. `keep` are patterns of sites that shall stay in higher precision.
    Raises ZooError without images, and where a tensor is not finite.
    """
    one_of("method", method, METHODS)
    images = iter(images)
    first = next(images, None)
    if first is None:
        raise ZooError("there is no picture to calibrate with")
    definition = define(model, weights, load("rtx"), (-1, *first.shape[1:]))
    tensors = {tensor.name: tensor for tensor in definition.sites.values()}  # some layers read the same one
    histograms, count = {name: Histogram() for name in tensors}, 0
    with CpuSession(replace(definition, taps=tensors), tensors, threads=threads) as session:
        for batch in itertools.chain((first,), images):
            found = session(batch)
            for name, histogram in histograms.items():
                if not np.isfinite(found[name]).all():
                    raise ZooError(f"'{name}' is not finite on these pictures, so it has no range")
                histogram.add(found[name])
            count += len(batch)
            if count & (count - 1) == 0:  # told ever more seldom
                progress(f"counting what {len(tensors)} tensors hold: picture {count}")
    progress(f"choosing {len(tensors)} ranges by {method}")
    ranges = tied(definition, {name: METHODS[method](histogram) for name, histogram in histograms.items()})
    amax = {site: float(np.float32(ranges[tensor.name])) for site, tensor in definition.sites.items()}
    return Scales(model.name, weights.digest(), amax, method, count, tuple(keep))


def tied(definition: Definition, ranges: Mapping[str, float]) -> dict[str, float]:
    """`ranges` of tensors, made equal where values only move from one to the other: the largest holds for all.

    So TensorRT concatenates, pools and enlarges in int8. With ranges of their own, it converts every part of a
    concatenation to half precision and back.
    """
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    for i in range(definition.network.num_layers):
        layer = Layer(definition.network.get_layer(i), definition.api.trt, {})
        layer.downcast(definition.api.trt)
        if not _moves(layer):
            continue
        for tensor in layer.inputs if layer.kind == "CONCATENATION" else layer.inputs[:1]:  # the others are sizes
            root[find(tensor.name)] = find(layer.outputs[0].name)
    groups: dict[str, float] = {}
    for name, amax in ranges.items():
        groups[find(name)] = max(amax, groups.get(find(name), 0))
    return {name: groups[find(name)] for name in ranges}


def _moves(layer: Layer) -> bool:
    """Whether the layer gives values as it takes them, elsewhere."""
    largest = layer.kind == "POOLING" and layer.raw.type.name == "MAX"
    nearest = layer.kind == "RESIZE" and layer.raw.resize_mode.name == "NEAREST"
    return layer.kind in ("CONCATENATION", "IDENTITY", "SHUFFLE", "SLICE") or largest or nearest


def pictures_in(folder: str | Path, samples: int | None = None) -> list[Path]:
    """The image files of `folder` and the folders below it by name, or at most `samples` of them, evenly spread.

    Raises ZooError where there are none.
    """
    from zoo.images.sources import IMAGE_SUFFIXES

    if samples is not None and samples < 1:
        raise ZooError(f"samples is {samples}; it must be at least 1")
    root = Path(folder)
    if not root.is_dir():
        raise ZooError(f"'{folder}' is no folder; --data takes a folder with pictures")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise ZooError(f"'{folder}' holds no picture, nor do the folders below it; --data takes a folder with pictures")
    if samples is None or samples >= len(found):
        return found
    return [found[i * len(found) // samples] for i in range(samples)]


def prepared(
    model: Model, pictures: Iterable[Path], size: tuple[int, int] | None, bad: list[str]
) -> Iterable[np.ndarray]:
    """The pictures as the model wants them, one by one, (1, C, H, W); `bad` gets a sentence for each unreadable one."""
    from zoo.images.sources import read_image

    for path in pictures:
        try:
            image = read_image(path)
        except ZooError as error:
            bad.append(str(error))
            continue
        yield model.preprocess.apply(image, size)[0][None]
