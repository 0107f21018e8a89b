"""The GPU runtime without a GPU: a CUDA provider on host memory, an engine in numpy, the kernels compiled as C++."""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import ctypes
import gc
import itertools
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from zoo import driver, nvrtc
from zoo.errors import ZooError
from zoo.preprocess import Resize, gray, imagenet, letterbox
from zoo.runtime import arrays, gpu, kernels
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.compatibility import why_not_loadable
from zoo.runtime.cuda import Cuda, Device, Stream
from zoo.runtime.gpu import GpuSession
from zoo.runtime.pipeline import FramePipeline
from zoo.runtime.slot import MAX_PLANS
from zoo.tasks import get_task

# ---- a CUDA provider on host memory ---------------------------------------------------------------------------------


class FakeCuda(Cuda):
    """Runs everything at once on the host, or notes it down while a stream is being captured; counts what is alive."""

    name, graphs = "cuda-python", True

    def __init__(self, free: int = 1 << 40, library: ctypes.CDLL | None = None) -> None:
        self.free, self.library = free, library
        self.memory: dict[int, np.ndarray] = {}
        self.streams: set[int] = set()
        self.events: set[int] = set()
        self.graphs_alive: set[int] = set()
        self.captures: dict[int, list] = {}
        self.launches = self.uploads = self.captured = 0
        self.waits: list[tuple[int, int]] = []
        self._numbers = itertools.count(100)

    def do(self, handle, work) -> None:
        if handle in self.captures:
            self.captures[handle].append(work)
        else:
            assert handle < 10 or handle in self.streams, "work on a destroyed stream"
            work()

    def _enter(self):
        return None

    def _leave(self, previous) -> None: ...

    def device(self) -> Device:
        return Device("Fake GPU", "9.0", 1 << 40, self.free)

    def _alloc(self, nbytes: int) -> int:
        assert not self.captures, "allocation while capturing"
        if nbytes > self.free:
            raise self._memory_error(nbytes, "GPU memory")
        array = np.full(nbytes, 0xA5, np.uint8)
        self.memory[array.ctypes.data] = array
        return array.ctypes.data

    def _free(self, ptr: int) -> None:
        del self.memory[ptr]

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.full(nbytes, 0x5A, np.uint8)

    def h2d(self, dst, src, stream) -> None:
        self.uploads += 1
        self.do(stream.handle, lambda: ctypes.memmove(dst, src.ctypes.data, src.nbytes))

    def d2h(self, dst, src, stream) -> None:
        self.do(stream.handle, lambda: ctypes.memmove(dst.ctypes.data, src, dst.nbytes))

    def d2d(self, dst, src, nbytes, stream) -> None:
        self.do(stream.handle, lambda: ctypes.memmove(dst, src, nbytes))

    def zero(self, dst, nbytes, stream) -> None:
        self.do(stream.handle, lambda: ctypes.memset(dst, 0, nbytes))

    def stream(self) -> Stream:
        handle = next(self._numbers)
        self.streams.add(handle)
        return Stream(handle, handle, self)

    def wrap_stream(self, stream) -> Stream:
        return Stream(int(stream), int(stream))

    def _destroy_stream(self, raw) -> None:
        self.streams.remove(raw)

    def synchronize(self, stream=None) -> None:
        assert stream is None or stream.handle not in self.captures, "synchronise while capturing"

    def event(self, timing=False):
        self.events.add(number := next(self._numbers))
        return SimpleNamespace(number=number, on=0)

    def record(self, event, stream) -> None:
        event.on = stream.handle

    def wait(self, stream, event) -> None:
        self.waits.append((event.on, stream.handle))

    def elapsed_ms(self, start, end) -> float:
        return 0.0

    def destroy_event(self, event) -> None:
        self.events.remove(event.number)

    def begin_capture(self, stream) -> None:
        self.captures[stream.handle] = []

    def end_capture(self, stream):
        work = self.captures.pop(stream.handle)
        self.captured += 1
        self.graphs_alive.add(number := next(self._numbers))
        return number, work

    def launch_graph(self, graph, stream) -> None:
        assert graph[0] in self.graphs_alive, "a destroyed graph was launched"
        self.launches += 1
        for work in graph[1]:
            work()

    def destroy_graph(self, graph) -> None:
        self.graphs_alive.remove(graph[0])

    def load_module(self, image):
        return image

    def function(self, module, name):
        return name

    def launch(self, function, grid, block, stream, args) -> None:
        values = [np.array(arg) for arg in args]
        pointers = (ctypes.c_void_p * len(values))(*[value.ctypes.data for value in values])
        sizes = (ctypes.c_int * 6)(*grid, *block)

        def work(keep=values) -> None:
            assert self.library.run(function.encode(), sizes, pointers) == 0, function

        self.do(stream.handle, work)


