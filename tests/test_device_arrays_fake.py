"""Arrays in GPU memory, without a GPU: whose they are, on which device, and who waits for whom.

On the late device of `fake_gpu`, what is read or overwritten too early gives wrong numbers each time.
"""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from fake_gpu import check, images, network, on_device, on_device_stream, open_session

from zoo.errors import ZooError
from zoo.runtime import arrays, results
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.borrowing import MOST_KEPT
from zoo.runtime.cuda import Stream


def write_later(cuda, array, x, stream) -> None:
    """Fills a device array from the host, in the order of `stream`."""
    cuda.do(stream, lambda: ctypes.memmove(array.ptr, x.ctypes.data, x.nbytes))


class Foreign:
    """An array of another package with __cuda_array_interface__, made from one of ours."""

    def __init__(self, array, **changes) -> None:
        self.array, self.__cuda_array_interface__ = array, {**array.__cuda_array_interface__, **changes}


class Producer:
    """An array of another package with DLPack, made from one of ours; it follows no stream."""

    def __init__(self, array, device=0, kind=2) -> None:
        self.array, self.device, self.kind = array, device, kind

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__(stream=-1)

    def __dlpack_device__(self):
        return self.kind, self.device


def pooled(cuda, x, make):
    """An array whose memory another one gets as soon as it is dropped, as in the pools of PyTorch and CuPy."""
    array = on_device(cuda, x)
    made = make(array)
    weakref.finalize(made, ctypes.memset, array.ptr, 0, array.nbytes)
    return made


# ---- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize("how", ["call", "submit"])
def test_results_are_the_callers_own(cuda, contexts, how):
    """Also after calls of other threads, which may share the context."""
    with open_session(contexts=contexts) as session:
        x, y = on_device(cuda, images(2, 0)), on_device(cuda, images(2, 1))
        mine = session(x) if how == "call" else session.submit(x).result()

        def other():
            for _ in range(3):
                session(y)
                session.submit(y).result()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        check(mine, images(2, 0))


def test_views_are_the_sessions_and_save_the_copy(cuda):
    with open_session() as session:
        x, y = on_device(cuda, images(2, 0)), on_device(cuda, images(2, 1))
        first = session(x, views=True)
        check(first, images(2, 0))
        second = session(y, views=True)
        assert [array.ptr for array in first.values()] == [array.ptr for array in second.values()]
        check(first, images(2, 1))
        mine, other = session(x)["logits"], session(x)["logits"]
        assert mine.ptr != other.ptr


@pytest.fixture
def allocated(cuda, monkeypatch):
    """The sizes of all memory that CUDA was asked for."""
    sizes, alloc = [], cuda._alloc
    monkeypatch.setattr(cuda, "_alloc", lambda nbytes: sizes.append(nbytes) or alloc(nbytes))
    return sizes


def test_memory_of_dropped_results_is_given_to_later_ones(cuda, allocated):
    """Without asking CUDA; what the caller keeps stays as it is."""
    with open_session() as session:
        inputs = [on_device(cuda, images(2, seed)) for seed in range(8)]
        kept = [session(inputs[0]) for _ in range(3)]
        found = session(inputs[1])
        allocated.clear()
        for seed in (2, 3, 4, 5, 6, 7):
            found = session.submit(inputs[seed]).result() if seed % 2 else session(inputs[seed])
            check(found, images(2, seed))
        assert len(allocated) == len(found)  # those of the first round, while `found` was still there
        for outputs in kept:
            check(outputs, images(2, 0))


