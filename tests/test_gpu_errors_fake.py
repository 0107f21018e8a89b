"""What goes wrong on a GPU costs no wrong answer, no memory and no later call: interrupts, CUDA errors, ends, forks."""

# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204  (the fakes stand for interfaces that are typed where they are real)

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from fake_gpu import FakeContext, FakeCuda, FakeEngine, check, images, on_device, open_session

from zoo.errors import ZooError
from zoo.runtime import cuda as providers
from zoo.trt import Log

CUDA_FAILED = "CUDA failed with CUDA_ERROR_ILLEGAL_ADDRESS"


# ---- captures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_capture_leaves_the_stream_usable(cuda, monkeypatch, error):
    execute = FakeContext.execute_async_v3

    def stop(context, handle):
        if handle in cuda.captures:
            raise error
        return execute(context, handle)

    with open_session() as session:
        session(images(2))
        with monkeypatch.context() as patch:
            patch.setattr(FakeContext, "execute_async_v3", stop)
            with pytest.raises(error):
                session(images(2))
        assert not cuda.captures
        for seed in range(3):
            check(session(images(2, seed)), images(2, seed))
        assert session.graphs and cuda.launches


def test_what_the_garbage_collector_finds_during_a_capture_is_freed_after_it(cuda, monkeypatch):
    execute = FakeContext.execute_async_v3
    alive = []

    def collect(context, handle):
        if handle in cuda.captures:
            gc.collect()
            alive.append(len(cuda.memory))
        return execute(context, handle)

    monkeypatch.setattr(FakeContext, "execute_async_v3", collect)
    with open_session() as session:
        session(images(2))
        before = len(cuda.memory)
        gc.disable()  # it runs at the worst moment instead
        try:
            cycle = SimpleNamespace(array=on_device(cuda, images(8)), stream=cuda.stream(), event=cuda.event())
            cycle.itself = cycle
            del cycle
            check(session(images(2)), images(2))
        finally:
            gc.enable()
        assert alive == [before + 1] and len(cuda.memory) == before
        assert session.graphs and not cuda.misused


# ---- results that were waited for in vain ---------------------------------------------------------------------------


def test_a_wait_that_was_interrupted_may_be_repeated(cuda, monkeypatch):
    synchronize, interrupts = cuda.synchronize, iter([KeyboardInterrupt])

    def interrupted(stream=None):
        for error in interrupts:
            raise error
        synchronize(stream)

    with open_session() as session:
        pending = session.submit(images(2, 0))
        monkeypatch.setattr(cuda, "synchronize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pending.result()
        check(session(images(2, 1)), images(2, 1))
        check(pending.result(), images(2, 0))


def test_an_error_of_cuda_stays_the_result(cuda):
    with pytest.raises(ZooError, match=CUDA_FAILED), open_session() as session:
        pending = session.submit(images(2, 0))
        cuda.broken = True
        for _ in range(2):
            with pytest.raises(ZooError, match=CUDA_FAILED):
                pending.result()
        cuda.broken = False
        check(session(images(2, 1)), images(2, 1))
        with pytest.raises(ZooError, match=CUDA_FAILED):
            pending.result()
        cuda.broken = True  # closing fails, too
    cuda.broken = False


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session(images(1)),
        lambda session: session.submit(images(1)),
        lambda session: session.stream,
        lambda session: session.input("images", (1, 3, 4, 4)),
        lambda session: session.bind({"images": (1, 3, 4, 4)}, session.cuda.wrap_stream(0)),
    ],
    ids=["call", "submit", "stream", "input", "bind"],
)
@pytest.mark.parametrize("when", ["_open", "_home", "_next_slot"])
def test_a_session_that_another_thread_closes_just_now(cuda, monkeypatch, use, when):
    session = open_session()
    if when == "_home":
        session(images(1))
    step = getattr(session, when)

    def closing():
        found = step()
        session.close()
        return found

    monkeypatch.setattr(session, when, closing)
    try:
        use(session)  # what had begun may end
    except ZooError as error:
        assert "the session is closed" in str(error)
    session.close()
    with pytest.raises(ZooError, match="the session is closed"):
        use(session)


def test_closing_after_an_error_of_cuda_frees_everything(cuda):
    session = open_session(contexts=3)
    for batch in (1, 2) * 3:
        session.submit(images(batch)).result()
    pending = [session.submit(images(batch)) for batch in (1, 2, 3)]
    cuda.broken = True
    with pytest.raises(ZooError, match=CUDA_FAILED):
        session.close()
    session.close()
    cuda.broken = False
    with pytest.raises(ZooError, match="the session is closed"):
        session(images(1))
    assert not cuda.graphs_alive
    for ticket in pending:
        with pytest.raises(ZooError, match=CUDA_FAILED):
            ticket.result()
    del pending, ticket, session
    gc.collect()
    assert not (cuda.events or cuda.streams or cuda.memory)


def test_what_a_failed_close_leaves_is_freed_without_the_garbage_collector(cuda):
    """Errors refer to the frames they went through, and a frame that kept them would keep all it knows."""
    session = open_session(contexts=2)
    tickets = [session.submit(images(1)), session.submit(images(1))]
    cuda.broken = True
    gc.disable()
    try:
        with pytest.raises(ZooError, match=CUDA_FAILED):
            session.close()
        del tickets
        assert not cuda.events
    finally:
        gc.enable()


def test_a_session_that_cannot_be_opened_leaves_nothing(cuda, monkeypatch):
    stream, calls = cuda.stream, iter(range(9))
    monkeypatch.setattr(cuda, "stream", lambda: out_of_memory() if next(calls) == 2 else stream())
    with pytest.raises(ZooError, match="not enough GPU memory"):
        open_session(contexts=4)
    gc.collect()
    assert not (cuda.events or cuda.streams or cuda.memory)


