"""The PyTorch references: published models as their authors wrote them, run in any precision, layer by layer.

A reference is a string: "torchvision:resnet50", "ultralytics:yolov8n", "yolov5:yolov5s",
"scripts/train_lenet5.py:LeNet5" (a class in a file of this repository). Nothing is ever downloaded.

Random weights must be *calibrated*: with PyTorch's own initialisation the activations of a deep network die layer by
layer, and an output that no longer depends on the input agrees with every wrong network.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from zoo.errors import ZooError, closest
from zoo.verify.compare import Run
from zoo.verify.torchvision_shim import import_torchvision

try:
    import torch
    from torch import nn
except ImportError as missing:
    raise ZooError("PyTorch, the reference, is not installed: pip install -e '.[reference]'") from missing

YOLOV5_HINT = 'pip install --no-deps yolov5==7.0.14 && pip install ultralytics pandas seaborn "setuptools<81"'
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}
MIN_DEPENDENCE = 1e-2


# ---------------------------------------------------------------------------------------------------------- loading


def load_reference(source: str, classes: int | None = None) -> nn.Module:
    """The reference that `source` names, in eval mode, with its own random initialisation.

    `classes` is the size of its classifier, upstream's (1000, 80, 10) by default.
    Raises ZooError for an unknown source and for a package that is not installed.
    """
    kind, _, name = source.rpartition(":")
    load = partial(_from_file, kind) if kind.endswith(".py") else _LOADERS.get(kind)
    if load is None:
        raise ZooError(f"reference {source!r} is unknown, expected {', '.join(_LOADERS)} or FILE.py, then :NAME")
    try:
        return load(name, *() if classes is None else (classes,)).eval()
    except ImportError as error:
        hint = YOLOV5_HINT if kind == "yolov5" else "pip install -e '.[reference]'"
        raise ZooError(f"{error}, expected {kind} for the reference {source!r}: {hint}") from error


def _torchvision(name: str, classes: int = 1000) -> nn.Module:
    models = import_torchvision().models
    if name not in models.list_models(module=models):
        raise ZooError(f"torchvision has no model {name!r}{closest(name, models.list_models(module=models))}")
    # Both have classifiers for training only; published weights are used without.
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, num_classes=classes, **options)


def _ultralytics(name: str, classes: int = 80) -> nn.Module:
    _silence_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    yaml = name.removesuffix("u") if name.startswith(("yolov3", "yolov5")) else name  # yolov5nu is yolov5n.yaml there
    try:
        model = DetectionModel(f"{yaml}.yaml", nc=classes, verbose=False)
    except FileNotFoundError as error:
        raise ZooError(f"ultralytics has no model {name!r}, expected a name such as yolov8n") from error
    model.model[-1].end2end = False  # the raw boxes and scores, before any selection
    return model


def _yolov5(name: str, classes: int = 80) -> nn.Module:
    _silence_ultralytics()
    os.environ.setdefault("YOLOv5_AUTOINSTALL", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources
        from yolov5.models import yolo

    folder = Path(yolo.__file__).parent
    configs = {path.stem: path for path in (*folder.glob("*.yaml"), *folder.glob("hub/yolo*.yaml"))}
    if name not in configs:
        raise ZooError(f"yolov5 has no model {name!r}{closest(name, configs)}")
    yolo.LOGGER.setLevel(logging.WARNING)
    return yolo.DetectionModel(str(configs[name]), nc=classes)


def _from_file(file: str, name: str, *classes: int) -> nn.Module:
    path = Path(__file__).resolve().parents[2] / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ZooError(f"there is no {path}, expected the file that defines {name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise ZooError(f"{file} defines no {name!r}{closest(name, vars(module))}")
    return getattr(module, name)(*classes)


_LOADERS = {"torchvision": _torchvision, "ultralytics": _ultralytics, "yolov5": _yolov5}


def _silence_ultralytics() -> None:
    """Before its import: no network, no banner, and its settings file in a folder that goes away."""
    import_torchvision()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = folder = tempfile.mkdtemp(prefix="zoo-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------ calibration


def calibrated(
    source: str, seed: int = 0, size: tuple[int, int, int] = (3, 64, 64), classes: int | None = None
) -> nn.Module:
    """The reference with sane random weights: activations stay alive and the output depends on the input.

    Every trainable parameter is drawn anew, BatchNorm statistics are measured on `sample_images` of `size` (C, H, W).
    The same source, seed and size give the same weights. Raises ZooError when two images give nearly the same output.
    """
    with _no_initialisation():
        module = load_reference(source, classes)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{source} {seed}".encode()))
    _draw_parameters(module, generator)
    _measure_statistics(module, size, seed, generator)
    images = sample_images(2, size, seed + 1000)
    for name, value in dependence(module, images[:1], images[1:]).items():
        if not value > MIN_DEPENDENCE:
            raise ZooError(f"{name} of {source} changes by {value:.1e} between two images, expected > {MIN_DEPENDENCE}")
    return module


def sample_images(count: int, size: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Structured random images: (count, C, H, W) float32 of about zero mean and unit variance.

    Smooth shapes, hard edges and fine grain, each image with its own colours: unlike white noise, they differ in what
    a network sees.
    """
    channels, height, width = size
    rng = np.random.default_rng(seed)
    images = np.empty((count, channels, height, width), np.float32)
    for image in images:
        smooth = torch.from_numpy(rng.standard_normal((1, channels, 5, 5), np.float32))
        image[:] = nn.functional.interpolate(smooth, (height, width), mode="bicubic", align_corners=True)[0]
        for _ in range(6):  # rectangles
            top, left = rng.integers(0, height), rng.integers(0, width)
            bottom, right = top + rng.integers(1, height + 1) // 2 + 1, left + rng.integers(1, width + 1) // 2 + 1
            image[:, top:bottom, left:right] = rng.standard_normal((channels, 1, 1), np.float32)
        image += 0.2 * rng.standard_normal(image.shape, np.float32)
    return images