@pytest.mark.parametrize("address", ["dlpack", "dlpack without a stream", "interface"])
def test_memory_waits_for_whoever_read_it(cuda, allocated, address):
    """A consumer whose work is under way when it lets go: of DLPack the stream is known, else CUDA frees and waits."""
    other = cuda.stream()
    with open_session() as session:
        x, y, read = on_device(cuda, images(2, 0)), on_device(cuda, images(2, 1)), np.empty((2, 3), np.float32)
        for _ in range(2):
            result = session(x)["logits"]
            if address == "interface":
                pointer = result.__cuda_array_interface__["data"][0]
                event = cuda.event()
                cuda.record(event, result.stream)
                cuda.wait(other, event)
            else:
                capsule = result.__dlpack__(stream=other.handle if address == "dlpack" else -1)
                pointer = result.ptr
            if address == "dlpack without a stream":
                cuda.synchronize(result.stream)
            cuda.do(other.handle, lambda at=pointer: ctypes.memmove(read.ctypes.data, at, read.nbytes))
            if address != "interface":
                del capsule
            del result
            allocated.clear()
            mine = session(y)
            check(mine, images(2, 1))
            assert (read.nbytes in allocated) == (address != "dlpack")
            cuda.synchronize(other)
            np.testing.assert_array_equal(read, network({"images": images(2, 0)})["logits"])
            del mine


def test_spare_memory_is_bounded_and_given_back_where_it_lacks(cuda, monkeypatch):
    monkeypatch.setattr(results, "MOST_SPARE", 3 * 24)
    with open_session() as session:
        one, two = on_device(cuda, images(1, 0)), on_device(cuda, images(2, 0))
        session(one, views=True), session(two, views=True)
        before = len(cuda.memory)
        many = [session(two)["logits"] for _ in range(5)]  # 24 bytes each
        assert len(cuda.memory) == before + 5
        del many
        gc.collect()
        assert len(cuda.memory) == before + 3
        monkeypatch.setattr(cuda, "free", 0)
        with pytest.raises(ZooError, match="not enough GPU memory"):
            session(one)
        assert len(cuda.memory) == before


def test_results_outlive_their_session(cuda):
    with open_session() as session:
        found = session(on_device(cuda, x := images(2)))
    check(found, x)
    del found["logits"]
    assert len(cuda.memory) == 1
    del found
    gc.collect()
    assert not cuda.memory and not cuda.streams and not cuda.events


# ---- arrays of others -----------------------------------------------------------------------------------------------


def test_the_stream_of_an_array_is_waited_for_and_waits(cuda):
    other = cuda.stream()
    with open_session() as session:
        array = on_device_stream(cuda, images(2, 9), other.handle)
        for seed in range(4):  # written on the other stream behind the call's back, before and after
            write_later(cuda, array, images(2, seed), other.handle)
            outputs = session(Foreign(array))
            write_later(cuda, array, images(2, 8), other.handle)
            check(outputs, images(2, seed))


@pytest.mark.parametrize("module", ["torch", "torchvision.tv_tensors._image"])
def test_pytorchs_current_stream_is_waited_for(cuda, monkeypatch, module):
    """Also for classes that are made from PyTorch's tensor, whose __cuda_array_interface__ tells no stream."""
    current = cuda.stream()
    stream_now = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=current.handle))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=stream_now))
    base = type("Tensor", (), {"__module__": "torch"})
    array = on_device(cuda, images(2, 9))
    tensor = type("Image", (base,), {"__module__": module, "__cuda_array_interface__": {"stream": None}})()
    vars(tensor).update(
        is_cuda=True, device="cuda:0", dtype="torch.float32", shape=array.shape, data_ptr=lambda: array.ptr,
        is_contiguous=lambda: True, get_device=lambda: 0,
    )  # fmt: skip
    with open_session() as session:
        for seed in range(3):
            write_later(cuda, array, images(2, seed), current.handle)
            outputs = session(tensor)
            write_later(cuda, array, images(2, 8), current.handle)
            check(outputs, images(2, seed))
        tensor.get_device = lambda: 1
        with pytest.raises(ZooError, match="lies on gpu:1, this session runs on gpu:0"):
            session(tensor)


