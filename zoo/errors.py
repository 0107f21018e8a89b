"""The one exception that users meet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """One clear sentence: what was found, what was expected, what to do.

    Commands print it without a traceback and exit with status 2.
    """


class Refused(ZooError):
    """TensorRT refused something; the sentence holds its own words."""


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """«; closest: a, b» for the known names that look like `name`, or an empty string."""
    found = difflib.get_close_matches(name, list(known), n=count, cutoff=0.4)
    return f"; closest: {', '.join(found)}" if found else ""
