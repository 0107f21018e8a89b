"""Who waits for whom on a real GPU: streams that are held up for some 50 ms show what is read or overwritten too early.

tests/test_device_arrays_fake.py and tests/test_frames_fake.py try the same on a stand-in, where luck has no part.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from zoo.preprocess import letterbox
from zoo.runtime.cuda import Cuda
from zoo.runtime.gpu import GpuSession
from zoo.runtime.pipeline import FramePipeline
from zoo.trt import Api

from .conftest import SIDE, SmallNet
from .test_session import host, upload
from .test_torch import SLOW, as_numpy, torch  # noqa: F401  a fixture

TURNS = 6


@pytest.fixture
def session(api: Api, net: SmallNet) -> Iterator[GpuSession]:
    with GpuSession(net.plan, api=api) as session:
        yield session


# ---- without PyTorch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contexts", [1, 3])
def test_results_are_the_callers_own_whoever_calls(api: Api, cuda: Cuda, net: SmallNet, contexts: int) -> None:
    with GpuSession(net.plan, api=api, contexts=contexts) as session:
        arrays = [upload(cuda, net.images(4, seed)) for seed in range(8)]
        start = threading.Barrier(8)
        found: dict[int, list[dict[str, Any]]] = {}

        def work(thread: int) -> None:
            start.wait()
            array = arrays[thread]
            found[thread] = [f(array) for _ in range(20) for f in (session, lambda x: session.submit(x).result())]

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        for thread, results in found.items():
            for outputs in results:
                net.check(host(outputs), net.images(4, thread))


def test_views_are_overwritten_by_the_next_call(cuda: Cuda, session: GpuSession, net: SmallNet) -> None:
    first, second = (upload(cuda, net.images(2, seed)) for seed in (0, 1))
    view = session(first, views=True)
    net.check(host(view), net.images(2, 0))
    session(second, views=True)
    net.check(host(view), net.images(2, 1))


# ---- with PyTorch ---------------------------------------------------------------------------------------------------


def test_an_input_that_pytorch_writes_is_waited_for(torch: Any, session: GpuSession, net: SmallNet) -> None:  # noqa: F811
    """`session.input`, written on PyTorch's own stream, before and after the call that reads it."""
    mine = session.input("images", (2, *net.shape))
    tensor = torch.from_dlpack(mine)
    values = [torch.from_numpy(net.images(2, seed)).cuda() for seed in range(TURNS)]
    torch.cuda.synchronize()
    for seed, value in enumerate(values):
        torch.cuda._sleep(SLOW)
        tensor.copy_(value)
        outputs = session(mine)
        tensor.zero_()
        net.check(as_numpy(torch, outputs), net.images(2, seed))


@pytest.mark.parametrize("in_hand", [True, False], ids=["in hand", "given back"])
def test_a_view_that_pytorch_reads_is_not_overwritten(
    torch: Any,  # noqa: F811
    session: GpuSession,
    net: SmallNet,
    in_hand: bool,
) -> None:
    tensors = [torch.from_numpy(net.images(2, seed)).cuda() for seed in (0, 1)]
    for _ in range(TURNS):
        view = torch.from_dlpack(session(tensors[0], views=True)["features"])
        torch.cuda._sleep(SLOW)
        read = view.clone()
        if not in_hand:
            del view
        session(tensors[1], views=True)
        want = net(net.images(2, 0))["features"]
        np.testing.assert_allclose(read.cpu().numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["tensor", "subclass"])
@pytest.mark.parametrize("call", ["call", "submit"])
def test_a_tensor_that_is_dropped_at_once(torch: Any, session: GpuSession, net: SmallNet, how: str, call: str) -> None:  # noqa: F811
    """PyTorch gives its memory to the next tensor at once, which is written while the network may still read it."""

    class Image(torch.Tensor):
        pass

    values = [torch.from_numpy(net.images(2, seed)).cuda() for seed in range(TURNS)]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for seed, value in enumerate(values):
            torch.cuda._sleep(SLOW)
            given = value.clone()
            given = given.as_subclass(Image) if how == "subclass" else given
            pending = session.submit(given) if call == "submit" else session(given)
            del given
            for _ in range(4):
                torch.full_like(value, float("nan"))
            outputs = pending.result() if call == "submit" else pending
            net.check(as_numpy(torch, outputs), net.images(2, seed))


def test_a_result_that_is_dropped_while_pytorch_reads_it(torch: Any, session: GpuSession, net: SmallNet) -> None:  # noqa: F811
    tensors = [torch.from_numpy(net.images(4, seed)).cuda() for seed in range(TURNS)]
    for seed, tensor in enumerate(tensors):
        outputs = session(tensor)
        features = torch.from_dlpack(outputs["features"])
        torch.cuda._sleep(SLOW)
        read = features.clone()
        del outputs, features
        for other in tensors:
            session(other)
        want = net(net.images(4, seed))["features"]
        np.testing.assert_allclose(read.cpu().numpy(), want, rtol=1e-4, atol=1e-4)


def test_a_frame_that_is_dropped_at_once(torch: Any, api: Api, detector_plan: bytes) -> None:  # noqa: F811
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (120, 160, 3), np.uint8) for _ in range(TURNS)]
    spec = letterbox(SIDE)
    with GpuSession(detector_plan, api=api) as session, FramePipeline(session, spec) as pipeline:
        wanted = [pipeline(frame) for frame in frames]
        for frame, want in zip(frames, wanted):
            source = torch.from_numpy(frame).cuda()
            torch.cuda.synchronize()
            torch.cuda._sleep(SLOW)
            given = source.clone()
            pending = pipeline.submit(given)
            del given
            for _ in range(4):
                torch.zeros_like(source)
            for name, value in pending.result().items():
                np.testing.assert_array_equal(value, want[name])


def test_garbage_on_the_gpu_does_not_end_the_graphs(cuda: Cuda, session: GpuSession, net: SmallNet) -> None:
    """Device memory in cycles, found by the collector whenever it likes, also while a graph is captured."""
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for batch in range(1, 9):
            for turn in range(3):
                cycle: dict[str, Any] = {"array": upload(cuda, net.images(1)), "event": cuda.event()}
                cycle["itself"] = cycle
                del cycle
                net.check(session(x := net.images(batch, turn)), x)
    finally:
        gc.set_threshold(*threshold)
    assert session.graphs


def test_many_frame_sizes_do_not_fill_the_gpu(cuda: Cuda, api: Api, detector_plan: bytes) -> None:
    with GpuSession(detector_plan, api=api) as session, FramePipeline(session, letterbox(SIDE)) as pipeline:
        free = []
        for n in range(150):
            pipeline(np.zeros((1000 + n, 1500, 3), np.uint8))  # 4.5 MB each on both sides
            cuda.synchronize()
            free.append(cuda.device().free_memory)
        assert free[75] - free[-1] < 64 << 20