@pytest.mark.parametrize("make", [Producer, lambda array: Foreign(array, stream=None)], ids=["DLPack", "interface"])
def test_arrays_without_a_stream_are_kept_until_they_were_read(cuda, make):
    with open_session(contexts=2) as session:
        found = [session(pooled(cuda, images(2, seed), make)) for seed in range(3)]
        pending = [session.submit(pooled(cuda, images(2, seed), make)) for seed in range(3)]
        for seed in range(3):
            check(found[seed], images(2, seed))
            check(pending[seed].result(), images(2, seed))


def test_few_arrays_are_kept_however_far_the_gpu_is_behind(cuda):
    with open_session() as session:
        given = []
        for seed in range(2 * MOST_KEPT):
            array = Foreign(on_device(cuda, images(1, seed)), stream=None)
            given.append(weakref.ref(array))
            session(array, views=True)
            del array
        assert sum(ref() is not None for ref in given) <= MOST_KEPT + 1
        session(images(1))  # whose result is waited for
        assert not any(ref() for ref in given)


def test_an_array_of_one_context_is_ordered_in_another(cuda):
    """A result that is the next call's input, in a thread with another context."""
    with open_session(contexts=2) as session:
        x = on_device(cuda, images(2))
        features = session(x)["features"]
        found = {}
        thread = threading.Thread(target=lambda: found.update(session(features)))
        thread.start()
        thread.join()
        check(found, np.maximum(images(2), 0))


# ---- arrays that others took ----------------------------------------------------------------------------------------


class Taken:
    """What a consumer makes of a DLPack capsule: it takes the memory over, and gives it back in the end."""

    def __init__(self, array, stream) -> None:
        capsule = array.__dlpack__(stream=stream)
        self.address = arrays._capsule_pointer(id(capsule), b"dltensor")
        ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), _USED)

    def drop(self) -> None:
        deleter = arrays._DLManagedTensor.from_address(self.address).deleter
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter)(self.address)


_USED = ctypes.c_char_p(b"used_dltensor")
ctypes.pythonapi.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]


@pytest.mark.parametrize("given_back", [False, True], ids=["in hand", "given back"])
def test_what_pytorch_writes_to_an_input_is_waited_for(cuda, given_back):
    """`session.input`, taken through DLPack and written on the stream that took it."""
    other = cuda.stream()
    with open_session() as session:
        mine = session.input("images", (2, 3, 4, 4))
        for seed in range(3):
            taken = Taken(mine, other.handle)
            write_later(cuda, mine, images(2, seed), other.handle)
            if given_back:
                taken.drop()
            outputs = session(mine)
            write_later(cuda, mine, images(2, 8), other.handle)
            if not given_back:
                check(outputs, images(2, seed))
                taken.drop()
            elif seed == 0:
                cuda.synchronize(other)


@pytest.mark.parametrize("given_back", [False, True], ids=["in hand", "given back"])
def test_who_reads_a_view_is_waited_for_before_it_is_overwritten(cuda, given_back):
    other = cuda.stream()
    with open_session() as session:
        x, y = on_device(cuda, images(2, 0)), on_device(cuda, images(2, 1))
        view = session(x, views=True)["features"]
        taken = Taken(view, other.handle)
        read = np.zeros(view.shape, np.float32)
        cuda.d2h(read, view.ptr, other)
        if given_back:
            taken.drop()
        session(y, views=True)
        cuda.synchronize()
        np.testing.assert_array_equal(read, np.maximum(images(2, 0), 0))
        if not given_back:
            taken.drop()
        assert not view.owner.borrowers


