# SPDX-License-Identifier: Apache-2.0
"""Approximate functions, within the error that PTX allows or less."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Callable, Optional

import pytest
import softfloat
from float_forms import HALVES, each_half, half_forms
from forms import Form, check, signed
from softfloat import F16, F32, F64, FORMATS, finish


def real(x: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", x))[0])


def near(relative: float, absolute: float = 0.0) -> Callable[[int, int], bool]:
    """Equal within a bound; infinities and NaN must be the very ones."""

    def same(got: int, wanted: int) -> bool:
        if got == wanted:
            return True
        if F32.is_nan(got) or F32.is_nan(wanted):
            return False
        x, y = real(got), real(wanted)
        if math.isinf(x) or math.isinf(y):
            return False
        return abs(x - y) <= max(relative * abs(y), absolute, 1.5e-45)

    return same


def bits(value: float) -> int:
    """Round a double to f32 bits."""
    packed = struct.unpack("<Q", struct.pack("<d", value))[0]
    return softfloat.convert(F64, packed, F32)


def guarded(function: Callable[[float], float]) -> Callable[[int], int]:
    """A function of a real, with the errors of math turned into NaN."""

    def reference(a: int) -> int:
        if F32.is_nan(a):
            return F32.nan
        try:
            return bits(function(real(a)))
        except (ValueError, ZeroDivisionError):
            return F32.nan
        except OverflowError:
            return F32.infinity

    return reference


def inverse(x: float) -> float:
    return 1 / x if x else math.copysign(math.inf, x)


def inverse_root(x: float) -> float:
    return 1 / math.sqrt(x) if x else math.copysign(math.inf, x)


def logarithm(x: float) -> float:
    return math.log2(x) if x else -math.inf


def power_of_two(x: float) -> float:
    return 2.0**x if x < 200 else math.inf


@pytest.mark.parametrize("ftz", [False, True])
def test_approximate_functions(ftz: bool) -> None:
    table = (
        ("rcp", inverse, near(2**-22.9), None),
        ("sqrt", math.sqrt, near(2**-22.9), None),
        ("rsqrt", inverse_root, near(2**-22.4), None),
        ("ex2", power_of_two, near(2**-22), None),
        ("lg2", logarithm, near(2**-20, 2**-21.5), None),
        ("sin", math.sin, near(0, 2**-20.5), 3.2),
        ("cos", math.cos, near(0, 2**-20.5), 3.2),
    )
    forms = []
    for opcode, function, same, limit in table:
        exact = guarded(function)

        def reference(
            a: int, exact: Callable[[int], int] = exact, limit: Optional[float] = limit
        ) -> Optional[int]:
            if limit and abs(real(a)) > limit:
                return None
            return finish(F32, exact(F32.flush(a) if ftz else a), ftz=ftz)

        suffix = ".ftz" if ftz else ""
        text = f"{opcode}.approx{suffix}.f32 {{d}}, {{a}}"
        forms.append(Form(text, "f32", ("f32",), reference, same=same))
    if not ftz:
        tanh = guarded(math.tanh)
        forms.append(Form("tanh.approx.f32 {d}, {a}", "f32", ("f32",), tanh, same=near(2**-10.9)))
    check(forms)


def test_approximate_division() -> None:
    """Within 2 ulp; .approx for divisors between 2^-126 and 2^126. The old div.f32 is
    div.approx.ftz.f32."""

    def limited(a: int, b: int) -> Optional[int]:
        if not F32.is_nan(b) and not 2.0**-126 <= abs(real(b)) <= 2.0**126:
            return None
        return softfloat.divide(F32, a, b)

    def flushed(a: int, b: int) -> Optional[int]:
        found = limited(F32.flush(a), F32.flush(b))
        return None if found is None else F32.flush(found)

    def full(a: int, b: int) -> int:
        return softfloat.divide(F32, a, b)

    def full_flushed(a: int, b: int) -> int:
        return F32.flush(full(F32.flush(a), F32.flush(b)))

    check(
        [
            Form(f"div{how}.f32 {{d}}, {{a}}, {{b}}", "f32", ("f32",) * 2, reference,
                 same=near(2**-21.9))
            for how, reference in (
                (".approx", limited), (".approx.ftz", flushed), ("", flushed), (".ftz", flushed),
                (".full", full), (".full.ftz", full_flushed),
            )
        ]
    )  # fmt: skip


def test_f64_seeds_are_near_enough_to_refine() -> None:
    """Subnormal numbers are zeros to them, and are not what they give."""

    def as_double(x: int) -> float:
        return float(struct.unpack("<d", struct.pack("<Q", x))[0])

    def reference(function: Callable[[float], float]) -> Callable[[int], int]:
        def of(a: int) -> int:
            a = F64.flush(a)
            if F64.is_nan(a) or (function is root and a & F64.sign and a != F64.sign):
                return F64.nan
            if not a & ~F64.sign:
                return a | F64.infinity
            value = function(as_double(a))
            return F64.flush(int(struct.unpack("<Q", struct.pack("<d", value))[0]))

        return of

    def root(x: float) -> float:
        return 1 / math.sqrt(x)

    def same(got: int, wanted: int) -> bool:
        if F64.is_nan(wanted) or F64.is_infinite(wanted):
            return got == wanted or (F64.is_nan(got) and F64.is_nan(wanted))
        x, y = as_double(got), as_double(wanted)
        return abs(x - y) <= abs(y) * 2.0**-19

    check(
        [
            Form(f"{op}.approx.ftz.f64 {{d}}, {{a}}", "f64", ("f64",), reference(function),
                 same=same)
            for op, function in (("rcp", lambda x: 1 / x), ("rsqrt", root))
        ]
    )  # fmt: skip


def test_reciprocal_roots_of_f64() -> None:
    """Subnormal numbers too, and what has no root."""

    def reference(a: int) -> int:
        if F64.is_nan(a) or (a & F64.sign and a != F64.sign):
            return F64.nan
        if F64.is_infinite(a) or not a & ~F64.sign:
            return 0 if F64.is_infinite(a) else a | F64.infinity
        value = F64.value(a)
        root = math.isqrt((value.denominator << 2400) // value.numerator)
        return F64.round(Fraction(root, 1 << 1200))

    def same(got: int, wanted: int) -> bool:
        if F64.is_nan(wanted) or F64.is_infinite(wanted):
            return got == wanted or (F64.is_nan(got) and F64.is_nan(wanted))
        return abs(got - wanted) <= 2

    check([Form("rsqrt.approx.f64 {d}, {a}", "f64", ("f64",), reference, same=same)])


@pytest.mark.parametrize("name", HALVES)
def test_half_functions(name: str) -> None:
    f = FORMATS[name]

    def value(x: int) -> float:
        return float(f.value(x)) if x & 0x7FFF else math.copysign(0.0, signed(x, 16))

    def of(function: Callable[[float], float]) -> Callable[[int], int]:
        def reference(a: int) -> int:
            if f.is_nan(a):
                return f.nan
            x = math.copysign(math.inf, signed(a, 16)) if f.is_infinite(a) else value(a)
            try:
                result = function(x)
            except OverflowError:
                result = math.inf
            packed = struct.unpack("<Q", struct.pack("<d", result))[0]
            return softfloat.convert(F64, packed, f)

        return reference

    def near_half(got: int, wanted: int) -> bool:
        """Neighbours: 2^-9.9 of a power and 2^-10.987 of tanh in f16, 2^-7 and 2^-8 in bf16."""
        if got == wanted:
            return True
        if f.is_nan(got) or f.is_nan(wanted) or (got ^ wanted) & f.sign:
            return False
        return abs(got - wanted) <= 1

    def flushed(a: int) -> int:
        return f.flush(of(power_of_two)(f.flush(a)))

    forms = half_forms("tanh.approx", name, 1, of(math.tanh))
    forms += half_forms("ex2.approx.ftz", name, 1, flushed)
    if f is F16:
        forms += half_forms("ex2.approx", name, 1, of(power_of_two))
    for one in forms:
        one.same = each_half(near_half)
    check(forms)
