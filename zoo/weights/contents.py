"""What a checkpoint means: where in it the weights lie, and what else it says about the network.

A state_dict, or a whole pickled module, may stand under many keys, below other dictionaries, and with prefixes before
its names. Of several sets of weights the averaged one is taken, as ultralytics, timm and torchvision's references do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from zoo.errors import ZooError
from zoo.weights.base import Module
from zoo.weights.pickles import Inert
from zoo.weights.tensors import Array, Tensor

# Where weights lie, the averaged ones first.
_KEYS = (
    "ema", "ema_net", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema", "teacher",
    "model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params", "module",
    "generator", "student", "encoder", "backbone",
)  # fmt: skip
_NO_WEIGHTS = re.compile("optim|sched|scaler|loss|criterion|amp", re.IGNORECASE)
_DEPTH = 6
_MODULES = 200_000
_LARGEST_SIDE = 1 << 14

State = dict[str, Tensor]


class Contents(NamedTuple):
    """A checkpoint's weights by name; the key they stood under ("" for none); its modules, if it has them; metadata."""

    state: State
    key: str
    modules: tuple[Module, ...]
    metadata: dict[str, str]


def understand(file: str, content: Any) -> Contents:
    """The weights in `content` (see `read_checkpoint`). Raises ZooError when there are none."""
    found = _find(content)
    if found is None:
        raise ZooError(f"{file} holds no state_dict and no model; found {_describe(content)}")
    key, holder = found
    state, modules = (_state(holder), tuple(_modules(holder))) if isinstance(holder, Inert) else (holder, ())
    tensors = {name: _tensor(value) for name, value in state.items() if isinstance(value, (Tensor, Array))}
    _check_extent(file, tensors)
    return Contents(tensors, key, modules, _metadata(file, content, holder))


def _find(content: Any, depth: int = 0) -> tuple[str, Any] | None:
    """(key, state_dict or module) of the weights in `content`, the best known key first, else the only other place."""
    if _is_module(content):
        return ("", content) if next(_named_tensors(content), None) else None
    if not isinstance(content, dict) or depth == _DEPTH:
        return None
    if _is_state(content):
        return "", content
    known = [key for key in _KEYS if key in content]
    others = [key for key in content if isinstance(key, str) and key not in known and not _NO_WEIGHTS.search(key)]
    for key in (*known, *others[:100]):
        found = _find(content[key], depth + 1)
        if found is not None:
            return f"{key}.{found[0]}".rstrip("."), found[1]
    return None


def _is_state(content: dict[Any, Any]) -> bool:
    """True for names of tensors, and little else."""
    tensors = sum(isinstance(value, (Tensor, Array)) and type(name) is str for name, value in content.items())
    return tensors > len(content) // 2


def _is_module(content: Any) -> bool:
    return isinstance(content, Inert) and bool(_children_of(content) or _own(content))


# Whole modules


def _attributes(module: Inert) -> dict[Any, Any]:
    if not module.state and module.args and isinstance(module.args[0], dict):  # of torch.fx
        return module.args[0]
    return module.state


def _children_of(module: Inert) -> dict[str, Inert]:
    children = _attributes(module).get("_modules")
    if children is None and module.kind.module.startswith("__torch__"):  # TorchScript: attributes without distinction
        children = {name: value for name, value in module.state.items() if _scripted(value)}
    children = children if isinstance(children, dict) else {}
    return {str(name): child for name, child in children.items() if isinstance(child, Inert)}


def _scripted(value: Any) -> bool:
    return isinstance(value, Inert) and value.kind.module.startswith("__torch__")


def _own(module: Inert) -> dict[str, Any]:
    """The parameters of a module and the buffers that a state_dict has, by name."""
    attributes = _attributes(module)
    parts = [attributes.get(part) for part in ("_parameters", "_buffers")]
    if parts == [None, None] and module.kind.module.startswith("__torch__"):
        parts = [module.state]
    lost = attributes.get("_non_persistent_buffers_set")
    lost = lost if isinstance(lost, (set, frozenset, list)) else ()
    own = {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    return {str(n): value for n, value in own.items() if isinstance(value, (Tensor, Array)) and n not in lost}


def _walk(root: Inert) -> Iterator[tuple[str, Inert]]:
    """(path, module) of `root` and of all below it, in the order of named_modules()."""
    waiting, count = [("", root, 0)], 0
    while waiting:
        path, module, depth = waiting.pop()
        count += 1
        if count > _MODULES or depth > 100:
            raise ZooError(f"the modules of a {root.name} contain each other; no network does")
        yield path, module
        children = _children_of(module).items()
        waiting += [(f"{path}.{name}" if path else name, child, depth + 1) for name, child in reversed(children)]


def _named_tensors(root: Inert) -> Iterator[tuple[str, Any]]:
    for path, module in _walk(root):
        for name, value in _own(module).items():
            yield f"{path}.{name}" if path else name, value


def _state(root: Inert) -> dict[str, Any]:
    return dict(_named_tensors(root))


def _modules(root: Inert) -> Iterator[Module]:
    if not root.kind.module.startswith("__torch__"):  # which says no attributes
        for path, module in _walk(root):
            yield Module(path, module.name, _attributes(module))


def _tensor(value: Tensor | Array) -> Tensor:
    return value.tensor() if isinstance(value, Array) else value


def _check_extent(file: str, state: State) -> None:
    """Expanded tensors may have more values than are stored, but not out of all proportion."""
    stored = sum({id(t.storage): t.storage.size for t in state.values() if t.storage is not None}.values())
    values = sum(tensor.size for tensor in state.values())
    if values > 2 * stored + (1 << 26):
        raise ZooError(f"{file} makes {values:,} values out of {stored:,} bytes; it is damaged, or made to do harm")


# What else a checkpoint says


def _metadata(file: str, content: Any, holder: Any) -> dict[str, str]:
    """Class names, training size, normalisation and the model's name, as the metadata of a dump has them."""
    own = holder.state if isinstance(holder, Inert) else {}
    around = content if isinstance(content, dict) else {}
    names = next((n for n in map(own.get, ("names",)) if n), None)
    if names is None:
        keys = ("names", "class_names", "classes", "CLASSES", "categories", "idx_to_class", "class_to_idx")
        places = (around, around.get("meta"), around.get("hyper_parameters"))
        names = next((p[k] for p in places if isinstance(p, dict) for k in keys if _plausible(p.get(k))), None)
    found = {"classes": class_names(file, names), "input": _input(own, around), "model": _model(own, around)}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items() if value}