# ---- an engine in numpy ---------------------------------------------------------------------------------------------


class Named(SimpleNamespace):
    __hash__ = object.__hash__


class FakeTensorRT:
    """Just what the session uses of TensorRT: 8.6 style, or with `modern` as from TensorRT 10 on."""

    Runtime = staticmethod(lambda logger: FakeRuntime())
    TensorFormat = SimpleNamespace(LINEAR="linear")
    TensorIOMode = SimpleNamespace(INPUT="in")

    def __init__(self, modern: bool) -> None:
        if modern:
            self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")


class FakeRuntime:
    def deserialize_cuda_engine(self, plan):
        return ENGINES.get(plan)


class FakeEngine:
    num_optimization_profiles = 1
    device_memory_size = 4096

    def __init__(self, cuda, inputs, outputs, function, capturable=True, sharing=True):
        self.cuda, self.function = cuda, function
        self.inputs, self.outputs = inputs, outputs  # name -> profile; name -> shape from the input shapes
        self.capturable, self.sharing, self.contexts = capturable, sharing, 0
        self.names = [*inputs, *outputs]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        return Named(name="FLOAT")

    def get_tensor_format(self, name):
        return "linear"

    def is_shape_inference_io(self, name):
        return False

    def get_tensor_mode(self, name):
        return "in" if name in self.inputs else "out"

    def get_tensor_shape(self, name):
        if name not in self.inputs:
            return self.outputs[name]({name: best for name, (_, best, _) in self.inputs.items()})
        low, _, high = self.inputs[name]
        return tuple(a if a == b else -1 for a, b in zip(low, high))

    def get_tensor_profile_shape(self, name, profile):
        return list(self.inputs[name])

    def create_execution_context(self, strategy):
        assert strategy == "user"
        return FakeContext(self, modern=True)

    def create_execution_context_without_device_memory(self):
        return FakeContext(self, modern=False)


class FakeContext:
    def __init__(self, engine, modern):
        self.engine, self.modern, self.shapes, self.addresses, self.memory = engine, modern, {}, {}, None
        self.graphed = False
        engine.contexts += 1
        self.active_optimization_profile = 0 if engine.sharing or engine.contexts == 1 else -1

    def set_device_memory(self, ptr, size):
        assert self.modern and size >= self.engine.device_memory_size
        self.memory = ptr

    device_memory = property(lambda self: self.memory, lambda self, ptr: setattr(self, "memory", ptr))

    def set_optimization_profile_async(self, profile, stream):
        raise RuntimeError("Error in set optimization profile async.")

    def set_input_shape(self, name, shape):
        assert not self.graphed, "the context of a graph was changed"
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name, address):
        assert not self.graphed, "the context of a graph was changed"
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name):
        return self.engine.outputs[name](self.shapes)

    def execute_async_v3(self, handle):
        cuda, engine = self.engine.cuda, self.engine
        if handle in cuda.captures:
            if not engine.capturable:
                return False
            self.graphed = True
        shapes, addresses = dict(self.shapes), dict(self.addresses)
        assert self.memory in cuda.memory

        def work():
            arrays = {n: host_view(addresses[n], shape) for n, shape in shapes.items()}
            for name, value in engine.function(arrays).items():
                host_view(addresses[name], self.engine.outputs[name](shapes))[...] = value

        cuda.do(handle, work)
        return True


