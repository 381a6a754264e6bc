# SPDX-License-Identifier: Apache-2.0
"""Arithmetic and comparison of f32 and f64, to the bit."""

from __future__ import annotations

from typing import Callable, Optional

import pytest
import softfloat
from float_forms import MODES, form, same_number, with_suffixes
from forms import Form, check
from softfloat import F16, F32, F64, FORMATS


@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize("mode", MODES)
def test_rounded_arithmetic(name: str, mode: str) -> None:
    f = FORMATS[name]

    def subtract(a: int, b: int) -> int:
        return softfloat.add(f, a, b if f.is_nan(b) else b ^ f.sign, mode)

    forms = with_suffixes(
        f"add.{mode}", f".{name}", f, 2, lambda a, b: softfloat.add(f, a, b, mode)
    )
    forms += with_suffixes(f"sub.{mode}", f".{name}", f, 2, subtract)
    forms += with_suffixes(
        f"mul.{mode}", f".{name}", f, 2, lambda a, b: softfloat.multiply(f, a, b, mode)
    )
    for opcode in ("fma", "mad"):
        forms += with_suffixes(
            f"{opcode}.{mode}", f".{name}", f, 3, lambda a, b, c: softfloat.fma(f, a, b, c, mode)
        )
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_arithmetic_rounds_to_nearest_by_default(name: str) -> None:
    f = FORMATS[name]

    def subtract(a: int, b: int) -> int:
        return softfloat.add(f, a, b if f.is_nan(b) else b ^ f.sign)

    forms = []
    for opcode, count, function in (
        ("add", 2, lambda a, b: softfloat.add(f, a, b)),
        ("sub", 2, subtract),
        ("mul", 2, lambda a, b: softfloat.multiply(f, a, b)),
        ("mad", 3, lambda a, b, c: softfloat.fma(f, a, b, c)),
    ):
        forms += with_suffixes(opcode, f".{name}", f, count, function)
    if f is F64:
        forms.append(form("div.f64", f, 2, lambda a, b: softfloat.divide(f, a, b)))
    for one in forms:
        one.limit = 200  # the forms that name the rounding have more
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize("mode", MODES)
def test_quotients_and_roots(name: str, mode: str) -> None:
    f = FORMATS[name]
    one = f.round(softfloat.Fraction(1))
    forms = with_suffixes(
        f"div.{mode}", f".{name}", f, 2, lambda a, b: softfloat.divide(f, a, b, mode), sat=False
    )
    forms += with_suffixes(
        f"rcp.{mode}", f".{name}", f, 1, lambda a: softfloat.divide(f, one, a, mode), sat=False
    )
    forms += with_suffixes(
        f"sqrt.{mode}", f".{name}", f, 1, lambda a: softfloat.square_root(f, a, mode), sat=False
    )
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_min_max(name: str) -> None:
    f = FORMATS[name]

    def canonical(largest: bool, propagate: bool) -> Callable[[int, int], int]:
        return lambda a, b: softfloat.extreme(f, a, b, largest, propagate)

    forms = []
    for opcode, largest in (("min", False), ("max", True)):
        forms += with_suffixes(opcode, f".{name}", f, 2, canonical(largest, False), sat=False)
        if f is F32:
            forms.append(form(f"{opcode}.NaN.{name}", f, 2, canonical(largest, True)))
            forms.append(
                form(f"{opcode}.ftz.NaN.{name}", f, 2, canonical(largest, True), ftz=True)
            )
    check(forms)


