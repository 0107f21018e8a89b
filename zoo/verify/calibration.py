"""Sane random weights for a reference, and images to measure them on.

Random weights must be *calibrated*: with PyTorch's own initialisation the activations of a deep network die layer by
layer, and an output that no longer depends on the input agrees with every wrong network.
"""

from __future__ import annotations

import contextlib
import fnmatch
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.engine.calibration import calibrate
from zoo.errors import ZooError
from zoo.quantization import Scales, Stored
from zoo.registry import Model
from zoo.verify.references import AnyReference, Reference, library_of, load_reference
from zoo.verify.remote import RemoteReference, create
from zoo.verify.running import run_reference
from zoo.weights import Weights

MIN_DEPENDENCE = 1e-2


def calibrated(
    source: str,
    seed: int = 0,
    size: tuple[int, int, int] = (3, 64, 64),
    classes: int | None = None,
    fixed: Sequence[str] = (),
) -> AnyReference:
    """The reference with sane random weights: activations stay alive and the output depends on the input.

    Every trainable parameter is drawn anew, BatchNorm statistics are measured on `sample_images` of `size` (C, H, W).
    Constants in the state_dict (anchors, the bins of a distribution) are changed by up to a tenth, so that a definition
    which holds them itself shows, but for those whose names match a pattern of `fixed`.
    The same source, seed and size give the same weights. Raises ZooError when two images give nearly the same output.
    """
    library, _ = library_of(source)
    library.require()
    if library.elsewhere is not None:
        asked = {"seed": seed, "size": list(size), "classes": classes, "fixed": list(fixed)}
        return create(library.elsewhere, "calibrated", source, **asked)
    reference = unfilled(source, size, classes)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{source} {seed}".encode()))
    _draw_parameters(reference, generator)
    _jitter_constants(reference.module, generator, fixed)
    reference.forget()  # what it computed from them
    _measure_statistics(reference.module, size, seed, generator)
    _spread(reference, sample_images(2, size, seed))
    images = sample_images(2, size, seed + 1000)
    for name, value in dependence(reference, images[:1], images[1:]).items():
        if not value > MIN_DEPENDENCE:
            raise ZooError(f"{name} of {source} changes by {value:.1e} between two images, expected > {MIN_DEPENDENCE}")
    return reference


def unfilled(source: str, size: tuple[int, int, int] = (3, 64, 64), classes: int | None = None) -> AnyReference:
    """The reference with zeros where it draws numbers, for who draws others or asks for shapes alone: 300 million of
    them take seconds.
    """
    with _no_initialisation():
        reference = load_reference(source, classes)
    if isinstance(reference, RemoteReference):
        return reference
    return replace(reference, module=reference.library.resized(reference.module, size))