def host_view(ptr, shape, dtype=np.float32):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(ptr), dtype).reshape(shape)


ENGINES: dict[bytes, FakeEngine] = {}
PROFILE = ((1, 3, 4, 4), (2, 3, 4, 4), (8, 3, 4, 4))


def network(arrays):
    x = arrays["images"]
    return {"logits": x.sum((2, 3)) * 2, "features": np.maximum(x, 0)}


OUTPUTS = {"logits": lambda s: s["images"][:2], "features": lambda s: s["images"]}


def make_api(modern=True):
    log = SimpleNamespace(drain=lambda: "magic tag does not match", logger=None)
    return SimpleNamespace(
        trt=FakeTensorRT(modern), log=log, flavour="tensorrt", version="8.6.0", name="TensorRT 8.6.0"
    )


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(gpu, "provider", lambda name, device: fake)
    ENGINES[b"plan"] = FakeEngine(fake, {"images": PROFILE}, OUTPUTS, network)
    yield fake
    ENGINES.clear()


def open_session(modern=True, **options):
    return GpuSession(b"plan", api=make_api(modern), **options)


def images(batch, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, 3, 4, 4), dtype=np.float32)


def check(outputs, x):
    for name, want in network({"images": x}).items():
        got = outputs[name]
        np.testing.assert_array_equal(got if isinstance(got, np.ndarray) else host_view(got.ptr, got.shape), want)


def on_device(cuda, x):
    buffer = cuda.upload(x)
    return DeviceArray(cuda, buffer.ptr, x.shape, x.dtype, Stream(0, 0), buffer)


# ---- sessions -------------------------------------------------------------------------------------------------------


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
        arrays.read_source(SimpleNamespace(__cuda_array_interface__=gaps), Stream(0, 0))


def test_producers_stream_is_waited_for_and_waits(cuda):
    with open_session() as session:
        buffer = cuda.upload(x := images(1))
        interface = {"shape": x.shape, "typestr": "<f4", "data": (buffer.ptr, False), "version": 3, "stream": 7}
        check(session(SimpleNamespace(__cuda_array_interface__=interface)), x)
        assert (7, session.stream) in cuda.waits and (session.stream, 7) in cuda.waits
        cuda.waits.clear()
        check(session(on_device_stream(cuda, x, session.stream)), x)
        assert not cuda.waits


def on_device_stream(cuda, x, handle):
    buffer = cuda.upload(x)
    return DeviceArray(cuda, buffer.ptr, x.shape, x.dtype, Stream(handle, handle), buffer)


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

    source = arrays.read_source(Producer(capsule), Stream(0, 0))
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
    kept = session(on_device(cuda, x := images(2)))
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


# ---- the kernels, compiled as C++ -----------------------------------------------------------------------------------

