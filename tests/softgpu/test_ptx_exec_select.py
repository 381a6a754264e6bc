# SPDX-License-Identifier: Apache-2.0
"""Comparison, selection and moves of integers, against exact ones."""

from __future__ import annotations

from typing import Callable, Dict, Tuple

import pytest
from forms import Form, bits_of, check, signed
from integer_forms import BITS, INTEGERS, on, one

# ---------------------------------------------------------------- comparison and selection

RELATIONS: Dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


@pytest.mark.parametrize("kind", [*INTEGERS, *BITS])
def test_setp(kind: str) -> None:
    relations = list(RELATIONS) if kind[0] != "b" else ["eq", "ne"]
    forms = [
        Form(f"setp.{r}.{kind} {{d}}, {{a}}, {{b}}", "pred", (kind, kind), on(kind, RELATIONS[r]))
        for r in relations
    ]
    if kind[0] == "u":
        forms += [
            Form(f"setp.{r}.{kind} {{d}}, {{a}}, {{b}}", "pred", (kind, kind), RELATIONS[plain])
            for r, plain in UNSIGNED.items()
        ]
    check(forms)


@pytest.mark.parametrize("operation", ["and", "or", "xor"])
@pytest.mark.parametrize("negated", ["", "!"])
def test_setp_combines(operation: str, negated: str) -> None:
    """p is the combination, q that of the opposite comparison."""
    combine = {"and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y}
    function = combine[operation]

    def outcome(a: int, b: int, c: int) -> Tuple[int, int]:
        other = 1 - c if negated else c
        less = int(signed(a, 32) < signed(b, 32))
        return function(less, other), function(1 - less, other)

    text = (
        f"{{{{ .reg .pred p, q; .reg .b32 v, w; setp.lt.{operation}.s32 p|q, {{a}}, {{b}}, "
        f"{negated}{{c}}; selp.u32 v, 1, 0, p; selp.u32 w, 2, 0, q; or.b32 {{d}}, v, w; }}}}"
    )

    def reference(a: int, b: int, c: int) -> int:
        p, q = outcome(a, b, c)
        return p | q << 1

    check([Form(text, "u32", ("s32", "s32", "pred"), reference)])


@pytest.mark.parametrize("kind", INTEGERS)
def test_set(kind: str) -> None:
    forms = []
    for relation, function in RELATIONS.items():
        whole = on(kind, lambda a, b, f=function: 0xFFFFFFFF * f(a, b))
        forms.append(
            Form(f"set.{relation}.u32.{kind} {{d}}, {{a}}, {{b}}", "u32", (kind,) * 2, whole)
        )
        real = on(kind, lambda a, b, f=function: 0x3F800000 * f(a, b))
        forms.append(
            Form(f"set.{relation}.f32.{kind} {{d}}, {{a}}, {{b}}", "f32", (kind,) * 2, real)
        )
    combined = on(kind, lambda a, b: 0xFFFFFFFF * (a < b))
    text = (
        "{{ .reg .pred t; setp.ne.u32 t, 1, 0;"
        f" set.lt.and.u32.{kind} {{d}}, {{a}}, {{b}}, t; }}}}"
    )
    forms.append(Form(text, "u32", (kind,) * 2, combined))
    check(forms)


@pytest.mark.parametrize(
    "kind", ["b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "f64"]
)
def test_selp_and_slct(kind: str) -> None:
    """Bits go through untouched, whatever number they are."""
    forms = [
        Form(
            f"selp.{kind} {{d}}, {{a}}, {{b}}, {{c}}", kind, (kind, kind, "pred"),
            lambda a, b, c: a if c else b,
        ),
        Form(
            f"slct.{kind}.s32 {{d}}, {{a}}, {{b}}, {{c}}", kind, (kind, kind, "s32"),
            lambda a, b, c: a if signed(c, 32) >= 0 else b,
        ),
    ]  # fmt: skip

    def by_float(a: int, b: int, c: int) -> int:
        return a if c & 0x7FFFFFFF <= 0x7F800000 and (c == 0x80000000 or not c >> 31) else b

    text = f"slct.{kind}.f32 {{d}}, {{a}}, {{b}}, {{c}}"
    forms.append(Form(text, kind, (kind, kind, "f32"), by_float))
    check(forms)


@pytest.mark.parametrize("kind", ["b16", "u16", "s16", "b32", "u32", "f32", "b64", "s64", "f64"])
def test_mov_moves_bits(kind: str) -> None:
    check([one(f"mov.{kind}", kind, lambda a: a & ((1 << bits_of(kind)) - 1))])


def test_mov_of_vectors() -> None:
    """Sources are read before any destination is written; the fourth of %tid is 0."""
    check(
        [
            Form(
                ".reg .b32 l, h; mov.b64 {{l, h}}, {a}; mov.v2.b32 {{l, h}}, {{h, l}};"
                "mov.b64 {d}, {{l, h}};",
                "b64", ("b64",), lambda a: a >> 32 | (a & 0xFFFFFFFF) << 32,
            ),
            Form(
                ".reg .u32 x<4>; .reg .v4 .u32 v; mov.v4.u32 v, %ntid;"
                "mov.v4.u32 {{x0, x1, x2, x3}}, v;"
                "add.u32 x1, x1, x2; add.u32 x1, x1, x3; cvt.u64.u32 {d}, x1;",
                "b64", ("b64",), lambda a: 2,
            ),
        ]
    )  # fmt: skip


def test_mov_packs_and_unpacks() -> None:
    def swap(a: int) -> int:
        return a >> 32 | (a & 0xFFFFFFFF) << 32

    def reverse16(a: int) -> int:
        return sum((a >> shift & 0xFFFF) << (48 - shift) for shift in (0, 16, 32, 48))

    forms = (
        (".reg .b32 l, h; mov.b64 {{l, h}}, {a}; mov.b64 {d}, {{h, l}};", "b64", swap),
        (
            ".reg .b16 p<4>; mov.b64 {{p0, p1, p2, p3}}, {a}; mov.b64 {d}, {{p3, p2, p1, p0}};",
            "b64",
            reverse16,
        ),
        (
            ".reg .b16 l, h; mov.b32 {{l, h}}, {a}; mov.b32 {d}, {{h, l}};",
            "b32",
            lambda a: a >> 16 | (a & 0xFFFF) << 16,
        ),
        (
            ".reg .b32 h; mov.b64 {{_, h}}, {a}; mov.b64 {d}, {{h, h}};",
            "b64",
            lambda a: a >> 32 | a >> 32 << 32,
        ),
    )
    check([Form(f"{{{{ {text} }}}}", kind, (kind,), function) for text, kind, function in forms])


def test_immediates_take_the_type_of_the_instruction() -> None:
    check(
        [
            Form("add.s32 {d}, {a}, -1", "s32", ("s32",), lambda a: a - 1),
            Form("add.u64 {d}, {a}, -1", "u64", ("u64",), lambda a: a - 1),
            Form("add.u16 {d}, {a}, 0xFFFF", "u16", ("u16",), lambda a: a - 1),
            Form("and.b64 {d}, {a}, -4294967296", "b64", ("b64",), lambda a: a & ~0xFFFFFFFF),
            Form("setp.lt.u32 {d}, {a}, -5", "pred", ("u32",), lambda a: a < 0xFFFFFFFB),
            Form("setp.gt.s16 {d}, {a}, 0xFFFF", "pred", ("s16",), lambda a: signed(a, 16) > -1),
            Form("mul.wide.s32 {d}, {a}, -3", "s64", ("s32",), lambda a: signed(a, 32) * -3),
            Form("mad.lo.s32 {d}, 7, {a}, -2", "s32", ("s32",), lambda a: 7 * a - 2),
            Form("mov.u64 {d}, -2", "u64", ("u64",), lambda a: -2),
            Form("mov.b32 {d}, 1.5", "b32", ("b32",), lambda a: None),
        ]
    )  # fmt: skip
