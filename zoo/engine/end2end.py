"""A detector from frames to final boxes in one network: letterbox, the network, suppression, pixels of the frame.

input    frames          uint8 (N, h, w, 3) BGR, h and w anything up to `max_frame`; one size a batch
outputs  num_detections  int32 (N, 1)
         boxes           float32 (N, max_det, 4): x1, y1, x2, y2 in pixels of the frame
         scores          float32 (N, max_det)
         classes         int32 (N, max_det), -1 beyond num_detections
         open            int32 (N, 1): 0 where the answer is certain (`zoo.plugins.nms`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from zoo.engine.io import name_open_axes
from zoo.engine.shapes import Shape, Shapes
from zoo.errors import Refused, ZooError
from zoo.network import Net, Tensor
from zoo.plugins.letterbox import letterbox, to_frame
from zoo.plugins.nms import OUTPUTS, nms
from zoo.preprocess import Resize
from zoo.preprocess import letterbox as letterbox_spec
from zoo.registry import Model
from zoo.tasks import get_task

FRAMES = "frames"
SMALLEST = 16  # pixels of a frame's side


@dataclass(frozen=True)
class EndToEnd:
    """`max_frame` is the largest (height, width); `conf`, `iou` and `max_det` decide as in the detection task, which
    also has their defaults (None)."""

    max_frame: tuple[int, int] = (1080, 1920)
    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None

    def __post_init__(self) -> None:
        if any(type(side) is not int or not SMALLEST <= side <= 16384 for side in self.max_frame):
            sides = "x".join(map(str, self.max_frame))
            raise ZooError(f"the largest frame is {sides}; each side must be from {SMALLEST} to 16384 pixels")

    def settled(self, model: Model) -> EndToEnd:
        """With the options that `model` has for its task. Raises ZooError for models that this is not for."""
        spec, task = model.preprocess, get_task(model.task)
        if list(task.outputs) != ["boxes", "scores"]:
            raise ZooError(f"--end2end is for detectors; {model.name} is for the task '{model.task}'")
        size = spec.size if isinstance(spec, Resize) else None
        if not isinstance(spec, Resize) or replace(spec, size=640, stride=32) != letterbox_spec(640, pad=spec.pad):
            raise ZooError(f"--end2end needs a letterbox before the network; {model.name} has {spec} (size {size})")
        given = {name: value for name, value in self.options.items() if value is not None}
        options = task.settings(model.options, given)
        if not options.pop("nms"):
            raise ZooError(f"--end2end suppresses boxes, and those of {model.name} are final: build it without")
        if options.pop("multi_label", False):
            raise ZooError(
                f"--end2end counts an anchor once, {model.name} for every class that scores enough: build it without"
            )
        del options["topk_candidates"]  # of those that count for every class
        return replace(self, **options)

    @property
    def options(self) -> dict[str, Any]:
        return {"conf": self.conf, "iou": self.iou, "max_det": self.max_det}

    def frames(self, shapes: Shapes) -> Shapes:
        """The profile of the frames, for the batches of `shapes`."""
        smallest = (SMALLEST, SMALLEST, 3)
        largest = (*self.max_frame, 3)
        return Shapes((shapes.min[0], *smallest), (shapes.opt[0], *largest), (shapes.max[0], *largest))

    def input(self, net: Net, batch: int) -> Tensor:
        """The input of the network."""
        frames = net.network.add_input(net.unique(FRAMES), net.trt.uint8, (batch, -1, -1, 3))
        if frames is None:
            log = net.definition.api.log.drain()
            raise Refused(f"{net.definition.api.name} refused frames of uint8: {log}")
        name_open_axes(frames, ("batch",))
        return frames

    def before(self, net: Net, model: Model, shape: Shape) -> tuple[Tensor, Tensor]:
        """Adds what comes before the network: its input of `shape`, and where the picture lies in it."""
        frames = self.input(net, shape[0])
        assert isinstance(model.preprocess, Resize)
        return letterbox(net / "letterbox", frames, shape[2:], model.preprocess.pad)

    def after(self, net: Net, outputs: Mapping[str, Tensor], placement: Tensor) -> dict[str, Tensor]:
        """Adds what comes after the network (of `settled` options)."""
        number, boxes, *rest = nms(net / "nms", outputs["boxes"], outputs["scores"], **self.options)
        return dict(zip(OUTPUTS, (number, to_frame((net / "to_frame").fp32, boxes, placement), *rest)))


def describe(end2end: EndToEnd | None) -> dict[str, Any] | None:
    """What an engine's description says of it; its `input` is the one of the network inside."""
    return None if end2end is None else {"input": FRAMES, **asdict(end2end)}


def end2end_of(description: Mapping[str, Any]) -> EndToEnd | None:
    """How the engine of a description was built."""
    about = description.get("end2end")
    if about is None:
        return None
    return EndToEnd(tuple(about["max_frame"]), about["conf"], about["iou"], about["max_det"])


def command_options(end2end: EndToEnd | None) -> str:
    """The options of zoo.build that ask for it."""
    if end2end is None:
        return ""
    chosen = {"conf": end2end.conf, "iou": end2end.iou, "max-det": end2end.max_det}
    words = "".join(f" --{name} {value}" for name, value in chosen.items() if value is not None)
    return f" --end2end --max-frame {'x'.join(map(str, end2end.max_frame))}{words}"
