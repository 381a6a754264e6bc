# SPDX-License-Identifier: Apache-2.0
"""Video instructions, scalar and on lanes, against the definition."""

from __future__ import annotations

import itertools
import random
from typing import Callable, Dict, List, Optional, Sequence

import pytest
from forms import Form, check, signed

M32 = 0xFFFFFFFF
TYPES = [list(kinds) for kinds in itertools.product(("u32", "s32"), repeat=3)]
OPERATIONS: Dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "absdiff": lambda a, b: abs(a - b),
    "min": min,
    "max": max,
}
COMPARISONS: Dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
VALUES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, M32]
VALUES += [0x80FF017F, 0x7F018000, 0x12345678, 0xFEDCBA98]


def part(value: int, selector: str, kind: str) -> int:
    size = {"": 32, "b": 8, "h": 16}[selector[:1]]
    value = value >> (size * int(selector[1:] or 0)) & ((1 << size) - 1)
    return signed(value, size) if kind == "s32" else value


def clamp(value: int, size: int, kind: str) -> int:
    low, high = (-(1 << size - 1), (1 << size - 1) - 1) if kind == "s32" else (0, (1 << size) - 1)
    return max(low, min(high, value))


def dot(selector: str) -> str:
    return f".{selector}" if selector else ""


def scalar(
    words: str,
    function: Callable[[int, int], int],
    types: Sequence[str],
    selectors: Sequence[str] = ("", "", ""),
    second: Optional[str] = None,
    saturate: bool = False,
) -> Form:
    d, a, b = selectors

    def reference(x: int, y: int, z: int) -> int:
        made = function(part(x, a, types[1]), part(y, b, types[2]))
        size = {"": 32, "b": 8, "h": 16}[d[:1]]
        if saturate:
            made = clamp(made, size, types[0])
        if d:
            mask = ((1 << size) - 1) << size * int(d[1:])
            return (made << size * int(d[1:]) & mask) | (z & ~mask)
        if second == "add":
            return made + z
        if second:
            choose = min if second == "min" else max
            return choose(part(made, "", types[0]), part(z, "", types[0]))
        return made

    text = f"{words} {{d}}{dot(d)}, {{a}}{dot(a)}, {{b}}{dot(b)}"
    if d or second:
        text += ", {c}"
    else:
        text += "; and.b32 {c}, {c}, {c}"
    if d:
        text = "mov.b32 {d}, 0; " + text
    return Form(text, "b32", ("b32",) * 3, reference, [VALUES] * 3, limit=250)


SELECTORS = ["", "b0", "b1", "b2", "b3", "h0", "h1"]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_scalar(name: str) -> None:
    choose = random.Random(name)
    made: List[Form] = []
    for types, saturate in itertools.product(TYPES, (False, True)):
        words = f"v{name}." + ".".join(types) + (".sat" if saturate else "")
        sources = [choose.choice(SELECTORS) for _ in range(2)]
        for to in ("", choose.choice(SELECTORS[1:])):
            made.append(scalar(words, OPERATIONS[name], types, (to, *sources), saturate=saturate))
        for second in ("add", "min", "max"):
            made.append(
                scalar(
                    f"{words}.{second}", OPERATIONS[name], types, ("", *sources), second, saturate
                )
            )
    check(made)


def test_set() -> None:
    made = []
    for name, function in COMPARISONS.items():
        for types in TYPES[:4]:
            words = f"vset.{types[1]}.{types[2]}.{name}"
            made.append(scalar(words, function, types, ("", "b1", "h1")))
            made.append(scalar(words, function, types, ("h1", "", "b3")))
            made.append(scalar(words + ".add", function, types, second="add"))
    check(made)


@pytest.mark.parametrize("name", ["shl", "shr"])
def test_shifts(name: str) -> None:
    made = []
    for d, a, mode in itertools.product(("u32", "s32"), ("u32", "s32"), ("clamp", "wrap")):

        def function(x: int, y: int, mode: str = mode) -> int:
            by = min(y, 32) if mode == "clamp" else y & 31
            return x << by if name == "shl" else x >> by

        for saturate in (False, True):
            words = f"v{name}.{d}.{a}.u32" + (".sat" if saturate else "") + f".{mode}"
            made.append(
                scalar(words, function, (d, a, "u32"), ("", "b1", "b0"), saturate=saturate)
            )
            made.append(
                scalar(words + ".add", function, (d, a, "u32"), ("", "", "b2"), "add", saturate)
            )
    check(made)


