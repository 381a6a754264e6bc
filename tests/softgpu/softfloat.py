# SPDX-License-Identifier: Apache-2.0
"""Exact floating point on bits: what an instruction must give, by rational arithmetic.

NaN is one value here: the canonical bits of its format.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Optional, Union

RN, RZ, RM, RP, RNA = "rn", "rz", "rm", "rp", "rna"


@dataclass(frozen=True)
class Format:
    """An IEEE binary format; ``nan`` is the canonical NaN of the device."""

    name: str
    exponent_bits: int
    mantissa_bits: int
    nan: int

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits

    @property
    def largest(self) -> int:
        return self.infinity - 1

    @property
    def smallest_exponent(self) -> int:
        """Exponent of the lowest bit of a subnormal."""
        return 2 - (1 << (self.exponent_bits - 1)) - self.mantissa_bits

    def is_nan(self, x: int) -> bool:
        return x & (self.sign - 1) > self.infinity

    def is_infinite(self, x: int) -> bool:
        return x & (self.sign - 1) == self.infinity

    def is_subnormal(self, x: int) -> bool:
        return 0 < x & (self.sign - 1) < 1 << self.mantissa_bits

    def value(self, x: int) -> Fraction:
        """The exact value of a finite number."""
        exponent = x >> self.mantissa_bits & ((1 << self.exponent_bits) - 1)
        mantissa = x & ((1 << self.mantissa_bits) - 1)
        if exponent:
            mantissa |= 1 << self.mantissa_bits
        power = self.smallest_exponent + max(exponent, 1) - 1
        value = Fraction(mantissa << power) if power >= 0 else Fraction(mantissa, 1 << -power)
        return -value if x & self.sign else value

    def flush(self, x: int) -> int:
        return x & self.sign if self.is_subnormal(x) else x

    def round(self, value: Fraction, mode: str = RN, zero_sign: bool = False) -> int:
        """Round an exact value; ``zero_sign`` is the sign of an exact zero."""
        if value == 0:
            return self.sign if zero_sign else 0
        sign = self.sign if value < 0 else 0
        magnitude = abs(value)
        power = self._exponent(magnitude) - self.mantissa_bits
        power = max(power, self.smallest_exponent)
        scaled = magnitude / Fraction(2) ** power
        whole = scaled.numerator // scaled.denominator
        rest = scaled - whole
        if self._away(mode, bool(sign), whole, rest):
            whole += 1
        # a carry into the next power of two moves the exponent field up by itself
        biased = power - self.smallest_exponent
        bits = (biased << self.mantissa_bits) + whole
        if bits >= self.infinity:
            bits = self.infinity if self._to_infinity(mode, bool(sign)) else self.largest
        return sign | bits

    def _exponent(self, magnitude: Fraction) -> int:
        exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
        return exponent if magnitude >= Fraction(2) ** exponent else exponent - 1

    def _away(self, mode: str, negative: bool, whole: int, rest: Fraction) -> bool:
        half = Fraction(1, 2)
        if mode == RN:
            return rest > half or (rest == half and whole & 1 == 1)
        if mode == RNA:
            return rest >= half
        return rest != 0 and mode == (RM if negative else RP)

    def _to_infinity(self, mode: str, negative: bool) -> bool:
        return mode in (RN, RNA) or mode == (RM if negative else RP)


F16 = Format("f16", 5, 10, 0x7FFF)
BF16 = Format("bf16", 8, 7, 0x7FFF)
F32 = Format("f32", 8, 23, 0x7FFFFFFF)
F64 = Format("f64", 11, 52, 0x7FFFFFFFFFFFFFFF)
FORMATS = {"f16": F16, "bf16": BF16, "f32": F32, "f64": F64}
Exact = Union[Fraction, str, None]  # a number, "inf", "-inf", or None for NaN


def exact(f: Format, x: int) -> Exact:
    if f.is_nan(x):
        return None
    if f.is_infinite(x):
        return "-inf" if x & f.sign else "inf"
    return f.value(x)


def finish(f: Format, x: int, ftz: bool = False, sat: bool = False, relu: bool = False) -> int:
    """Apply what a suffix says of a result."""
    if ftz:
        x = f.flush(x)
    if sat:
        if f.is_nan(x) or x & f.sign:
            return 0
        one = f.round(Fraction(1))
        return min(x, one)
    if relu:
        if f.is_nan(x):
            return f.nan
        return 0 if x & f.sign else x
    return x


def add(f: Format, a: int, b: int, mode: str = RN) -> int:
    if f.is_nan(a) or f.is_nan(b):
        return f.nan
    if f.is_infinite(a):
        return f.nan if f.is_infinite(b) and a != b else a
    if f.is_infinite(b):
        return b
    total = f.value(a) + f.value(b)
    both = a & b & f.sign
    zero_sign = bool(both) if (a | b) & (f.sign - 1) == 0 and not (a ^ b) & f.sign else mode == RM
    return f.round(total, mode, zero_sign)


def multiply(f: Format, a: int, b: int, mode: str = RN) -> int:
    if f.is_nan(a) or f.is_nan(b):
        return f.nan
    sign = (a ^ b) & f.sign
    if f.is_infinite(a) or f.is_infinite(b):
        zero = not a & (f.sign - 1) or not b & (f.sign - 1)
        return f.nan if zero else sign | f.infinity
    return f.round(f.value(a) * f.value(b), mode, bool(sign))


def fma(f: Format, a: int, b: int, c: int, mode: str = RN) -> int:
    if f.is_nan(a) or f.is_nan(b) or f.is_nan(c):
        return f.nan
    sign = (a ^ b) & f.sign
    if f.is_infinite(a) or f.is_infinite(b):
        product = multiply(f, a, b)
        if f.is_nan(product) or (f.is_infinite(c) and c != product):
            return f.nan
        return product
    if f.is_infinite(c):
        return c
    product_value = f.value(a) * f.value(b)
    total = product_value + f.value(c)
    if product_value == 0 and not c & (f.sign - 1) and bool(sign) == bool(c & f.sign):
        return sign
    return f.round(total, mode, mode == RM)


def divide(f: Format, a: int, b: int, mode: str = RN) -> int:
    if f.is_nan(a) or f.is_nan(b):
        return f.nan
    sign = (a ^ b) & f.sign
    if f.is_infinite(a):
        return f.nan if f.is_infinite(b) else sign | f.infinity
    if f.is_infinite(b):
        return sign
    if not b & (f.sign - 1):
        return f.nan if not a & (f.sign - 1) else sign | f.infinity
    return f.round(f.value(a) / f.value(b), mode, bool(sign))


def square_root(f: Format, a: int, mode: str = RN) -> int:
    if f.is_nan(a):
        return f.nan
    if not a & (f.sign - 1):
        return a
    if a & f.sign:
        return f.nan
    if f.is_infinite(a):
        return a
    value = f.value(a)
    # enough bits that the one below them only says "inexact"
    shift = 2 * (f.mantissa_bits + 4 + f.bits * 2) + 2200
    scaled = (value.numerator << shift) // value.denominator
    root = isqrt(scaled)
    sticky = root * root != scaled or (value.numerator << shift) % value.denominator != 0
    return f.round(Fraction(2 * root + sticky, 1 << (shift // 2 + 1)), mode)


def extreme(f: Format, a: int, b: int, largest: bool, propagate: bool = False) -> int:
    """min and max: the number wins over NaN (unless ``propagate``), -0 is less than +0."""
    if f.is_nan(a) or f.is_nan(b):
        if propagate or (f.is_nan(a) and f.is_nan(b)):
            return f.nan
        return b if f.is_nan(a) else a

    def order(x: int) -> int:
        return -(x & (f.sign - 1)) - 1 if x & f.sign else x

    return max(a, b, key=order) if largest else min(a, b, key=order)


def compare(f: Format, a: int, b: int, how: str) -> bool:
    """The relation of a float setp."""
    unordered = f.is_nan(a) or f.is_nan(b)
    if how in ("num", "nan"):
        return unordered == (how == "nan")
    if unordered:
        return how.endswith("u") and how != "u"
    how = how.rstrip("u") if how not in ("u",) else how

    def order(x: int) -> int:
        magnitude = x & (f.sign - 1)
        return -magnitude if x & f.sign else magnitude

    x, y = order(a), order(b)
    return {
        "eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y,
    }[how]  # fmt: skip


def convert(source: Format, x: int, target: Format, mode: str = RN) -> int:
    """Float to float."""
    if source.is_nan(x):
        return target.nan
    sign = target.sign if x & source.sign else 0
    if source.is_infinite(x):
        return sign | target.infinity
    return target.round(source.value(x), mode, bool(sign))


def to_integer(f: Format, x: int, mode: str, bits: int, signed: bool) -> Optional[int]:
    """Float to integer, clamped; None for NaN."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if f.is_nan(x):
        return None
    if f.is_infinite(x):
        return low if x & f.sign else high
    return min(max(integral(f.value(x), mode), low), high)


def integral(value: Fraction, mode: str) -> int:
    """Round to an integer by rni, rzi, rmi or rpi."""
    floor = value.numerator // value.denominator
    rest = value - floor
    if mode == "rmi" or rest == 0:
        return floor
    if mode == "rpi":
        return floor + 1
    if mode == "rzi":
        return floor if value > 0 else floor + 1
    half = Fraction(1, 2)
    return floor + 1 if rest > half or (rest == half and floor & 1) else floor
