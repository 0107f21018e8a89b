"""A reference run in any precision, layer by layer."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.verify.compare import Run
from zoo.verify.references import forget_grids, outputs_of

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


def run_reference(module: nn.Module, images: np.ndarray, dtype: str = "float32", taps: bool = False) -> Run:
    """One forward pass of `images` (N, C, H, W) in `dtype`: "float32", "float64", "float16" or "bfloat16".

    Outputs have the zoo's form: "logits" (N, classes), or "boxes" (N, 4, A) and "scores" (N, classes, A).
    The module itself is left as it was: other precisions run on a copy.
    """
    if dtype not in DTYPES:
        raise ZooError(f"dtype {dtype!r} of a reference run is unknown, expected one of {', '.join(DTYPES)}")
    if dtype != "float32":
        module = copy.deepcopy(module).to(DTYPES[dtype])
    forget_grids(module)
    with torch.no_grad(), _Taps(module, enabled=taps) as recorded:
        outputs = outputs_of(module, module(torch.from_numpy(images).to(DTYPES[dtype])))
    return Run({name: _array(value) for name, value in outputs.items()}, recorded.taps, recorded.leaves)


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
