"""Sessions on the GPU, without one: a CUDA provider on host memory and an engine in numpy stand in."""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import (
    ENGINES,
    OUTPUTS,
    PROFILE,
    FakeEngine,
    check,
    images,
    make_api,
    network,
    on_device,
    on_device_stream,
    open_session,
)

from zoo.errors import ZooError
from zoo.runtime import arrays
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.compatibility import why_not_loadable
from zoo.runtime.cuda import Device, Stream
from zoo.runtime.gpu import GpuSession
from zoo.runtime.slot import MAX_PLANS


@pytest.mark.parametrize("modern", [True, False], ids=["tensorrt10", "tensorrt8"])
@pytest.mark.parametrize("graphs", [True, False])
def test_numpy_in_numpy_out(cuda, modern, graphs):
    with open_session(modern, graphs=graphs) as session:
        for turn in range(4):
            for batch in (1, 3, 8, 2):
                x = images(batch, turn)
                check(session(x), x)
        assert session.graphs == graphs


def test_a_graph_is_captured_the_second_time_and_replayed(cuda):
    with open_session() as session:
        x = images(2)
        session(x)
        assert (cuda.captured, cuda.launches) == (0, 0)
        session(x)
        session(images(2, 1))
        assert (cuda.captured, cuda.launches) == (1, 2)
        uploads = cuda.uploads
        check(session(images(2, 2)), images(2, 2))
        assert cuda.uploads == uploads  # the copies are in the graph


def test_outputs_of_numpy_calls_are_the_callers(cuda):
    with open_session() as session:
        first = session(images(2, 0))
        session(images(2, 1))
        check(first, images(2, 0))


def test_device_arrays_are_read_where_they_lie(cuda):
    with open_session() as session:
        arrays = [on_device(cuda, images(2, seed)) for seed in range(3)]
        uploads = cuda.uploads
        for _ in range(3):
            for seed, array in enumerate(arrays):
                outputs = session(array)
                assert isinstance(outputs["logits"], DeviceArray)
                check(outputs, images(2, seed))
        assert cuda.uploads == uploads and cuda.captured == 3
        np.testing.assert_array_equal(outputs["logits"].numpy(), network({"images": images(2, 2)})["logits"])


def test_the_sessions_own_input_buffer(cuda):
    with open_session() as session:
        mine = session.input("images", (4, 3, 4, 4))
        for seed in range(4):
            mine.write(images(4, seed))
            check(session({"images": mine}), images(4, seed))
        assert cuda.captured == 1
        with pytest.raises(ZooError, match="no input 'image'.*closest: images"):
            session.input("image", (4, 3, 4, 4))
        with pytest.raises(ZooError, match=r"\(9, 3, 4, 4\).*\(8, 3, 4, 4\)"):
            session.input("images", (9, 3, 4, 4))


def test_remembered_addresses_are_bounded(cuda):
    with open_session() as session:
        arrays = [on_device(cuda, images(1, seed)) for seed in range(MAX_PLANS + 8)]
        for _ in range(2):
            for seed, array in enumerate(arrays):
                session(array)
                check(session(array), images(1, seed))
        assert len(cuda.graphs_alive) == MAX_PLANS


def test_growing_buffers_keeps_old_views_and_results_right(cuda):
    with open_session() as session:
        small = session.input("images", (1, 3, 4, 4))
        for batch in (1, 1, 2, 2, 5, 5, 8, 8, 1, 1):
            check(session(images(batch)), images(batch))
        small.write(images(1, 7))
        check(session(small), images(1, 7))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            np.zeros((9, 3, 4, 4), np.float32),
            r"\(9, 3, 4, 4\).*\(1, 3, 4, 4\) to \(8, 3, 4, 4\) \(fastest at \(2, 3, 4, 4\)\)",
        ),
        (np.zeros((3, 4, 4), np.float32), r"shape \(3, 4, 4\)"),
        (np.zeros((1, 3, 4, 5), np.float32), r"shape \(1, 3, 4, 5\)"),
        (np.zeros((1, 3, 4, 4)), "float64, the engine takes float32"),
        ({"image": np.zeros((1, 3, 4, 4), np.float32)}, "no input 'image'.*closest: images"),
        ({}, "'images' is missing"),
        ([[1.0]], "is a list"),
    ],
)
def test_bad_input_is_explained_and_harmless(cuda, bad, words):
    with open_session() as session:
        with pytest.raises(ZooError, match=words):
            session(bad)
        check(session(images(1)), images(1))


