"""Every architecture with an open height and width against itself at fixed ones, bit for bit.

`python tests/open_sizes.py [PATTERN …]` prints a line for the smallest network of each: `same` (and what its sides must
be a multiple of), `refused` with the sentence, or `differs`. All taps are compared, so that onnxruntime fuses alike in
both. All of them take minutes.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator

import numpy as np

from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.registry import Model, get_model, list_models
from zoo.runtime.cpu import CpuSession
from zoo.trt import Api, load
from zoo.weights import RandomWeights


def smallest() -> Iterator[Model]:
    """The smallest network of each definition."""
    found: dict[object, Model] = {}
    for model in map(get_model, list_models()):
        kept = found.setdefault(model.build, model)
        found[model.build] = min(kept, model, key=lambda m: m.params)
    return iter(found.values())


def compare(model: Model, api: Api) -> str:
    """What a network says of open sides."""
    channels = model.input[0]
    try:
        whole = define(model, RandomWeights(0), api, (-1, channels, -1, -1))
    except ZooError as error:
        return f"refused: {error}"
    taps, step = list(whole.taps), whole.multiple
    height, width = (-(-side // step) * step for side in ((96, 160) if step > 1 else (139, 161)))
    session = CpuSession(whole, taps, threads=1)
    for size in ((height, width), (width, height)):
        images = np.random.default_rng(0).standard_normal((2, channels, *size), np.float32)
        fixed = CpuSession(define(model, RandomWeights(0), api, (-1, channels, *size)), taps, threads=1)
        found, want = session(images), fixed(images)
        for name in want:
            if not np.array_equal(found[name], want[name], equal_nan=True):
                return f"differs at {size}, first in {name}"
    return f"same, multiples of {step}"


def main() -> None:
    api, failed = load("rtx"), False
    for model in smallest():
        if not sys.argv[1:] or any(fnmatch.fnmatchcase(model.name, pattern) for pattern in sys.argv[1:]):
            said = compare(model, api)
            failed |= said.startswith("differs")
            print(f"{model.name:30} {said}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