def test_min_max_of_three_and_xorsign() -> None:
    forms = []
    for opcode, largest in (("min", False), ("max", True)):

        def xorsign(a: int, b: int, largest: bool = largest) -> int:
            found = softfloat.extreme(F32, a & ~F32.sign, b & ~F32.sign, largest)
            return found if F32.is_nan(found) else found | (a ^ b) & F32.sign

        def of_three(a: int, b: int, c: int, largest: bool = largest) -> int:
            return softfloat.extreme(F32, softfloat.extreme(F32, a, b, largest), c, largest)

        forms.append(form(f"{opcode}.xorsign.abs.f32", F32, 2, xorsign))

        def propagating(a: int, b: int, c: int, largest: bool = largest) -> int:
            first = softfloat.extreme(F32, a, b, largest, True)
            return softfloat.extreme(F32, first, c, largest, True)

        def absolute(*x: int, of_three: Callable[..., int] = of_three) -> int:
            return of_three(*(v & ~F32.sign for v in x))

        forms.append(form(f"{opcode}.f32", F32, 3, of_three))
        forms.append(form(f"{opcode}.ftz.f32", F32, 3, of_three, ftz=True))
        forms.append(form(f"{opcode}.NaN.f32", F32, 3, propagating))
        forms.append(form(f"{opcode}.abs.f32", F32, 3, absolute))
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_signs(name: str) -> None:
    """On numbers; what becomes of the bits of a NaN is not defined for neg and abs."""
    f = FORMATS[name]

    def on_numbers(function: Callable[[int], int]) -> Callable[[int], Optional[int]]:
        return lambda a: None if f.is_nan(a) else function(a)

    forms = [
        Form(f"neg.{name} {{d}}, {{a}}", name, (name,), on_numbers(lambda a: a ^ f.sign)),
        Form(f"abs.{name} {{d}}, {{a}}", name, (name,), on_numbers(lambda a: a & ~f.sign)),
        Form(
            f"copysign.{name} {{d}}, {{a}}, {{b}}", name, (name, name),
            lambda a, b: (a & f.sign) | (b & ~f.sign),
        ),
    ]  # fmt: skip
    if f is F32:
        forms.append(
            Form("neg.ftz.f32 {d}, {a}", name, (name,), on_numbers(lambda a: f.flush(a) ^ f.sign))
        )
        forms.append(
            Form("abs.ftz.f32 {d}, {a}", name, (name,), on_numbers(lambda a: f.flush(a) & ~f.sign))
        )
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_testp(name: str) -> None:
    f = FORMATS[name]

    def normal(a: int) -> bool:
        return not (f.is_nan(a) or f.is_infinite(a) or f.is_subnormal(a)) and a & ~f.sign != 0

    kinds = {
        "finite": lambda a: not f.is_nan(a) and not f.is_infinite(a),
        "infinite": f.is_infinite,
        "number": lambda a: not f.is_nan(a),
        "notanumber": f.is_nan,
        "normal": normal,
        "subnormal": f.is_subnormal,
    }
    check(
        [
            Form(f"testp.{kind}.{name} {{d}}, {{a}}", "pred", (name,), lambda a, k=k: int(k(a)))
            for kind, k in kinds.items()
        ]
    )


ORDERED = ["eq", "ne", "lt", "le", "gt", "ge"]
RELATIONS = [*ORDERED, *(name + "u" for name in ORDERED), "num", "nan"]


@pytest.mark.parametrize("name", ["f32", "f64", "f16", "bf16"])
def test_setp(name: str) -> None:
    f = FORMATS[name]
    forms = []
    for relation in RELATIONS:
        for ftz in ("", ".ftz"):
            if ftz and f is not F32 and f is not F16:
                continue

            def reference(a: int, b: int, relation: str = relation, ftz: str = ftz) -> int:
                if ftz:
                    a, b = f.flush(a), f.flush(b)
                return int(softfloat.compare(f, a, b, relation))

            text = f"setp.{relation}{ftz}.{name} {{d}}, {{a}}, {{b}}"
            forms.append(Form(text, "pred", (name, name), reference))
    check(forms)


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_set(name: str) -> None:
    f = FORMATS[name]
    forms = []
    for relation in RELATIONS:

        def whole(a: int, b: int, r: str = relation) -> int:
            return 0xFFFFFFFF * softfloat.compare(f, a, b, r)

        def real(a: int, b: int, r: str = relation) -> int:
            return 0x3F800000 * softfloat.compare(f, a, b, r)

        forms.append(
            Form(f"set.{relation}.u32.{name} {{d}}, {{a}}, {{b}}", "u32", (name,) * 2, whole)
        )
        forms.append(
            Form(f"set.{relation}.f32.{name} {{d}}, {{a}}, {{b}}", "f32", (name,) * 2, real)
        )
    check(forms)


def test_comparison_with_a_literal() -> None:
    """Decimal and 0f literals are of the instruction's type."""
    half = 0x3F000000
    check(
        [
            Form(
                f"setp.ge.f32 {{d}}, {{a}}, {literal}", "pred", ("f32",),
                lambda a: int(softfloat.compare(F32, a, half, "ge")),
            )
            for literal in ("0f3F000000", "0.5", "0d3FE0000000000000")
        ]
        + [
            Form(
                "add.rn.f64 {d}, {a}, 0d3FF0000000000000", "f64", ("f64",),
                lambda a: softfloat.add(F64, a, 0x3FF0000000000000), same=same_number(F64),
            ),
            Form(
                "mul.rn.f32 {d}, {a}, 0.1", "f32", ("f32",),
                lambda a: softfloat.multiply(F32, a, 0x3DCCCCCD),
            ),
        ]
    )  # fmt: skip
