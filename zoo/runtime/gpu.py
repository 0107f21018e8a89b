"""TensorRT engines on the GPU: numpy or device arrays in, the same kind out, replayed as CUDA graphs.

with GpuSession("resnet50.engine", api=trt.load()) as session:
    logits = session(images)["logits"]            # numpy in, numpy out
    ticket = session.submit(images)               # asynchronous
    logits = ticket.result()["logits"]
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.engine.flags import check_host_code
from zoo.engine.plugins import bring as bring_plugins
from zoo.errors import ZooError
from zoo.runtime.arrays import Shape
from zoo.runtime.compatibility import why_not_loadable
from zoo.runtime.cuda import FORKED, Cuda, Stream, provider
from zoo.runtime.loaded import Bound, LoadedEngine, Tensor
from zoo.runtime.slot import CLOSED, Slot, Ticket

if TYPE_CHECKING:
    from zoo.trt import Api


class GpuSession:
    """An engine that is called like a function: `session(images) -> {output name: array}`.

    Inputs are one array, or a dict of arrays by name: numpy, PyTorch CUDA tensors, anything with
    `__cuda_array_interface__` or `__dlpack__`. numpy in gives numpy out. Device arrays are read where they lie, without
    a copy, and give device arrays (`DeviceArray`; PyCUDA's `GPUArray` with cuda="pycuda"), ordered on the session's
    stream. They are the caller's own; `session(images, views=True)` saves that copy and gives views of the session's
    buffers instead, which the session's next call or submission, of whatever thread, writes to.

    An array that PyTorch took through DLPack is waited for, on the stream that took it, before the session reads or
    overwrites its memory. Arrays must lie on the session's GPU.

    Of several optimisation profiles the one that is tuned for the nearest shape runs. Each shape and address is
    captured as a CUDA graph the second time it is seen, and replayed. Arrays that stay where they are, such as
    `session.input(name, shape)`, pay no capture again.

    Threads may share a session. It has `contexts` execution contexts, each with its own stream and buffers; a thread
    keeps the one it got first. Results do not depend on the number of threads. A process that is forked cannot use
    the sessions of its parent.

    Raises ZooError when the engine cannot run here; `description` (see `why_not_loadable`) and `rebuild`, the command
    that builds it again, make that message exact.
    """

    def __init__(
        self,
        engine: bytes | str | os.PathLike[str],
        *,
        api: Api,
        cuda: str = "cuda-python",
        device: int = 0,
        stream: Any = None,
        graphs: bool = True,
        contexts: int = 1,
        description: Mapping[str, Any] | None = None,
        rebuild: str = "",
        host_code: bool = False,
    ) -> None:
        self._slots: list[Slot] = []
        self._engine: LoadedEngine | None = None
        self._owner = os.getpid()
        self._closing = threading.Lock()
        if contexts < 1:
            raise ZooError(f"contexts is {contexts}; at least 1 is needed")
        if stream is not None and contexts > 1:
            raise ZooError(f"one stream cannot serve {contexts} contexts; give no stream, or contexts=1")
        plan = engine if isinstance(engine, (bytes, bytearray, memoryview)) else _read(Path(engine))
        self._cuda = provider(cuda, device)
        with self._cuda.active():
            description = description or {"size": len(plan)}
            reason = why_not_loadable(description, api, self._cuda.device(), rebuild)
            if reason:
                raise ZooError(reason)
            check_host_code(description, host_code)
            bring_plugins(description, api, host_code)
            multiple = (description.get("input") or {}).get("multiple", 1)
            self._engine = LoadedEngine(bytes(plan), api, self._cuda, rebuild, host_code, multiple)
            own = self._cuda.wrap_stream(stream) if stream is not None else None
            graphs = graphs and self._cuda.graphs
            self._slots = [Slot(self._engine, own, graphs) for _ in range(contexts)]
        self._turns = itertools.count()
        self._homes = threading.local()

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """What the engine takes, by name."""
        return self._open().inputs

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """What the engine gives, by name."""
        return self._open().outputs

    @property
    def graphs(self) -> bool:
        """Whether CUDA graphs are in use: false when they were declined, or the network cannot be captured."""
        return bool(self._slots) and all(slot.graphs for slot in self._slots)

    @property
    def stream(self) -> int:
        """The address of the stream that this thread's calls run on."""
        self._open()
        return self._home().stream.handle

    def __call__(self, images: Any, *, views: bool = False) -> dict[str, Any]:
        """Runs the network on `images`. Raises ZooError for a wrong name, dtype or shape, naming what is right.

        With `views` the results for device arrays are the session's own buffers, good until its next call.
        """
        self._open()
        slot = self._home()
        with self._cuda.active(), slot.lock:
            return slot.take(slot.enqueue(images), views)

    def submit(self, images: Any) -> Ticket:
        """Starts the network on `images` and returns at once; host arrays are copied first, device arrays are kept, and
        what they hold must stay.

        The contexts take turns, so up to `contexts` submissions overlap.
        """
        self._open()
        slot = self._next_slot()
        with self._cuda.active(), slot.lock:
            slot.pending = Ticket(slot, slot.enqueue(images))
            return slot.pending

    def input(self, name: str, shape: Shape) -> Any:
        """A new device array for the input `name`, to write into and call with.

        It is the caller's own and stays where it is: calls with it need no copy and no new graph. It is written on
        `session.stream`, or by who took it through DLPack, on the stream of that.
        """
        self._open()
        slot = self._home()
        with self._cuda.active(), slot.lock:
            return slot.input(name, tuple(shape))

    def bind(self, shapes: Mapping[str, Shape], stream: Stream) -> Bound:
        """The engine at fixed shapes in a context of its own, for pipelines on `stream`."""
        with self._cuda.active():
            return Bound(self._open(), {name: tuple(shape) for name, shape in shapes.items()}, stream)

    @property
    def cuda(self) -> Cuda:
        """The CUDA provider of this session."""
        return self._cuda

    def close(self) -> None:
        """Frees streams, graphs, contexts, the engine and every buffer that no array of the caller still uses.

        Where CUDA fails meanwhile, its first error is raised when the rest is freed.
        """
        with self._closing:
            slots, self._slots = self._slots, []
            engine, self._engine = self._engine, None
        if engine is None or os.getpid() != self._owner:
            return
        self._homes = threading.local()  # the threads' contexts go with it
        errors = []
        with self._cuda.active():
            for slot in slots:
                try:
                    with slot.lock:
                        slot.close()
                except ZooError as error:
                    errors = errors or [error]
            engine.close()
        if errors:
            raise errors.pop()  # nor kept by this frame, which it refers to: what the slots held is freed with it

    def __enter__(self) -> GpuSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter or the driver is shutting down
            pass

    def _open(self) -> LoadedEngine:
        if os.getpid() != self._owner:  # before any lock, which the fork may have left taken
            raise ZooError(f"the session belongs to the process that this one was forked from; {FORKED}")
        engine = self._engine
        if engine is None:
            raise ZooError(CLOSED)
        return engine

    def _home(self) -> Slot:
        try:
            return self._homes.slot
        except AttributeError:
            self._homes.slot = self._next_slot()
            return self._homes.slot

    def _next_slot(self) -> Slot:
        slots = self._slots  # read once: another thread may close the session
        if not slots:
            raise ZooError(CLOSED)
        return slots[next(self._turns) % len(slots)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ZooError(f"cannot read the engine {path}: {error.strerror}") from error
