"""Nothing stands twice in the models and the blocks: what two architectures share is a block."""

from __future__ import annotations

import ast
import io
import itertools
import tokenize
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUN = 6  # equal code lines in a row that are one too many
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

Line = tuple[int, str]  # its number, and its tokens


def code_lines(source: str) -> list[Line]:
    """The lines of a file without comments, blank lines, imports and docstrings, whatever their whitespace."""
    aside: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, (ast.Import, ast.ImportFrom)):
            aside.update(range(node.lineno, node.end_lineno + 1))  # type: ignore[attr-defined]
    lines: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT and token.start[0] not in aside:
            lines[token.start[0]].append(token.string)
    return [(number, " ".join(tokens)) for number, tokens in sorted(lines.items())]


def repeats(sources: Mapping[str, str]) -> list[str]:
    """Every run of `RUN` or more equal lines that stands twice, as "FILE:LINE and FILE:LINE: N lines from …"."""
    files = {name: code_lines(source) for name, source in sources.items()}
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in files.items():
        texts = [text for _, text in lines]
        for start in range(len(texts) - RUN + 1):
            windows[tuple(texts[start : start + RUN])].append((name, start))
    pairs = {pair for places in windows.values() for pair in itertools.combinations(places, 2)}
    found = []
    for (name, start), (other, at) in sorted(pairs):
        if ((name, start - 1), (other, at - 1)) in pairs:
            continue  # the run began before
        length = RUN + next(n for n in itertools.count() if ((name, start + n + 1), (other, at + n + 1)) not in pairs)
        (line, text), (other_line, _) = files[name][start], files[other][at]
        found.append(f"{name}:{line} and {other}:{other_line}: {length} lines from '{text}'")
    return found


def test_nothing_stands_twice_in_models_and_blocks() -> None:
    paths = sorted(path for folder in ("models", "blocks") for path in (ROOT / "zoo" / folder).rglob("*.py"))
    assert repeats({path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}) == []


BLOCK = """
def block(net, x, width):
    y = conv(net / "conv1", x, width)
    y = bn(net / "bn1", y)
    y = relu(net, y)
    y = conv(net / "conv2", y, width)
    y = bn(net / "bn2", y)
    return add(net, x, y)
"""


def test_a_run_that_stands_twice_is_found_at_both_places() -> None:
    copy = '"""Ours."""\nimport math\n\n' + BLOCK.replace("def block(", "def ours(").replace(
        "    y = relu", "\n  # so\n    y =  relu"
    )
    assert repeats({"a.py": BLOCK, "b.py": copy}) == [
        "a.py:3 and b.py:6: 6 lines from 'y = conv ( net / \"conv1\" , x , width )'"
    ]
    assert repeats({"a.py": BLOCK + BLOCK}) == ["a.py:2 and a.py:10: 7 lines from 'def block ( net , x , width ) :'"]


def test_short_runs_and_imports_may_stand_twice() -> None:
    imports = "".join(f"from zoo.ops import op{i}\n" for i in range(9))
    other = BLOCK.replace('"bn1"', '"norm1"')
    assert repeats({"a.py": imports + BLOCK, "b.py": imports + other}) == []
