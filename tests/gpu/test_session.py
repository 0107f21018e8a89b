"""Sessions on a real GPU: numbers, arrays of other packages, streams, threads, memory, and what is refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.runtime.arrays import DeviceArray, read_source
from zoo.runtime.compatibility import device_properties
from zoo.runtime.cuda import Cuda, provider
from zoo.runtime.gpu import GpuSession
from zoo.trt import Api

from .conftest import SmallNet

Say = Callable[[str], None]


def upload(cuda: Cuda, x: np.ndarray) -> DeviceArray:
    buffer = cuda.upload(x)
    return DeviceArray(cuda, buffer.ptr, x.shape, x.dtype, cuda.wrap_stream(0), buffer)


def host(outputs: dict[str, DeviceArray]) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in outputs.items()}


@pytest.mark.parametrize("graphs", [True, False])
def test_numbers(api: Api, cuda: Cuda, net: SmallNet, graphs: bool) -> None:
    with GpuSession(net.plan, api=api, graphs=graphs) as session:
        first: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        for turn in range(4):
            for batch in (1, 3, 8, 4):
                for seed in (0, 1):
                    x = net.images(batch, seed)
                    outputs = session(x)
                    net.check(outputs, x)
                    for name, value in first.setdefault((batch, seed), outputs).items():
                        np.testing.assert_array_equal(outputs[name], value, err_msg=f"turn {turn}")
        assert session.graphs == graphs
        assert session.inputs["images"].profiles == (((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16)),)


def test_device_arrays_and_the_sessions_own_buffer(api: Api, cuda: Cuda, net: SmallNet) -> None:
    with GpuSession(net.plan, api=api) as session:
        arrays = [upload(cuda, net.images(2, seed)) for seed in range(3)]
        mine = session.input("images", (8, *net.shape))
        for seed in (0, 1, 2, 0, 1, 2, 0, 1, 2):
            net.check(host(session(arrays[seed])), net.images(2, seed))
            mine.write(net.images(8, seed))
            net.check(host(session({"images": mine})), net.images(8, seed))
        assert session.graphs
        kept = session(arrays[1])["logits"].copy()
        session(arrays[2])
    np.testing.assert_allclose(kept.numpy(), net(net.images(2, 1))["logits"], rtol=1e-4, atol=1e-4)


def test_other_packages_arrays(api: Api, cuda: Cuda, net: SmallNet) -> None:
    x = net.images(2)
    array = upload(cuda, x)
    only_interface = SimpleNamespace(__cuda_array_interface__=array.__cuda_array_interface__)

    class OnlyDlpack:
        __dlpack__, __dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    with GpuSession(net.plan, api=api) as session:
        for _ in range(3):
            net.check(host(session(only_interface)), x)
            net.check(host(session(OnlyDlpack())), x)


def test_a_buffer_of_cuda_core(cuda: Cuda) -> None:
    core = pytest.importorskip("cuda.core")
    device = core.Device()
    device.set_current()
    buffer = device.allocate(4096, stream=device.create_stream())
    source = read_source(buffer, cuda.stream(), cuda)
    assert source.ptr == int(buffer.handle) and source.shape == (4096,) and source.dtype.itemsize == 1


def test_gpuarrays_in_and_out(api: Api, net: SmallNet) -> None:
    pytest.importorskip("pycuda.driver")
    import pycuda.autoprimaryctx  # noqa: F401
    from pycuda import gpuarray

    x = net.images(4)
    with GpuSession(net.plan, api=api, cuda="pycuda") as session:
        assert not session.graphs
        given = gpuarray.to_gpu(x)
        for _ in range(3):
            outputs = session(given)
            assert isinstance(outputs["logits"], gpuarray.GPUArray)
            net.check({name: value.get() for name, value in outputs.items()}, x)
            net.check(session(x), x)
        doubled = session(given * 2)  # computed on the default stream just before
        net.check({name: value.get() for name, value in doubled.items()}, 2 * x)
        net.check(session.submit(x).result(), x)
    with GpuSession(net.plan, api=api) as session:  # cuda-python takes them too
        net.check(host(session(given)), x)


def test_pycuda_in_threads_ends_cleanly(net: SmallNet, tmp_path: Path) -> None:
    pytest.importorskip("pycuda.driver")
    (tmp_path / "plan").write_bytes(net.plan)
    program = f"""
