"""The one exception that users meet."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from typing import Any

LONGEST_NAME, MOST_NAMES = 200, 1000  # what `closest` looks at


class ZooError(Exception):
    """One clear sentence: what was found, what was expected, what to do.

    Commands print it without a traceback and exit with status 2.
    """


class Refused(ZooError):
    """TensorRT refused something; the sentence holds its own words.

    `definition` is the network up to there, where it was being written.
    """

    definition: Any = None


def one_of(what: str, value: object, choices: Iterable[str]) -> str:
    """`value`, which must be one of `choices`. Raises ZooError: «the precision is 'int9'; it must be fp32 or fp16»."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return value
    listed = f"{', '.join(known[:-1])} or {known[-1]}"
    raise ZooError(f"the {what} is {value!r}; it must be {listed}{closest(str(value).lower(), known)}")


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """«; closest: a, b» for the known names that look like `name`, or an empty string."""
    found = difflib.get_close_matches(name[:LONGEST_NAME], _comparable(known), n=count, cutoff=0.4)
    return f"; closest: {', '.join(found)}" if found else ""


def _comparable(known: Iterable[str]) -> list[str]:
    """As many names, and as short ones, as can be compared at once: a file may hold a million of any length."""
    return [name for name in itertools.islice(known, MOST_NAMES) if len(name) <= LONGEST_NAME]
