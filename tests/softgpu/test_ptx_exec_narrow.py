# SPDX-License-Identifier: Apache-2.0
"""Conversions of fp8, fp6, fp4, ue8m0 and tf32, cvt.pack; f32x2 and sums of two widths."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import cache
from typing import Callable, Dict, List, Optional

import pytest
import softfloat
from forms import HEAD, Form, check, edges, signed
from machine import DeviceFault, machine
from softfloat import BF16, F16, F32, FORMATS, Format, finish


class Narrow:
    """A format as the sorted list of its numbers that are not negative."""

    def __init__(self, name: str, exponent_bits: int, mantissa_bits: int, codes: int) -> None:
        self.name = name
        self.bits = 1 + exponent_bits + mantissa_bits
        self.sign = 1 << (self.bits - 1)
        self.has_nan = name in ("e4m3", "e5m2")
        self.infinity = 0x7C if name == "e5m2" else None
        bias = (1 << (exponent_bits - 1)) - 1
        self.numbers: List[Fraction] = []
        for code in range(codes):
            exponent, mantissa = divmod(code, 1 << mantissa_bits)
            part = Fraction(mantissa, 1 << mantissa_bits) + (exponent > 0)
            self.numbers.append(part * Fraction(2) ** (max(exponent, 1) - bias))

    def nearest(self, value: Fraction) -> int:
        """The code of the nearest number, of two the even one, or the largest one there is."""
        at = bisect_left(self.numbers, value)
        if at == len(self.numbers):
            return at - 1
        if at and (self.numbers[at] - value, at & 1) > (value - self.numbers[at - 1], ~at & 1):
            return at - 1
        return at

    def encode(self, f: Format, x: int, relu: bool = False) -> int:
        """From a float's bits."""
        if f.is_nan(x):
            return 0x7F if self.has_nan else len(self.numbers) - 1
        if relu and x & f.sign:
            return 0
        sign = self.sign if x & f.sign else 0
        if f.is_infinite(x):
            return sign | len(self.numbers) - 1
        return sign | self.nearest(abs(f.value(x)))

    def decode(self, x: int, relu: bool = False) -> int:
        """To f16."""
        code, negative = x & (self.sign - 1), bool(x & self.sign)
        if code >= len(self.numbers) and code != self.infinity:
            return F16.nan
        if relu and negative:
            return 0
        if code == self.infinity:
            return F16.infinity | negative << 15
        value = self.numbers[code]
        return F16.round(-value if negative else value, "rn", negative)

    def hard_values(self) -> List[int]:
        """f32 numbers at, half-way between and just beside those of the format."""
        found = [F32.round(x) for x in self.numbers]
        found += [F32.round((a + b) / 2) for a, b in zip(self.numbers, self.numbers[1:])]
        last = self.numbers[-1]
        found += [F32.round(last + (last - self.numbers[-2]) / 2), F32.round(2 * last)]
        found += [x + 1 for x in found] + [x - 1 for x in found if x]
        return [x | sign for x in found for sign in (0, F32.sign)]


NARROW = {
    n.name: n
    for n in (
        Narrow("e4m3", 4, 3, 0x7F), Narrow("e5m2", 5, 2, 0x7C), Narrow("e3m2", 3, 2, 0x20),
        Narrow("e2m3", 2, 3, 0x20), Narrow("e2m1", 2, 1, 0x08),
    )
}  # fmt: skip
RELU = ("", ".relu")


def low_bits(name: str) -> int:
    """Bits that one of a pair takes."""
    return 4 if name == "e2m1" else 8


def into(text: str) -> str:
    """For a destination of 8 bits, which the harness has no register for."""
    if "e2m1x2" not in text:
        return text
    if "e2m1x2." in text:
        text = text.replace("{d}", "narrow")
        return "{{ .reg .b8 narrow; " + text + "; cvt.u16.u8 {d}, narrow; }}"
    text = text.replace("{a}", "narrow")
    return "{{ .reg .b8 narrow; cvt.u8.u16 narrow, {a}; " + text + "; }}"


