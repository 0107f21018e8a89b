"""PyTorch's tensors in and out of a session in one process, read where they lie and ordered with PyTorch's streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.errors import ZooError
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api

from .conftest import SmallNet

LENET = Path(__file__).resolve().parents[2] / "zoo" / "weights" / "lenet5.safetensors"
SLOW = 100_000_000  # clock cycles, some 50 ms: far longer than the network takes


@pytest.fixture(scope="module")
def torch() -> Any:
    module = pytest.importorskip("torch", reason="PyTorch is not installed beside TensorRT")
    if not module.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return module


@pytest.fixture
def session(api: Api, net: SmallNet) -> Iterator[GpuSession]:
    with GpuSession(net.plan, api=api) as session:
        yield session


def as_numpy(torch: Any, outputs: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: torch.from_dlpack(value).cpu().numpy() for name, value in outputs.items()}


def test_tensors_are_read_and_given_without_a_copy(torch: Any, session: GpuSession, net: SmallNet) -> None:
    x = torch.from_numpy(net.images(2)).cuda()
    for turn in range(4):
        outputs = session(x)
        net.check(as_numpy(torch, outputs), net.images(2))
        for array in outputs.values():
            assert torch.from_dlpack(array).data_ptr() == array.ptr
            assert torch.as_tensor(array, device="cuda").data_ptr() == array.ptr
        (plan,) = session._slots[0]._plans.values()
        assert plan.addresses["images"] == x.data_ptr() and (plan.graph is not None) == (turn > 0)
        assert "images" not in session._slots[0]._device  # no buffer that a copy could lie in
    x.mul_(2)  # the captured graph reads the tensor's own memory
    net.check(as_numpy(torch, session(x)), 2 * net.images(2))


@pytest.mark.parametrize("own", [True, False], ids=["a stream", "the default stream"])
def test_a_tensor_that_is_still_being_made(torch: Any, session: GpuSession, net: SmallNet, own: bool) -> None:
    x = torch.zeros((2, *net.shape), device="cuda")
    ready = [torch.from_numpy(net.images(2, seed)).cuda() for seed in range(4)]
    session(x)
    session(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream() if own else torch.cuda.default_stream()):
        for seed, values in enumerate(ready):
            torch.cuda._sleep(SLOW)
            x.copy_(values)
            logits = torch.from_dlpack(session(x)["logits"])  # PyTorch's stream now waits for the session's
            doubled = (logits * 2).cpu().numpy()
            np.testing.assert_allclose(doubled, 2 * net(net.images(2, seed))["logits"], rtol=1e-4, atol=1e-4)


def test_a_session_on_pytorchs_stream(torch: Any, api: Api, net: SmallNet) -> None:
    stream = torch.cuda.Stream()
    with GpuSession(net.plan, api=api, stream=stream.cuda_stream) as session, torch.cuda.stream(stream):
        assert session.stream == stream.cuda_stream
        for seed in range(4):
            torch.cuda._sleep(SLOW)
            x = torch.from_numpy(net.images(3, seed)).pin_memory().cuda(non_blocking=True)
            net.check(as_numpy(torch, session(x)), net.images(3, seed))


def test_submit_with_tensors(torch: Any, api: Api, net: SmallNet) -> None:
    tensors = [torch.from_numpy(net.images(2, seed)).cuda() for seed in range(6)]
    with GpuSession(net.plan, api=api, contexts=3) as session:
        for _ in range(3):
            tickets = [session.submit(x) for x in tensors]
            for seed, ticket in enumerate(tickets):
                net.check(as_numpy(torch, ticket.result()), net.images(2, seed))


def test_host_tensors_give_numpy_arrays(torch: Any, session: GpuSession, net: SmallNet) -> None:
    outputs = session(torch.from_numpy(net.images(2)).requires_grad_())
    assert all(isinstance(value, np.ndarray) for value in outputs.values())
    net.check(outputs, net.images(2))


def test_tensors_that_are_refused(torch: Any, session: GpuSession, net: SmallNet) -> None:
    x = torch.from_numpy(net.images(2)).cuda()
    for tensor, words in (
        (x.to(memory_format=torch.channels_last), r"not contiguous; call \.contiguous\(\)"),
        (x.double(), "float64, the engine takes float32"),
        (x.bfloat16(), "bfloat16"),
        (x[0], r"shape \(3, 16, 16\)"),
    ):
        with pytest.raises(ZooError, match=words):
            session(tensor)
    net.check(as_numpy(torch, session(x)), net.images(2))


def test_a_loaded_engine_takes_tensors(torch: Any, tmp_path: Path) -> None:
    path = zoo.build_engine("lenet5", weights=LENET, batch=(1, 2, 4), level=0).save(tmp_path / "lenet5.engine")
    images = np.random.default_rng(0).standard_normal((4, 1, 32, 32), np.float32)
    with zoo.load(path, contexts=2) as session:
        want = session(images)["logits"]
        x = torch.from_numpy(images).cuda()
        for _ in range(3):
            tickets = [session.submit(x), session.submit(x)]
            for ticket in tickets:
                assert np.array_equal(torch.from_dlpack(ticket.result()["logits"]).cpu().numpy(), want)
            assert np.array_equal(session.submit(images).result()["logits"], want)
