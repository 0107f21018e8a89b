"""Stand-ins for a GPU: a CUDA provider on host memory and an engine in numpy, for what has to run without one."""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import ctypes
import itertools
import threading
from types import SimpleNamespace

import numpy as np

from zoo.errors import ZooError
from zoo.runtime import gpu
from zoo.runtime.arrays import DeviceArray
from zoo.runtime.cuda import Cuda, Device, Event, Graph, Stream
from zoo.runtime.gpu import GpuSession
from zoo.runtime.loaded import _DTYPES

KERNELS = threading.Lock()  # the library that plays them has one set of coroutines, whatever the number of GPUs

# ---- a CUDA provider on host memory ---------------------------------------------------------------------------------


class FakeCuda(Cuda):
    """Runs everything at once on the host, or notes it down while a stream is being captured; counts what is alive."""

    name, graphs, ordinal = "cuda-python", True, 0

    @staticmethod
    def context(device: int) -> int:
        return device

    def __init__(self, free: int = 1 << 40, library: ctypes.CDLL | None = None) -> None:
        self.free, self.library = free, library
        self.elsewhere: dict[int, int] = {}  # addresses on other devices
        self.broken = False  # whether CUDA fails from now on
        self.misused: list[str] = []  # what CUDA would have refused in a destructor, where nothing can be raised
        self.memory: dict[int, np.ndarray] = {}
        self.streams: set[int] = set()
        self.events: set[int] = set()
        self.graphs_alive: set[int] = set()
        self.captures: dict[int, list] = {}
        self.launches = self.uploads = self.captured = 0
        self.waits: list[tuple[int, int]] = []
        self.syncs = 0
        self.recorded: dict[int, int] = {}  # the last event on each stream
        self.done: dict[int, int] = {}  # the last event on each stream that the host waited for
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
        self._outside_captures("memory")
        del self.memory[ptr]

    def _outside_captures(self, what: str) -> None:
        if self.captures:
            self.misused.append(f"{what} freed while capturing")

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
        self._outside_captures("a stream")
        self.streams.remove(raw)

    def synchronize(self, stream=None) -> None:
        assert stream is None or stream.handle not in self.captures, "synchronise while capturing"
        if self.broken:
            raise ZooError("CUDA failed with CUDA_ERROR_ILLEGAL_ADDRESS")
        self.syncs += 1
        handles = [*self.recorded] if stream is None else [stream.handle]
        self.done.update({handle: self.recorded.get(handle, 0) for handle in handles})

    def event(self, timing=False):
        self.events.add(number := next(self._numbers))
        return Event(SimpleNamespace(number=number, on=0, at=0), self)

    def record(self, event, stream) -> None:
        event.raw.on, event.raw.at = stream.handle, next(self._numbers)
        self.recorded[stream.handle] = event.raw.at

    def wait(self, stream, event) -> None:
        self.waits.append((event.raw.on, stream.handle))

    def passed(self, event) -> bool:
        """A GPU as slow as can be: it gets to an event only when the host waits for it or what comes later."""
        return event.raw.at <= self.done.get(event.raw.on, 0)

    def wait_on_host(self, event) -> None:
        self.done[event.raw.on] = max(event.raw.at, self.done.get(event.raw.on, 0))

    def elapsed_ms(self, start, end) -> float:
        return 0.0

    def _destroy_event(self, raw) -> None:
        self.events.remove(raw.number)

    def device_of(self, ptr):
        return self.elsewhere.get(ptr, 0)

    def begin_capture(self, stream) -> None:
        self.captures[stream.handle] = []

    def end_capture(self, stream):
        work = self.captures.pop(stream.handle)
        self.captured += 1
        self.graphs_alive.add(number := next(self._numbers))
        return Graph((number, work), self)

    def launch_graph(self, graph, stream) -> None:
        assert graph.raw[0] in self.graphs_alive, "a destroyed graph was launched"
        self.launches += 1
        for work in graph.raw[1]:
            work()

    def _destroy_graph(self, raw) -> None:
        self._outside_captures("a graph")
        self.graphs_alive.remove(raw[0])

    def load_module(self, image):
        return image

    def function(self, module, name):
        return name

    def launch(self, function, grid, block, stream, args) -> None:
        values = [np.array(arg) for arg in args]
        pointers = (ctypes.c_void_p * len(values))(*[value.ctypes.data for value in values])
        sizes = (ctypes.c_int * 6)(*grid, *block)

        def work(keep=values) -> None:
            with KERNELS:
                assert self.library.run(function.encode(), sizes, pointers) == 0, function

        self.do(stream.handle, work)