def test_a_capsule_says_its_device(cuda):
    array = on_device(cuda, images(1))
    cuda.ordinal = 1
    assert array.__dlpack_device__() == (2, 1)
    capsule = array.__dlpack__(stream=-1)
    tensor = arrays._DLManagedTensor.from_address(arrays._capsule_pointer(id(capsule), b"dltensor")).tensor
    assert (tensor.device_type, tensor.device_id) == (2, 1)
    with pytest.raises(BufferError):
        array.__dlpack__(dl_device=(2, 0))


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["DLPack", "interface", "ours"])
def test_an_array_on_another_gpu_is_refused(cuda, which):
    array = on_device(cuda, x := images(2))
    if which == "interface":  # which does not say it; CUDA does
        cuda.elsewhere[array.ptr] = 1
    other = SimpleNamespace(ordinal=1)
    given = {
        "DLPack": Producer(array, device=1),
        "interface": Foreign(array),
        "ours": DeviceArray(other, array.ptr, array.shape, array.dtype, array.stream, array.owner),
    }[which]
    with open_session() as session:
        for call in (session, session.submit):
            with pytest.raises(ZooError, match='lies on gpu:1, this session runs on gpu:0; .* device="gpu:1"'):
                call(given)
        check(session(x), x)


def test_managed_memory_is_read_from_any_gpu(cuda):
    with open_session() as session:
        check(session(Producer(on_device(cuda, x := images(2)), device=1, kind=13)), x)


class Versioned:
    """Answers DLPack with a capsule of another kind than was asked for."""

    def __dlpack__(self, stream=None):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(_DATA), _VERSIONED, None)

    def __dlpack_device__(self):
        return 2, 0


_DATA, _VERSIONED = ctypes.create_string_buffer(256), ctypes.create_string_buffer(b"dltensor_versioned")


class Unwilling:
    def __dlpack__(self, stream=None):
        raise BufferError("requires gradient")

    def __dlpack_device__(self):
        return 2, 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Versioned(), "a Versioned, answers DLPack with no unversioned capsule"),
        (Unwilling(), r"an? Unwilling, cannot be read through DLPack \(requires gradient\)"),
        (Producer(None, kind=10), "on a device of DLPack type 10"),
        (SimpleNamespace(__cuda_array_interface__={"shape": (2,), "data": (1, False)}), "KeyError: 'typestr'"),
        (SimpleNamespace(__cuda_array_interface__={"shape": 2, "typestr": "<f4", "data": (1, False)}), "TypeError"),
        (SimpleNamespace(__cuda_array_interface__={"shape": (2,), "typestr": "<f4", "data": 1}), "TypeError"),
        (SimpleNamespace(__cuda_array_interface__={"shape": (2,), "typestr": "<x4", "data": (1, False)}), "dtype <x4"),
        (
            SimpleNamespace(
                __cuda_array_interface__={"shape": (2,), "typestr": "<f4", "data": (1, False), "mask": object()}
            ),
            "masked array",
        ),
    ],
)
def test_arrays_that_cannot_be_read_are_refused_by_name(cuda, given, words):
    with open_session() as session:
        with pytest.raises(ZooError, match=words):
            session(given)


def test_shapes_and_strides_may_be_lists(cuda):
    array = on_device(cuda, x := images(2))
    with open_session() as session:
        check(session(Foreign(array, shape=[2, 3, 4, 4], strides=[192, 64, 16, 4])), x)
        with pytest.raises(ZooError, match="not contiguous"):
            session(Foreign(array, shape=[2, 3, 4, 4], strides=[192, 4, 16, 64]))


def test_streams_of_arrays_are_not_made_anew(cuda):
    """Waiting for the same stream again and again costs no new event."""
    with open_session() as session:
        array = Foreign(on_device_stream(cuda, images(1), (stream := cuda.stream()).handle))
        session(array, views=True)
        before = len(cuda.events)
        for _ in range(5):
            session(array, views=True)
            cuda.synchronize()
        assert len(cuda.events) <= before + 1
        np.testing.assert_array_equal(session(array)["logits"].numpy(), network({"images": images(1)})["logits"])
        cuda.synchronize(stream)


def test_a_default_stream_is_the_legacy_one(cuda):
    array = DeviceArray(cuda, 4096, (1,), np.dtype(np.float32), Stream(0, 0), cuda.alloc(4))
    assert array.__cuda_array_interface__["stream"] == 1