def test_inputs_in_two_places_or_with_gaps_are_refused(cuda):
    ENGINES[b"plan"] = FakeEngine(
        cuda, {"a": PROFILE, "b": PROFILE}, {"c": lambda s: s["a"]}, lambda x: {"c": x["a"] + x["b"]}
    )
    x = images(2)
    with open_session() as session:
        np.testing.assert_array_equal(session({"b": x, "a": x})["c"], 2 * x)
        with pytest.raises(ZooError, match="some inputs are on the host"):
            session({"a": x, "b": on_device(cuda, x)})
        with pytest.raises(ZooError, match="2 inputs"):
            session(x)
    gaps = {"shape": x.shape, "typestr": "<f4", "data": (1, False), "strides": (192, 1, 16, 4), "version": 3}
    with pytest.raises(ZooError, match="not contiguous"):
        arrays.read_source(SimpleNamespace(__cuda_array_interface__=gaps), Stream(0, 0), cuda)


def test_producers_stream_is_waited_for_and_waits(cuda):
    with open_session() as session:
        buffer = cuda.upload(x := images(1))
        interface = {"shape": x.shape, "typestr": "<f4", "data": (buffer.ptr, False), "version": 3, "stream": 7}
        check(session(SimpleNamespace(__cuda_array_interface__=interface)), x)
        assert (7, session.stream) in cuda.waits and (session.stream, 7) in cuda.waits
        cuda.waits.clear()
        check(session(on_device_stream(cuda, x, session.stream)), x)
        assert not cuda.waits


def test_torch_tensors(cuda, monkeypatch):
    stream = SimpleNamespace(cuda_stream=9)
    monkeypatch.setitem(
        sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(current_stream=lambda device: stream))
    )
    buffer = cuda.upload(x := images(2))
    tensor = type(
        "Tensor", (), {"__module__": "torch", "is_cuda": True, "device": "cuda:0", "dtype": "torch.float32"}
    )()
    tensor.shape, tensor.data_ptr, tensor.is_contiguous = x.shape, lambda: buffer.ptr, lambda: True
    tensor.get_device = lambda: 0
    with open_session() as session:
        check(session(tensor), x)
        assert cuda.waits == [(9, session.stream), (session.stream, 9)]
        tensor.is_contiguous = lambda: False
        with pytest.raises(ZooError, match="contiguous"):
            session(tensor)


def test_dlpack_round_trip(cuda):
    x = images(3)
    array = on_device(cuda, x)
    capsule = array.__dlpack__(stream=5)
    assert (0, 5) in cuda.waits and len(arrays._exported) == 1

    class Producer:
        def __init__(self, capsule) -> None:
            self.capsule = capsule

        def __dlpack__(self, stream):
            return self.capsule

        def __dlpack_device__(self):
            return 2, 0

    source = arrays.read_source(Producer(capsule), Stream(0, 0), cuda)
    assert (source.ptr, source.shape, source.dtype) == (array.ptr, x.shape, x.dtype)
    with open_session() as session:
        check(session(Producer(capsule)), x)
    del source, capsule, session
    gc.collect()
    assert not arrays._exported  # an unconsumed capsule lets go of the memory


def test_a_consumed_capsule_is_released_by_its_deleter(cuda):
    capsule = on_device(cuda, images(1)).__dlpack__(stream=-1)
    address = arrays._capsule_pointer(id(capsule), b"dltensor")
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), used := b"used_dltensor")
    del capsule
    assert address in arrays._exported and used
    deleter = arrays._DLManagedTensor.from_address(address).deleter
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter)(address)
    assert address not in arrays._exported and not cuda.memory


def test_the_callers_stream(cuda):
    with open_session(stream=3) as session:
        assert session.stream == 3
        for seed in range(3):
            check(session(images(2, seed)), images(2, seed))
        assert cuda.captured == 1
    with pytest.raises(ZooError, match="one stream cannot serve 2 contexts"):
        open_session(stream=3, contexts=2)


def test_submit_overlaps_and_survives_reuse_of_its_context(cuda):
    with open_session(contexts=2) as session:
        tickets = [session.submit(images(2, seed)) for seed in range(6)]
        for seed, ticket in reversed(list(enumerate(tickets))):
            check(ticket.result(), images(2, seed))
            assert ticket.result() is ticket.result()
        arrays = [on_device(cuda, images(2, seed)) for seed in range(6)]
        tickets = [session.submit(array) for array in arrays]
        for seed, ticket in enumerate(tickets):
            check(ticket.result(), images(2, seed))