def dependence(module: nn.Module, images_a: np.ndarray, images_b: np.ndarray) -> dict[str, float]:
    """||y(a) - y(b)|| / ||y(a)|| of every output."""
    a, b = run_reference(module, images_a).outputs, run_reference(module, images_b).outputs
    return {name: float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(a[name])) for name in a}


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Models are built with parameters left as they lie: drawing 300 million numbers twice takes seconds."""
    random = [name for name in vars(nn.init) if name.endswith(("normal_", "uniform_"))]
    with contextlib.ExitStack() as stack:
        for name in random:
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield


@torch.no_grad()
def _draw_parameters(module: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue  # a constant that is stored as a parameter, as YOLO's DFL
        if name.endswith("bias"):
            parameter.normal_(0, 0.2, generator=generator)
        elif parameter.ndim == 1:  # the scale of a normalisation
            parameter.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("weight"):  # convolution, linear, attention projection
            gain = 2.0 if parameter.ndim > 2 else 1.0  # convolutions are followed by an activation that halves
            parameter.normal_(0, (gain / parameter[0].numel()) ** 0.5, generator=generator)
            # Filters of unlike size: where a variance is small, the wrong epsilon of a BatchNorm shows.
            scale = torch.empty(len(parameter)).uniform_(-3, 1, generator=generator).exp2() / 0.85  # rms 1
            parameter.mul_(scale.view(-1, *[1] * (parameter.ndim - 1)))
        else:  # embeddings, tokens, layer scales
            parameter.normal_(0, 0.02, generator=generator)


@torch.no_grad()
def _measure_statistics(module: nn.Module, size: tuple[int, int, int], seed: int, generator: torch.Generator) -> None:
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over batches; a moving one keeps most of the initial 1
        norm.train()
    for batch in range(2):
        module(torch.from_numpy(sample_images(8, size, seed + batch)))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        noise = torch.empty_like(norm.running_mean).normal_(0, 0.1, generator=generator)
        norm.running_mean += noise * norm.running_var.sqrt()
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25, generator=generator)
        norm.eval()


def state_arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The state_dict as float32 arrays under upstream's names, without `num_batches_tracked`; memory is shared."""
    state = module.state_dict()
    return {name: value.float().numpy() for name, value in state.items() if not name.endswith("num_batches_tracked")}


