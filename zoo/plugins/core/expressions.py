"""Sizes that are known only when the engine runs: dimensions of an op's tensors, and arithmetic on them.

The plugin evaluates them in C++ (shell.cpp), so an expression is kept as text in reverse Polish notation.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expr:
    """An integer expression: `x[0] * 4 + 1`, `-(-x[2] // 2)`, `ceil_div(x[1], 128)`."""

    text: str

    def _with(self, operation: str, left: Size, right: Size) -> Expr:
        return Expr(f"{size_text(left)},{size_text(right)},{operation}")

    def __add__(self, other: Size) -> Expr:
        return self._with("+", self, other)

    def __radd__(self, other: Size) -> Expr:
        return self._with("+", other, self)

    def __sub__(self, other: Size) -> Expr:
        return self._with("-", self, other)

    def __rsub__(self, other: Size) -> Expr:
        return self._with("-", other, self)

    def __mul__(self, other: Size) -> Expr:
        return self._with("*", self, other)

    def __rmul__(self, other: Size) -> Expr:
        return self._with("*", other, self)

    def __floordiv__(self, other: Size) -> Expr:
        return self._with("/", self, other)


Size = Expr | int


def size_text(size: Size) -> str:
    """`size` as the plugin reads it."""
    return size.text if isinstance(size, Expr) else str(int(size))


def ceil_div(a: Size, b: Size) -> Expr:
    """a / b rounded up: how many blocks of b threads a grid needs for a elements."""
    return Expr(f"{size_text(a)},{size_text(b)},c")


@dataclass(frozen=True)
class Symbol:
    """A tensor of an op by its place: `x[d]` is its size along axis d. As an argument of a kernel, its address."""

    place: str  # i0, i1 … for inputs, o0, o1 … for outputs

    def __getitem__(self, axis: int) -> Expr:
        kind, index = self.place[0], self.place[1:]
        return Expr(f"{'o' if kind == 'o' else ''}{index}.{axis}")
