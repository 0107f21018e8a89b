"""What the everyday run leaves to `pytest -m slow`, so that it stays a matter of minutes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from zoo.registry import get_model

MOST_PARAMS = 12_000_000  # of a network that is proven every day; larger ones have the same blocks, more often


def everyday(name: str) -> bool:
    return get_model(name).params <= MOST_PARAMS


def with_slow(names: Iterable[str]) -> list[Any]:
    """The names as pytest's parameters; the large networks among them are marked slow."""
    return [name if everyday(name) else pytest.param(name, marks=pytest.mark.slow) for name in names]
