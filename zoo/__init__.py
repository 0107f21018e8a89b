"""Hand-written TensorRT networks in Python, proven tensor by tensor against PyTorch.

    zoo.list_models("resnet*")                          # names
    zoo.get_model("resnet50")                           # task, input, reference …
    zoo.build_engine("resnet50", precision="fp16").save("resnet50.engine")
    with zoo.load("resnet50", weights="weights/resnet50.safetensors") as session:
        logits = session(images)["logits"]              # images: float32 (N, 3, 224, 224)
        found = session.predict("cat.jpg", top=3)       # found.labels, found.scores …

Importing this package imports neither TensorRT nor PyTorch nor OpenCV; the functions do, when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.interrupted import watch_imports

__version__ = "0.1.0"
__all__ = ["ZooError", "build_engine", "get_model", "list_models", "load"]

watch_imports()

if TYPE_CHECKING:
    from zoo.api import build_engine, load
    from zoo.registry import get_model, list_models


def __getattr__(name: str) -> Any:
    """The public functions, imported at first use."""
    if name in ("build_engine", "load"):
        from zoo import api

        return getattr(api, name)
    if name in ("get_model", "list_models"):
        from zoo import registry

        return getattr(registry, name)
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
