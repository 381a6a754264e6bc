# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic against exact references."""

from __future__ import annotations

from typing import Callable, List

import pytest
from forms import Form, bits_of, check, signed
from integer_forms import INTEGERS, clamp, divide, number, one, three, two, wide


@pytest.mark.parametrize("kind", INTEGERS)
def test_add_sub_mul(kind: str) -> None:
    size = bits_of(kind)
    forms = [
        two(f"add.{kind}", kind, lambda a, b: a + b),
        two(f"sub.{kind}", kind, lambda a, b: a - b),
        two(f"mul.lo.{kind}", kind, lambda a, b: a * b),
        two(f"mul.hi.{kind}", kind, lambda a, b: a * b >> size),
        three(f"mad.lo.{kind}", kind, lambda a, b, c: a * b + c),
        three(f"mad.hi.{kind}", kind, lambda a, b, c: (a * b >> size) + c),
        three(f"sad.{kind}", kind, lambda a, b, c: c + abs(a - b)),
        two(f"min.{kind}", kind, min),
        two(f"max.{kind}", kind, max),
    ]
    check(forms)


@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32"])
def test_wide_products(kind: str) -> None:
    read, read_wide = number(kind), number(wide(kind))
    check(
        [
            Form(
                f"mul.wide.{kind} {{d}}, {{a}}, {{b}}", wide(kind), (kind, kind),
                lambda a, b: read(a) * read(b),
            ),
            Form(
                f"mad.wide.{kind} {{d}}, {{a}}, {{b}}, {{c}}", wide(kind),
                (kind, kind, wide(kind)), lambda a, b, c: read(a) * read(b) + read_wide(c),
            ),
        ]
    )  # fmt: skip


def test_saturating_arithmetic() -> None:
    check(
        [
            two("add.sat.s32", "s32", lambda a, b: clamp(a + b, "s32")),
            two("sub.sat.s32", "s32", lambda a, b: clamp(a - b, "s32")),
            three("mad.hi.sat.s32", "s32", lambda a, b, c: clamp((a * b >> 32) + c, "s32")),
        ]
    )


@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_24_bit_products(kind: str) -> None:
    def cut(x: int) -> int:
        return signed(x & 0xFFFFFF, 24) if kind == "s32" else x & 0xFFFFFF

    check(
        [
            two(f"mul24.lo.{kind}", kind, lambda a, b: cut(a) * cut(b)),
            two(f"mul24.hi.{kind}", kind, lambda a, b: cut(a) * cut(b) >> 16),
            three(f"mad24.lo.{kind}", kind, lambda a, b, c: cut(a) * cut(b) + c),
            three(f"mad24.hi.{kind}", kind, lambda a, b, c: (cut(a) * cut(b) >> 16) + c),
        ]
    )


@pytest.mark.parametrize("kind", INTEGERS)
def test_division_truncates(kind: str) -> None:
    """By zero anything may come out (all ones does on a GPU), but nothing may crash."""
    read = number(kind)

    def quotient(a: int, b: int) -> int | None:
        return divide(read(a), read(b)) if b else None

    def remainder(a: int, b: int) -> int | None:
        return read(a) - read(b) * divide(read(a), read(b)) if b else None

    check(
        [
            Form(f"div.{kind} {{d}}, {{a}}, {{b}}", kind, (kind, kind), quotient),
            Form(f"rem.{kind} {{d}}, {{a}}, {{b}}", kind, (kind, kind), remainder),
        ]
    )


