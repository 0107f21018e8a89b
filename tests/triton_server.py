"""Starts a real tritonserver and asks it: `python tests/triton_server.py [MODEL [WEIGHTS]]`, in an environment with
nvidia-pytriton (whose binary it is, with nothing but the Python backend), tritonclient and this project.

The answers over HTTP and gRPC must be those of `zoo.run`; requests must be collected into batches; a stub that was
killed must be noticed by a probe that infers. Prints figures as JSON. docs/serving.md has those of one machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytriton
import tritonclient.grpc
import tritonclient.http
from google.protobuf import text_format

from zoo.export import run as export
from zoo.formats.triton import protobuf

ROOT = Path(__file__).resolve().parent.parent
PICTURES = sorted(ROOT.glob("samples/*.[jp][pn]g"))
TRITON = Path(pytriton.__file__).with_name("tritonserver")
PROBE = "P2 1 1 255 0 "  # a grey picture of one pixel, as text: JSON holds no bytes


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def server(repository: Path, folder: Path) -> Iterator[tuple[int, int, int, subprocess.Popen[bytes]]]:
    """A server of `repository`: its ports for HTTP, gRPC and metrics, and its process."""
    backends = shutil.copytree(TRITON / "backends", folder / "backends")
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy(TRITON / "python_backend_stubs" / stub, backends / "python")
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(3)))
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(TRITON.parent.parent / "nvidia_pytriton.libs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the stub asks python3 where its packages are
    }
    command = [TRITON / "bin" / "tritonserver", f"--model-repository={repository}", f"--backend-directory={backends}"]
    for name, port in ports.items():
        command += [f"--{name}-port={port}", f"--{name}-address=127.0.0.1"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            if process.poll() is not None:
                sys.exit(f"tritonserver ended:\n{(folder / 'log').read_text()[-3000:]}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/v2/health/ready", timeout=1)
                break
            time.sleep(0.25)
        yield ports["http"], ports["grpc"], ports["metrics"], process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # after the death of a stub it would wait for half a minute
        process.wait()


def asked(client: Any, url: str, model: str, pictures: list[bytes]) -> list[dict[str, Any]]:
    """The results for pictures, in one request."""
    tensor = client.InferInput("picture", [len(pictures), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[data] for data in pictures], np.object_))
    rows = client.InferenceServerClient(url).infer(model, [tensor]).as_numpy("result")
    return [json.loads(row) for row in rows.ravel()]


def probe(port: int, model: str) -> bool:
    """Whether the model infers, as a health check in a container can ask: with curl."""
    inputs = [{"name": "picture", "shape": [1, 1], "datatype": "BYTES", "data": [PROBE]}]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode()
    )
    try:
        return urllib.request.urlopen(request, timeout=10).status == 200
    except OSError:
        return False


def wanted(model: str, weights: str | None, folder: Path) -> list[dict[str, Any]]:
    """What `zoo.run` says of the pictures."""
    command = [sys.executable, "-m", "zoo.run", model, *map(str, PICTURES), "--save", str(folder), "--json"]
    command += ["--device", "cpu", *(["--weights", weights] if weights else [])]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)["results"]
    return [{key: row[key] for key in row if key not in ("source", "picture", "ms")} for row in found]


def metric(port: int, name: str, model: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f'{name}{{model="{model}"'))


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What the server itself has computed for, without the processes of its Python models."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def together(work: Callable[[], Any], threads: int, calls: int) -> float:
    """Seconds for `threads` threads with `calls` calls each."""

    def run() -> None:
        for _ in range(calls):
            work()

    running = [threading.Thread(target=run) for _ in range(threads)]
    started = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.perf_counter() - started


def infer(client: Any, url: str, model: str, name: str, array: np.ndarray) -> Callable[[], Any]:
    """A call of `model` with `array`; each thread has a connection of its own."""
    kept = threading.local()

    def call() -> Any:
        if not hasattr(kept, "client"):
            kept.client = client.InferenceServerClient(url)
        tensor = client.InferInput(name, list(array.shape), "FP32" if array.dtype == np.float32 else "BYTES")
        tensor.set_data_from_numpy(array)
        return kept.client.infer(model, [tensor])

    return call


IDENTITY = """
import triton_python_backend_utils as backend
class TritonPythonModel:
    def execute(self, requests):
        tensors = [backend.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        return [backend.InferenceResponse([backend.Tensor("images_out", tensor)]) for tensor in tensors]
"""


def write_identity(repository: Path, network: str) -> list[int]:
    """A model that gives back what the network takes, configured like it; and the shape of that."""
    config = text_format.Parse((repository / network / "config.pbtxt").read_text(), protobuf().ModelConfig())
    config.name = "identity"
    del config.output[:]
    config.output.add(name="images_out", data_type=config.input[0].data_type, dims=config.input[0].dims)
    (repository / "identity" / "1").mkdir(parents=True)
    (repository / "identity" / "1" / "model.py").write_text(IDENTITY)
    (repository / "identity" / "config.pbtxt").write_text(text_format.MessageToString(config))
    return list(config.input[0].dims)


def main(model: str = "lenet5", weights: str | None = None, threads: int = 8, calls: int = 25) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(ROOT)
        repository = folder / "repository"
        export(model, format="triton", backend="python", weights=weights, max_batch=16, output=repository)
        shape = write_identity(repository, f"{model}_network")
        expected = wanted(model, weights, folder / "run")
        data = [path.read_bytes() for path in PICTURES]
        with server(repository, folder) as (http, grpc, metrics, process):
            clients = {
                "http": (tritonclient.http, f"127.0.0.1:{http}"),
                "grpc": (tritonclient.grpc, f"127.0.0.1:{grpc}"),
            }
            for client, url in clients.values():
                assert asked(client, url, model, data) == expected
                assert [asked(client, url, model, [one])[0] for one in data] == expected
            images = np.zeros((1, *shape), np.float32)
            picture = np.array([[data[0]]], np.object_)
            rates, costs = {}, {}
            for protocol, (client, url) in clients.items():
                for what, tensor, array in (("identity", "images", images), (f"{model}_network", "images", images),
                                            (model, "picture", picture)):  # fmt: skip
                    call = infer(client, url, what, tensor, array)
                    call()
                    spent = cpu_seconds(process)
                    for count in (1, threads):
                        seconds = together(call, count, calls)
                        rates[f"{what} {protocol} x{count}"] = round(count * calls / seconds, 1)
                    spent = cpu_seconds(process) - spent
                    costs[f"{what} {protocol}"] = round(1e3 * spent / (calls * (1 + threads)), 2)
            requests = metric(metrics, "nv_inference_count", f"{model}_network")
            runs = metric(metrics, "nv_inference_exec_count", f"{model}_network")
            assert runs < requests, "no two requests were computed together"
            assert probe(http, model)
            stubs = subprocess.run(["pgrep", "-f", f"{model}_network"], capture_output=True, text=True).stdout.split()
            for stub in map(int, stubs):
                if os.getpgid(stub) == os.getpgid(process.pid):
                    os.kill(stub, signal.SIGKILL)
            ready = urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready").status
            assert not probe(http, model), "a killed stub was not noticed"
            figures = {
                "model": model,
                "pictures": len(data),
                "requests": requests,
                "runs": runs,
                "requests/s": rates,
                "server's own ms of CPU a request": costs,
                "health/ready after a killed stub": ready,
            }
            print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:3])
