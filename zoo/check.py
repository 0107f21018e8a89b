"""`python -m zoo.check`: what this machine has, and whether networks run on it as they should."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import zoo
from zoo import driver, nvrtc
from zoo.cli import Json, command, json_text, print_json
from zoo.errors import ZooError
from zoo.files import checked_destination, replacing
from zoo.measure.machine import smi
from zoo.text import LONGEST, clean
from zoo.trt import Api, Flavour, installed, load, load_to_define

FORMAT = "zoo check 1"
PACKAGES = {  # what the parts of the project need, as in pyproject.toml
    "base": ("numpy", "safetensors", "onnx", "onnxruntime", "ml-dtypes", "tensorrt-rtx", "opencv-python-headless",
             "typer", "rich"),
    "gpu": ("tensorrt", "cuda-python", "nvidia-cuda-nvrtc"),
    "pycuda": ("pycuda",),
    "reference": ("torch", "torchvision", "ultralytics", "timm", "scikit-learn", "transformers"),
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing that was tried: what came of it in words, and where it failed unforeseen, the traceback."""

    name: str
    ok: bool
    found: str
    seconds: float
    traceback: str | None = None


Step = tuple[str, Callable[[], str]]  # what is tried, and what does it: it returns what was found, or raises


def run(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where all that was found goes, as JSON.")] = Path(
        "zoo-check.json"
    ),
    as_json: Json = False,
) -> None:
    """Says what this machine has (TensorRT, driver, GPU, packages), and proves a few small networks on it.

    Their outputs are compared with those of PyTorch, which the package brings, on the CPU and with each TensorRT on the
    GPU, which takes minutes. All goes into one JSON file, with no name of a user or machine: please send it along when
    something does not work, or works on a TensorRT that nobody has tried. Exit status 1 when something failed.
    """
    checked_destination(output)
    found: dict[str, Any] = {"format": FORMAT, "zoo": zoo.__version__, "machine": machine(), "checks": []}
    if not as_json:
        print("\n".join(f"{name:22} {value}" for name, value in words(found["machine"])))
    for name, attempt in steps():
        _save(output, {**found, "underway": name})  # should it take the process down
        if not as_json:
            print(f"{name}: ", end="", flush=True)
        check = tried(name, attempt)
        found["checks"].append(asdict(check))
        if not as_json:
            print(f"{'ok' if check.ok else 'FAILED'}, {clean(check.found, LONGEST)}", flush=True)
    _save(output, found)
    failed = sum(not check["ok"] for check in found["checks"])
    if as_json:
        print_json(found)
    else:
        print(f"{output}: {len(found['checks']) - failed} of {len(found['checks'])} checks passed")
    sys.exit(1 if failed else 0)


def machine() -> dict[str, Any]:
    """What is here: versions by name, and in words why something is not."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "driver": driver.driver_problem() or f"{smi('driver_version') or 'unknown'}, CUDA {driver.cuda_version()}",
        "gpus": [
            {"name": driver.device_name(i), "compute_capability": driver.compute_capability(i)}
            for i in range(driver.device_count())
        ],
        "tensorrt": {flavour: _tensorrt(flavour) for flavour in ("tensorrt", "rtx")},
        "nvrtc": _nvrtc(),
        "packages": {extra: {name: _version(name) for name in names} for extra, names in PACKAGES.items()},
    }


def _tensorrt(flavour: Flavour) -> str:
    try:
        return load(flavour).version
    except ZooError as error:
        return str(error)


def _nvrtc() -> str:
    try:
        return ".".join(map(str, nvrtc.version()))
    except ZooError as error:
        return str(error)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def words(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts as rows for people."""
    yield "system", f"{facts['system']}, Python {facts['python']}"
    yield "driver", facts["driver"]
    for gpu in facts["gpus"]:
        yield "GPU", f"{gpu['name']}, compute capability {gpu['compute_capability']}"
    yield "TensorRT", facts["tensorrt"]["tensorrt"]
    yield "TensorRT-RTX", facts["tensorrt"]["rtx"]
    yield "NVRTC", facts["nvrtc"]
    for extra, versions in facts["packages"].items():
        here = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        missing = ", ".join(name for name, version in versions.items() if version is None)
        yield f"packages, {extra}", "; ".join(filter(None, (here, missing and f"not installed: {missing}")))