def _plausible(names: Any) -> bool:
    return isinstance(names, (list, tuple, dict)) and len(names) > 0


def class_names(file: str, names: Any) -> list[str] | None:
    """Names in the order of their numbers, of a list or of a dictionary by number or by name; None for none.

    Raises ZooError when the numbers are not 0, 1, 2 …, and for names that are none.
    """
    if names is None:
        return None
    table = dict(enumerate(names)) if isinstance(names, (list, tuple)) else names
    if not isinstance(table, dict):
        raise ZooError(
            f"{file}: the class names are a {type(names).__name__}; a list or a table by number was expected"
        )
    if table and all(type(number) is int for number in table.values()):  # class_to_idx
        table = {number: name for name, number in table.items()}
    table = {int(n) if type(n) is str and re.fullmatch("[0-9]{1,6}", n) else n: name for n, name in table.items()}
    if not all(type(n) is int for n in table) or sorted(table) != list(range(len(table))):
        raise ZooError(f"{file}: the classes are numbered {_some(table)}; 0 to {len(table) - 1} was expected")
    wrong = [number for number, name in table.items() if not isinstance(name, (str, int, float)) or name == ""]
    if wrong:
        raise ZooError(f"{file}: class {wrong[0]} has a {type(table[wrong[0]]).__name__} for a name; give --names")
    ordered = [str(table[number]) for number in range(len(table))]
    return None if ordered == [str(number) for number in range(len(ordered))] else ordered  # YOLO's, when given none


def _some(numbers: Any) -> str:
    return ", ".join(str(n)[:20] for n in list(numbers)[:6]) + (" …" if len(numbers) > 6 else "")


def _get(table: Any, *names: str) -> Any:
    """The first of `names` in a dictionary or among the attributes of an object; None if there is none."""
    table = table.state if isinstance(table, Inert) else table
    return next((table[n] for n in names if n in table), None) if isinstance(table, dict) else None


def _input(own: dict[Any, Any], around: dict[Any, Any]) -> dict[str, Any]:
    """Training size and normalisation, as ultralytics (train_args), yolov5 (opt) and timm (its cfg) say them."""
    found: dict[str, Any] = {}
    timm = next((c for c in (_get(own, "pretrained_cfg"), _get(own, "default_cfg")) if _get(c, "input_size")), None)
    size = _get(timm, "input_size")
    if size is None:
        places = (around.get("train_args"), own.get("args"), around.get("opt"), around.get("args"))
        size = next((s for s in (_get(place, "imgsz", "img_size") for place in places) if s), None)
    sides = [size, size] if type(size) is int else list(size)[-2:] if isinstance(size, (list, tuple)) else []
    if len(sides) == 1:
        sides *= 2
    if len(sides) == 2 and all(type(n) is int and 0 < n <= _LARGEST_SIDE for n in sides):
        found["size"] = sides
    for field in ("mean", "std"):
        values = _get(timm, field)
        if isinstance(values, (list, tuple)) and values and all(_number(v) for v in values):
            found[field] = [float(v) for v in values]
    part = _get(timm, "crop_pct")
    if _number(part) and 0 < part <= 1 and "size" in found:
        found["resize"] = math.floor(found["size"][0] / part)
    if _get(timm, "interpolation") in ("bilinear", "bicubic"):
        found["interpolation"] = _get(timm, "interpolation")
    return found


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _model(own: dict[Any, Any], around: dict[Any, Any]) -> str | None:
    """The name of the architecture, where the checkpoint says it; whether the weights fit it is proven later."""
    yaml = _get(own, "yaml")
    file, scale = _get(yaml, "yaml_file"), _get(yaml, "scale")
    if type(file) is str:
        name = re.split(r"[/\\]", file)[-1].removesuffix(".yaml")
        return f"{name}{scale}" if type(scale) is str and not name.endswith(scale) else name
    names = (_get(own, "yaml_file"), _get(_get(own, "pretrained_cfg", "default_cfg"), "architecture"))
    named = next((n for n in (*names, around.get("arch"), around.get("architecture")) if type(n) is str), None)
    return re.split(r"[/\\]", named)[-1].removesuffix(".yaml") if named else None


def _describe(content: Any) -> str:
    if isinstance(content, Inert):
        return str(content.kind)[:80]
    if isinstance(content, dict):
        return "a dict of " + (", ".join(str(k)[:30] for k in list(content)[:6]) or "nothing")
    return type(content).__name__
