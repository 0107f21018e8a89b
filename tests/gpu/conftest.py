"""What the GPU tests share: TensorRT, a provider, and two engines that take a second to build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from zoo.driver import driver_problem
from zoo.runtime.cuda import Cuda, provider
from zoo.trt import Api, installed, load

ANCHORS, CLASSES, SIDE = 64, 6, 64  # of the small detector


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks everything in this folder `gpu`, and skips it where it cannot run."""
    reason = driver_problem() or (None if installed("tensorrt") else "full TensorRT is not installed")
    for item in items:
        if "/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def api() -> Api:
    return load("tensorrt")


@pytest.fixture(scope="session")
def cuda() -> Iterator[Cuda]:
    """The default provider, with its device current in the main thread."""
    gpu = provider()
    with gpu.active():
        yield gpu


@pytest.fixture(scope="session")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def compile_engine(
    api: Api, define: Callable[[Any, Any], dict[str, Any]], shapes: tuple[tuple[int, ...], ...]
) -> bytes:
    """The engine of `define(network, x) -> outputs by name` for input shapes (min, opt, max)."""
    trt = api.trt
    flags = trt.NetworkDefinitionCreationFlag
    builder = trt.Builder(api.log.logger)
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED if api.strong else flags.EXPLICIT_BATCH))
    low, best, high = shapes
    dynamic = tuple(a if a == b else -1 for a, b in zip(low, high))
    for name, tensor in define(network, network.add_input("images", trt.float32, dynamic)).items():
        tensor.name = name
        network.mark_output(tensor)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if api.major == 8:
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in sources))
    if -1 in dynamic:
        profile = builder.create_optimization_profile()
        profile.set_shape("images", low, best, high)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, api.log.drain()
    return bytes(plan)


def conv(network: Any, x: Any, kernel: np.ndarray, bias: np.ndarray, stride: int) -> Any:
    layer = network.add_convolution_nd(x, len(kernel), kernel.shape[2:], kernel, bias)
    layer.stride_nd = (stride, stride)
    layer.padding_nd = (1, 1) if stride == 1 else (0, 0)
    return layer.get_output(0)


class SmallNet:
    """conv 3x3 + ReLU, and its mean: `features` (N, 8, 16, 16) and `logits` (N, 8), for batches 1 to 8."""

    shape = (3, 16, 16)

    def __init__(self, api: Api) -> None:
        rng = np.random.default_rng(1)
        self.kernel = rng.standard_normal((8, 3, 3, 3), dtype=np.float32)
        self.bias = rng.standard_normal(8, dtype=np.float32)
        self.plan = compile_engine(
            api, lambda n, x: self._define(api.trt, n, x), tuple((b, *self.shape) for b in (1, 4, 8))
        )

    def _define(self, trt: Any, network: Any, x: Any) -> dict[str, Any]:
        y = conv(network, x, self.kernel, self.bias, 1)
        y = network.add_activation(y, trt.ActivationType.RELU).get_output(0)
        mean = network.add_reduce(y, trt.ReduceOperation.AVG, (1 << 2) | (1 << 3), False).get_output(0)
        return {"features": y, "logits": mean}

    def __call__(self, x: np.ndarray) -> dict[str, np.ndarray]:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        features = np.einsum("nchwij,kcij->nkhw", windows, self.kernel) + self.bias[:, None, None]
        features = np.maximum(features, 0)
        return {"features": features, "logits": features.mean((2, 3))}

    def images(self, batch: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((batch, *self.shape), dtype=np.float32)

    def check(self, outputs: dict[str, np.ndarray], x: np.ndarray) -> None:
        for name, want in self(x).items():
            assert outputs[name].dtype == np.float32
            np.testing.assert_allclose(outputs[name], want, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="session")
def net(api: Api) -> SmallNet:
    return SmallNet(api)


@pytest.fixture(scope="session")
def detector_plan(api: Api) -> bytes:
    """A detector with random weights: `boxes` (1, 4, 64) and `scores` (1, 6, 64) from images (1, 3, 64, 64)."""
    trt, rng = api.trt, np.random.default_rng(2)
    kernel = rng.standard_normal((4 + CLASSES, 3, 8, 8), dtype=np.float32) * np.float32(0.3)
    kernel[:4] *= 3
    bias = np.concatenate([np.full(4, 35), np.full(CLASSES, -0.5)]).astype(np.float32)

    def define(network: Any, x: Any) -> dict[str, Any]:
        flat = network.add_shuffle(conv(network, x, kernel, bias, 8))
        flat.reshape_dims = (1, 4 + CLASSES, ANCHORS)
        raw = flat.get_output(0)
        boxes = network.add_slice(raw, (0, 0, 0), (1, 4, ANCHORS), (1, 1, 1)).get_output(0)
        scores = network.add_slice(raw, (0, 4, 0), (1, CLASSES, ANCHORS), (1, 1, 1)).get_output(0)
        boxes = network.add_activation(boxes, trt.ActivationType.RELU).get_output(0)
        return {"boxes": boxes, "scores": network.add_activation(scores, trt.ActivationType.SIGMOID).get_output(0)}

    return compile_engine(api, define, ((1, 3, SIDE, SIDE),) * 3)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a measurement past pytest's capture."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return say