def sample_images(count: int, size: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Structured random images: (count, C, H, W) float32 of about zero mean and unit variance.

    Smooth shapes, hard edges and fine grain, each image with its own colours: unlike white noise, they differ in what
    a network sees.
    """
    channels, height, width = size
    rng = np.random.default_rng(seed)
    images = np.empty((count, channels, height, width), np.float32)
    for image in images:
        smooth = torch.from_numpy(rng.standard_normal((1, channels, 5, 5), np.float32))
        image[:] = nn.functional.interpolate(smooth, (height, width), mode="bicubic", align_corners=True)[0]
        for _ in range(6):  # rectangles
            top, left = rng.integers(0, height), rng.integers(0, width)
            bottom, right = top + rng.integers(1, height + 1) // 2 + 1, left + rng.integers(1, width + 1) // 2 + 1
            image[:, top:bottom, left:right] = rng.standard_normal((channels, 1, 1), np.float32)
        image += 0.2 * rng.standard_normal(image.shape, np.float32)
    return images


def scales_of(model: Model, weights: Weights, size: tuple[int, int, int], stored: Stored = "int8") -> Scales:
    """Scales for the proof of an int8 or fp8 network, from images as those of the proof."""
    method = "mse" if stored == "int8" else "max"  # steps of fp8 grow with what they hold
    return calibrate(model, weights, [sample_images(4, size, seed=1)], method=method)


def dependence(reference: AnyReference, images_a: np.ndarray, images_b: np.ndarray) -> dict[str, float]:
    """||y(a) - y(b)|| / ||y(a)|| of every output."""
    a, b = run_reference(reference, images_a).outputs, run_reference(reference, images_b).outputs
    return {name: float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(a[name])) for name in a}


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Models are built with zeros for random parameters."""
    random = [name for name in vars(nn.init) if name.endswith(("normal_", "uniform_"))]
    with contextlib.ExitStack() as stack:
        for name in random:
            zeros = lambda tensor, *args, **kwargs: nn.init.zeros_(tensor)  # noqa: E731
            stack.enter_context(mock.patch.object(nn.init, name, zeros))
        yield


@torch.no_grad()
def _draw_parameters(reference: Reference, generator: torch.Generator) -> None:
    for name, parameter in reference.module.named_parameters():
        if not parameter.requires_grad:
            continue  # a constant that is stored as a parameter, as YOLO's DFL
        if reference.library.draw(name, parameter, generator):
            continue
        if name.endswith("bias"):
            parameter.normal_(0, 0.2, generator=generator)
        elif parameter.ndim == 1:  # the scale of a normalisation
            parameter.uniform_(0.5, 1.5, generator=generator)
            # Some channels reach what clips: 6 in ReLU6, 3 in hard sigmoid. Otherwise ReLU would do as well.
            parameter[torch.rand(parameter.shape, generator=generator) < 1 / 16] *= 4
        elif name.endswith("weight"):  # convolution, linear, attention projection
            gain = 2.0 if parameter.ndim > 2 else 1.0  # convolutions are followed by an activation that halves
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
            # Filters of unlike size: where a variance is small, the wrong epsilon of a BatchNorm shows.
            scale = torch.empty(len(parameter)).uniform_(-3, 1, generator=generator).exp2() / 0.85  # rms 1
            parameter.mul_(scale.view(-1, *[1] * (parameter.ndim - 1)))
        else:  # embeddings, tokens, layer scales
            parameter.normal_(0, 0.02, generator=generator)


@torch.no_grad()
def _jitter_constants(module: nn.Module, generator: torch.Generator, fixed: Sequence[str]) -> None:
    """Changes frozen parameters and buffers that a state_dict holds, other than BatchNorm's, by up to a tenth."""
    statistics = {f"{path}.{name}" for path, norm in module.named_modules() if isinstance(norm, _BatchNorm)
                  for name, _ in norm.named_buffers(recurse=False)}  # fmt: skip
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name, value in module.state_dict(keep_vars=True).items():
        if name in trained | statistics or not value.is_floating_point():
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in fixed):
            value.mul_(torch.empty_like(value).uniform_(0.9, 1.1, generator=generator))


@torch.no_grad()
def _measure_statistics(module: nn.Module, size: tuple[int, int, int], seed: int, generator: torch.Generator) -> None:
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches; a moving one keeps most of the initial 1
        norm.train()
    for batch in range(2):
        module(torch.from_numpy(sample_images(8, size, seed + batch)))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        noise = torch.empty_like(norm.running_mean).normal_(0, 0.1, generator=generator)
        norm.running_mean += noise * norm.running_var.sqrt()
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25, generator=generator)
        norm.eval()


@torch.no_grad()
def _spread(reference: Reference, images: np.ndarray) -> None:
    """Scales and shifts the layers whose results shall spread, channel by channel: each has its bias for a mean, and
    the standard deviation that is asked for."""
    spreads = reference.library.spreads(reference.module)

    def settled(path: str) -> Callable[..., torch.Tensor]:
        def hook(layer: nn.Module, given: Any, result: torch.Tensor) -> torch.Tensor:
            handles.pop(path).remove()  # a head that levels share is settled on the first of them
            values = result.transpose(0, 1).flatten(1)
            mean, deviation = (x.view(-1, *[1] * (result.ndim - 2)) for x in (values.mean(1), values.std(1)))
            bias, scale = layer.bias.clone(), spreads[path] / deviation
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
            layer.bias.add_((bias - mean.flatten()) * scale.flatten())
            return (result - mean) * scale + bias.view_as(mean)

        return hook

    handles = {path: reference.module.get_submodule(path).register_forward_hook(settled(path)) for path in spreads}
    if handles:
        reference.module(torch.from_numpy(images))


def state_arrays(reference: AnyReference) -> dict[str, np.ndarray]:
    """The state_dict as float32 arrays under upstream's names, without `num_batches_tracked`; memory may be shared."""
    if isinstance(reference, RemoteReference):
        return reference.state_arrays()
    state = reference.module.state_dict()
    return {name: value.float().numpy() for name, value in state.items() if not name.endswith("num_batches_tracked")}


def num_parameters(reference: AnyReference) -> int:
    """How many parameters the reference has, as papers count them: without BatchNorm statistics and other buffers."""
    if isinstance(reference, RemoteReference):
        return reference.num_parameters()
    return sum(parameter.numel() for parameter in reference.module.parameters())
