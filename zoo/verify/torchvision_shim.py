"""Import torchvision beside a PyTorch that its compiled operators were not built for.

torchvision's wheel from PyPI is compiled against CUDA. Beside a CPU build of PyTorch its library cannot be loaded, for
three libraries that it is linked with are missing, and `import torchvision` ends in «operator torchvision::nms does not
exist». Empty libraries in their place let it load: then every operator is real on the CPU (deform_conv2d, roi_align,
nms …), and what belongs to CUDA is never called. They are compiled once per torchvision, which takes a C compiler.
Where there is none, or where a GPU's driver is (whose other users need the real libraries), the two schemas that the
import looks up are declared instead, and nms alone gets an implementation, in Python. Everything is left alone where
torchvision's own operators load.

Call `import_torchvision()` before importing torchvision or whatever imports it: ultralytics, timm, yolov5.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.driver import has_driver
from zoo.errors import ZooError
from zoo.files import cache_folder

if TYPE_CHECKING:
    import torch

SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
           "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # fmt: skip

_library: torch.library.Library | None = None  # its registrations live as long as the object


def import_torchvision() -> ModuleType:
    """The torchvision module, importable on every build of PyTorch. Raises ZooError when it is not installed."""
    if "torchvision" not in sys.modules:
        _load_operators()
    try:
        with _without_compiler():
            import torchvision
    except RuntimeError as error:  # its operators did not load
        if "torchvision::" not in str(error):
            raise
        _declare_operators()
        import torchvision

        torchvision.ops.nms = torchvision.ops.boxes.nms = nms  # its own refuses to run without its library
    except ImportError as error:
        raise ZooError(f"{error}; the published models need: pip install 'tensorrt-zoo[reference]'") from error
    return torchvision


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """torchvision imports PyTorch's compiler for one function that it may never call, in half the time of a start.

    While this is entered, a module that asks the real one when it is used stands in its place.
    """
    name, stand_in = "torch._dynamo.utils", ModuleType("torch._dynamo.utils")

    def real(attribute: str) -> Any:
        if attribute.startswith("__"):  # the file and the path, which inspect asks every module for
            raise AttributeError(attribute)
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        from torch._dynamo import utils

        return getattr(utils, attribute)

    vars(stand_in).update(
        __getattr__=real, is_compile_supported=lambda *arguments: real("is_compile_supported")(*arguments)
    )
    sys.modules.setdefault(name, stand_in)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


def _load_operators() -> None:
    """Loads torchvision's compiled operators beside a CPU build of PyTorch, where that can be done."""
    found = importlib.util.find_spec("torchvision")
    if sys.platform != "linux" or found is None or not found.submodule_search_locations or has_driver():
        return
    import torch  # its libraries come first

    binary = next(Path(found.submodule_search_locations[0]).glob("_C*.so"), None)
    if torch.version.cuda is not None or binary is None or _loads(binary):
        return
    try:
        for stub in sorted(_stubs(binary).glob("*.so*")):
            ctypes.CDLL(str(stub))
    except (OSError, subprocess.SubprocessError, importlib.metadata.PackageNotFoundError):
        return  # no compiler, no place to write: the declared schemas have to do


def _loads(binary: Path) -> bool:
    try:
        ctypes.CDLL(str(binary))
    except OSError:
        return False
    return True


def _stubs(binary: Path) -> Path:
    """The folder with the empty libraries for this build of torchvision, compiled when it is not there yet."""
    version = importlib.metadata.version("torchvision")
    folder = cache_folder() / f"torchvision-{version}-{binary.stat().st_size}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as temporary:
            made = Path(temporary) / "stubs"
            made.mkdir()
            for name, symbols in _missing(binary).items():
                _compile(made / name, symbols)
            try:
                made.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def _missing(binary: Path) -> dict[str, set[str]]:
    """The symbols of CUDA that `binary` wants, by the library that it wants them from."""
    missing: dict[str, set[str]] = defaultdict(set)
    for line in _tool("nm", "-D", "--undefined-only", str(binary)).splitlines():
        name, _, version = line.split()[-1].partition("@")
        if version.startswith("libcudart"):
            missing[version].add(name)
        elif name.startswith(("_ZN3c104cuda", "_ZNK3c104cuda")):
            missing["libc10_cuda.so"].add(name)
        elif "cuda" in name and name.startswith(("_ZN2at", "_ZNK2at")):
            missing["libtorch_cuda.so"].add(name)
    return missing


def _compile(library: Path, symbols: set[str]) -> None:
    """A shared library whose functions do nothing and return 0. CUDA's runtime has versioned symbols."""
    source, versions = library.with_suffix(".c"), library.with_suffix(".map")
    source.write_text("".join(f"long {symbol}(void) {{ return 0; }}\n" for symbol in sorted(symbols)))
    versions.write_text(f"{library.name} {{ global: *; }};\n" if "cudart" in library.name else "{ global: *; };\n")
    _tool("cc", "-shared", "-fPIC", "-nostdlib", "-o", str(library), str(source),
          f"-Wl,-soname,{library.name}", f"-Wl,--version-script={versions}")  # fmt: skip
    source.unlink()
    versions.unlink()


def _tool(name: str, *arguments: str) -> str:
    """What a program of the system prints; a user's own search path is not asked. OSError where it is missing."""
    program = shutil.which(name, path=os.defpath)
    if program is None:
        raise FileNotFoundError(name)
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=True, env={"PATH": os.defpath}
    ).stdout


def _declare_operators() -> None:
    import torch

    global _library
    if _library is None:
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            _library.define(schema)
        _library.impl("nms", nms, "CPU")


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression, as torchvision.ops.nms: (N, 4) corners, (N,) scores -> indices kept, best first.

    A box goes when its IoU with a better box that stays is greater than the threshold; equal scores keep their order.
    """
    import torch

    left, top, right, bottom = boxes.unbind(1)
    areas = (right - left) * (bottom - top)
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        width = torch.minimum(right[best], right[order]) - torch.maximum(left[best], left[order])
        height = torch.minimum(bottom[best], bottom[order]) - torch.maximum(top[best], top[order])
        shared = width.clamp(min=0) * height.clamp(min=0)
        order = order[~(shared / (areas[best] + areas[order] - shared) > iou_threshold)]  # NaN (empty boxes) stays
    return torch.stack(kept) if kept else order