def num_parameters(module: nn.Module) -> int:
    """How many parameters the module has, as papers count them: without BatchNorm statistics and other buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------------------------------- running


def run_reference(module: nn.Module, images: np.ndarray, dtype: str = "float32", taps: bool = False) -> Run:
    """One forward pass of `images` (N, C, H, W) in `dtype`: "float32", "float64", "float16" or "bfloat16".

    Outputs have the zoo's form: "logits" (N, classes), or "boxes" (N, 4, A) and "scores" (N, classes, A).
    The module itself is left as it was: other precisions run on a copy.
    """
    if dtype not in DTYPES:
        raise ZooError(f"dtype {dtype!r} of a reference run is unknown, expected one of {', '.join(DTYPES)}")
    if dtype != "float32":
        module = copy.deepcopy(module).to(DTYPES[dtype])
    _forget_grids(module)
    with torch.no_grad(), _Taps(module, enabled=taps) as recorded:
        outputs = _outputs(module, module(torch.from_numpy(images).to(DTYPES[dtype])))
    return Run({name: _array(value) for name, value in outputs.items()}, recorded.taps, recorded.leaves)


def _forget_grids(module: nn.Module) -> None:
    """ultralytics' heads keep the anchor grid of the last input, in the precision of that run."""
    for head in module.modules():
        if hasattr(head, "shape") and hasattr(head, "strides"):
            head.shape = None


def _outputs(module: nn.Module, result: Any) -> dict[str, torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return {"logits": result}
    if type(module).__module__.startswith("yolov5."):  # (N, A, 4 + 1 + classes): box, objectness, classes
        boxes, objectness, classes = result[0].transpose(1, 2).tensor_split((4, 5), dim=1)
        return {"boxes": boxes, "scores": objectness * classes}
    if isinstance(result, tuple) and isinstance(result[0], torch.Tensor):  # ultralytics: (N, 4 + classes, A)
        boxes, scores = result[0].tensor_split((4,), dim=1)
        return {"boxes": boxes, "scores": scores}
    raise ZooError(f"{type(module).__name__} returned a {type(result).__name__}, expected logits or detections")


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A copy, since an in-place operation may overwrite the tensor later."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).detach().cpu().numpy().copy()


class _Taps:
    """Records what modules return while it is entered.

    YOLO shares one activation module among all its blocks, so a module may have many paths: the one that lies under
    the module that is running now is the one that was called.
    """

    def __init__(self, module: nn.Module, enabled: bool) -> None:
        self.taps: dict[str, np.ndarray] = {}
        self.leaves: dict[str, str] = {}
        self._module, self._enabled = module, enabled
        self._running: list[tuple[str, list[str]]] = []  # path of each module under way, the children that it called
        self._calls: Counter[str] = Counter()
        self._handles: list[Any] = []

    def __enter__(self) -> _Taps:
        paths: dict[nn.Module, list[str]] = {}
        for path, module in self._module.named_modules(remove_duplicate=False):
            paths.setdefault(module, []).append(path)
        for module, names in paths.items() if self._enabled else ():
            self._handles.append(module.register_forward_pre_hook(lambda *_, names=names: self._begin(names)))
            self._handles.append(module.register_forward_hook(lambda m, _, result: self._end(m, result)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, names: list[str]) -> None:
        parent = f"{self._running[-1][0]}." if self._running and self._running[-1][0] else ""
        path = next((name for name in names if name.startswith(parent)), names[0])
        if self._running:
            self._running[-1][1].append(path)
        self._running.append((path, []))

    def _end(self, module: nn.Module, result: Any) -> None:
        path, children = self._running.pop()
        result = result[0] if isinstance(result, tuple) else result
        if not path or not isinstance(result, torch.Tensor):
            return  # the whole model; a head that returns a list
        calls, self._calls[path] = self._calls[path], self._calls[path] + 1
        name = f"{path}:{calls}" if calls else path
        self.taps[name] = _array(result)
        if not children:
            self.leaves[name] = type(module).__name__
