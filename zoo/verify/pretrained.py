"""References with given weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from zoo.errors import ZooError
from zoo.verify.references import Reference


def load_state(reference: Reference, arrays: Mapping[str, np.ndarray]) -> Reference:
    """`reference` with the parameters and buffers in `arrays`, by name; every one must fit.

    Raises ZooError naming what is missing or too much.
    """
    state = {name: torch.from_numpy(np.array(array, copy=True)) for name, array in arrays.items()}
    try:
        missing, unexpected = reference.module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ZooError(f"the weights do not fit the reference: {' '.join(str(error).split())[:500]}") from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ZooError(f"the weights do not fit the reference: missing {missing[:5]}, unknown {list(unexpected)[:5]}")
    return reference
