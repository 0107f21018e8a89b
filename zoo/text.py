"""Text that comes from files, made fit for a terminal and for OpenCV."""

from __future__ import annotations

import unicodedata

LONGEST = 300  # characters of a message's part
LONGEST_LABEL = 200


def clean(text: str, longest: int | None = None) -> str:
    """`text` with control characters, bidirectional controls and lone surrogates written out as «\\x1b» or «\\u202e»,
    and cut to `longest` characters. A terminal obeys the first, people are deceived by the second, and OpenCV crashes
    on the last."""
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}… ({len(text)} characters)"
    return text if text.isprintable() else "".join(map(_shown, text))


def clean_lines(text: str) -> str:
    """The same for text of several lines, which stays in lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def _shown(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":  # blanks other than the usual one
        return character
    return character.encode("unicode_escape").decode("ascii")