def test_mad() -> None:
    made = []
    for types, scale, saturate, po in itertools.product(
        (["u32", "u32", "u32"], ["s32", "s32", "u32"], ["s32", "s32", "s32"]),
        (0, 7, 15),
        (False, True),
        (False, True),
    ):
        final = types[0]

        def reference(
            x: int,
            y: int,
            z: int,
            types: List[str] = types,
            scale: int = scale,
            saturate: bool = saturate,
            po: bool = po,
            final: str = final,
        ) -> int:
            total = part(x, "h1", types[1]) * part(y, "", types[2]) + part(z, "", final) + po
            return clamp(total >> scale, 32, final) if saturate else total >> scale

        words = "vmad." + ".".join(types) + (".po" if po else "") + (".sat" if saturate else "")
        words += f".shr{scale}" if scale else ""
        text = f"{words} {{d}}, {{a}}.h1, {{b}}, {{c}}"
        made.append(Form(text, "b32", ("b32",) * 3, reference, [VALUES] * 3, limit=250))
    check(made)


def average(a: int, b: int) -> int:
    return (a + b + 1) >> 1 if a + b >= 0 else (a + b) >> 1


def lanes(
    words: str,
    function: Callable[[int, int], int],
    types: Sequence[str],
    count: int,
    selectors: Sequence[str],
    saturate: bool,
    add: bool,
) -> Form:
    size = 32 // count
    letter = "b" if count == 4 else "h"
    defaults = ("b3210", "b3210", "b7654") if count == 4 else ("h10", "h10", "h32")
    mask, first, other = (
        [int(digit) for digit in reversed((given or default)[1:])]
        for given, default in zip(selectors, defaults)
    )

    def reference(x: int, y: int, z: int) -> int:
        both = x | y << 32
        result = z
        for k in range(count):
            if k not in mask:
                continue
            a = part(both >> size * first[k], f"{letter}0", types[1])
            b = part(both >> size * other[k], f"{letter}0", types[2])
            made = function(a, b)
            if saturate:
                made = clamp(made, size, types[0])
            if add:
                result += made
            else:
                cut = ((1 << size) - 1) << size * k
                result = (made << size * k & cut) | (result & ~cut)
        return result

    d, a, b = map(dot, selectors)
    text = f"mov.b32 {{d}}, 0; {words} {{d}}{d}, {{a}}{a}, {{b}}{b}, {{c}}"
    return Form(text, "b32", ("b32",) * 3, reference, [VALUES] * 3, limit=250)


@pytest.mark.parametrize("count", [2, 4])
def test_lanes(count: int) -> None:
    made = []
    sets = [("", "", ""), ("b20", "b7152", "b0000"), ("b3", "b3210", "b3210")]
    if count == 2:
        sets = [("", "", ""), ("h1", "h30", "h11"), ("h0", "h32", "h10")]
    for name, function in {**OPERATIONS, "avrg": average}.items():
        for k, types in enumerate(TYPES):
            for ending in ("", ".sat", ".add"):
                words = f"v{name}{count}." + ".".join(types) + ending
                selectors = sets[(k + len(ending)) % 3]
                made.append(
                    lanes(
                        words,
                        function,
                        types,
                        count,
                        selectors,
                        ending == ".sat",
                        ending == ".add",
                    )
                )
    for name, test in COMPARISONS.items():
        for types in TYPES[:4]:
            for ending in ("", ".add"):
                words = f"vset{count}.{types[1]}.{types[2]}.{name}{ending}"
                made.append(lanes(words, test, types, count, sets[0], False, bool(ending)))
    check(made)


def test_sum_of_absolute_differences() -> None:
    """What compilers make of __vsadu4."""
    text = "mov.b32 {d}, 0; vabsdiff4.u32.u32.u32.add {d}, {a}, {b}, {c}"
    values = [[0x01020304], [0x04030201], [100]]
    check([Form(text, "b32", ("b32",) * 3, lambda a, b, c: 108, values)])


def test_vmad_with_negated_sources() -> None:
    """The product is negated where one factor is; either minus makes the result signed."""
    made = []
    for types, minus, saturate, scale in itertools.product(
        itertools.product(("u32", "s32"), repeat=2),
        itertools.product((False, True), repeat=3),
        (False, True),
        (0, 7),
    ):

        def reference(
            x: int,
            y: int,
            z: int,
            types: Sequence[str] = types,
            minus: Sequence[bool] = minus,
            saturate: bool = saturate,
            scale: int = scale,
        ) -> int:
            product = part(x, "b2", types[0]) * part(y, "", types[1])
            signed_ = "s32" in types or minus[0] != minus[1]
            product = -product if minus[0] != minus[1] else product
            third = part(z, "", "s32" if signed_ else "u32")
            total = (product + (-third if minus[2] else third)) >> scale
            final = "s32" if signed_ or minus[2] else "u32"
            return clamp(total, 32, final) if saturate else total

        signs = ["-" if one else "" for one in minus]
        words = f"vmad.s32.{types[0]}.{types[1]}{'.sat' if saturate else ''}"
        words += f".shr{scale}" if scale else ""
        text = f"{words} {{d}}, {signs[0]}{{a}}.b2, {signs[1]}{{b}}, {signs[2]}{{c}}"
        made.append(Form(text, "b32", ("b32",) * 3, reference, [VALUES] * 3, limit=150))
    check(made)
