# SPDX-License-Identifier: Apache-2.0
"""cvt between all types, with every rounding."""

from __future__ import annotations

from fractions import Fraction
from typing import Callable, List, Optional

import pytest
import softfloat
from forms import Form, bits_of, check, edges, signed
from softfloat import BF16, F16, F32, F64, FORMATS, Format, finish

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
MODES = ("rn", "rz", "rm", "rp")
TO_INTEGER = ("rni", "rzi", "rmi", "rpi")


def limits(kind: str) -> tuple[int, int]:
    size = bits_of(kind)
    if kind[0] == "s":
        return -(1 << (size - 1)), (1 << (size - 1)) - 1
    return 0, (1 << size) - 1


def register_kind(kind: str) -> str:
    """The type of a register for such values: at least 16 bits, of the same sign."""
    return kind[0] + str(max(16, bits_of(kind)))


def read(kind: str) -> Callable[[int], int]:
    size = bits_of(kind)
    if kind[0] == "s":
        return lambda x: signed(x & ((1 << size) - 1), size)
    return lambda x: x & ((1 << size) - 1)


@pytest.mark.parametrize("target", INTEGERS)
def test_integer_to_integer(target: str) -> None:
    """Cut, then extend as the target's type says; .sat clamps by value."""
    low, high = limits(target)
    size = bits_of(target)
    forms = []
    for source in INTEGERS:
        value = read(source)

        def plain(a: int, value: Callable[[int], int] = value) -> int:
            cut = value(a) & ((1 << size) - 1)
            return signed(cut, size) if target[0] == "s" else cut

        def saturated(a: int, value: Callable[[int], int] = value) -> int:
            return min(max(value(a), low), high)

        kinds = (register_kind(source),)
        text = f"{target}.{source} {{d}}, {{a}}"
        forms.append(Form(f"cvt.{text}", register_kind(target), kinds, plain))
        if target != source:
            forms.append(Form(f"cvt.sat.{text}", register_kind(target), kinds, saturated))
    check(forms)


@pytest.mark.parametrize("source", ["f32", "f64", "f16"])
@pytest.mark.parametrize("target", INTEGERS)
def test_float_to_integer(source: str, target: str) -> None:
    f = FORMATS[source]
    size = bits_of(target)
    near_limits = [
        f.round(Fraction(limit) + offset)
        for limit in limits(target)
        for offset in (-2, -1, Fraction(-1, 2), 0, Fraction(1, 2), 1, 2)
    ]
    halves = [f.round(Fraction(n, 2)) for n in range(-9, 10)]
    values = [[*edges(source), *near_limits, *halves]]
    forms = []
    for mode in TO_INTEGER:

        def reference(a: int, mode: str = mode) -> Optional[int]:
            value = softfloat.to_integer(f, a, mode, size, target[0] == "s")
            if value is None:
                if size == 64 or (f is F64 and size == 32):
                    return 1 << (size - 1)
                return 0 if f is not F64 else None
            return value

        text = f"cvt.{mode}.{target}.{source} {{d}}, {{a}}"
        forms.append(Form(text, register_kind(target), (source,), reference, values))
        if f is F32:
            text = f"cvt.{mode}.ftz.{target}.{source} {{d}}, {{a}}"

            def flushed(
                a: int, reference: Callable[[int], Optional[int]] = reference
            ) -> Optional[int]:
                return reference(f.flush(a))

            forms.append(Form(text, register_kind(target), (source,), flushed, values))
    check(forms)


@pytest.mark.parametrize("target", ["f32", "f64", "f16"])
@pytest.mark.parametrize("source", INTEGERS)
def test_integer_to_float(source: str, target: str) -> None:
    f = FORMATS[target]
    value = read(source)
    kind = register_kind(source)
    extra = [1 << n for n in range(bits_of(kind))] + [
        (1 << n) - 1 for n in range(1, bits_of(kind))
    ]
    extra += [(1 << n) + (1 << max(n - 24, 0)) for n in range(10, bits_of(kind))]
    extra += [(1 << n) + (1 << max(n - 24, 0)) + 1 for n in range(10, bits_of(kind))]
    forms = [
        Form(
            f"cvt.{mode}.{target}.{source} {{d}}, {{a}}", target, (kind,),
            lambda a, mode=mode: f.round(Fraction(value(a)), mode), [edges(kind) + extra],
        )
        for mode in MODES
    ]  # fmt: skip
    check(forms)


def test_floats_get_narrower() -> None:
    forms = []
    for source, target in ((F64, F32), (F64, F16), (F32, F16), (F32, BF16), (F64, BF16)):
        modes = ("rn", "rz") if BF16 in (source, target) else MODES
        for mode in modes:

            def reference(a: int, s: Format = source, t: Format = target, m: str = mode) -> int:
                return softfloat.convert(s, a, t, m)

            text = f"cvt.{mode}.{target.name}.{source.name} {{d}}, {{a}}"
            values = [edges(source.name) + _ties(source, target)]
            forms.append(Form(text, target.name, (source.name,), reference, values))
    check(forms)


