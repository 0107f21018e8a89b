"""The PyTorch references: published models as their authors wrote them.

A reference is a string: "torchvision:resnet50", "ultralytics:yolov8n", "yolov5:yolov5s",
"scripts/train_lenet5.py:LeNet5" (a class in a file of this repository). Nothing is ever downloaded.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, closest
from zoo.verify.torchvision_shim import import_torchvision

try:
    import torch
    from torch import nn
except ImportError as missing:
    raise ZooError("PyTorch, the reference, is not installed: pip install -e '.[reference]'") from missing

YOLOV5_HINT = 'pip install --no-deps yolov5==7.0.14 && pip install ultralytics pandas seaborn "setuptools<81"'


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
    path = Path(__file__).resolve().parents[3] / file
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


def outputs_of(module: nn.Module, result: Any) -> dict[str, torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return {"logits": result}
    if type(module).__module__.startswith("yolov5."):  # (N, A, 4 + 1 + classes): box, objectness, classes
        boxes, objectness, classes = result[0].transpose(1, 2).tensor_split((4, 5), dim=1)
        return {"boxes": boxes, "scores": objectness * classes}
    if isinstance(result, tuple) and isinstance(result[0], torch.Tensor):  # ultralytics: (N, 4 + classes, A)
        boxes, scores = result[0].tensor_split((4,), dim=1)
        return {"boxes": boxes, "scores": scores}
    raise ZooError(f"{type(module).__name__} returned a {type(result).__name__}, expected logits or detections")


def forget_grids(module: nn.Module) -> None:
    """ultralytics' heads keep the anchor grid of the last input, in the precision of that run."""
    for head in module.modules():
        if hasattr(head, "shape") and hasattr(head, "strides"):
            head.shape = None