SHIM = r"""
// Enough CUDA to run a kernel on the host: the threads of a block are coroutines that meet at __syncthreads().
#include <ucontext.h>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>
#define __global__
#define __device__ static
#define __shared__ static
struct Dim { int x, y, z; };
static Dim threadIdx, blockIdx, blockDim, gridDim;
static ucontext_t scheduler;
static std::vector<ucontext_t> threads;
static int running, barriers;
static void __syncthreads() { barriers++; swapcontext(&threads[running], &scheduler); }
template <class T> static T atomicAdd(T *p, T v) { T old = *p; *p += v; return old; }
template <class T> static T atomicOr(T *p, T v) { T old = *p; *p |= v; return old; }
template <class T> static T atomicAnd(T *p, T v) { T old = *p; *p &= v; return old; }
static int __ffs(int x) { return __builtin_ffs(x); }
template <class A, class B> static A bits_of(B b) { A a; memcpy(&a, &b, 4); return a; }
static float __int_as_float(int x) { return bits_of<float>(x); }
static float __uint_as_float(unsigned x) { return bits_of<float>(x); }
static unsigned __float_as_uint(float x) { return bits_of<unsigned>(x); }
static int min(int a, int b) { return a < b ? a : b; }
static int max(int a, int b) { return a < b ? b : a; }
#define asm(...) (bits = 0)  /* float16 stores are checked on the GPU */
SOURCES
template <class... A, size_t... I>
static void call(void (*f)(A...), void **a, std::index_sequence<I...>) { f(*(A *)a[I]...); }
template <class... A> static void call(void (*f)(A...), void **a) { call(f, a, std::index_sequence_for<A...>{}); }
static std::string kernel;
static void **arguments;
static std::vector<bool> done;
static int dispatch()
{
    if (kernel == "preprocess") call(preprocess, arguments);
    else if (kernel == "select_candidates") call(select_candidates, arguments);
    else if (kernel == "rank_candidates") call(rank_candidates, arguments);
    else if (kernel == "suppress") call(suppress, arguments);
    else return 1;
    return 0;
}
static void thread_main() { dispatch(); done[running] = true; }
extern "C" int run(const char *name, const int *sizes, void **args)
{
    kernel = name; arguments = args;
    gridDim = {sizes[0], sizes[1], sizes[2]}; blockDim = {sizes[3], sizes[4], sizes[5]};
    int count = blockDim.x * blockDim.y * blockDim.z;
    bool flat = kernel == "preprocess";
    static std::vector<std::vector<char>> stacks;
    while (!flat && (int)stacks.size() < count) stacks.emplace_back(65536);
    threads.resize(count);
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {
        done.assign(count, false);
        for (int i = 0; !flat && i < count; i++) {
            getcontext(&threads[i]);
            threads[i].uc_stack.ss_sp = stacks[i].data(); threads[i].uc_stack.ss_size = stacks[i].size();
            threads[i].uc_link = &scheduler;
            makecontext(&threads[i], thread_main, 0);
        }
        for (bool more = true; more;) {
            more = false;
            // Alternate the order of the threads: what depends on it is a race.
            static bool backwards; backwards = !backwards;
            for (int k = 0; k < count; k++) {
                int i = backwards ? count - 1 - k : k;
                if (done[i]) continue;
                running = i;
                threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
                if (flat) { if (dispatch()) return 1; done[i] = true; }
                else swapcontext(&scheduler, &threads[i]);
                more = more || !done[i];
            }
        }
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler to run the kernels on the host")
    folder = tmp_path_factory.mktemp("kernels")
    sources = "\n".join((kernels._SOURCES / name).read_text() for name in ("preprocess.cu", "detect.cu"))
    (folder / "kernels.cpp").write_text(SHIM.replace("SOURCES", sources))
    command = [compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w", "-o", str(folder / "kernels.so")]
    subprocess.run([*command, str(folder / "kernels.cpp")], check=True)
    return ctypes.CDLL(str(folder / "kernels.so"))


@pytest.fixture
def device(library, monkeypatch):
    """A fake CUDA device that runs the kernels."""
    fake = FakeCuda(library=library)
    monkeypatch.setattr(gpu, "provider", lambda name, device: fake)
    monkeypatch.setattr(kernels, "_module", lambda cuda, file: file)
    monkeypatch.setattr(kernels, "_function", lambda cuda, file, name: name)
    return fake


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 5 + 1, width // 7 + 1, 3), np.uint8)
    grown = np.repeat(np.repeat(blocks, 5, 0), 7, 1)[:height, :width]
    return np.where(rng.random((height, width, 1)) < 0.5, grown, rng.integers(0, 256, (height, width, 3), np.uint8))


def run_preprocessor(device, spec, frame, size, rgb=False, pad=0):
    stream = device.stream()
    height, width = frame.shape[:2]
    pitched = np.zeros((height, 3 * width + pad), np.uint8)
    pitched[:, : 3 * width] = frame.reshape(height, -1)
    source = device.upload(pitched)
    out = device.alloc(12 * size[0] * size[1])
    array = DeviceArray(device, out.ptr, (1, 3, *size), np.dtype(np.float32), stream, out)
    preprocessor = kernels.Preprocessor(device, spec, (height, width), size, rgb)
    preprocessor.enqueue(source.ptr, pitched.shape[1], array, stream)
    return array.numpy()[0], preprocessor.placement


SHAPES = [(48, 64), (37, 113), (120, 90), (64, 64), (5, 3), (1, 1), (128, 128), (200, 31), (31, 200)]


SPECS = {
    "letterbox": letterbox(64),
    "letterbox, corner": Resize(64, "fit", interpolation="pillow:bicubic", pad=7, align="corner"),
    "crop": imagenet(40, 32),
    "crop, bicubic": imagenet(40, 32, interpolation="pillow:bicubic"),
    "crop, opencv": imagenet(40, 32, interpolation="cv2:bilinear"),
    "stretch, bytes": Resize(64, interpolation="pillow:bicubic", divisor=1, mean=(127,), std=(128,), color="BGR"),
    "nearest": Resize(64, interpolation="pillow:nearest", mean=(0.1, 0.2, 0.3)),
    "nearest, opencv": Resize(64, "fit", interpolation="cv2:nearest"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_preprocessing_kernel_equals_the_cpu(device, spec, shape):
    height, width = spec.input[1:]
    for size in ((height, width), (height + 32, width)):
        want, placement = spec.apply(picture(*shape), size)
        got, there = run_preprocessor(device, spec, picture(*shape), size, pad=13)
        np.testing.assert_array_equal(got, want)
        assert there == placement


def test_rgb_frames_and_wrong_specs(device):
    frame = picture(40, 50)
    want = letterbox(64).apply(frame)[0]
    got, _ = run_preprocessor(device, letterbox(64), np.ascontiguousarray(frame[..., ::-1]), (64, 64), rgb=True)
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ZooError, match="no GPU kernel"):
        run_preprocessor(device, gray(32), frame, (32, 32))
    with pytest.raises(ZooError, match="too small for a crop"):
        run_preprocessor(device, imagenet(16, 32), frame, (32, 32))


def raw_detections(seed, anchors, classes, peaks, images=1):
    """Clusters of overlapping boxes, many scores equal, as networks give them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 640, (images, 2, peaks))[:, :, rng.integers(0, peaks, anchors)]
    centres += rng.normal(0, 8, centres.shape)
    boxes = np.concatenate([centres, rng.uniform(20, 120, centres.shape)], 1).astype(np.float32)
    scores = rng.random((images, classes, anchors)).astype(np.float32) ** 6
    return boxes, np.round(scores, 2)  # rounding makes ties