def _ties(source: Format, target: Format) -> List[int]:
    """Values half-way between two of the target's, and just beside them."""
    found = []
    middle = target.round(Fraction(1)) + 5
    for x in (0, 1, 2, middle, middle + 1, target.largest - 1, target.largest):
        low = target.value(x)
        high = target.value(x + 1) if x < target.largest else 2 * low - target.value(x - 1)
        tie = source.round((low + high) / 2)
        found += [tie - 1 if tie else 0, tie, tie + 1]
    return found + [x | source.sign for x in found]


def test_floats_get_wider() -> None:
    forms = []
    for source, target in ((F32, F64), (F16, F32), (F16, F64), (BF16, F32)):

        def reference(a: int, s: Format = source, t: Format = target) -> int:
            return softfloat.convert(s, a, t)

        def same(got: int, wanted: int, t: Format = target) -> bool:
            return got == wanted or (t.is_nan(got) and t.is_nan(wanted))

        text = f"cvt.{target.name}.{source.name} {{d}}, {{a}}"
        forms.append(Form(text, target.name, (source.name,), reference, same=same))
    check(forms)


def test_flushing_and_saturating_conversions() -> None:
    def to_half_sat(a: int) -> int:
        return finish(F16, softfloat.convert(F32, a, F16), sat=True)

    def double_to_single(a: int) -> int:
        return finish(F32, softfloat.convert(F64, a, F32), ftz=True)

    def single_sat(a: int) -> int:
        return finish(F32, a if not F32.is_nan(a) else F32.nan, sat=True)

    check(
        [
            Form("cvt.rn.ftz.f32.f64 {d}, {a}", "f32", ("f64",), double_to_single),
            Form(
                "cvt.rn.sat.f32.f64 {d}, {a}", "f32", ("f64",),
                lambda a: finish(F32, softfloat.convert(F64, a, F32), sat=True),
            ),
            Form(
                "cvt.rn.ftz.f16.f32 {d}, {a}", "f16", ("f32",),
                lambda a: softfloat.convert(F32, F32.flush(a), F16),
            ),
            Form("cvt.rn.sat.f16.f32 {d}, {a}", "f16", ("f32",), to_half_sat),
            Form("cvt.sat.f32.f32 {d}, {a}", "f32", ("f32",), single_sat),
            Form(
                "cvt.ftz.f64.f32 {d}, {a}", "f64", ("f32",),
                lambda a: None if F32.is_nan(a) else softfloat.convert(F32, F32.flush(a), F64),
            ),
            Form(
                "cvt.ftz.f32.f16 {d}, {a}", "f32", ("f16",),
                lambda a: softfloat.convert(F16, a, F32),
            ),
            Form(
                "cvt.rn.relu.f16.f32 {d}, {a}", "f16", ("f32",),
                lambda a: finish(F16, softfloat.convert(F32, a, F16), relu=True),
            ),
            Form(
                "cvt.f16.bf16 {d}, {a}", "f16", ("bf16",),
                lambda a: softfloat.convert(BF16, a, F16),
            ),
            Form(
                "cvt.bf16.f16 {d}, {a}", "bf16", ("f16",),
                lambda a: softfloat.convert(F16, a, BF16),
            ),
            Form(
                "cvt.rn.relu.bf16.f32 {d}, {a}", "bf16", ("f32",),
                lambda a: finish(BF16, softfloat.convert(F32, a, BF16), relu=True),
            ),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("name", ["f32", "f64", "f16"])
def test_rounding_to_integral_values(name: str) -> None:
    """cvt.rni.f32.f32 and its kin keep the type and round to a whole number, keeping the sign."""
    f = FORMATS[name]
    halves = [f.round(Fraction(n, 2)) for n in range(-9, 10)]
    forms = []
    for mode in TO_INTEGER:

        def reference(a: int, mode: str = mode) -> Optional[int]:
            if f.is_nan(a):
                return f.nan if f is not F64 else None
            if f.is_infinite(a):
                return a
            whole = Fraction(softfloat.integral(f.value(a), mode))
            return f.round(whole, "rn", bool(a & f.sign))

        text = f"cvt.{mode}.{name}.{name} {{d}}, {{a}}"
        forms.append(Form(text, name, (name,), reference, [edges(name) + halves]))
    check(forms)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_two_floats_into_a_pair(name: str) -> None:
    """The first source goes to the high half."""
    f = FORMATS[name]
    forms = []
    for mode in ("rn", "rz"):
        for relu in ("", ".relu"):

            def reference(a: int, b: int, mode: str = mode, relu: str = relu) -> int:
                high, low = (
                    finish(f, softfloat.convert(F32, x, f, mode), relu=bool(relu)) for x in (a, b)
                )
                return high << 16 | low

            text = f"cvt.{mode}{relu}.{name}x2.f32 {{d}}, {{a}}, {{b}}"
            forms.append(Form(text, "b32", ("f32", "f32"), reference))
    check(forms)


def test_tf32() -> None:
    """Ten bits of mantissa, ties away from zero, in the high bits of an f32."""
    tf32 = Format("tf32", 8, 10, 0x3FFFF)

    def reference(a: int) -> Optional[int]:
        if F32.is_nan(a):
            return None
        return softfloat.convert(F32, a, tf32, "rna") << 13

    def same(got: int, wanted: int) -> bool:
        return got >> 13 == wanted >> 13

    check([Form("cvt.rna.tf32.f32 {d}, {a}", "b32", ("f32",), reference, same=same)])