def steps() -> Iterator[Step]:
    """Everything that can be tried on this machine."""
    from zoo.runtime.engines import execute_on_gpu
    from zoo.verify.packed import shipped
    from zoo.verify.proof import execute_on_cpu, factor_on_cpu, factor_on_gpu

    on_cpu = {"execute": execute_on_cpu, "factor": factor_on_cpu}
    on_gpu = {"execute": execute_on_gpu, "factor": factor_on_gpu}
    for model in shipped():
        yield f"{model} on the CPU", partial(prove, model, load_to_define, on_cpu)
    if installed("rtx"):
        yield "TensorRT-RTX compiles lenet5", partial(_compile, "rtx")
    if not driver.has_driver():
        return
    for flavour, name in (("tensorrt", "TensorRT"), ("rtx", "TensorRT-RTX")):
        if installed(flavour):
            for model in shipped():
                yield f"{model} by {name} on the GPU", partial(prove, model, partial(load, flavour), on_gpu)
    if installed("tensorrt"):
        yield "a session on the GPU", _open_and_repeat


def tried(name: str, attempt: Callable[[], str]) -> Check:
    """The outcome of one step, whatever happens in it."""
    start = time.perf_counter()
    try:
        ok, said, trace = True, attempt(), None
    except ZooError as error:
        ok, said, trace = False, str(error), None
    except Exception as error:  # what nobody foresaw is what the file is for
        ok, said, trace = False, f"{type(error).__name__}: {error}", traceback.format_exc()
    return Check(name, ok, said, round(time.perf_counter() - start, 2), trace)


def prove(model: str, api: Callable[[], Api], how: dict[str, Any]) -> str:
    """Compares the outputs of a network, in fp32 and in fp16, with PyTorch's, as its golden file has them."""
    from zoo.registry import get_model
    from zoo.verify.packed import SHIPPED, prove_packed, read_packed

    golden = read_packed(SHIPPED / f"{model}.safetensors", model)
    said = []
    for precision, report in zip(("fp32", "fp16"), prove_packed(get_model(model), golden, api(), **how)):
        row = max(report.outputs, key=lambda row: (bool(row.problem), row.ratio))
        if not row.ok:
            words = row.problem or f"off by {row.error:.1e}, {row.bound:.1e} is allowed"
            raise ZooError(f"{precision} {row.name}: {words}")
        said.append(f"{row.name} in {precision} at {row.ratio:.0%} of the bound")
    return f"agrees with PyTorch, {', '.join(said)}"


def _compile(flavour: Flavour) -> str:
    engine = zoo.build_engine("lenet5", target=flavour)
    return f"{len(engine.data)} bytes"


def _open_and_repeat() -> str:
    with zoo.load("lenet5", device="gpu", batch=4) as session:
        return repeat(session)


def repeat(session: Any) -> str:
    """Calls a session in every way that it can be called: the bits must be the same each time."""
    import numpy as np

    images = np.random.default_rng(0).random((4, 1, 32, 32), np.float32)
    first = session(images)["logits"]
    if not np.isfinite(first).all():
        raise ZooError("the session gives values that are not finite")
    again = [session(images)["logits"] for _ in range(3)]  # a CUDA graph from the second call on
    again += [ticket.result()["logits"] for ticket in [session.submit(images) for _ in range(3)]]
    differing = sum(not np.array_equal(first, other) for other in again)
    if differing:
        raise ZooError(f"{differing} of {len(again)} repeated calls give other bits than the first")
    return f"{len(again)} repeated calls give the same bits, {session.runs_on}"


def _save(path: Path, found: dict[str, Any]) -> None:
    """Writes what was found, with ~ for the user's folder, which a message may name."""
    text = json_text(found).replace(os.path.expanduser("~"), "~")
    with replacing(path) as file:
        file.write((text + "\n").encode())


main = command(run)

if __name__ == "__main__":
    main()