@pytest.mark.parametrize("name", list(NARROW))
@pytest.mark.parametrize("relu", RELU)
def test_two_singles_to_a_narrow_pair(name: str, relu: str) -> None:
    n = NARROW[name]
    shift = low_bits(name)

    @cache
    def one(x: int) -> int:
        return n.encode(F32, x, bool(relu))

    def reference(a: int, b: int) -> int:
        return one(a) << shift | one(b)

    texts = [f"cvt.rn.satfinite{relu}.{name}x2.f32 {{d}}, {{a}}, {{b}}"]
    if relu:
        texts.append(texts[0].replace("satfinite.relu", "relu.satfinite"))
    hard = [*n.hard_values(), *edges("f32", 100)]
    some = [0, F32.sign, F32.nan, F32.infinity, 0x3F800000, 0xBFC00000]
    for values in ([hard, some], [some, hard]):
        check(
            [
                Form(into(text), "b16", ("f32", "f32"), reference, values, limit=9000)
                for text in texts
            ]
        )


@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1"])
@pytest.mark.parametrize("source", ["f16", "bf16"])
@pytest.mark.parametrize("relu", RELU)
def test_a_pair_of_halves_to_a_narrow_pair(name: str, source: str, relu: str) -> None:
    n, f = NARROW[name], FORMATS[source]
    shift = low_bits(name)

    def reference(a: int) -> int:
        high, low = (n.encode(f, x, bool(relu)) for x in (a >> 16, a & 0xFFFF))
        return high << shift | low

    halves = [*edges(source, 200), *(f.round(F32.value(x)) for x in n.hard_values()[::3])]
    values = [[x | halves[-k] << 16 for k, x in enumerate(halves)]]
    text = into(f"cvt.rn.satfinite{relu}.{name}x2.{source}x2 {{d}}, {{a}}")
    check([Form(text, "b16", ("b32",), reference, values, limit=9000)])


@pytest.mark.parametrize("name", list(NARROW))
@pytest.mark.parametrize("relu", RELU)
def test_a_narrow_pair_to_halves(name: str, relu: str) -> None:
    """All codes there are, in both places."""
    n = NARROW[name]
    shift = low_bits(name)

    def reference(a: int) -> int:
        codes = a >> shift & (1 << shift) - 1, a & (1 << shift) - 1
        high, low = (n.decode(code & (2 * n.sign - 1), bool(relu)) for code in codes)
        return high << 16 | low

    codes = range(2 * n.sign)
    values = [[x | (x * 37 + 11) % (2 * n.sign) << shift for x in codes]]
    text = into(f"cvt.rn{relu}.f16x2.{name}x2 {{d}}, {{a}}")
    check([Form(text, "b32", ("b16",), reference, values)])


# ------------------------------------------------------------------ ue8m0


def scale_of(f: Format, x: int, up: bool, finite: bool) -> int:
    """The exponent that is nearest below or above a magnitude."""
    if f.is_nan(x):
        return 0xFF
    if f.is_infinite(x):
        return 0xFE if finite else 0xFF
    value = abs(f.value(x))
    power = value.numerator.bit_length() - value.denominator.bit_length()  # of floor
    code = max(power + 127, 0) if value else 0
    if up and Fraction(2) ** (code - 127) < value:
        code += 1
    return min(code, 0xFE) if finite else code


@pytest.mark.parametrize("mode", ["rz", "rp"])
@pytest.mark.parametrize("finite", ["", ".satfinite"])
def test_scales(mode: str, finite: str) -> None:
    powers = [F32.round(Fraction(2) ** e) for e in (-149, -127, -126, -1, 0, 1, 126, 127)]
    near = [*powers, *(x + 1 for x in powers), *(x - 1 for x in powers if x), 0x7F7FFFFF]

    def of(f: Format) -> Callable[[int], int]:
        return lambda x: scale_of(f, x, mode == "rp", bool(finite))

    single, half = of(F32), of(BF16)
    check(
        [
            Form(
                f"cvt.{mode}{finite}.ue8m0x2.f32 {{d}}, {{a}}, {{b}}", "b16", ("f32", "f32"),
                lambda a, b: single(a) << 8 | single(b), [[*near, *edges("f32")], [*near, 0]],
                limit=3000,
            ),
            Form(
                f"cvt.{mode}{finite}.ue8m0x2.bf16x2 {{d}}, {{a}}", "b16", ("bf16x2",),
                lambda a: half(a >> 16) << 8 | half(a & 0xFFFF),
            ),
        ]
    )  # fmt: skip


