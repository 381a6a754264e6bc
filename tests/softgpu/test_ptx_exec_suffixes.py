# SPDX-License-Identifier: Apache-2.0
"""Combinations of suffixes that the other files leave out, against exact arithmetic."""

from __future__ import annotations

from typing import Callable, List

import pytest
import softfloat
from float_forms import form, half_forms
from forms import Form, check, signed
from softfloat import F16, F32, FORMATS, Format, finish

Function = Callable[..., int]


def flushed(f: Format, function: Function, **suffixes: bool) -> Function:
    return lambda *x: finish(f, function(*map(f.flush, x)), ftz=True, **suffixes)


def test_half_flushes_and_limits() -> None:
    def subtract(a: int, b: int) -> int:
        return softfloat.add(F16, a, b if F16.is_nan(b) else b ^ F16.sign)

    forms: List[Form] = []
    for opcode, function in (
        ("add", lambda a, b: softfloat.add(F16, a, b)),
        ("sub", subtract),
        ("mul", lambda a, b: softfloat.multiply(F16, a, b)),
    ):
        for rounding in ("", ".rn"):
            limited = flushed(F16, function, sat=True)
            forms += half_forms(f"{opcode}{rounding}.ftz.sat", "f16", 2, limited)

        def saturated(a: int, b: int, function: Function = function) -> int:
            return finish(F16, function(a, b), sat=True)

        named = half_forms(f"{opcode}.rn.ftz", "f16", 2, flushed(F16, function))
        named += half_forms(f"{opcode}.rn.sat", "f16", 2, saturated)
        for one in named:
            one.limit = 200  # the forms without .rn have more
        forms += named

    def fma(a: int, b: int, c: int) -> int:
        return softfloat.fma(F16, a, b, c)

    forms += half_forms("fma.rn.ftz.sat", "f16", 3, flushed(F16, fma, sat=True))
    forms += half_forms("fma.rn.ftz.relu", "f16", 3, flushed(F16, fma, relu=True))
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_extremes(name: str) -> None:
    f = FORMATS[name]
    forms: List[Form] = []
    for opcode, largest in (("min", False), ("max", True)):
        for nan in ("", ".NaN"):

            def plain(a: int, b: int, g: bool = largest, p: bool = bool(nan)) -> int:
                return softfloat.extreme(f, a, b, g, p)

            def xorsign(a: int, b: int, g: bool = largest, p: bool = bool(nan)) -> int:
                found = softfloat.extreme(f, a & ~f.sign, b & ~f.sign, g, p)
                return found if f.is_nan(found) else found | (a ^ b) & f.sign

            for suffix, function in (("", plain), (".xorsign.abs", xorsign)):
                for ftz in ("",) if name == "bf16" else ("", ".ftz"):
                    text = f"{opcode}{ftz}{nan}{suffix}"
                    used = flushed(f, function) if ftz else function
                    if f is F32:
                        forms.append(form(f"{text}.f32", f, 2, used))
                    else:
                        forms += half_forms(text, name, 2, used)
    check(forms)


def test_whole_numbers_above_zero() -> None:
    def of(bits: int, largest: bool) -> Function:
        def found(a: int, b: int) -> int:
            x, y = signed(a, bits), signed(b, bits)
            return max(max(x, y) if largest else min(x, y), 0)

        return found

    def pairs(function: Function) -> Function:
        return lambda a, b: function(a & 0xFFFF, b & 0xFFFF) | function(a >> 16, b >> 16) << 16

    forms = []
    for opcode, largest in (("min", False), ("max", True)):
        text = f"{opcode}.relu"
        forms.append(Form(f"{text}.s32 {{d}}, {{a}}, {{b}}", "s32", ("s32",) * 2, of(32, largest)))
        both = pairs(of(16, largest))
        forms.append(Form(f"{text}.s16x2 {{d}}, {{a}}, {{b}}", "b32", ("b32",) * 2, both))
    check(forms)


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_products_with_carries(kind: str) -> None:
    """Each form once in a row, where the carry of one goes into the next."""
    size = int(kind[1:])
    top = 1 << size

    def reference(a: int, b: int, c: int) -> int:
        x, y = (signed(a, size), signed(b, size)) if kind[0] == "s" else (a, b)
        low, high = x * y % top, (x * y >> size) % top
        total, carry = 0, 0
        for factor, part, takes, gives in (
            (1, high, False, True),
            (3, low, True, True),
            (5, high, True, True),
            (7, low, True, False),
            (11, high, True, False),
        ):
            found = part + c + (carry if takes else 0)
            if gives:
                carry = found // top
            total += factor * (found % top)
        for factor, one, two, takes in ((13, a, b, False), (17, b, c, True), (19, c, a, True)):
            found = one - two - (carry if takes else 0)
            carry = int(found < 0)
            total += factor * (found % top)
        return total % top

    verbs = ("mad.hi.cc", "madc.lo.cc", "madc.hi.cc", "madc.lo", "madc.hi")
    lines = [f"{{{{ .reg .b{size} x; mov.b{size} {{d}}, 0;"]
    keep = f" mad.lo.{kind} {{d}}, x, {{factor}}, {{d}};"
    text = "".join(lines)
    for factor, verb in zip((1, 3, 5, 7, 11), verbs):
        text += f" {verb}.{kind} x, {{a}}, {{b}}, {{c}};" + keep.replace("{factor}", str(factor))
    for factor, verb, pair in (
        (13, "sub.cc", "{a}, {b}"),
        (17, "subc.cc", "{b}, {c}"),
        (19, "subc.cc", "{c}, {a}"),
    ):
        text += f" {verb}.{kind} x, {pair};" + keep.replace("{factor}", str(factor))
    check([Form(text + " }}", kind, (kind,) * 3, reference)])


def test_the_upper_bits_of_a_24_bit_product_with_a_limit() -> None:
    def reference(a: int, b: int, c: int) -> int:
        product = signed(a & 0xFFFFFF, 24) * signed(b & 0xFFFFFF, 24)
        found = signed(product >> 16 & 0xFFFFFFFF, 32) + signed(c, 32)
        return max(-(1 << 31), min(found, (1 << 31) - 1)) % (1 << 32)

    text = "mad24.hi.sat.s32 {d}, {a}, {b}, {c}"
    check([Form(text, "s32", ("s32",) * 3, reference)])