@pytest.mark.parametrize("kind", ["s16", "s32", "s64"])
def test_abs_neg(kind: str) -> None:
    check([one(f"abs.{kind}", kind, abs), one(f"neg.{kind}", kind, lambda a: -a)])


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_carry_chains(kind: str) -> None:
    """Two-word additions and subtractions: the carry goes from one instruction to the next."""
    size = bits_of(kind)
    mask = (1 << size) - 1

    def pieces(opcode: str, last: str) -> str:
        return (
            f"{{{{ .reg .b{size} low, high; {opcode}.cc.{kind} low, {{a}}, {{b}}; "
            f"{last}.{kind} high, {{a}}, {{c}}; xor.b{size} {{d}}, low, high; }}}}"
        )

    def added(a: int, b: int, c: int) -> int:
        low = a + b
        return (low & mask) ^ (a + c + (low >> size) & mask)

    def subtracted(a: int, b: int, c: int) -> int:
        return (a - b & mask) ^ (a - c - (a < b) & mask)

    long = (
        f"{{{{ .reg .b{size} x, y, z; add.cc.{kind} x, {{a}}, {{b}};"
        f" addc.cc.{kind} y, {{b}}, {{c}};"
        f" addc.{kind} z, 0, 0; xor.b{size} x, x, y; xor.b{size} {{d}}, x, z; }}}}"
    )

    def chained(a: int, b: int, c: int) -> int:
        x = a + b
        y = b + c + (x >> size)
        return (x & mask) ^ (y & mask) ^ (y >> size)

    check(
        [
            Form(pieces("add", "addc"), kind, (kind,) * 3, added),
            Form(pieces("sub", "subc"), kind, (kind,) * 3, subtracted),
            Form(long, kind, (kind,) * 3, chained),
        ]
    )


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_multiply_add_with_carry(kind: str) -> None:
    size = bits_of(kind)
    mask = (1 << size) - 1
    read = number(kind)
    text = (
        f"{{{{ .reg .b{size} low, high; mad.lo.cc.{kind} low, {{a}}, {{b}}, {{c}}; "
        f"madc.hi.{kind} high, {{a}}, {{b}}, 0; xor.b{size} {{d}}, low, high; }}}}"
    )

    def reference(a: int, b: int, c: int) -> int:
        product = read(a) * read(b)
        low = (product & mask) + c
        high = (product >> size) + (low >> size)
        return (low & mask) ^ (high & mask)

    check([Form(text, kind, (kind,) * 3, reference)])


def test_dot_products() -> None:
    def parts(x: int, size: int, kind: str) -> List[int]:
        cut = [x >> shift & ((1 << size) - 1) for shift in range(0, 32, size)]
        return [signed(c, size) for c in cut] if kind == "s32" else cut

    forms = []
    for a in ("u32", "s32"):
        for b in ("u32", "s32"):
            acc = "s32" if "s32" in (a, b) else "u32"

            def dp4(x: int, y: int, z: int, a: str = a, b: str = b) -> int:
                return z + sum(i * j for i, j in zip(parts(x, 8, a), parts(y, 8, b)))

            forms.append(Form(f"dp4a.{a}.{b} {{d}}, {{a}}, {{b}}, {{c}}", acc, (a, b, acc), dp4))
            for half in ("lo", "hi"):

                def dp2(x: int, y: int, z: int, a: str = a, b: str = b, h: str = half) -> int:
                    bytes_ = parts(y, 8, b)[:2] if h == "lo" else parts(y, 8, b)[2:]
                    return z + sum(i * j for i, j in zip(parts(x, 16, a), bytes_))

                text = f"dp2a.{half}.{a}.{b} {{d}}, {{a}}, {{b}}, {{c}}"
                forms.append(Form(text, acc, (a, b, acc), dp2))
    check(forms)


@pytest.mark.parametrize("kind", ["u16x2", "s16x2"])
def test_packed_halves(kind: str) -> None:
    half = kind[:3]
    read = number(half)

    def both(function: Callable[[int, int], int]) -> Callable[[int, int], int]:
        def reference(a: int, b: int) -> int:
            low = function(read(a & 0xFFFF), read(b & 0xFFFF)) & 0xFFFF
            return low | (function(read(a >> 16), read(b >> 16)) & 0xFFFF) << 16

        return reference

    check(
        [
            Form(f"{op}.{kind} {{d}}, {{a}}, {{b}}", "b32", ("b32", "b32"), both(function))
            for op, function in (("add", lambda a, b: a + b), ("min", min), ("max", max))
        ]
    )