import threading, numpy as np
from zoo.runtime.gpu import GpuSession
from zoo.trt import load
session = GpuSession({str(tmp_path / "plan")!r}, api=load("tensorrt"), cuda="pycuda", contexts=2)
x = np.ones((2, 3, 16, 16), np.float32)
want = session(x)["logits"]
def work():
    for _ in range(20):
        assert (session(x)["logits"] == want).all()
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
session.close()
print("fine")
"""
    done = run_python(program)
    assert done.returncode == 0 and "fine" in done.stdout, done.stdout + done.stderr
    assert "PyCUDA ERROR" not in done.stderr and "PyCUDA WARNING" not in done.stderr, done.stderr


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=120)


@pytest.mark.parametrize("own", [True, False], ids=["a stream", "the default stream"])
def test_the_callers_stream(api: Api, cuda: Cuda, net: SmallNet, own: bool) -> None:
    stream = cuda.stream() if own else cuda.wrap_stream(0)
    with GpuSession(net.plan, api=api, stream=stream.handle) as session:
        assert session.stream == stream.handle
        for seed in range(4):
            x = net.images(3, seed)
            net.check(session(x), x)
            net.check(host(session(upload(cuda, x))), x)
        assert session.graphs


def test_submit_and_result(api: Api, cuda: Cuda, net: SmallNet) -> None:
    with GpuSession(net.plan, api=api, contexts=3) as session:
        for _ in range(4):
            tickets = [session.submit(net.images(2, seed)) for seed in range(8)]
            for seed, ticket in reversed(list(enumerate(tickets))):
                net.check(ticket.result(), net.images(2, seed))
            arrays = [upload(cuda, net.images(2, seed)) for seed in range(8)]
            tickets = [session.submit(array) for array in arrays]
            for seed, ticket in enumerate(tickets):
                net.check(host(ticket.result()), net.images(2, seed))
        assert session.graphs


@pytest.mark.parametrize("contexts", [1, 8])
def test_eight_threads_give_the_serial_results(api: Api, cuda: Cuda, net: SmallNet, contexts: int) -> None:
    batches = [(turn % 8 + 1, turn % 5) for turn in range(40)]
    with GpuSession(net.plan, api=api) as session:
        serial = {case: session(net.images(*case)) for case in batches}
    with GpuSession(net.plan, api=api, contexts=contexts) as session:
        start = threading.Barrier(8)

        def work(thread: int) -> None:
            start.wait()
            mine = session.input("images", (8, *net.shape))
            for turn in range(60):
                case = batches[(turn + 5 * thread) % len(batches)]
                x = net.images(*case)
                outputs = session(x)
                if contexts == 8 and case[0] == 8:
                    mine.write(x)
                    outputs = host(session(mine))
                for name, value in serial[case].items():
                    np.testing.assert_array_equal(outputs[name], value)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert session.graphs


def test_what_is_refused(api: Api, cuda: Cuda, net: SmallNet) -> None:
    with GpuSession(net.plan, api=api) as session:
        for x, words in (
            (net.images(9), r"\(9, 3, 16, 16\).*\(1, 3, 16, 16\) to \(8, 3, 16, 16\) \(fastest at \(4, 3, 16, 16\)\)"),
            (net.images(1).astype(np.float64), "float64, the engine takes float32"),
            (net.images(1)[0], r"shape \(3, 16, 16\)"),
            ({"image": net.images(1)}, "closest: images"),
        ):
            with pytest.raises(ZooError, match=words):
                session(x)
        net.check(session(net.images(2)), net.images(2))
    session.close()
    with pytest.raises(ZooError, match="the session is closed"):
        session(net.images(1))
    total = device_properties().total_memory
    with pytest.raises(
        ZooError, match=f"not enough GPU memory: needs {2 * total / 2**20:.1f} MiB.*MiB of .* are free on"
    ):
        cuda.alloc(2 * total)


def test_engines_of_other_machines(api: Api, net: SmallNet, say: Say) -> None:
    device = device_properties()
    good = {"flavour": "tensorrt", "version": api.version, "compute_capability": device.compute_capability}
    for change, words in (
        ({"version": "10.9.0"}, "built by TensorRT 10.9.0"),
        ({"flavour": "rtx"}, "built by TensorRT-RTX"),
        ({"compute_capability": "7.5"}, "compute capability 7.5"),
        ({"size": 1 << 60}, "not enough memory"),
    ):
        with pytest.raises(ZooError, match=words) as caught:
            GpuSession(net.plan, api=api, description=good | change, rebuild="python -m zoo.build x")
        say(str(caught.value))
    with GpuSession(net.plan, api=api, description=good) as session:
        net.check(session(net.images(1)), net.images(1))


def test_truncated_and_foreign_bytes_are_refused(net: SmallNet, tmp_path: Path, say: Say) -> None:
    say(f"engine of {len(net.plan)} bytes begins with {net.plan[:4]!r} {struct.unpack('<8I', net.plan[:32])}")
    for cut in (0, 1, 24, 64, 1000, len(net.plan) // 2, len(net.plan) - 1):
        (tmp_path / "plan").write_bytes(net.plan[:cut])
        done = load_in_a_process(tmp_path / "plan")
        assert done.returncode == 0 and "ZooError" in done.stdout, f"{cut} bytes: {done}"
    (tmp_path / "plan").write_bytes(b"this is no engine" * 100)
    done = load_in_a_process(tmp_path / "plan")
    assert done.returncode == 0 and "ZooError" in done.stdout, str(done)
    say(done.stdout.strip())


def load_in_a_process(path: Path) -> subprocess.CompletedProcess[str]:
    return run_python(f"""