@pytest.mark.parametrize("contexts", [1, 3, 8])
def test_eight_threads_share_a_session(cuda, contexts):
    with open_session(contexts=contexts) as session:
        start = threading.Barrier(8)

        def work(thread):
            start.wait()
            for turn in range(20):
                x = images(turn % 8 + 1, 100 * thread + turn)
                check(session(x), x)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))


def test_close_frees_everything_and_ends_the_session(cuda):
    session = open_session(contexts=3)
    for batch in (1, 2, 1, 2):
        session(images(batch))
        session.submit(images(batch))
    kept = session(on_device(cuda, x := images(2)), views=True)
    session.close()
    session.close()
    assert not cuda.events and not cuda.graphs_alive
    for use in (
        lambda: session(x),
        lambda: session.submit(x),
        lambda: session.input("images", x.shape),
        lambda: session.inputs,
    ):
        with pytest.raises(ZooError, match="the session is closed"):
            use()
    check(kept, x)  # arrays outlive their session
    np.testing.assert_array_equal(kept["features"].copy().numpy(), np.maximum(x, 0))
    del kept
    assert not cuda.memory and not cuda.streams


def test_a_ticket_outlives_its_session(cuda):
    session = open_session()
    ticket = session.submit(images(2))
    session.close()
    check(ticket.result(), images(2))


def test_what_cannot_be_captured_runs_without_graphs(cuda):
    for options in ({"capturable": False}, {"sharing": False}):
        ENGINES[b"plan"] = FakeEngine(cuda, {"images": PROFILE}, OUTPUTS, network, **options)
        with open_session() as session:
            for seed in range(4):
                check(session(images(2, seed)), images(2, seed))
            assert not session.graphs


def test_two_contexts_need_profile_sharing(cuda):
    ENGINES[b"plan"] = FakeEngine(cuda, {"images": PROFILE}, OUTPUTS, network, sharing=False)
    with open_session(contexts=2) as session:
        session.submit(images(1))
        with pytest.raises(ZooError, match="PROFILE_SHARING_0806"):
            session.submit(images(1))


def test_not_enough_memory_says_how_much(cuda):
    with open_session() as session:
        cuda.free = 1000
        with pytest.raises(ZooError, match="not enough GPU memory: needs .* MiB, 0.0 MiB of .* are free on Fake GPU"):
            session(images(8))


# ---- why an engine does not load ------------------------------------------------------------------------------------

H200 = Device("NVIDIA H200", "9.0", 140 << 30, 100 << 30)
GOOD = {"flavour": "tensorrt", "version": "8.6.0", "compute_capability": "9.0", "size": 1000}


@pytest.mark.parametrize(
    ("change", "device", "words"),
    [
        ({}, None, "built by TensorRT 8.6.0 for a GPU"),
        ({"version": "10.3.0"}, H200, "built by TensorRT 10.3.0, this is TensorRT 8.6.0"),
        ({"flavour": "rtx", "version": "1.7.1"}, H200, "built by TensorRT-RTX 1.7.1, this is TensorRT 8.6.0"),
        ({"compute_capability": "8.6"}, H200, "compute capability 8.6, the NVIDIA H200 has 9.0"),
        ({"size": 200 << 30}, H200, "not enough memory: it needs more than 204800.0 MiB, 102400.0 MiB are free"),
    ],
)
def test_why_an_engine_does_not_load(change, device, words):
    sentence = why_not_loadable(GOOD | change, make_api(), device, "zoo build x")
    assert words in sentence and sentence.endswith("to rebuild it: zoo build x")


def test_nothing_speaks_against_a_good_engine():
    assert why_not_loadable(GOOD, make_api(), H200) is None
    assert why_not_loadable(GOOD | {"compute_capability": None}, make_api(), H200) is None
    assert "not installed" in why_not_loadable(GOOD, None, H200)


def test_an_engine_that_does_not_load_says_why(cuda, tmp_path):
    with pytest.raises(ZooError, match="TensorRT 8.6.0 cannot load the engine.*magic tag.*to rebuild it: zoo build x"):
        GpuSession(b"pla", api=make_api(), rebuild="zoo build x")
    with pytest.raises(ZooError, match="compute capability 8.6"):
        open_session(description=GOOD | {"compute_capability": "8.6"})
    with pytest.raises(ZooError, match="cannot read the engine"):
        GpuSession(tmp_path / "none.engine", api=make_api())
    (tmp_path / "some.engine").write_bytes(b"plan")
    with GpuSession(tmp_path / "some.engine", api=make_api()) as session:
        check(session(images(1)), images(1))