def run_detector(device, boxes, scores, placement, **options):
    stream = device.stream()
    arrays = []
    for x in (boxes, scores):
        buffer = device.upload(x)
        arrays.append(DeviceArray(device, buffer.ptr, x.shape, x.dtype, stream, buffer))
    detector = kernels.Detector(device, *arrays, stream, **options)
    placements = detector.placements([placement] * len(boxes))
    for _ in range(2):  # the second run finds the scratch memory as the first left it
        detector.enqueue(placements, stream)
    return detector.parse(detector.output.numpy())


@pytest.mark.parametrize(
    ("anchors", "classes", "options"),
    [
        (300, 80, {}),
        (2000, 3, {"conf": 0.1, "iou": 0.45}),
        (2000, 80, {"conf": 0.001, "max_det": 100}),
        (1500, 1, {"conf": 0.9}),
        (700, 5, {"conf": 0.999}),
        (1500, 1, {"conf": 0.0, "iou": 0.99, "max_det": 1024}),
    ],
)
def test_detection_kernels_equal_the_cpu(device, anchors, classes, options):
    detect = pytest.importorskip("zoo.tasks.detect")
    placement = letterbox().placement((1080, 810), (640, 640))
    boxes, scores = raw_detections(anchors, anchors, classes, 40, images=2)
    found = run_detector(device, boxes, scores, placement, **options)
    for image, got in enumerate(found):
        want_boxes, want_scores, want_classes = detect.non_max_suppression(boxes[image], scores[image], **options)
        np.testing.assert_array_equal(got.scores, want_scores)
        np.testing.assert_array_equal(got.classes, want_classes)
        np.testing.assert_array_equal(got.boxes, placement.to_image(want_boxes))


