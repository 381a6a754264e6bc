# SPDX-License-Identifier: Apache-2.0
"""Where the elements of mma's matrices lie, section by section as the PTX ISA has it.

``g`` is the lane's group (lane // 4), ``t`` its place in the group (lane % 4), ``i`` the element
of the fragment. All of it is plain Python on lists, slow and obvious.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import softfloat
from softfloat import BF16, F16, F32, F64, Format

Place = Callable[[int, int, int], Tuple[int, int]]
Number = Union[int, Fraction, float]  # float only for inf and nan

BITS = {
    "f16": 16, "bf16": 16, "tf32": 32, "f64": 64, "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1,
    "e4m3": 8, "e5m2": 8, "f32": 32, "s32": 32,
}  # fmt: skip
INF = float("inf")


def shape_of(shape: str) -> Tuple[int, int, int]:
    m, rest = shape[1:].split("n")
    n, k = rest.split("k")
    return int(m), int(n), int(k)


# ------------------------------------------------------------------ multiplicand A

_A: Dict[Tuple[str, int], Place] = {
    ("m16n8k8", 16): lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1)),
    ("m16n8k16", 16): lambda g, t, i: (
        g if 0 <= i < 2 or 4 <= i < 6 else g + 8, t * 2 + (i & 1) + (8 if i >= 4 else 0)
    ),
    ("m16n8k4", 32): lambda g, t, i: (g if i == 0 else g + 8, t),
    ("m16n8k8", 32): lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
    ("m8n8k4", 64): lambda g, t, i: (g, t),
    ("m16n8k4", 64): lambda g, t, i: (g if i == 0 else g + 8, t),
    ("m16n8k8", 64): lambda g, t, i: (g if i % 2 == 0 else g + 8, t if i < 2 else t + 4),
    ("m16n8k16", 64): lambda g, t, i: (
        g if i % 2 == 0 else g + 8, i * 2 + t if i % 2 == 0 else i * 2 - 2 + t
    ),
    ("m8n8k16", 8): lambda g, t, i: (g, t * 4 + i),
    ("m16n8k16", 8): lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3)),
    ("m16n8k32", 8): lambda g, t, i: (
        g if 0 <= i < 4 or 8 <= i < 12 else g + 8, t * 4 + (i & 3) + (16 if i >= 8 else 0)
    ),
    ("m8n8k32", 4): lambda g, t, i: (g, t * 8 + i),
    ("m16n8k32", 4): lambda g, t, i: (g if i < 8 else g + 8, t * 8 + (i & 7)),
    ("m16n8k64", 4): lambda g, t, i: (
        g if 0 <= i < 8 or 16 <= i < 24 else g + 8, t * 8 + (i & 7) + (32 if i >= 16 else 0)
    ),
    ("m8n8k128", 1): lambda g, t, i: (g, t * 32 + i),
    ("m16n8k128", 1): lambda g, t, i: (g if i < 32 else g + 8, t * 32 + (i & 31)),
    ("m16n8k256", 1): lambda g, t, i: (
        g if i < 32 or 64 <= i < 96 else g + 8, t * 32 + (i & 31) + (128 if i >= 64 else 0)
    ),
}  # fmt: skip

# ------------------------------------------------------------------ multiplicand B

_B: Dict[Tuple[str, int], Place] = {
    ("m16n8k8", 16): lambda g, t, i: (t * 2 + i, g),
    ("m16n8k16", 16): lambda g, t, i: (t * 2 + (i & 1) + (8 if i >= 2 else 0), g),
    ("m16n8k4", 32): lambda g, t, i: (t, g),
    ("m16n8k8", 32): lambda g, t, i: (t if i == 0 else t + 4, g),
    ("m8n8k4", 64): lambda g, t, i: (t, g),
    ("m16n8k4", 64): lambda g, t, i: (t, g),
    ("m16n8k8", 64): lambda g, t, i: (t if i == 0 else t + 4, g),
    ("m16n8k16", 64): lambda g, t, i: (t + i * 4, g),
    ("m8n8k16", 8): lambda g, t, i: (t * 4 + i, g),
    ("m16n8k16", 8): lambda g, t, i: (t * 4 + i, g),
    ("m16n8k32", 8): lambda g, t, i: (t * 4 + (i & 3) + (16 if i >= 4 else 0), g),
    ("m8n8k32", 4): lambda g, t, i: (t * 8 + i, g),
    ("m16n8k32", 4): lambda g, t, i: (t * 8 + i, g),
    ("m16n8k64", 4): lambda g, t, i: (t * 8 + (i & 7) + (32 if i >= 8 else 0), g),
    ("m8n8k128", 1): lambda g, t, i: (t * 32 + i, g),
    ("m16n8k128", 1): lambda g, t, i: (t * 32 + i, g),
    ("m16n8k256", 1): lambda g, t, i: (t * 32 + (i & 31) + (128 if i >= 32 else 0), g),
    # sparse, where the dense shape has no such K
    ("m16n8k32", 16): lambda g, t, i: (t * 2 + (i & 1) + i // 2 * 8, g),
    ("m16n8k16", 32): lambda g, t, i: (t + i * 4, g),
    ("m16n8k64", 8): lambda g, t, i: (t * 4 + (i & 3) + i // 4 * 16, g),
    ("m16n8k128", 4): lambda g, t, i: (t * 8 + (i & 7) + i // 8 * 32, g),
}


def place_a(shape: str, kind: str) -> Place:
    return _A[(shape, BITS[kind])]


def place_b(shape: str, kind: str) -> Place:
    return _B[(shape, BITS[kind])]


def place_c(shape: str) -> Place:
    if shape_of(shape)[0] == 8:
        return lambda g, t, i: (g, t * 2 + (i & 1))
    return lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1))


# ------------------------------------------------------------------ registers


def pack(values: Sequence[Sequence[int]], place: Place, kind: str, count: int) -> List[List[int]]:
    """Bits of a matrix -> the registers of each lane; ``count`` elements a lane."""
    bits = BITS[kind]
    each = max(32, bits) // bits
    lanes = []
    for lane in range(32):
        registers = [0] * (count // each)
        for i in range(count):
            row, column = place(lane // 4, lane % 4, i)
            registers[i // each] |= values[row][column] << i % each * bits
        lanes.append(registers)
    return lanes


def unpack(
    lanes: Sequence[Sequence[int]], place: Place, kind: str, rows: int, columns: int
) -> List[List[int]]:
    """The other way; every element must come from exactly one place."""
    bits = BITS[kind]
    each = max(32, bits) // bits
    values: List[List[Optional[int]]] = [[None] * columns for _ in range(rows)]
    for lane, registers in enumerate(lanes):
        for i in range(len(registers) * each):
            row, column = place(lane // 4, lane % 4, i)
            assert values[row][column] is None
            word = int(registers[i // each])
            values[row][column] = word >> i % each * bits & ((1 << bits) - 1)
    return [[x for x in row if x is not None] for row in values]


# ------------------------------------------------------------------ numbers


class Tiny:
    """An 8-bit float as a list of its numbers: e4m3 (no infinity) and e5m2."""

    def __init__(self, exponent_bits: int, mantissa_bits: int) -> None:
        bias = (1 << (exponent_bits - 1)) - 1
        self.numbers: List[Number] = []
        for code in range(256):
            exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
            mantissa = Fraction(code & ((1 << mantissa_bits) - 1), 1 << mantissa_bits)
            value: Number = (mantissa + (exponent > 0)) * Fraction(2) ** (max(exponent, 1) - bias)
            if exponent_bits == 4 and code & 0x7F == 0x7F:
                value = float("nan")
            if exponent_bits == 5 and exponent == 31:
                value = float("nan") if mantissa else INF
            if isinstance(value, Fraction) and value.denominator == 1:
                value = int(value)
            self.numbers.append(-value if code & 0x80 else value)


TINY = {"e4m3": Tiny(4, 3), "e5m2": Tiny(5, 2)}
_FORMATS: Dict[str, Format] = {"f16": F16, "bf16": BF16, "f32": F32, "f64": F64, "tf32": F32}


def number(kind: str, x: int) -> Number:
    """The value of an element's bits."""
    if kind in TINY:
        return TINY[kind].numbers[x]
    if kind in _FORMATS:
        f = _FORMATS[kind]
        x = x & ~0x1FFF if kind == "tf32" else x
        if f.is_nan(x):
            return float("nan")
        if f.is_infinite(x):
            return -INF if x & f.sign else INF
        value = f.value(x)
        return int(value) if value.denominator == 1 else value
    top = 1 << (BITS[kind] - 1)
    return x - 2 * top if kind[0] == "s" and x & top else x


def encode(kind: str, value: int) -> int:
    """The bits of a small whole number."""
    if kind in TINY:
        return TINY[kind].numbers.index(Fraction(value))
    if kind in _FORMATS:
        return _FORMATS[kind].round(Fraction(value))
    return value & ((1 << BITS[kind]) - 1)


def total(terms: Sequence[Tuple[Number, Number]], start: Number) -> Number:
    """An exact sum of products; inf and nan as IEEE has them."""
    exact: Union[int, Fraction] = 0
    special = 0.0
    for a, b in [*terms, (start, 1)]:
        if isinstance(a, float) or isinstance(b, float):
            # the sign is all that matters of the finite one
            x, y = (v if isinstance(v, float) else float((v > 0) - (v < 0)) for v in (a, b))
            special += x * y
        else:
            exact += a * b
    return special if special != 0 or special != special else exact


def rounded(kind: str, value: Number) -> int:
    """The bits of a sum in its type."""
    if kind == "s32":
        return int(value) & 0xFFFFFFFF
    f = _FORMATS[kind]
    if isinstance(value, float):
        return f.nan if value != value else f.infinity | (f.sign if value < 0 else 0)
    return f.round(Fraction(value))


__all__ = ["Place", "softfloat"]
