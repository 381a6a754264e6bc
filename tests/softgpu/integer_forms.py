# SPDX-License-Identifier: Apache-2.0
"""Forms of integer instructions with a reference on exact integers."""

from __future__ import annotations

from typing import Callable

from forms import Form, bits_of, signed

INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")
BITS = ("b16", "b32", "b64")


def number(kind: str) -> Callable[[int], int]:
    """Read bits as a value of the type."""
    size = bits_of(kind)
    if kind[0] == "s":
        return lambda x: signed(x, size)
    return lambda x: x


def on(kind: str, function: Callable[..., int]) -> Callable[..., int]:
    """Let a function of values work on bits."""
    read = number(kind)
    return lambda *bits: function(*map(read, bits))


def divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def clamp(value: int, kind: str) -> int:
    size = bits_of(kind)
    if kind[0] == "s":
        return min(max(value, -(1 << (size - 1))), (1 << (size - 1)) - 1)
    return min(max(value, 0), (1 << size) - 1)


def wide(kind: str) -> str:
    return kind[0] + str(2 * bits_of(kind))


def three(text: str, kind: str, function: Callable[..., int]) -> Form:
    return Form(text + " {d}, {a}, {b}, {c}", kind, (kind,) * 3, on(kind, function))


def two(text: str, kind: str, function: Callable[..., int]) -> Form:
    return Form(text + " {d}, {a}, {b}", kind, (kind,) * 2, on(kind, function))


def one(text: str, kind: str, function: Callable[..., int], result: str = "") -> Form:
    return Form(text + " {d}, {a}", result or kind, (kind,), on(kind, function))
