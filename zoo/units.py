"""Numbers of bytes and lengths of time, as people write and read them."""

from __future__ import annotations

import re

from zoo.errors import ZooError

_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}  # of 1024
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_WORDS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def parse_bytes(what: str, text: str, unit: str = "b") -> int:
    """ "512M", "20G" or "1.5GiB" in bytes, by powers of 1024; a bare number counts in `unit`. `what` is what it is."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(?:([kmgt])(?:i?b)?|(b))?", text.strip().lower())
    if match is None:
        raise ZooError(f"{what} is '{text}'; it must be a number of bytes such as 512M or 20G")
    return int(float(match[1]) * 1024 ** _POWERS[match[2] or match[3] or unit])


def parse_age(text: str) -> float:
    """ "30d", "12h" or "2w" in seconds."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdw])", text.strip().lower())
    if match is None:
        raise ZooError(f"the age is '{text}'; it must be a number and its unit (s, m, h, d, w), such as 30d")
    return float(match[1]) * _SECONDS[match[2]]


def bytes_text(count: int) -> str:
    """ "51.6 MB"."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count} B"


def age_text(seconds: float) -> str:
    """ "3 days", in the largest unit that gives a whole number."""
    for word, length in _WORDS:
        count = int(seconds // length)
        if count:
            return f"{count} {word}{'' if count == 1 else 's'}"
    return "0 seconds"