def test_scales_to_halves() -> None:
    def one(code: int) -> int:
        return BF16.nan if code == 0xFF else BF16.round(Fraction(2) ** (code - 127))

    check(
        [
            Form(
                "cvt.rn.bf16x2.ue8m0x2 {d}, {a}", "b32", ("b16",),
                lambda a: one(a >> 8) << 16 | one(a & 255),
                [[x << 8 | 255 - x for x in range(256)]],
            )
        ]
    )  # fmt: skip


# ------------------------------------------------------------------ tf32, .satfinite, cvt.pack

TF32 = Format("tf32", 8, 10, 0x3FFFF)


@pytest.mark.parametrize("mode", ["rna", "rn", "rz"])
def test_tf32_forms(mode: str) -> None:
    """The 19 bits that count, and whether what is too large stays finite."""

    def reference(words: str) -> Callable[[int], Optional[int]]:
        def one(a: int) -> Optional[int]:
            if F32.is_nan(a):
                return F32.nan
            if "relu" in words and a & F32.sign:
                return 0
            made = softfloat.convert(F32, a, TF32, mode)
            if "satfinite" in words and TF32.is_infinite(made):
                made -= 1
            return made << 13

        return one

    def same(got: int, wanted: int) -> bool:
        return got >> 13 == wanted >> 13

    every = ["", ".satfinite"]
    if mode != "rna":
        every += [".relu", ".satfinite.relu", ".relu.satfinite"]
    overflow = [0x7F7FF000, 0x7F7FEFFF, 0x7F7FF001]
    values = [[*edges("f32", 40), *overflow, 0x3F801000, 0x3F803000, 0xFFC00000]]
    check(
        [
            Form(
                f"cvt.{mode}{w}.tf32.f32 {{d}}, {{a}}", "b32", ("f32",), reference(w), values, same
            )
            for w in every
        ]
    )


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("mode", ["rn", "rz"])
def test_satfinite_halves(name: str, mode: str) -> None:
    f = FORMATS[name]

    def one(x: int, relu: bool) -> int:
        made = finish(f, softfloat.convert(F32, x, f, mode), relu=relu)
        return made - 1 if f.is_infinite(made) else made

    forms = []
    for words in (".satfinite", ".relu.satfinite", ".satfinite.relu"):
        relu = "relu" in words
        forms.append(
            Form(
                f"cvt.{mode}{words}.{name}.f32 {{d}}, {{a}}",
                name,
                ("f32",),
                lambda a, relu=relu: one(a, relu),
            )
        )
        forms.append(
            Form(
                f"cvt.{mode}{words}.{name}x2.f32 {{d}}, {{a}}, {{b}}", "b32", ("f32", "f32"),
                lambda a, b, relu=relu: one(a, relu) << 16 | one(b, relu),
            )
        )  # fmt: skip
    check(forms)


def test_pack() -> None:
    def clamped(kind: str, x: int) -> int:
        bits = int(kind[1:])
        low, high = 0, (1 << bits) - 1
        if kind[0] == "s":
            low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        return min(max(signed(x, 32), low), high) & ((1 << bits) - 1)

    forms = []
    values = [*edges("s32"), 1, 2, 200, 70000, 0xFFFFFFFE, 0xFFFFFF00]
    for kind in ("u16", "s16"):
        forms.append(
            Form(
                f"cvt.pack.sat.{kind}.s32 {{d}}, {{a}}, {{b}}",
                "b32",
                ("s32", "s32"),
                lambda a, b, k=kind: clamped(k, a) << 16 | clamped(k, b),
                [values, values],
            )
        )
    for kind in ("u8", "s8", "u4", "s4", "u2", "s2"):
        bits = int(kind[1:])
        forms.append(
            Form(
                f"cvt.pack.sat.{kind}.s32.b32 {{d}}, {{a}}, {{b}}, {{c}}", "b32",
                ("s32", "s32", "b32"),
                lambda a, b, c, k=kind, n=bits: c << 2 * n | clamped(k, a) << n | clamped(k, b),
                [values, values, [0, 0xFFFFFFFF, 0x12345678]],
            )
        )  # fmt: skip
    check(forms)