def out_of_memory():
    raise ZooError("not enough GPU memory")


# ---- threads --------------------------------------------------------------------------------------------------------


def test_contexts_are_made_one_at_a_time(cuda, monkeypatch):
    """TensorRT does not promise more for one engine."""
    inside, most = [], []

    create = FakeEngine.create_execution_context

    def slowly(engine, strategy):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return create(engine, strategy)

    monkeypatch.setattr(FakeEngine, "create_execution_context", slowly)
    with open_session(contexts=6) as session:
        start = threading.Barrier(6)

        def work():
            start.wait()
            for _ in range(3):
                check(session(images(2)), images(2))

        threads = [threading.Thread(target=work) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert len(most) >= 12 and max(most) == 1


def test_a_thread_gets_the_errors_of_its_own_calls():
    log = Log()
    log.record("ERROR", "mine")
    ready, go, found = threading.Event(), threading.Event(), []

    def other():
        log.record("ERROR", "the other's")
        ready.set()
        go.wait()
        found.append(log.drain())

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    mine = [log.drain(), log.drain()]
    go.set()
    thread.join()
    assert (mine, found) == (["mine", ""], ["the other's"])


def test_errors_of_tensorrts_own_threads_are_not_lost():
    log = Log()
    thread = threading.Thread(target=lambda: log.record("ERROR", "from a builder's thread"))
    thread.start()
    thread.join()
    assert log.drain() == "from a builder's thread"


# ---- forks ----------------------------------------------------------------------------------------------------------


def in_a_child(work) -> str:
    """What `work` says in a forked child, within 10 seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(work()).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    killer = threading.Timer(10, os.kill, (child, 9))
    killer.start()
    with os.fdopen(reading, "rb") as answers:
        said = answers.read().decode()
    os.waitpid(child, 0)
    killer.cancel()
    return said


@pytest.mark.parametrize("cuda", [FakeCuda], indirect=True, ids=["at once"])
def test_a_forked_child_is_told_that_cuda_stayed_behind(cuda, monkeypatch):
    with open_session() as session:
        session(images(2))
        session._slots[0].lock.acquire()  # as another thread of the parent may have it
        for use in (lambda: session(images(2)), lambda: session.submit(images(2)), lambda: session.inputs):
            said = in_a_child(use)
            assert said.startswith("ZooError: the session belongs to the process that this one was forked from")
            assert 'multiprocessing\'s "spawn"' in said
        monkeypatch.setattr(cuda, "broken", True)  # as the parent's CUDA is in a child
        assert in_a_child(session.close) == "None"
        monkeypatch.setattr(cuda, "broken", False)
        session._slots[0].lock.release()
        check(session(images(2)), images(2))


def test_a_child_that_is_forked_while_a_provider_is_made(monkeypatch):
    made = []

    class Provider(FakeCuda):
        def __init__(self, context) -> None:
            super().__init__()
            made.append(os.getpid())

    monkeypatch.setattr(providers, "driver_problem", lambda: None)
    monkeypatch.setattr(providers, "PROVIDERS", {"cuda-python": Provider})
    monkeypatch.setattr(providers, "_providers", [])
    assert providers.provider() is providers.provider() and len(made) == 1
    assert providers.provider(device=1) is not providers.provider()
    with providers._lock:
        said = in_a_child(lambda: [providers.provider() and pid == os.getpid() for pid in made])
    assert said == "[False, False, True]"  # made anew: the parent's works in the parent alone


# ---- PyCUDA ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pycuda(monkeypatch):
    """PyCUDA on a machine with two GPUs, as far as a provider asks for it; `current` is the caller's context."""
    state = SimpleNamespace(current=None)

    class Context:
        def __init__(self, device) -> None:
            self.device = device

        get_current = staticmethod(lambda: state.current)
        get_device = staticmethod(lambda: state.current.device)

        def push(self) -> None:
            self.before, state.current = state.current, self

        @staticmethod
        def pop() -> None:
            state.current = state.current.before

    class Device:
        count = staticmethod(lambda: 2)

        def __init__(self, number) -> None:
            self.number = number

        def pci_bus_id(self):
            return f"0000:{self.number}"

        def retain_primary_context(self):
            return state.primary[self.number]

    state.Context, state.Device = Context, Device
    state.primary = [Context(Device(number)) for number in range(2)]
    driver = SimpleNamespace(Context=Context, Device=Device, init=lambda: None, Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(providers, "driver_problem", lambda: None)
    monkeypatch.setattr(providers, "_providers", [])
    return state


def test_pycuda_is_asked_for_its_context_each_time(pycuda):
    first = providers.provider("pycuda")
    assert first is providers.provider("pycuda") and first._current is pycuda.primary[0]
    pycuda.current = pycuda.Context(pycuda.Device(0))
    own = providers.provider("pycuda")
    assert own is not first and own._current is pycuda.current and own.ordinal == 0
    pycuda.current = None  # detached: what was made with it is not used again
    assert providers.provider("pycuda") is first
    assert providers.provider("pycuda", 1).ordinal == 1


def test_pycudas_context_must_be_of_the_device(pycuda):
    pycuda.current = pycuda.Context(pycuda.Device(1))
    assert providers.provider("pycuda", 1)._current is pycuda.current
    with pytest.raises(ZooError, match='context is on gpu:1, gpu:0 was asked for; .* device="gpu:1"'):
        providers.provider("pycuda", 0)
