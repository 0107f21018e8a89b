"""What Triton's python backend runs in the model repositories of `zoo.export --format triton`: pictures to the input of
a network, a network on the CPU, and outputs to results.

Each is a class as the backend wants it; the `model.py` of a repository names one. The backend's own module,
`triton_python_backend_utils`, exists only inside the server's processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError

ABOUT = "zoo.json"  # the file with what a model is told
PICTURE, IMAGES, PLACEMENT, RESULT = "picture", "images", "placement", "result"
PLACEMENT_SIZE = 8  # of Placement: picture, resized, offset and input, each x and y

Tensors = Mapping[str, np.ndarray]


class _Model:
    """A model of the python backend. `about` is what its `zoo.json` says."""

    about: dict[str, Any]
    inputs: tuple[str, ...]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, before any request."""
        self.config = json.loads(args["model_config"])
        self.folder = Path(args["model_repository"]) / args["model_version"]
        self.about = json.loads((self.folder / ABOUT).read_text("utf-8"))
        self.start()

    def start(self) -> None:
        """Makes what `answer` uses."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """An answer for each request; what one of them cannot have is told to it alone."""
        return [self._answered(request) for request in requests]

    def _answered(self, request: Any) -> Any:
        try:
            return _response(self.answer(self.tensors(request), request))
        except ZooError as error:
            return _refusal(error)

    def answer(self, tensors: Tensors, request: Any) -> Tensors:
        """The output tensors, batch first. Raises ZooError for what cannot be answered."""
        raise NotImplementedError

    def tensors(self, request: Any) -> dict[str, np.ndarray]:
        """The input tensors of a request, batch first."""
        import triton_python_backend_utils as backend

        return {name: backend.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}


def _response(tensors: Tensors) -> Any:
    import triton_python_backend_utils as backend

    return backend.InferenceResponse([backend.Tensor(name, array) for name, array in tensors.items()])


def _refusal(error: ZooError) -> Any:
    import triton_python_backend_utils as backend

    return backend.InferenceResponse(error=backend.TritonError(str(error)))


class Prepare(_Model):
    """picture (N, 1), the bytes of image files -> images (N, C, H, W) float32, placement (N, 8) int64."""

    inputs = (PICTURE,)

    def start(self) -> None:
        from zoo.preprocess import from_dict

        self.preprocess, self.size = from_dict(self.about["preprocess"]), tuple(self.about["size"])

    def answer(self, tensors: Tensors, request: Any) -> Tensors:
        from zoo.images.sources import decode_image

        found = [
            self.preprocess.apply(decode_image(data, "the picture"), self.size) for data in tensors[PICTURE].ravel()
        ]
        places = [(*p.picture, *p.resized, *p.offset, *p.input) for _, p in found]
        return {IMAGES: np.stack([images for images, _ in found]), PLACEMENT: np.array(places, np.int64)}


class Network(_Model):
    """images (N, C, H, W) float32 -> the network's outputs, by the zoo's session on the CPU; requests that the server
    hands over together are computed together."""

    inputs = (IMAGES,)

    def start(self) -> None:
        from zoo.api import load

        weights = self.about["weights"]
        path = self.folder / weights
        instances = sum(group["count"] for group in self.config.get("instance_group", [])) or 1
        self.session = load(
            self.about["model"],
            weights=path if path.is_file() else weights,
            size=tuple(self.about["size"]),
            device="cpu",
            threads=max((os.cpu_count() or 1) // instances, 1),
        )
        self.session.warm_up(runs=1)

    def execute(self, requests: list[Any]) -> list[Any]:
        batches = [self.tensors(request)[IMAGES] for request in requests]
        try:
            together = self.session(np.concatenate(batches))
        except ZooError as error:
            return [_refusal(error) for _ in requests]
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        parts = {name: np.split(array, ends) for name, array in together.items()}
        return [_response({name: part[index] for name, part in parts.items()}) for index in range(len(requests))]

    def finalize(self) -> None:
        """Called once, when the model is unloaded."""
        self.session.close()


class Decode(_Model):
    """The network's outputs and placement (N, 8) -> result (N, 1), JSON as `zoo.run` writes it, with the picture's
    width and height.

    A request's parameters are the task's options (`conf`, `top` …), of those that are not given the model's own.
    """

    def start(self) -> None:
        from zoo.tasks import get_task

        self.task = get_task(self.about["task"])
        self.inputs = (*self.task.outputs, PLACEMENT)

    def answer(self, tensors: Tensors, request: Any) -> Tensors:
        from zoo.preprocess import Placement

        options = self.task.settings(self.about["options"], json.loads(request.parameters()))
        rows = []
        for index, numbers in enumerate(tensors[PLACEMENT].tolist()):
            picture, resized, offset, size = (tuple(numbers[i : i + 2]) for i in range(0, PLACEMENT_SIZE, 2))
            placement = Placement(picture, resized, offset, size)
            outputs = {name: tensors[name][index] for name in self.task.outputs}
            result = self.task(outputs, placement, self.about["labels"], options)
            row = {"width": picture[0], "height": picture[1], **self.task.to_json(result)}
            rows.append([json.dumps(row).encode()])
        return {RESULT: np.array(rows, np.object_)}