@pytest.mark.parametrize(
    "text",
    [
        "cvt.rs.satfinite.f16x2.f32 r0, f0, f1",
        "cvt.rn.e4m3x2.f32 h0, f0, f1",
        "cvt.satfinite.u8.s32 r0, r1",
        "cvt.rz.satfinite.e4m3x2.f32 h0, f0, f1",
        "cvt.pack.sat.u8.s32 r0, r1, r2",
    ],
)
def test_modifiers_are_not_passed_over(text: str) -> None:
    registers = ".reg .f32 f<2>; .reg .b16 h<2>; .reg .b32 r<3>;"
    program = machine().compile(f"{HEAD}.visible .entry k() {{ {registers} {text}; ret; }}")
    with pytest.raises(DeviceFault) as caught:
        program.launch("k", 1, 1)
    assert caught.value.error == 715


# ------------------------------------------------------------------ f32x2, f32 with halves

ARITHMETIC: Dict[str, Callable[..., int]] = {
    "add": softfloat.add,
    "sub": lambda f, a, b, mode: softfloat.add(f, a, b if f.is_nan(b) else b ^ f.sign, mode),
    "mul": softfloat.multiply,
    "fma": softfloat.fma,
}


@pytest.mark.parametrize("op", list(ARITHMETIC))
@pytest.mark.parametrize("ftz", ["", ".ftz"])
def test_two_singles_at_once(op: str, ftz: str) -> None:
    compute = ARITHMETIC[op]
    count = 3 if op == "fma" else 2

    def reference(mode: str) -> Callable[..., int]:
        def one(*sources: int) -> int:
            given = [F32.flush(x) if ftz else x for x in sources]
            return finish(F32, compute(F32, *given, mode), ftz=bool(ftz))

        def both(*sources: int) -> int:
            low = one(*(x & 0xFFFFFFFF for x in sources))
            return one(*(x >> 32 for x in sources)) << 32 | low

        return both

    singles = edges("f32")
    values = [[x | singles[(i * 7 + k) % len(singles)] << 32 for i, x in enumerate(singles)]
              for k in range(count)]  # fmt: skip
    operands = ", ".join(f"{{{x}}}" for x in "abc"[:count])
    modes = ["rn", "rz", "rm", "rp"]
    forms = [
        Form(
            f"{op}.{mode}{ftz}.f32x2 {{d}}, {operands}",
            "b64",
            ("b64",) * count,
            reference(mode),
            values,
        )
        for mode in modes
    ]
    if op != "fma":
        text = f"{op}{ftz}.f32x2 {{d}}, {operands}"
        forms.append(Form(text, "b64", ("b64",) * count, reference("rn"), values))
    check(forms)


@pytest.mark.parametrize("half", ["f16", "bf16"])
@pytest.mark.parametrize("op", ["add", "sub", "fma"])
def test_singles_with_halves(half: str, op: str) -> None:
    f, compute = FORMATS[half], ARITHMETIC[op]
    halves = 2 if op == "fma" else 1
    forms = []
    for mode in ("", "rn", "rz", "rm", "rp"):
        for sat in ("", "sat"):
            if op == "fma" and not mode:
                continue

            def reference(*sources: int, mode: str = mode or "rn", sat: str = sat) -> int:
                wide = [softfloat.convert(f, x, F32) for x in sources[:halves]]
                return finish(F32, compute(F32, *wide, sources[-1], mode), sat=bool(sat))

            words = ".".join(word for word in (op, mode, sat, "f32", half) if word)
            operands = ", ".join(f"{{{x}}}" for x in "abc"[: halves + 1])
            kinds = (half,) * halves + ("f32",)
            forms.append(Form(f"{words} {{d}}, {operands}", "f32", kinds, reference))
    check(forms)