class LateCuda(FakeCuda):
    """Runs work as late as the order of the streams allows: when the host waits for it, or a stream that must be first.

    What is read before it was waited for is then stale, and what is overwritten too early is lost, each time.
    """

    def __init__(self, library: ctypes.CDLL | None = None) -> None:
        super().__init__(library=library)
        self.queues: dict[int, list] = {}
        self.ran: dict[int, int] = {}
        self._running = threading.RLock()

    def do(self, handle, work) -> None:
        if handle in self.captures:
            self.captures[handle].append(work)
        else:
            assert handle < 10 or handle in self.streams, "work on a destroyed stream"
            self._queue(handle).append(work)

    def _queue(self, handle) -> list:
        return self.queues.setdefault(max(handle, 1), [])  # 0 and 1 are the default stream

    def _run(self, handle, count: int | None = None) -> None:
        """Runs a stream up to its `count`-th piece of work."""
        handle, queue = max(handle, 1), self._queue(handle)
        with self._running:
            while (number := self.ran.get(handle, 0)) < (len(queue) if count is None else count):
                self.ran[handle] = number + 1
                queue[number]()

    def launch_graph(self, graph, stream) -> None:
        assert graph.raw[0] in self.graphs_alive, "a destroyed graph was launched"
        self.launches += 1
        for work in graph.raw[1]:
            self.do(stream.handle, work)

    def record(self, event, stream) -> None:
        event.raw.on, event.raw.at = stream.handle, len(self._queue(stream.handle))

    def wait(self, stream, event) -> None:
        super().wait(stream, event)
        self.do(stream.handle, lambda on=event.raw.on, at=event.raw.at: self._run(on, at))

    def passed(self, event) -> bool:
        return event.raw.at <= self.ran.get(max(event.raw.on, 1), 0)

    def wait_on_host(self, event) -> None:
        self._run(event.raw.on, event.raw.at)

    def synchronize(self, stream=None) -> None:
        super().synchronize(stream)
        for handle in [*self.queues] if stream is None else [stream.handle]:
            self._run(handle)

    def _free(self, ptr: int) -> None:
        for handle in [*self.queues]:  # as cuMemFree does
            self._run(handle)
        super()._free(ptr)


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
    device_memory_size = 4096

    def __init__(self, cuda, inputs, outputs, function, capturable=True, sharing=True, dtypes={}, more=()):  # noqa: B006
        self.cuda, self.function, self.dtypes = cuda, function, dtypes  # TensorRT's names of types; FLOAT without one
        self.inputs, self.outputs = inputs, outputs  # name -> profile; name -> shape from the input shapes
        self.more = more  # further optimisation profiles: dicts as `inputs`
        self.num_optimization_profiles = 1 + len(more)
        self.capturable, self.sharing, self.contexts = capturable, sharing, 0
        self.names = [*inputs, *outputs]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        return Named(name=self.dtypes.get(name, "FLOAT"))

    def view(self, name, ptr, shape):
        return host_view(ptr, shape, _DTYPES[self.dtypes.get(name, "FLOAT")])

    def get_tensor_format(self, name):
        return "linear"

    def is_shape_inference_io(self, name):
        return False

    def get_tensor_mode(self, name):
        return "in" if name in self.inputs else "out"

    def get_tensor_shape(self, name):
        if name not in self.inputs:
            return self.outputs[name]({name: best for name, (_, best, _) in self.inputs.items()})
        ends = [profile[name] for profile in (self.inputs, *self.more)]
        return tuple(n.pop() if len(n := set(sizes)) == 1 else -1 for sizes in zip(*(e for p in ends for e in p)))

    def get_tensor_profile_shape(self, name, profile):
        return list((self.inputs, *self.more)[profile][name])

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
        if not self.engine.sharing or profile >= self.engine.num_optimization_profiles:
            raise RuntimeError("Error in set optimization profile async.")
        self.active_optimization_profile = profile

    def set_input_shape(self, name, shape):
        assert not self.graphed, "the context of a graph was changed"
        low, _, high = self.engine.get_tensor_profile_shape(name, self.active_optimization_profile)
        if not all(a <= n <= b for a, n, b in zip(low, shape, high)):
            return False
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
            arrays = {n: engine.view(n, addresses[n], shape) for n, shape in shapes.items()}
            for name, value in engine.function(arrays).items():
                engine.view(name, addresses[name], engine.outputs[name](shapes))[...] = value

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


def install(monkeypatch, kind=FakeCuda, library=None) -> FakeCuda:
    """Makes sessions use a fake device, with an engine that they open as b"plan"."""
    fake = kind(library=library)
    monkeypatch.setattr(gpu, "provider", lambda name, device: fake)
    monkeypatch.setitem(ENGINES, b"plan", FakeEngine(fake, {"images": PROFILE}, OUTPUTS, network))
    return fake


def open_session(modern=True, **options):
    return GpuSession(b"plan", api=make_api(modern), **options)


def images(batch, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, 3, 4, 4), dtype=np.float32)


def check(outputs, x):
    for name, want in network({"images": x}).items():
        got = outputs[name]
        np.testing.assert_array_equal(got if isinstance(got, np.ndarray) else got.numpy(), want)


def on_device(cuda, x):
    buffer = cuda.upload(x)
    return DeviceArray(cuda, buffer.ptr, x.shape, x.dtype, Stream(0, 0), buffer)


def on_device_stream(cuda, x, handle):
    buffer = cuda.upload(x)
    return DeviceArray(cuda, buffer.ptr, x.shape, x.dtype, Stream(handle, handle), buffer)
