"""One contract for every session: on the CPU, and on the GPU as far as a device on host memory can stand in for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import ENGINES, FakeCuda, FakeEngine, LateCuda, install, make_api, network, open_session
from session_contract import *  # noqa: F403  the cases
from session_contract import LARGEST, Subject

import zoo
from zoo import api
from zoo.network import Definition, Net, Tensor
from zoo.ops import mul, reduce_sum, relu
from zoo.runtime import engines
from zoo.runtime.cpu import CpuSession
from zoo.runtime.engines import MOST_AT_ONCE
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api

README = Path(__file__).resolve().parent.parent / "README.md"


def small(net: Net, x: Tensor) -> dict[str, Tensor]:
    """What `fake_gpu.network` computes."""
    sums = reduce_sum(net / "sum", x, axes=(2, 3))
    return {"logits": mul(net / "doubled", sums, 2.0), "features": relu(net / "relu", x)}


@pytest.fixture(params=["cpu", "gpu at once", "gpu late"])
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subject:
    where, _, when = request.param.partition(" ")
    shape = (3, 4, 4)
    if where == "cpu":
        definition: Definition = request.getfixturevalue("define_net")(small, shape=(-1, *shape))
        return Subject(lambda: CpuSession(definition, threads=1, batches=(1, LARGEST)), computed, shape)
    install(monkeypatch, FakeCuda if when == "at once" else LateCuda)
    return Subject(open_session, computed, shape)


def computed(x: np.ndarray) -> dict[str, np.ndarray]:
    return network({"images": x})


@pytest.fixture
def machine_with_a_gpu(cuda: FakeCuda, rtx: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zoo.load` of a name takes the GPU, for which TensorRT-RTX compiles; what it compiled is played by `means`."""

    def play(data: bytes, *, description: dict[str, Any], **options: Any) -> GpuSession:
        profile = tuple(tuple(description["input"][end]) for end in ("min", "opt", "max"))
        sizes = {name: tuple(about["shape"][1:]) for name, about in description["outputs"].items()}
        outputs = {name: lambda shapes, name=name: (shapes["images"][0], *sizes[name]) for name in sizes}
        ENGINES[b"plan"] = FakeEngine(cuda, {"images": profile}, outputs, partial(means, sizes=sizes))
        return GpuSession(b"plan", api=make_api())

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(api, "_uses_gpu", lambda: True)
    monkeypatch.setattr(engines, "require_gpu", lambda device=0: None)
    monkeypatch.setattr(engines, "provider", lambda name, device: SimpleNamespace(active=nullcontext))
    monkeypatch.setattr(engines, "load", lambda flavour: rtx)
    monkeypatch.setattr(engines, "GpuSession", play)


def means(
    arrays: dict[str, np.ndarray],
    sizes: Mapping[str, tuple[int, ...]] = {"logits": (10,)},  # noqa: B006
) -> dict[str, np.ndarray]:
    """For each image its mean, times 0, 1, 2 …"""
    mean = arrays["images"].mean((1, 2, 3))
    return {
        name: np.multiply.outer(mean, np.arange(np.prod(size), dtype=np.float32).reshape(size))
        for name, size in sizes.items()
    }


def test_what_readme_shows_works_on_a_gpu(machine_with_a_gpu: None) -> None:
    shown = re.search(r"^with zoo\.load.*?(?=^```)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    exec(shown[0], {"zoo": zoo, "np": np})


def test_a_name_takes_any_number_of_images_on_a_gpu(machine_with_a_gpu: None) -> None:
    with zoo.load("lenet5") as session:
        for count in (1, MOST_AT_ONCE, 2 * MOST_AT_ONCE + 5):
            x = np.random.default_rng(count).standard_normal((count, 1, 32, 32), np.float32)
            for found in (session(x), session.submit({"images": x}).result()):
                np.testing.assert_array_equal(found["logits"], means({"images": x})["logits"])
    with zoo.load("lenet5", batch=2) as session:
        assert session(x[:2])["logits"].shape == (2, 10)
        with pytest.raises(zoo.ZooError, match=r"shape \(3, 1, 32, 32\), the engine takes \(2, 1, 32, 32\)"):
            session(x[:3])