from zoo.errors import ZooError
from zoo.runtime.gpu import GpuSession
from zoo.trt import load
try:
    GpuSession({str(path)!r}, api=load("tensorrt"))
except ZooError as error:
    print("ZooError:", error)
""")


PATIENCE_S = 120


def test_loading_and_closing_leaks_nothing(api: Api, cuda: Cuda, net: SmallNet, say: Say) -> None:
    cycles = int(os.environ.get("ZOO_LEAK_CYCLES", "10000"))
    x = net.images(2)

    def cycle(number: int) -> None:
        with GpuSession(net.plan, api=api) as session:
            if number % 10 == 0:
                for _ in range(3):
                    session(x)

    for number in range(100):
        cycle(number)
    start, before = time.perf_counter(), memory(cuda)
    for number in range(cycles):
        cycle(number)
        if number % (cycles // 4 or 1) == 0:
            say(f"after {number} cycles: {describe(memory(cuda))}")
    after = memory(cuda)
    seconds = time.perf_counter() - start
    while before[0] - after[0] > 4 << 20 and time.perf_counter() - start - seconds < PATIENCE_S:
        time.sleep(1)  # other programs may be using the GPU: what they have comes back, and what leaks does not
        after = memory(cuda)
    say(f"{cycles} cycles in {seconds:.0f} s; before {describe(before)}; after {describe(after)}")
    assert before[0] - after[0] <= 4 << 20, "GPU memory leaks"
    assert after[1] - before[1] <= 64 << 20, "host memory leaks"


def memory(cuda: Cuda) -> tuple[int, int]:
    """Free GPU memory and this process's resident memory, in bytes."""
    cuda.synchronize()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return cuda.device().free_memory, resident


def describe(amount: tuple[int, int]) -> str:
    return f"{amount[0] / 2**20:.1f} MiB free on the GPU, {amount[1] / 2**20:.1f} MiB resident"


def test_the_providers_agree_about_the_device(cuda: Cuda, say: Say) -> None:
    device = device_properties()
    say(str(device))
    assert device == device_properties() or device.name
    assert provider("cuda-python") is provider("cuda-python")
    start, end, stream = cuda.event(timing=True), cuda.event(timing=True), cuda.stream()
    cuda.record(start, stream)
    cuda.record(end, stream)
    assert 0 <= cuda.elapsed_ms(start, end) < 1000
