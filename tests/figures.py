"""What docs/models.md says of a network beside its errors: how long its definition is, and its latency on a CPU."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import time
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from types import CodeType
from typing import Any

import numpy as np

import zoo
from zoo.engine.definition import define
from zoo.errors import ZooError
from zoo.registry import Model
from zoo.trt import Api
from zoo.verify.references import Reference, load_reference
from zoo.weights import RandomWeights

WRITTEN_IN = ("zoo.models.", "zoo.blocks.")
SECONDS, RUNS = 8.0, 20  # at most, for one latency
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """The lines of a function or class that hold code: no docstrings, comments or blank lines."""
    source = textwrap.dedent(source)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def lines_of_definition(model: Model, api: Api) -> int:
    """The lines of the functions of `zoo/models` and `zoo/blocks` that write this network; ops do not count, as
    PyTorch's modules do not."""
    with _called() as codes:
        define(model, RandomWeights(0), api, (1, *model.input))
    ours = [code for code, module in codes.items() if module.startswith(WRITTEN_IN) and code.co_name != "<module>"]
    nested = {constant for code in ours for constant in code.co_consts if isinstance(constant, CodeType)}
    return sum(code_lines(inspect.getsource(code)) for code in ours if code not in nested and code.co_name[0] != "<")


@contextmanager
def _called() -> Iterator[dict[CodeType, str]]:
    """What Python calls meanwhile, with the module that it stands in."""
    found: dict[CodeType, str] = {}

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found[frame.f_code] = frame.f_globals.get("__name__", "")

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


def lines_of_reference(model: Model) -> int | None:
    """The lines of the classes that the reference's modules are of, PyTorch's own left out; None where it runs in a
    process of its own, or has no source to read."""
    reference = load_reference(model.reference)
    if not isinstance(reference, Reference):
        return None
    kinds = {type(module) for module in reference.module.modules()}
    texts = _sources(kind for kind in kinds if not kind.__module__.startswith("torch."))
    return sum(map(code_lines, texts)) or None


def _sources(kinds: Iterable[type]) -> Iterator[str]:
    for kind in kinds:
        try:
            yield inspect.getsource(kind)
        except (OSError, TypeError):  # made while it runs
            continue


def latency_on_cpu(model: Model) -> float | None:
    """Milliseconds for one image of the published size in fp32 on one thread, the least of up to `RUNS`: what else the
    machine does makes a run longer, never shorter. None where random weights of that size cannot be run."""
    images = np.random.default_rng(0).normal(size=(1, *model.input)).astype(np.float32)
    try:
        with zoo.load(model, weights="random", device="cpu", threads=1) as session:
            started, times = time.perf_counter(), []
            while len(times) < 3 or len(times) < RUNS and time.perf_counter() - started < SECONDS:
                before = time.perf_counter()
                session(images)
                times.append((time.perf_counter() - before) * 1e3)
    except ZooError:
        return None
    return round(min(times), 2)
