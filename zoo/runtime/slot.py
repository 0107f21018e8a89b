"""One execution context of a session with its stream, its buffers, and a CUDA graph for each shape and address."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import ZooError, closest
from zoo.runtime.arrays import CLOSED, DeviceArray, Shape, Source, byte_count, check_device, order_streams, read_source
from zoo.runtime.borrowing import Borrowing
from zoo.runtime.cuda import Buffer, Graph, Stream
from zoo.runtime.loaded import LoadedEngine, fits
from zoo.runtime.results import ResultMemory

MAX_PLANS = 32  # shapes and addresses that one context remembers, each with its graph


class Plan:
    """How to run one combination of shapes and addresses: everything that a call would else work out again."""

    __slots__ = (
        "profile",
        "shapes",
        "addresses",
        "outputs",
        "views",
        "uploads",
        "downloads",
        "context",
        "graph",
        "uses",
    )

    def __init__(self, profile: int, shapes: dict[str, Shape], addresses: dict[str, int]) -> None:
        self.profile, self.shapes, self.addresses = profile, shapes, addresses
        self.outputs: dict[str, DeviceArray] = {}
        self.views: dict[str, Any] = {}  # the outputs where they lie, as the caller gets them
        self.uploads: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}  # pinned bytes, pinned array, device address
        self.downloads: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
        self.context: Any = None  # the context that the graph was captured from, and nothing else uses
        self.graph: Graph | None = None
        self.uses = 0


class Slot:
    """One execution context with its stream and buffers. Its lock serialises the calls."""

    def __init__(self, engine: LoadedEngine, stream: Stream | None, graphs: bool) -> None:
        self.lock = threading.RLock()
        self.engine, self.cuda, self.graphs = engine, engine.cuda, graphs
        self.own_stream = stream is None
        self.stream = stream or self.cuda.stream()
        self.pending: Ticket | None = None
        self.closed = False
        self._side: Stream | None = None  # where graphs are captured: the default stream cannot be
        self._borrowing = Borrowing(self.cuda, self.stream)
        self._results = ResultMemory(self.cuda, self.stream)
        self._activation: Buffer | None = None
        self._context: Any = None
        self._current: Plan | None = None  # what the context is set to
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._device: dict[str, Buffer] = {}
        self._pinned: dict[str, np.ndarray] = {}

    def enqueue(self, images: Any) -> Plan:
        """Starts the network on `images`; the outputs are complete when the stream gets there."""
        if self.closed:
            raise ZooError(CLOSED)
        if self.pending is not None:
            self.pending._detach()
        sources = self._sources(images)
        key = sources[0][:3] if len(sources) == 1 else tuple(source[:3] for source in sources)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, sources)
        else:
            self._plans.move_to_end(key)
        for (_, pinned, _), source in zip(plan.uploads.values(), sources):
            np.copyto(pinned, source.keep)
        others = self._borrowing.begin(sources, [array.owner for array in plan.outputs.values()])
        try:
            self._run(plan)
        finally:  # whatever was enqueued reads them
            self._borrowing.end(sources, others)
        return plan

    def _sources(self, images: Any) -> list[Source]:
        """The inputs in the engine's order."""
        inputs = self.engine.inputs
        if not isinstance(images, Mapping):
            if len(inputs) != 1:
                raise ZooError(
                    f"the engine has {len(inputs)} inputs ({', '.join(inputs)}); give a dict of arrays by name"
                )
            return [read_source(images, self.stream, self.cuda)]
        for name in images:
            if name not in inputs:
                found = closest(str(name), inputs)
                raise ZooError(f"the engine has no input '{name}'; it has {', '.join(inputs)}{found}")
        for name in inputs:
            if name not in images:
                raise ZooError(f"the input '{name}' is missing; the engine has {', '.join(inputs)}")
        return [read_source(images[name], self.stream, self.cuda) for name in inputs]

    def _remember(self, key: Any, sources: Sequence[Source]) -> Plan:
        """A plan for inputs seen for the first time; the one unused for longest goes when there are too many."""
        plan = self._plans[key] = self._make_plan(dict(zip(self.engine.inputs, sources)))
        while len(self._plans) > MAX_PLANS:
            _, oldest = self._plans.popitem(last=False)
            if oldest.graph is not None:
                self.cuda.synchronize(self.stream)  # it may be running
            self._drop(oldest)
        return plan

    def _make_plan(self, sources: Mapping[str, Source]) -> Plan:
        engine = self.engine
        on_host = all(source.ptr is None for source in sources.values())
        if not on_host and any(source.ptr is None for source in sources.values()):
            raise ZooError("some inputs are on the host and some on the GPU; give all of them in one place")
        for name, source in sources.items():
            if source.dtype != engine.inputs[name].dtype:
                raise ZooError(
                    f"input '{name}' is {source.dtype}, the engine takes {engine.inputs[name].dtype}; convert it first"
                )
            if source.ptr is not None:
                check_device(self.cuda.device_of(source.ptr), self.cuda)
        shapes = {name: tuple(source.shape) for name, source in sources.items()}
        profile = engine.profile(shapes)
        self._prepare_context(profile)
        engine.bind(self._context, shapes, {})
        out_shapes = engine.output_shapes(self._context)
        tensors = {**(engine.inputs if on_host else {}), **engine.outputs}
        sizes = {name: byte_count((shapes | out_shapes)[name], tensor.dtype) for name, tensor in tensors.items()}
        self._grow(sizes, pinned=on_host)
        addresses = {name: self._device[name].ptr for name in sizes}
        if not on_host:
            addresses |= {name: source.ptr for name, source in sources.items()}

        plan = Plan(profile, shapes, addresses)
        for name, tensor in engine.outputs.items():
            plan.outputs[name] = self._array(name, out_shapes[name], tensor.dtype)
        plan.views = {name: self._export(array) for name, array in plan.outputs.items()}
        if on_host:
            plan.uploads = {name: self._staging(name, shapes[name], engine.inputs[name].dtype) for name in shapes}
            plan.downloads = {n: self._staging(n, out_shapes[n], engine.outputs[n].dtype) for n in out_shapes}
        return plan

    def _prepare_context(self, profile: int) -> None:
        if self._activation is None:
            self._activation = self.engine.activation()
        if self._context is None:
            self._context = self.engine.context(self._activation, self.stream, profile)
        self._current = None
        self.engine.select(self._context, profile, self.stream)

    def _grow(self, sizes: Mapping[str, int], pinned: bool) -> None:
        """Makes the buffers at least `sizes` bytes; when one moves, the plans made for its old address go."""
        if any(name in self._device and self._device[name].nbytes < size for name, size in sizes.items()):
            self.cuda.synchronize(self.stream)
            self._drop_all()
        for name, size in sizes.items():
            old = self._device.get(name)
            if old is None or old.nbytes < size:
                self._device[name] = self.cuda.alloc(self._capacity(name, size, old.nbytes if old else 0))
            if pinned and (name not in self._pinned or self._pinned[name].nbytes < size):
                self._pinned[name] = self.cuda.pinned(self._device[name].nbytes)

    def _capacity(self, name: str, size: int, old: int) -> int:
        """Twice the old size at least, so that growing batches move rarely, but no more than the profiles allow."""
        if name not in self.engine.inputs:
            return max(size, 2 * old)
        tensor = self.engine.inputs[name]
        largest = max(byte_count(high, tensor.dtype) for _, _, high in tensor.profiles)
        return max(size, min(2 * old, largest))

    def _array(self, name: str, shape: Shape, dtype: np.dtype) -> DeviceArray:
        buffer = self._device[name]
        return DeviceArray(self.cuda, buffer.ptr, shape, dtype, self.stream, buffer)

    def _staging(self, name: str, shape: Shape, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, int]:
        pinned = self._pinned[name][: byte_count(shape, dtype)]
        return pinned, pinned.view(dtype).reshape(shape), self._device[name].ptr

    def _export(self, array: DeviceArray) -> Any:
        """`array` as callers get it: a GPUArray when they chose PyCUDA."""
        if self.cuda.name != "PyCUDA":
            return array
        from pycuda.gpuarray import GPUArray

        array.owner.untold = True
        return GPUArray(array.shape, array.dtype, gpudata=array.ptr, base=array.owner)

    def input(self, name: str, shape: Shape) -> Any:
        """A device array for the input `name`, in memory of its own."""
        if self.closed:
            raise ZooError(CLOSED)
        tensor = self.engine.inputs.get(name)
        if tensor is None:
            known = self.engine.inputs
            raise ZooError(f"the engine has no input '{name}'; it has {', '.join(known)}{closest(name, known)}")
        if not any(fits(shape, tensor, profile) for profile in range(len(tensor.profiles))):
            self.engine.profile({n: t.profiles[0][1] for n, t in self.engine.inputs.items()} | {name: shape})
        buffer = self.cuda.alloc(byte_count(shape, tensor.dtype))
        return self._export(DeviceArray(self.cuda, buffer.ptr, shape, tensor.dtype, self.stream, buffer))

    def _run(self, plan: Plan) -> None:
        """Replays the plan's graph; the first time it runs without one, the second time it is captured."""
        if plan.graph is not None:
            self.cuda.launch_graph(plan.graph, self.stream)
            return
        if plan.uses == 1 and self.graphs:
            self._capture(plan)
        plan.uses += 1
        if plan.graph is not None:
            self.cuda.launch_graph(plan.graph, self.stream)
            return
        if self._current is not plan:
            self._prepare_context(plan.profile)
            self.engine.bind(self._context, plan.shapes, plan.addresses)
            self._current = plan
        self._work(plan, self._context, self.stream)

    def _work(self, plan: Plan, context: Any, stream: Stream) -> None:
        for pinned, _, address in plan.uploads.values():
            self.cuda.h2d(address, pinned, stream)
        self.engine.enqueue(context, stream)
        for pinned, _, address in plan.downloads.values():
            self.cuda.d2h(pinned, address, stream)

    def _capture(self, plan: Plan) -> None:
        """Captures the plan from a context of its own, as TensorRT asks: changing the context would spoil the graph.

        The contexts of a slot share their scratch memory, since its stream runs one after the other. What cannot be
        captured (loops, a profile that no second context may use) runs without graphs from then on.
        """
        if self._side is None:
            self._side = self.stream if self.own_stream else self.cuda.stream()
        side = self._side
        order_streams(self.cuda, self.stream, side)
        try:
            assert self._activation is not None
            plan.context = self.engine.context(self._activation, side, plan.profile)
            self.engine.bind(plan.context, plan.shapes, plan.addresses)
            plan.graph = self.cuda.capture(side, lambda: self._work(plan, plan.context, side))
        except ZooError:
            plan.graph = None
        finally:
            order_streams(self.cuda, side, self.stream)
        if plan.graph is None:
            plan.context = None
            self.graphs = False
            self.engine.api.log.drain()

    def take(self, plan: Plan, views: bool = False) -> dict[str, Any]:
        """The outputs: host copies once they are complete, or device arrays, ordered on the stream: copies, or `views`
        of the slot's own memory, which its next call writes to."""
        if not plan.downloads and views:
            return dict(plan.views)
        if not plan.downloads:
            return {name: self._export(array.copy(self._results.take)) for name, array in plan.outputs.items()}
        self.cuda.synchronize(self.stream)
        self._borrowing.settled()
        return {name: array.copy() for name, (_, array, _) in plan.downloads.items()}

    def _drop(self, plan: Plan) -> None:
        plan.graph = None  # before the context that it was captured from
        plan.context = None
        plan.uses = 0
        if self._current is plan:
            self._current = None

    def _drop_all(self) -> None:
        """Forgets the plans; the stream must be idle."""
        for plan in self._plans.values():
            self._drop(plan)
        self._plans.clear()

    def close(self) -> None:
        """Frees everything that no array of the caller still uses, also when CUDA fails, which is then raised."""
        self.closed = True
        try:
            if self.pending is not None:
                self.pending._detach()
            self.cuda.synchronize(self.stream)
        finally:
            self._drop_all()
            self._current = self._context = self._activation = self._side = None
            self._device.clear()
            self._pinned.clear()
            self._results.close()
            self._borrowing.settled()


class Ticket:
    """The promise of `GpuSession.submit`."""

    def __init__(self, slot: Slot, plan: Plan) -> None:
        self._slot, self._plan = slot, plan
        self._outcome: dict[str, Any] | ZooError | None = None  # None while it is under way

    def result(self) -> dict[str, Any]:
        """The outputs, as `session(images)` gives them; waits for host arrays. Always the same dict."""
        with self._slot.lock:
            if self._outcome is None:
                with self._slot.cuda.active():
                    self._detach()
        if isinstance(self._outcome, ZooError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _detach(self) -> None:
        """Saves the outputs, because they were asked for or their context is needed for other work.

        An error is the outcome, too; an interrupt leaves the ticket as it was, to be asked again.
        """
        try:
            self._outcome = self._slot.take(self._plan)
        except ZooError as error:
            self._outcome = error.with_traceback(None)  # its frames would keep all that the slot holds
        if self._slot.pending is self:
            self._slot.pending = None