def test_overflow_is_an_error_and_the_next_frame_is_right(device):
    placement = letterbox().placement((640, 640), (640, 640))
    boxes, scores = raw_detections(1, 300, 4, 10)
    for where in ("scores", "boxes"):
        bad = {"boxes": boxes.copy(), "scores": scores.copy()}
        bad[where][0, 0, np.argmax(scores[0].max(0))] = np.nan if where == "scores" else np.inf
        with pytest.raises(ZooError, match="NaN or infinity"):
            run_detector(device, **bad, placement=placement)
    with pytest.raises(ZooError, match="max_det is 2000"):
        run_detector(device, boxes, scores, placement, max_det=2000)


def detector_network(arrays):
    x = arrays["images"]
    boxes, scores = raw_detections(5, 500, 6, 20)
    return {"boxes": boxes * (0.5 + x.mean()), "scores": scores * np.float32(x.mean() > 0.2)}


DETECT = partial(get_task("detect").gpu_decoder, options=get_task("detect").settings())
DETECTOR = {"boxes": lambda s: (1, 4, 500), "scores": lambda s: (1, 6, 500)}


@pytest.mark.parametrize("graphs", [True, False])
def test_frames_to_detections(device, graphs):
    detect = pytest.importorskip("zoo.tasks.detect")
    shape = (1, 3, 64, 64)
    ENGINES[b"plan"] = FakeEngine(device, {"images": (shape,) * 3}, DETECTOR, detector_network)
    with open_session(graphs=graphs) as session, FramePipeline(session, letterbox(64), decoder=DETECT) as pipeline:
        for turn in range(4):
            for shape in ((40, 70), (90, 33)):
                frame = picture(*shape, turn)
                x, placement = letterbox(64).apply(frame)
                out = detector_network({"images": x[None]})
                boxes, scores, classes = detect.non_max_suppression(out["boxes"][0], out["scores"][0])
                pinned = pipeline.buffer(*shape)
                pinned[:] = frame
                device_frame = on_device(device, frame)
                for given in (frame, frame[:, :, ::-1][:, :, ::-1], pinned, device_frame):
                    got = pipeline(given)
                    assert len(scores) > 3
                    np.testing.assert_array_equal(got.boxes, placement.to_image(boxes))
                    np.testing.assert_array_equal(got.scores, scores)
                    np.testing.assert_array_equal(got.classes, classes)
        assert bool(device.captured) == graphs
        for bad in (frame[0], frame.astype(np.float32), frame[:0]):
            with pytest.raises(ZooError, match="Expected a frame"):
                pipeline(bad)
    with pytest.raises(ZooError, match="pipeline is closed"):
        pipeline(frame)
    assert not device.graphs_alive
    ENGINES.clear()


