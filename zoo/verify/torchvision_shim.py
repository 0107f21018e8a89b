"""Import torchvision beside a PyTorch that its compiled operators were not built for.

torchvision's wheel from PyPI is compiled against CUDA. Beside a CPU build of PyTorch its library cannot be loaded, and
`import torchvision` ends in «operator torchvision::nms does not exist», although the models themselves need none of
its operators. Declaring the two schemas that its import looks up cures that; non-maximum suppression, the one
operator that detectors call, gets an implementation. Everything is left alone where torchvision's own operators load.

Call `import_torchvision()` before importing torchvision or whatever imports it: ultralytics, timm, yolov5.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from zoo.errors import ZooError

if TYPE_CHECKING:
    import torch

SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
           "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # fmt: skip

_library: torch.library.Library | None = None  # its registrations live as long as the object


def import_torchvision() -> ModuleType:
    """The torchvision module, importable on every build of PyTorch. Raises ZooError when it is not installed."""
    try:
        import torchvision
    except RuntimeError as error:  # its operators did not load
        if "torchvision::" not in str(error):
            raise
        _declare_operators()
        import torchvision

        torchvision.ops.nms = torchvision.ops.boxes.nms = nms  # its own refuses to run without its library
    except ImportError as error:
        raise ZooError(f"{error}, expected PyTorch's reference models: pip install -e '.[reference]'") from error
    return torchvision


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
