# SPDX-License-Identifier: Apache-2.0
"""Logic, shifts, bit fields and permutations, against exact integers."""

from __future__ import annotations

from typing import Callable, Dict, Tuple

import pytest
from forms import Form, bits_of, check, edges, signed
from integer_forms import BITS, one, two


@pytest.mark.parametrize("kind", BITS)
def test_logic(kind: str) -> None:
    check(
        [
            two(f"and.{kind}", kind, lambda a, b: a & b),
            two(f"or.{kind}", kind, lambda a, b: a | b),
            two(f"xor.{kind}", kind, lambda a, b: a ^ b),
            one(f"not.{kind}", kind, lambda a: ~a),
            one(f"cnot.{kind}", kind, lambda a: int(a == 0)),
        ]
    )


def test_logic_of_predicates() -> None:
    check(
        [
            two("and.pred", "pred", lambda a, b: a & b),
            two("or.pred", "pred", lambda a, b: a | b),
            two("xor.pred", "pred", lambda a, b: a ^ b),
            one("not.pred", "pred", lambda a: 1 - a),
            one("mov.pred", "pred", lambda a: a),
        ]
    )


@pytest.mark.parametrize("table", [0x00, 0x80, 0xFE, 0x96, 0x2D, 0xE8, 0xCA, 0xFF])
def test_lop3(table: int) -> None:
    def reference(a: int, b: int, c: int) -> int:
        return sum(
            (table >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i
            for i in range(32)
        )

    text = f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table:#x}"
    check([Form(text, "b32", ("b32",) * 3, reference, limit=200)])


@pytest.mark.parametrize("table", [0x00, 0x80, 0x96, 0xCA])
@pytest.mark.parametrize("verb", ["and", "or"])
@pytest.mark.parametrize("sink", [False, True])
def test_lop3_with_a_predicate(table: int, verb: str, sink: bool) -> None:
    """The third source is a predicate's number too: 0 is false."""

    def reference(a: int, b: int, c: int) -> int:
        value = sum(
            (table >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i
            for i in range(32)
        )
        found = (value != 0 and c != 0) if verb == "and" else (value != 0 or c != 0)
        return int(found) if sink else value ^ int(found)

    to = "_" if sink else "{d}"
    text = (
        ".reg .pred p, q; .reg .b32 v; setp.eq.u32 q, {c}, 0;"
        f" lop3.{verb}.b32 {to}|p, {{a}}, {{b}}, {{c}}, {table:#x}, !q; selp.b32 v, 1, 0, p;"
    )
    text += " mov.b32 {d}, v" if sink else " xor.b32 {d}, {d}, v"
    values = [[0, 1, 0x80000000, 0xFFFFFFFF, 0x12345678]] * 3
    check([Form(text, "b32", ("b32",) * 3, reference, values)])


AMOUNTS = [
    0,
    1,
    7,
    8,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    64,
    65,
    100,
    255,
    256,
    257,
    1 << 31,
    (1 << 32) - 1,
]


@pytest.mark.parametrize("size", [16, 32, 64])
def test_shifts_clamp(size: int) -> None:
    def arithmetic(a: int, n: int) -> int:
        return signed(a, size) >> min(n, size)

    values = [edges(f"b{size}"), AMOUNTS]
    forms = [
        Form(f"{op} {{d}}, {{a}}, {{b}}", f"b{size}", (f"b{size}", "u32"), reference, values)
        for op, reference in (
            (f"shl.b{size}", lambda a, n: a << n if n < size else 0),
            (f"shr.u{size}", lambda a, n: a >> n if n < size else 0),
            (f"shr.b{size}", lambda a, n: a >> n if n < size else 0),
            (f"shr.s{size}", arithmetic),
        )
    ]
    check(forms)


def test_funnel_shifts() -> None:
    def left(a: int, b: int, n: int) -> int:
        return ((b << 32 | a) << n) >> 32

    def right(a: int, b: int, n: int) -> int:
        return (b << 32 | a) >> n

    values = [edges("b32", 2)[::2], edges("b32", 2)[1::2], AMOUNTS]
    forms = [
        Form(f"shf.{d}.{m}.b32 {{d}}, {{a}}, {{b}}, {{c}}", "b32", ("b32",) * 3, reference, values)
        for d, m, reference in (
            ("l", "wrap", lambda a, b, n: left(a, b, n & 31)),
            ("r", "wrap", lambda a, b, n: right(a, b, n & 31)),
            ("l", "clamp", lambda a, b, n: left(a, b, min(n, 32))),
            ("r", "clamp", lambda a, b, n: right(a, b, min(n, 32))),
        )
    ]
    check(forms)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("size", [32, 64])
def test_counting_bits(size: int) -> None:
    kind = f"b{size}"
    check(
        [
            one(f"popc.{kind}", kind, lambda a: bin(a).count("1"), "u32"),
            one(f"clz.{kind}", kind, lambda a: size - a.bit_length(), "u32"),
            one(f"brev.{kind}", kind, lambda a: int(f"{a:0{size}b}"[::-1], 2)),
        ]
    )


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bfind(kind: str) -> None:
    size = bits_of(kind)

    def position(a: int) -> int:
        if kind[0] == "s" and a >> (size - 1):
            a = ~a & ((1 << size) - 1)
        return a.bit_length() - 1  # -1: none

    def amount(a: int) -> int:
        found = position(a)
        return found if found < 0 else size - 1 - found

    check(
        [
            Form(f"bfind.{kind} {{d}}, {{a}}", "u32", (kind,), position),
            Form(f"bfind.shiftamt.{kind} {{d}}, {{a}}", "u32", (kind,), amount),
        ]
    )


FIELDS = [0, 1, 5, 16, 31, 32, 33, 63, 64, 65, 128, 255, 256, 300]


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bfe(kind: str) -> None:
    size = bits_of(kind)

    def reference(a: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        if length == 0:
            return 0
        sign_at = min(position + length - 1, size - 1)
        sign = a >> sign_at & 1 if kind[0] == "s" else 0
        out = 0
        for i in range(size):
            bit = a >> (position + i) & 1 if i < length and position + i < size else sign
            out |= bit << i
        return out

    values = [edges(kind, 2), FIELDS, FIELDS]
    text = f"bfe.{kind} {{d}}, {{a}}, {{b}}, {{c}}"
    check([Form(text, kind, (kind, "u32", "u32"), reference, values, limit=1500)])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("position", "length"), [(0, 8), (4, 40), (28, 8), (31, 1), (40, 3), (0, 0)]
)
def test_bfi(size: int, position: int, length: int) -> None:
    kind = f"b{size}"

    def reference(a: int, b: int) -> int:
        for i in range(length):
            if position + i < size:
                b = b & ~(1 << (position + i)) | (a >> i & 1) << (position + i)
        return b

    text = f"bfi.{kind} {{d}}, {{a}}, {{b}}, {position}, {length}"
    check([Form(text, kind, (kind, kind), reference, limit=100)])


def test_bmsk_and_szext() -> None:
    def mask(a: int, b: int, wrap: bool) -> int:
        if wrap:
            a, b = a & 31, b & 31
        if a >= 32 or b == 0:
            return 0
        return sum(1 << i for i in range(a, min(a + min(b, 32), 32)))

    def extend(a: int, n: int, sign: bool, wrap: bool) -> int:
        n = n & 31 if wrap else min(n, 32)
        if n == 0:
            return 0
        cut = a & ((1 << n) - 1)
        return signed(cut, n) if sign else cut

    values = [FIELDS, FIELDS]
    forms = [
        Form(
            f"bmsk.{mode}.b32 {{d}}, {{a}}, {{b}}", "b32", ("b32", "b32"),
            lambda a, b, w=mode == "wrap": mask(a, b, w), values,
        )
        for mode in ("clamp", "wrap")
    ]  # fmt: skip
    for mode in ("clamp", "wrap"):
        for kind in ("u32", "s32"):
            forms.append(
                Form(
                    f"szext.{mode}.{kind} {{d}}, {{a}}, {{b}}", kind, (kind, "u32"),
                    lambda a, n, k=kind, w=mode == "wrap": extend(a, n, k == "s32", w),
                    [edges("b32"), FIELDS],
                )
            )  # fmt: skip
    check(forms)


def test_fns() -> None:
    """The n-th set bit from a base; offset 0 is the base bit itself."""

    def reference(mask: int, base: int, offset: int) -> int:
        offset = signed(offset, 32)
        if offset == 0:
            return base if mask >> base & 1 else 0xFFFFFFFF
        step = 1 if offset > 0 else -1
        left, at = abs(offset), base
        while 0 <= at < 32:
            if mask >> at & 1:
                left -= 1
                if left == 0:
                    return at
            at += step
        return 0xFFFFFFFF

    values = [edges("b32"), [0, 1, 5, 16, 31], [0, 1, 2, 3, 5, 0xFFFFFFFF, 0xFFFFFFFE, 40]]
    text = "fns.b32 {d}, {a}, {b}, {c}"
    check([Form(text, "b32", ("b32", "b32", "s32"), reference, values, limit=1000)])


def test_prmt() -> None:
    def default(a: int, b: int, c: int) -> int:
        source = (b << 32 | a).to_bytes(8, "little")
        out = 0
        for i in range(4):
            pick = c >> (4 * i) & 15
            byte = source[pick & 7]
            out |= (0xFF * (byte >> 7) if pick & 8 else byte) << (8 * i)
        return out

    modes: Dict[str, Tuple[Tuple[int, ...], ...]] = {
        "f4e": ((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 6)),
        "b4e": ((0, 7, 6, 5), (1, 0, 7, 6), (2, 1, 0, 7), (3, 2, 1, 0)),
        "rc8": ((0,) * 4, (1,) * 4, (2,) * 4, (3,) * 4),
        "ecl": ((0, 1, 2, 3), (1, 1, 2, 3), (2, 2, 2, 3), (3, 3, 3, 3)),
        "ecr": ((0, 0, 0, 0), (0, 1, 1, 1), (0, 1, 2, 2), (0, 1, 2, 3)),
        "rc16": ((0, 1, 0, 1), (2, 3, 2, 3), (0, 1, 0, 1), (2, 3, 2, 3)),
    }

    def special(mode: str) -> Callable[[int, int, int], int]:
        def reference(a: int, b: int, c: int) -> int:
            source = (b << 32 | a).to_bytes(8, "little")
            return int.from_bytes(bytes(source[i] for i in modes[mode][c & 3]), "little")

        return reference

    picks = [0x3210, 0x7654, 0x0123, 0x5140, 0xFEDC, 0x8888, 0xB3A2, 0x12345678, 0]
    words = [0x12345678, 0x80FF7F01, 0, 0xFFFFFFFF, 0xA5C3E187]
    forms = [
        Form("prmt.b32 {d}, {a}, {b}, {c}", "b32", ("b32",) * 3, default, [words, words, picks])
    ]
    for mode in modes:
        text = f"prmt.b32.{mode} {{d}}, {{a}}, {{b}}, {{c}}"
        values = [words, words, [0, 1, 2, 3, 4, 7, 0xFFFFFFFF]]
        forms.append(Form(text, "b32", ("b32",) * 3, special(mode), values))
    check(forms)
