# SPDX-License-Identifier: Apache-2.0
"""Integer, logic and bit instructions against exact references."""

from __future__ import annotations

from typing import Callable, Dict, List, Tuple

import pytest
from forms import Form, bits_of, check, edges, signed

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


# ---------------------------------------------------------------- arithmetic


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


# ---------------------------------------------------------------- logic and shifts


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
