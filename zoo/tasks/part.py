"""What networks are for that answer nothing alone: host code reads their outputs (`zoo.cascades`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from zoo.errors import ZooError
from zoo.preprocess import Placement
from zoo.tasks import Task


class Part(Task):
    """Any outputs, which only the cascade that the network is a part of can read."""

    name = "part"
    outputs = {}

    def decode(
        self, outputs: Mapping[str, np.ndarray], placement: Placement, labels: Sequence[str], options: Mapping[str, Any]
    ) -> NoReturn:
        raise ZooError("this network is a part of a cascade and answers nothing alone; run the cascade")

    draw = to_json = describe = decode  # there is no result of it
