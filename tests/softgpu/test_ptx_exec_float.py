# SPDX-License-Identifier: Apache-2.0
"""Floating point instructions: exact ones to the bit, approximate ones within their bounds."""

from __future__ import annotations

import math
import struct
from typing import Callable, List, Optional

import pytest
import softfloat
from forms import Form, check, edges, signed
from softfloat import BF16, F16, F32, F64, FORMATS, Format, finish

MODES = ("rn", "rz", "rm", "rp")
HALVES = ("f16", "bf16")


def same_number(f: Format) -> Callable[[int, int], bool]:
    """f64 keeps payloads of NaN in a way that is not defined: any NaN will do."""
    if f is F64:
        return lambda got, wanted: got == wanted or (f.is_nan(got) and f.is_nan(wanted))
    return lambda got, wanted: got == wanted


def form(
    text: str, f: Format, count: int, function: Callable[..., int], ftz: bool = False
) -> Form:
    """A form whose inputs and result are of one format; ``ftz`` flushes on both sides."""

    def reference(*values: int) -> int:
        if ftz:
            values = tuple(f.flush(v) for v in values)
        return finish(f, function(*values), ftz=ftz)

    names = ", ".join("{" + name + "}" for name in "abc"[:count])
    return Form(
        f"{text} {{d}}, {names}", f.name, (f.name,) * count, reference, same=same_number(f)
    )


def with_suffixes(
    head: str, tail: str, f: Format, count: int, function: Callable[..., int], sat: bool = True
) -> List[Form]:
    """The form plain, with .ftz, .sat and both, as far as f32 has them."""
    forms = [form(f"{head}{tail}", f, count, function)]
    if f is F32:
        forms.append(form(f"{head}.ftz{tail}", f, count, function, ftz=True))
    if f is F32 and sat:

        def saturated(*values: int) -> int:
            return finish(f, function(*values), sat=True)

        forms.append(form(f"{head}.sat{tail}", f, count, saturated))
        forms.append(form(f"{head}.ftz.sat{tail}", f, count, saturated, ftz=True))
    return forms


# ---------------------------------------------------------------- f32 and f64, exact


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
    check(
        [
            form(f"add.{name}", f, 2, lambda a, b: softfloat.add(f, a, b)),
            form(f"mul.{name}", f, 2, lambda a, b: softfloat.multiply(f, a, b)),
        ]
    )


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


# ---------------------------------------------------------------- halves


def lanes(function: Callable[..., int]) -> Callable[..., int]:
    """Do the same to the low and the high half."""
    return lambda *x: function(*(v & 0xFFFF for v in x)) | function(*(v >> 16 for v in x)) << 16


def half_forms(text: str, name: str, count: int, function: Callable[..., int]) -> List[Form]:
    """An instruction on one half and on a pair."""
    names = ", ".join("{" + x + "}" for x in "abc"[:count])
    return [
        Form(f"{text}.{name} {{d}}, {names}", name, (name,) * count, function),
        Form(f"{text}.{name}x2 {{d}}, {names}", "b32", (name + "x2",) * count, lanes(function)),
    ]


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

    def numbers(function: Callable[[int], int]) -> Callable[[int], Optional[int]]:
        return lambda a: None if f.is_nan(a) else function(a)

    forms.append(Form(f"neg.{name} {{d}}, {{a}}", name, (name,), numbers(lambda a: a ^ 0x8000)))
    forms.append(Form(f"abs.{name} {{d}}, {{a}}", name, (name,), numbers(lambda a: a & 0x7FFF)))
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


# ---------------------------------------------------------------- approximations


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
    """Within 2 ulp, for divisors between 2^-126 and 2^126."""

    def reference(a: int, b: int) -> Optional[int]:
        if not F32.is_nan(b) and not 2.0**-126 <= abs(real(b)) <= 2.0**126:
            return None
        return softfloat.divide(F32, a, b)

    check(
        [
            Form(
                f"div.{how}.f32 {{d}}, {{a}}, {{b}}",
                "f32",
                ("f32", "f32"),
                reference,
                same=near(2**-21.9),
            )
            for how in ("approx", "full")
        ]
    )


def test_f64_seeds_are_near_enough_to_refine() -> None:
    def as_double(x: int) -> float:
        return float(struct.unpack("<d", struct.pack("<Q", x))[0])

    def reference(function: Callable[[float], float]) -> Callable[[int], Optional[int]]:
        def on_normal(a: int) -> Optional[int]:
            if F64.is_nan(a) or F64.is_infinite(a) or F64.is_subnormal(a) or not a & ~F64.sign:
                return None
            try:
                value = function(as_double(a))
            except ValueError:
                return None
            return int(struct.unpack("<Q", struct.pack("<d", value))[0])

        return on_normal

    def same(got: int, wanted: int) -> bool:
        x, y = as_double(got), as_double(wanted)
        return abs(x - y) <= abs(y) * 2.0**-19 or F64.is_subnormal(wanted)

    check(
        [
            Form(
                "rcp.approx.ftz.f64 {d}, {a}", "f64", ("f64",), reference(lambda x: 1 / x),
                same=same,
            ),
            Form(
                "rsqrt.approx.ftz.f64 {d}, {a}", "f64", ("f64",),
                reference(lambda x: 1 / math.sqrt(x)), same=same,
            ),
        ]
    )  # fmt: skip


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
        if got == wanted:
            return True
        if f.is_nan(got) or f.is_nan(wanted) or (got ^ wanted) & f.sign:
            return False
        return abs(got - wanted) <= 2

    ex2 = "ex2.approx" if f is F16 else "ex2.approx.ftz"
    forms = [
        Form(f"tanh.approx.{name} {{d}}, {{a}}", name, (name,), of(math.tanh), same=near_half),
        Form(f"{ex2}.{name} {{d}}, {{a}}", name, (name,), of(power_of_two), same=near_half),
    ]
    if f is BF16:
        small = [x for x in edges(name) if not f.is_subnormal(x)]
        forms[1].values = [small]
        forms[1].reference = lambda a: f.flush(of(power_of_two)(a))
    check(forms)
