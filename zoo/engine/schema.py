"""What the fields of an engine's description may be. A description is data from a file that anyone may have written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args

from zoo.engine.flags import Flags
from zoo.engine.io import Io
from zoo.errors import ZooError
from zoo.network import PluginPolicy, PrecisionName
from zoo.text import LONGEST, clean
from zoo.trt import Flavour

Check = Callable[[Any], bool]


def check_fields(what: str, data: Any) -> dict[str, Any]:
    """`data` as a description with every field of its kind. Raises ZooError that names the first one which is not."""
    if not isinstance(data, dict):
        raise ZooError(f"{what} is not an object of JSON but a {type(data).__name__}")
    for name, (wanted, check) in FIELDS.items():
        if name not in data:
            raise ZooError(f"{what} has no field '{name}', which should be {wanted}")
        if not check(data[name]):
            raise ZooError(f"'{name}' in {what} is {clean(repr(data[name]), LONGEST)}; it should be {wanted}")
    for name, (wanted, check) in LATER.items():
        if data.get(name) is not None and not check(data[name]):
            raise ZooError(f"'{name}' in {what} is {clean(repr(data[name]), LONGEST)}; it should be {wanted}")
    return data


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _one_of(*values: Any) -> Check:
    return lambda value: any(value is known or (isinstance(known, str) and value == known) for known in values)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_count(n) and 0 < n < 2**31 for n in value)


def _profile(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_shape, value))


def _input(value: Any) -> bool:
    if not _object(min=_shape, opt=_shape, max=_shape)(value):
        return False
    multiple, profiles = value.get("multiple", 1), value.get("profiles", [])
    return _count(multiple) and multiple > 0 and isinstance(profiles, list) and all(map(_profile, profiles))


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _object(**fields: Check) -> Check:
    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            name in value and check(value[name]) for name, check in fields.items()
        )

    return fits


_HASH = _matches("[0-9a-f]{64}")
FIELDS: dict[str, tuple[str, Check]] = {
    "model": ("the name of a model", _matches("[a-z0-9_]{1,100}")),
    "task": ("the name of a task", _matches("[a-z0-9_]{1,100}")),
    "flavour": ("tensorrt or rtx", _one_of(*get_args(Flavour))),
    "version": ("a version such as 10.3.0", _matches(r"[0-9]{1,5}(\.[0-9]{1,5}){1,5}([a-z0-9.+-]{0,20})")),
    "compute_capability": ("null or one such as 9.0", _or_none(_matches(r"[0-9]{1,3}\.[0-9]"))),
    "gpu": ("null or the name of a GPU", _or_none(_text)),
    "precision": (f"one of {', '.join(get_args(PrecisionName))}", _one_of(*get_args(PrecisionName))),
    "level": ("null or 0 to 5", _or_none(lambda value: type(value) is int and 0 <= value <= 5)),
    "heuristic": ("true or false", _one_of(True, False)),
    "tf32": ("true or false", _one_of(True, False)),
    "input": ("an object with min, opt and max, four sizes each", _input),
    "preprocess": ("an object with its kind", _object(kind=_text)),
    "labels": ("null or a list of names", _or_none(_names)),
    "weights": ("an object with the file and its sha256", _object(file=_text, sha256=_HASH)),
    "size": ("a number of bytes", _count),
    "sha256": ("64 hexadecimal digits", _HASH),
}


def _ops(value: Any) -> bool:
    """Custom ops by name, with their version and implementation."""
    check = _object(version=_count, implementation=_one_of(*get_args(PluginPolicy)))
    return isinstance(value, Mapping) and all(
        _matches("[a-z0-9_]{1,100}")(name) and check(value[name]) for name in value
    )


def _numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(number) in (int, float) and number >= 0 for number in value.values())


def _flags(value: Any) -> bool:
    names = {field.name for field in fields(Flags)}
    return isinstance(value, Mapping) and all(
        name in names and (_count(value[name]) if name == "dla" else value[name] is True) for name in value
    )


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _frame(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_count(side) and side > 0 for side in value)


def _modules(value: Any) -> bool:
    """Modules by path, with what they are, the shape of what they give (-1 where it is open) and their parameters."""
    shape = _or_none(lambda sizes: isinstance(sizes, list) and all(type(n) is int and -1 <= n < 2**31 for n in sizes))
    check = _object(op=_or_none(_text), shape=shape, parameters=_count)
    return (
        isinstance(value, Mapping)
        and all(path == "" or _text(path) for path in value)
        and all(map(check, value.values()))
    )


def _setting(value: Any, deepest: int = 8) -> bool:
    """A value of a configuration: JSON, of texts that can be printed."""
    if isinstance(value, (Mapping, list)):
        parts = value.values() if isinstance(value, Mapping) else value
        return (
            deepest > 0
            and all(map(_text, value if isinstance(value, Mapping) else ()))
            and all(_setting(part, deepest - 1) for part in parts)
        )
    return value == "" or _text(value) or value is None or isinstance(value, (bool, int, float))


_DATE = _matches(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


# What descriptions that were written before do not have.
LATER: dict[str, tuple[str, Check]] = {
    "driver": ("null or the version of the NVIDIA driver", _text),
    "built": ("an object with date, such as 2026-01-31T12:00:00Z, and seconds", _object(date=_DATE, seconds=_seconds)),
    "proof": (
        "null or an object with ok, said, reference, executor and date",
        _object(ok=_one_of(True, False), said=_text, reference=_text, executor=_text, date=_DATE),
    ),
    "config": ("null or an object of settings", lambda value: isinstance(value, Mapping) and _setting(value)),
    "io": (f"one of {', '.join(get_args(Io))}", _one_of(*get_args(Io))),
    "workspace": ("null or a number of bytes", _count),
    "flags": ("an object of flags that are true, and dla", _flags),
    "islands": ("a list of patterns", _texts),
    "features": ("a list of module paths", _texts),
    "scales": ("null or what zoo.calibrate writes", _object(model=_text, weights=_HASH, amax=_numbers, file=_text)),
    "modules": ("an object of modules by path, with op, shape and parameters", _modules),
    "plugins": (
        "an object with policy, ops and self_contained",
        _object(policy=_one_of(*get_args(PluginPolicy)), ops=_ops, self_contained=_one_of(True, False)),
    ),
    "end2end": (
        "an object with max_frame, conf, iou and max_det",
        _object(max_frame=_frame, conf=_or_none(_share), iou=_or_none(_share), max_det=_or_none(_count)),
    ),
}
