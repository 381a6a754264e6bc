# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, extremes and comparison of f16 and bf16, against exact rounding."""

from __future__ import annotations

import struct
from typing import Callable

import pytest
import softfloat
from float_forms import HALVES, each_half, half_forms
from forms import Form, check
from softfloat import F16, FORMATS, finish


@pytest.mark.parametrize("name", HALVES)
def test_half_arithmetic(name: str) -> None:
    f = FORMATS[name]

    def subtract(a: int, b: int) -> int:
        return softfloat.add(f, a, b if f.is_nan(b) else b ^ f.sign)

    table = (
        ("add", 2, lambda a, b: softfloat.add(f, a, b)),
        ("sub", 2, subtract),
        ("mul", 2, lambda a, b: softfloat.multiply(f, a, b)),
        ("fma.rn", 3, lambda a, b, c: softfloat.fma(f, a, b, c)),
    )
    forms = []
    for opcode, count, function in table:
        forms += half_forms(opcode, name, count, function)
        if f is F16:

            def flushed(*x: int, function: Callable[..., int] = function) -> int:
                return f.flush(function(*map(f.flush, x)))

            def saturated(*x: int, function: Callable[..., int] = function) -> int:
                return finish(f, function(*x), sat=True)

            forms += half_forms(f"{opcode}.ftz", name, count, flushed)
            forms += half_forms(f"{opcode}.sat", name, count, saturated)
        if opcode != "fma.rn":
            forms += half_forms(f"{opcode}.rn", name, count, function)
        else:

            def relu(*x: int, function: Callable[..., int] = function) -> int:
                return finish(f, function(*x), relu=True)

            forms += half_forms(f"{opcode}.relu", name, count, relu)
    check(forms)


# Factors whose product lies between two neighbours, the lower one even; the summand decides.
TIES = {
    "f16": (3.0, 683 / 2**11, 2.0**-24),
    "bf16": (9.0, 29 / 2**8, 2.0**-100),
    "f32": (97.0, 172961 / 2**24, 2.0**-100),
}


@pytest.mark.parametrize("name", TIES)
def test_fma_rounds_once(name: str) -> None:
    f = FORMATS[name]
    a, b, c = (int.from_bytes(struct.pack("<f", x), "little") for x in TIES[name])
    if name == "bf16":
        a, b, c = a >> 16, b >> 16, c >> 16
    elif name == "f16":
        a, b, c = (int.from_bytes(struct.pack("<e", x), "little") for x in TIES[name])
    product = softfloat.multiply(f, a, b)
    assert [softfloat.fma(f, a, b, x) - product for x in (0, c, c | f.sign)] == [0, 1, 0]
    values = [[a, a | f.sign], [b], [c, c | f.sign, 0]]
    text = f"fma.rn.{name} {{d}}, {{a}}, {{b}}, {{c}}"
    check([Form(text, name, (name,) * 3, lambda *x: softfloat.fma(f, *x), values)])


@pytest.mark.parametrize("name", HALVES)
def test_half_extremes_and_signs(name: str) -> None:
    f = FORMATS[name]
    forms = []
    for opcode, largest in (("min", False), ("max", True)):
        for suffix, propagate in (("", False), (".NaN", True)):

            def reference(a: int, b: int, g: bool = largest, p: bool = propagate) -> int:
                return softfloat.extreme(f, a, b, g, p)

            forms += half_forms(opcode + suffix, name, 2, reference)

    for opcode, function in (("neg", lambda a: a ^ 0x8000), ("abs", lambda a: a & 0x7FFF)):
        signs = half_forms(opcode, name, 1, function)
        if f is F16:

            def flushed(a: int, function: Callable[[int], int] = function) -> int:
                return function(f.flush(a))

            signs += half_forms(f"{opcode}.ftz", name, 1, flushed)
        for one in signs:  # which NaN becomes of a NaN is not defined
            one.same = each_half(lambda x, y: x == y or (f.is_nan(x) and f.is_nan(y)))
        forms += signs
    check(forms)


@pytest.mark.parametrize("name", HALVES)
def test_pairs_compare_into_two_predicates(name: str) -> None:
    f = FORMATS[name]
    forms = []
    for relation in ("eq", "lt", "geu", "lt.ftz"):
        if relation == "lt.ftz" and f is not F16:
            continue
        text = (
            f"{{{{ .reg .pred p, q; .reg .b32 v, w; setp.{relation}.{name}x2 p|q, {{a}}, {{b}};"
            " selp.u32 v, 1, 0, p; selp.u32 w, 2, 0, q; or.b32 {d}, v, w; }}"
        )

        def reference(a: int, b: int, r: str = relation) -> int:
            halves = [(a & 0xFFFF, b & 0xFFFF), (a >> 16, b >> 16)]
            if r.endswith("ftz"):
                halves = [(f.flush(x), f.flush(y)) for x, y in halves]
            low, high = (softfloat.compare(f, x, y, r.split(".")[0]) for x, y in halves)
            return low | high << 1

        forms.append(Form(text, "u32", (name + "x2",) * 2, reference))
    check(forms)
