"""The package's shape: who may import whom, what a model file may know, and what `import zoo` costs."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "zoo").rglob("*.py"))
MODELS = sorted(path for path in (ROOT / "zoo" / "models").glob("*.py") if path.name != "__init__.py")

# The parts of the core, and what each may import of zoo. Whatever is not listed stands above them.
CORE = {
    "errors": set(),
    "text": set(),
    "files": {"errors"},
    "discovery": {"errors", "text"},
    "driver": set(),
    "nvrtc": {"errors", "files"},
    "trt": {"errors", "driver"},
    "weights": {"errors", "files", "text"},
    "quantization": {"errors", "files"},
    "network": {"errors", "trt", "weights", "quantization"},
    "ops": {"errors", "network", "quantization"},
    "blocks": {"errors", "network", "ops", "plugins", "weights"},
    "plugins": {"errors", "files", "discovery", "driver", "nvrtc", "trt", "network", "ops"},
    "onnx": {"errors", "files"},
    "images": {"errors", "files", "text"},
    "labels": {"errors", "text"},
    "preprocess": {"errors", "images"},
    "tasks": {
        "errors",
        "discovery",
        "images",
        "labels",
        "preprocess",
        "runtime",
    },  # runtime: only to decode on the GPU, see below
    "cascades": {"errors", "discovery", "tasks"},
    "registry": {"errors", "discovery", "preprocess", "tasks", "cascades"},
    "models": {"errors", "network", "ops", "blocks", "plugins", "registry", "preprocess", "weights"},
}
OWNERS = {  # who may import a heavy library
    "cv2": ("zoo/images/", "zoo/preprocess/"),
    "PIL": ("zoo/images/", "zoo/preprocess/"),
    "gradio": "zoo/demo.py",
    "onnx": "zoo/onnx/",
    "onnxruntime": "zoo/runtime/cpu.py",
    "pyarrow": ("zoo/images/addresses.py", "zoo/batch.py"),
    "ray": "zoo/batch.py",
    "tensorrt": "zoo/trt.py",
    "tensorrt_rtx": "zoo/trt.py",
    "timm": "zoo/verify/",
    "torch": "zoo/verify/",
    "tritonclient": "zoo/formats/triton.py",
    "torchvision": "zoo/verify/",
    "efficientnet_lite_pytorch": "zoo/verify/",
    "facenet_pytorch": "zoo/verify/",
    "libreyolo": "zoo/verify/",
    "facexlib": "zoo/verify/",
    "modern_yolonas": "zoo/verify/",
    "pytorchyolo": "zoo/verify/",
    "sas_yolov7": "zoo/verify/",
    "ultralytics": "zoo/verify/",
    "yolov4": "zoo/verify/",
    "yolov5": "zoo/verify/",
    "yolov6": "zoo/verify/",
    "yolox": "zoo/verify/",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part(path: Path) -> str:
    """The part of zoo that a file belongs to: "ops" for zoo/ops/conv.py, "trt" for zoo/trt.py."""
    return path.relative_to(ROOT / "zoo").with_suffix("").parts[0]


def imports(tree: ast.AST, *, deferred: bool = True) -> Iterator[str]:
    """Dotted names that a file imports when it runs; without `deferred`, those that importing it imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        elif deferred or not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            yield from imports(node, deferred=deferred)


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), name(path))