def test_frames_to_logits_and_pitched_frames(device):
    shape, spec = (1, 3, 32, 32), imagenet(40, 32)
    function = lambda arrays: {"logits": arrays["images"].mean((2, 3))}  # noqa: E731
    ENGINES[b"plan"] = FakeEngine(device, {"images": (shape,) * 3}, {"logits": lambda s: (1, 3)}, function)
    frame = picture(50, 60)
    buffer = device.upload(np.pad(frame.reshape(50, 180), ((0, 0), (0, 20))))
    interface = {
        "shape": frame.shape,
        "typestr": "|u1",
        "data": (buffer.ptr, False),
        "strides": (200, 3, 1),
        "version": 3,
    }
    with open_session() as session, FramePipeline(session, spec) as pipeline:
        want = function({"images": spec.apply(frame)[0][None]})["logits"]
        for given in (frame, SimpleNamespace(__cuda_array_interface__=interface)):
            np.testing.assert_array_equal(pipeline(given)["logits"], want)
        interface["strides"] = (200, 4, 1)
        with pytest.raises(ZooError, match="not packed"):
            pipeline(SimpleNamespace(__cuda_array_interface__=interface))
    ENGINES.clear()


def rows(result):
    """A result as data that can be compared."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(result).items()}


def test_pictures_to_results_as_on_the_cpu(device):
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.registry import get_model
    from zoo.session import Session
    logits = lambda arrays: {"logits": arrays["images"].mean((2, 3))}  # noqa: E731
    for name, options, spec, size, outputs, function in (
        ("yolov8n", {"conf": 0.1}, letterbox(64), (64, 96), DETECTOR, detector_network),
        ("resnet18", {"top": 2}, imagenet(40, 32), (32, 32), {"logits": lambda s: (1, 3)}, logits),
    ):
        shape = (1, 3, *size)
        ENGINES[b"plan"] = FakeEngine(device, {"images": (shape,) * 3}, outputs, function)
        with open_session() as executor:
            session = Session(get_model(name), executor, "fake", spec, size, None, "none")
            images = [picture(48, 64, seed) for seed in range(3)]
            wanted = [predict.Predictor(session, **options)(image).result for image in images]
            with predict.make_predictor(session, **options) as predictor:
                assert isinstance(predictor, predict.GpuPredictor)
                for image, want in zip(images, wanted):
                    assert len(want.scores) and rows(predictor(image).result) == rows(want)
    ENGINES.clear()


def test_a_picture_without_a_kernel_is_prepared_on_the_cpu(device):
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.api import Session
    from zoo.registry import get_model

    logits = lambda arrays: {"logits": arrays["images"].mean((2, 3)) * np.arange(10, dtype=np.float32)}  # noqa: E731
    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 1, 32, 32),) * 3}, {"logits": lambda s: (1, 10)}, logits)
    with open_session() as executor:
        session = Session(get_model("lenet5"), executor, "fake", gray(32), (32, 32), None, "none")
        with predict.make_predictor(session) as predictor:
            assert type(predictor) is predict.Predictor
            assert predictor(picture(48, 64)).result.classes.tolist() == [9, 8, 7, 6, 5]
    ENGINES.clear()


def test_pictures_under_way_keep_their_results_and_do_not_wait_for_each_other(device, monkeypatch):
    predict = pytest.importorskip("zoo.runtime.predict")
    from zoo.registry import get_model
    from zoo.session import Session
    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 3, 64, 64),) * 3}, DETECTOR, detector_network)
    with open_session() as executor:
        session = Session(get_model("yolov8n"), executor, "fake", letterbox(64), (64, 64), None, "none")
        images = [picture(48, 64, seed) for seed in range(7)]
        wanted = [rows(predict.Predictor(session, conf=0.1)(image).result) for image in images]
        assert len({repr(want) for want in wanted}) == len(images)
        predictor = predict.make_predictor(session, conf=0.1)
        under_way = [predictor.submit(image) for image in images]  # five more than there is room for
        assert [rows(pending.result().result) for pending in reversed(under_way)] == wanted[::-1]
        waited = []
        monkeypatch.setattr(device, "synchronize", lambda stream=None: waited.append(stream))
        first, second = predictor.submit(images[0]), predictor.submit(images[1])
        assert not waited
        assert rows(second.result().result) == wanted[1] and len(waited) == 1  # of its own stream
        last = predictor.submit(images[2])
        predictor.close()
        assert (rows(first.result().result), rows(last.result().result)) == (wanted[0], wanted[2])
        with pytest.raises(ZooError, match="pipeline is closed"):
            predictor.submit(images[0])
    ENGINES.clear()


def test_a_frame_that_cannot_be_decoded_does_not_spoil_the_next(device):
    def network(arrays):
        outputs = detector_network(arrays)
        outputs["scores"][0, 0, 0] = np.nan if arrays["images"].mean() > 0.9 else 0
        return outputs

    ENGINES[b"plan"] = FakeEngine(device, {"images": ((1, 3, 64, 64),) * 3}, DETECTOR, network)
    white, good = np.full((64, 64, 3), 255, np.uint8), picture(64, 64)
    with open_session() as session, FramePipeline(session, letterbox(64), decoder=DETECT) as pipeline:
        want = pipeline(good)
        bad, after = pipeline.submit(white), pipeline.submit(good)
        for _ in range(2):
            with pytest.raises(ZooError, match="NaN or infinity"):
                bad.result()
        np.testing.assert_array_equal(after.result().boxes, want.boxes)
    ENGINES.clear()


# ---- NVRTC ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        nvrtc.library()
    except ZooError as error:
        pytest.skip(str(error))
    return tmp_path


@pytest.mark.parametrize("file", ["preprocess.cu", "detect.cu"])
@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.9", "9.0"])
def test_kernels_compile(compiler, file, capability, monkeypatch):
    source = (kernels._SOURCES / file).read_text()
    image = nvrtc.compile_source(source, file, capability)
    assert image[:4] == b"\x7fELF"
    monkeypatch.setattr(nvrtc, "_compile", lambda *_: pytest.fail("not taken from the cache"))
    assert nvrtc.compile_source(source, file, capability) == image


def test_a_newer_gpu_gets_ptx_and_an_error_gets_the_log(compiler):
    source = 'extern "C" __global__ void f(int *x) { *x = 1; }'
    assert b".target" in nvrtc.compile_source(source, "f.cu", "99.0")
    with pytest.raises(ZooError, match="f.cu does not compile for sm_90.*undefined_name"):
        nvrtc.compile_source(source.replace("= 1", "= undefined_name"), "f.cu", "9.0")


def test_missing_nvrtc_names_the_package(monkeypatch):
    monkeypatch.setattr(nvrtc, "_paths", lambda: ["libnvrtc-that-is-not-there.so"])
    nvrtc.library.cache_clear()
    with pytest.raises(ZooError, match="pip install nvidia-cuda-nvrtc"):
        nvrtc.library()
    nvrtc.library.cache_clear()


# The driver


@pytest.mark.parametrize(
    ("code", "count", "visible", "words"),
    [
        (100, 0, "", r"the NVIDIA driver sees no GPU \(CUDA_VISIBLE_DEVICES is ''\)"),
        (100, 0, None, "the NVIDIA driver sees no GPU"),
        (0, 0, "7", r"the NVIDIA driver sees no GPU \(CUDA_VISIBLE_DEVICES is '7'\)"),
        (999, 1, None, r"the NVIDIA driver does not start \(CUDA_ERROR_UNKNOWN\)"),
        (0, 1, None, None),
    ],
)
def test_what_the_driver_lacks(
    monkeypatch: pytest.MonkeyPatch, code: int, count: int, visible: str | None, words: str | None
) -> None:
    def error_name(code: int, name: Any) -> None:
        name._obj.value = b"CUDA_ERROR_UNKNOWN"

    def device_count(number: Any) -> int:
        number._obj.value = count
        return 0

    library = SimpleNamespace(cuInit=lambda flags: code, cuDeviceGetCount=device_count, cuGetErrorName=error_name)
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = driver.driver_problem.__wrapped__()
    assert found is words if words is None else re.fullmatch(words, found)