def module_file(dotted: str) -> Path | None:
    """The file of zoo that a dotted name (of a module, or of something in one) comes from."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


@pytest.mark.parametrize("path", [p for p in FILES if part(p) in CORE and p.name != "__main__.py"], ids=name)
def test_the_core_imports_one_way(path: Path) -> None:
    found = {dotted.split(".")[1] for dotted in imports(parse(path)) if dotted.startswith("zoo.")}
    assert found <= CORE[part(path)] | {part(path)}


@pytest.mark.parametrize("path", [path for path in FILES if part(path) == "tasks"], ids=name)
def test_a_task_needs_no_gpu_until_it_decodes_there(path: Path) -> None:
    assert not [d for d in imports(parse(path), deferred=False) if d.startswith(("zoo.runtime", "zoo.images.", "cv2"))]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_the_scan_imports_models(path: Path) -> None:
    assert [dotted for dotted in imports(parse(path)) if dotted.startswith("zoo.models")] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_libraries_have_one_place(path: Path) -> None:
    found = {dotted.split(".")[0] for dotted in imports(parse(path))}
    assert [library for library in found & OWNERS.keys() if not name(path).startswith(OWNERS[library])] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_modules_are_imported_by_their_names(path: Path) -> None:
    """`import_module` with a computed name escapes the tests above: it is for trt.py and the scan of discovery.py."""
    called = {node.attr for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)}
    called |= {node.id for node in ast.walk(parse(path)) if isinstance(node, ast.Name)}
    if name(path) not in ("zoo/trt.py", "zoo/discovery.py"):
        assert not called & {"import_module", "__import__"}


def circle(wanted: dict[str, set[str]]) -> list[str]:
    """A way from a module over its imports back to itself; empty when there is none."""
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        found = next(filter(None, (follow(other, [*way, module]) for other in sorted(wanted[module] - done))), [])
        done.add(module)
        return found

    return next(filter(None, (follow(module, []) for module in wanted)), [])


def test_no_module_imports_itself_on_the_way() -> None:
    """An import inside a function is one: it only hides the circle. What a scan finds is not imported by its name."""
    wanted = {
        name(path): {name(f) for f in map(module_file, imports(parse(path))) if f and f != path} for path in FILES
    }
    found = circle(wanted)
    assert not found, " -> ".join(found)


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b", "d"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    hidden = ast.parse("def f():\n    from zoo.api import load\n    return lambda: load")
    assert list(imports(hidden)) == ["zoo.api.load"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 500


# Model files

# `net.fp32` is no dtype but the way to say that half precision cannot hold what follows; "float" is a type of a Config.
DTYPES = set("astype bfloat16 bf16 double dtype float16 float32 float64 fp16 half int8 int32 int64 uint8".split())
TENSORRT = set("api network trt get_output set_flag BuilderFlag enter pack definition precision".split())
FILE_ACCESS = set("open read_bytes read_text load save fromfile tofile memmap".split())
MAY_IMPORT = {"__future__", "collections", "dataclasses", "functools", "itertools", "math", "numpy", "typing", "zoo"}


def foreign(tree: ast.Module) -> set[str]:
    """What a model file has no business with: modules, names, attributes and strings."""
    modules = {d for d in imports(tree) if d.split(".")[0] not in MAY_IMPORT or d.startswith(("zoo.trt", "zoo.engine"))}
    words = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    words |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return modules | words & (DTYPES | TENSORRT | FILE_ACCESS)


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_a_model_file_knows_no_dtypes_files_or_tensorrt(path: Path) -> None:
    assert foreign(parse(path)) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch", "torch"),
        ("from pathlib import Path", "pathlib.Path"),
        ("from zoo.trt import load as load_api", "zoo.trt.load"),
        ("np.zeros(3, np.float32)", "float32"),
        ("np.zeros(3, dtype='f4')", "dtype"),
        ("x.astype('half')", "half"),
        ("open('labels.txt')", "open"),
        ("layer.get_output(0)", "get_output"),
        ("net.trt.ActivationType.RELU", "trt"),
    ],
)
def test_what_a_model_file_must_not_know_is_found(source: str, found: str) -> None:
    assert found in foreign(ast.parse(source))


@pytest.mark.parametrize("path", MODELS, ids=name)
def test_a_model_file_is_short(path: Path) -> None:
    limit = 80 if path.name == "resnet.py" else 200
    assert len(path.read_text("utf-8").splitlines()) <= limit


# import zoo

MEASURE = "import time; start = time.perf_counter(); import zoo; print(time.perf_counter() - start)"
LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
HEAVY = {*OWNERS, "cuda", "matplotlib", "ml_dtypes", "pycuda", "rich", "safetensors", "typer"}


def in_fresh_python(code: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


@pytest.mark.parametrize("code", ["import zoo", "import zoo; zoo.list_models(); zoo.get_model('resnet18')"])
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert HEAVY & set(in_fresh_python(f"{code}; {LOADED}")) == set()


def test_importing_takes_no_time() -> None:
    assert min(float(in_fresh_python(MEASURE)[0]) for _ in range(5)) < 0.15
