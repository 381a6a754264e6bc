# SPDX-License-Identifier: Apache-2.0
"""What PTX instructions compute, in NumPy over all lanes: the plain engine's half of the meaning.

Written from the PTX ISA manual, apart from the C engine and its table. Each function takes the
instruction's type, its other modifiers and the typed values of its sources, an element a lane, and
gives the typed results.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Callable, Dict, FrozenSet, NamedTuple, Tuple

import numpy
from numpy import ndarray

Modifiers = FrozenSet[str]
DTYPES: Dict[str, str] = {
    "b8": "u1", "u8": "u1", "s8": "i1", "b16": "u2", "u16": "u2", "s16": "i2", "f16": "f2",
    "b32": "u4", "u32": "u4", "s32": "i4", "f32": "f4", "b64": "u8", "u64": "u8", "s64": "i8",
    "f64": "f8", "pred": "?",
}  # fmt: skip
WIDER = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}
_NAN = {2: 0x7FFF, 4: 0x7FFFFFFF}  # what a NaN looks like that an operation makes


class Rule(NamedTuple):
    compute: Callable[..., ndarray]
    kinds: str  # of the sources: k the instruction's type, u u32, w the wider one, p a predicate


RULES: Dict[str, Rule] = {}


def rule(names: str, kinds: str) -> Callable[[Callable[..., ndarray]], Callable[..., ndarray]]:
    def add(compute: Callable[..., ndarray]) -> Callable[..., ndarray]:
        for name in names.split():
            RULES[name] = Rule(compute, kinds)
        return compute

    return add


def bits_of(kind: str) -> int:
    return 8 * numpy.dtype(DTYPES[kind]).itemsize


def is_float(kind: str) -> bool:
    return DTYPES[kind][0] == "f"


def unsigned(values: ndarray) -> ndarray:
    return values.view(f"u{values.itemsize}")


# ------------------------------------------------------------------ floats


def flushed(values: ndarray, modifiers: Modifiers) -> ndarray:
    """Subnormals of f32 become zeros of their sign, where `.ftz` says so."""
    if "ftz" not in modifiers or values.dtype != numpy.float32:
        return values
    small = numpy.abs(values) < numpy.float32(2.0**-126)
    return numpy.where(small, numpy.copysign(numpy.float32(0), values), values)


_MOVES = {"selp", "slct", "copysign", "neg", "abs"}  # results keep the bits of NaNs


def finished(values: ndarray, modifiers: Modifiers) -> ndarray:
    """Saturation, flushing, and the one NaN that f32 and f16 results have."""
    if values.dtype.kind != "f" or modifiers & _MOVES:
        return values
    values = flushed(values, modifiers)
    if "sat" in modifiers:
        values = numpy.where(values > 0, numpy.minimum(values, values.dtype.type(1)), 0).astype(
            values.dtype
        )
    pattern = _NAN.get(values.itemsize)
    if pattern is None:
        return values
    bits = unsigned(values).copy()
    bits[numpy.isnan(values)] = pattern
    return bits.view(values.dtype)


def _two_sum(a: ndarray, b: ndarray) -> Tuple[ndarray, ndarray]:
    """The nearest f64 of a sum, and exactly what is missing."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _odd(total: ndarray, missing: ndarray) -> ndarray:
    """Round a sum to odd instead of to nearest: then rounding it again to f32 is exact."""
    bits = total.view("i8").copy()
    inexact = numpy.isfinite(total) & (missing != 0) & (bits & 1 == 0)
    away = (missing > 0) == (total > 0)
    bits[inexact] += numpy.where(away, 1, -1)[inexact]
    return bits.view("f8")


def _narrow(exact: ndarray, modifiers: Modifiers, dtype: str = "f4") -> ndarray:
    """f64 values that are exact, or rounded to odd, in the direction that the modifiers name."""
    near = exact.astype(dtype)
    wide = near.astype("f8")
    low, high = near.dtype.type(-numpy.inf), near.dtype.type(numpy.inf)
    down, up = numpy.nextafter(near, low), numpy.nextafter(near, high)
    finite = numpy.isfinite(exact)
    if "rm" in modifiers:
        return numpy.where(finite & (wide > exact), down, near)
    if "rp" in modifiers:
        return numpy.where(finite & (wide < exact), up, near)
    if "rz" in modifiers:
        near = numpy.where(finite & (exact > 0) & (wide > exact), down, near)
        return numpy.where(finite & (exact < 0) & (wide < exact), up, near)
    return near


def _sum(a: ndarray, b: ndarray, modifiers: Modifiers) -> ndarray:
    """Exact f64 values added, as f32; a zero of opposite numbers has the mode's sign."""
    total, missing = _two_sum(a, b)
    result = _narrow(_odd(total, missing), modifiers)
    if "rm" in modifiers:
        zero = (total == 0) & (numpy.signbit(a) != numpy.signbit(b))
        result = numpy.where(zero, numpy.float32(-0.0), result)
    return result


@rule("add", "kk")
def _add(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    if kind == "f32":
        a, b = (flushed(x, modifiers).astype("f8") for x in (a, b))
        return _sum(a, b, modifiers)
    if "sat" in modifiers and kind == "s32":
        return numpy.clip(a.astype("i8") + b, -(2**31), 2**31 - 1).astype("i4")
    return (a + b).astype(a.dtype)


@rule("sub", "kk")
def _sub(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    if "sat" in modifiers and kind == "s32":
        return numpy.clip(a.astype("i8") - b, -(2**31), 2**31 - 1).astype("i4")
    if not is_float(kind):
        return a - b
    return _add(kind, modifiers, a, numpy.where(numpy.isnan(b), b, -b))


@rule("mul", "kk")
def _mul(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    if kind == "f32":
        a, b = (flushed(x, modifiers).astype("f8") for x in (a, b))
        return _narrow(a * b, modifiers)
    if is_float(kind):
        return a * b
    if "wide" in modifiers:
        wide = DTYPES[WIDER[kind]]
        return a.astype(wide) * b.astype(wide)
    return high_product(kind, a, b) if "hi" in modifiers else a * b


def high_product(kind: str, a: ndarray, b: ndarray) -> ndarray:
    size = bits_of(kind)
    if size < 64:
        wide = DTYPES[WIDER[kind]]
        return (a.astype(wide) * b.astype(wide) >> size).astype(a.dtype)
    products = [int(x) * int(y) >> 64 for x, y in zip(a.tolist(), b.tolist())]
    return numpy.array([p & (2**64 - 1) for p in products], "u8").view(a.dtype)


@rule("mad", "kkw")
def _mad(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, c: ndarray) -> ndarray:
    product = _mul(kind, modifiers, a, b)
    return product + c.astype(product.dtype)


@rule("fma", "kkk")
def _fma(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, c: ndarray) -> ndarray:
    if kind == "f64":
        return numpy.array([_exact_fma(*xyz) for xyz in zip(a.tolist(), b.tolist(), c.tolist())])
    a, b, c = (flushed(x, modifiers).astype("f8") for x in (a, b, c))
    if kind == "f32":
        return _sum(a * b, c, modifiers)
    total, missing = _two_sum(a * b, c)
    return _odd(total, missing).astype("f2")


def _exact_fma(a: float, b: float, c: float) -> float:
    product = a * b
    if numpy.isfinite([a, b]).all() and not numpy.isfinite(c):
        return c  # also where the product is beyond all f64
    if not numpy.isfinite([a, b, c]).all() or a == 0 or b == 0:
        return product + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return -0.0 if product == 0 and numpy.signbit([product, c]).all() else 0.0
    try:
        return float(exact)  # rounds to nearest, ties to even
    except OverflowError:
        return numpy.inf if exact > 0 else -numpy.inf


@rule("div", "kk")
def _div(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    if is_float(kind):
        return flushed(a, modifiers) / flushed(b, modifiers)
    return quotient(a, b)[0]


@rule("rem", "kk")
def _rem(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    return quotient(a, b)[1]


def quotient(a: ndarray, b: ndarray) -> Tuple[ndarray, ndarray]:
    """Division that cuts towards zero; by zero it gives nothing that anybody may rely on."""
    b = numpy.where(b == 0, b.dtype.type(1), b)
    rest = numpy.fmod(a, b)
    return ((a - rest) // b).astype(a.dtype), rest.astype(a.dtype)


@rule("sqrt", "k")
def _sqrt(kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    return numpy.sqrt(flushed(a, modifiers))


@rule("neg", "k")
def _neg(kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    if is_float(kind):
        return -flushed(a, modifiers)  # a NaN keeps its bits but for the sign
    return (0 - unsigned(a)).view(a.dtype)


@rule("abs", "k")
def _abs(kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    return numpy.abs(flushed(a, modifiers))


@rule("copysign", "kk")
def _copysign(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    """The magnitude of the second, the sign of the first: bits, whatever they mean."""
    top = numpy.array(1 << (bits_of(kind) - 1), f"u{a.itemsize}")
    return ((unsigned(a) & top) | (unsigned(b) & ~top)).view(a.dtype)


@rule("min max", "kk")
def _extreme(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    if not is_float(kind):
        return numpy.maximum(a, b) if "max" in modifiers else numpy.minimum(a, b)
    a, b = flushed(a, modifiers), flushed(b, modifiers)
    first = (a > b) | ((a == b) & ~numpy.signbit(a))  # +0 is above -0
    if "max" not in modifiers:
        first = (a < b) | ((a == b) & numpy.signbit(a))
    result = numpy.where(first, a, b)
    if "NaN" in modifiers:
        return numpy.where(numpy.isnan(a) | numpy.isnan(b), a.dtype.type(numpy.nan), result)
    result = numpy.where(numpy.isnan(a), b, result)
    return numpy.where(numpy.isnan(b), a, result)


# ------------------------------------------------------------------ choices


_COMPARE: Dict[str, Callable[[ndarray, ndarray], ndarray]] = {
    "eq": numpy.equal, "ne": numpy.not_equal, "lt": numpy.less, "le": numpy.less_equal,
    "gt": numpy.greater, "ge": numpy.greater_equal, "lo": numpy.less, "ls": numpy.less_equal,
    "hi": numpy.greater, "hs": numpy.greater_equal,
}  # fmt: skip


def compared(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    """The comparison of setp and set. `ne` of a NaN is false, `neu` is true."""
    a, b = flushed(a, modifiers), flushed(b, modifiers)
    if not is_float(kind):
        name = next(m for m in modifiers if m in _COMPARE)
        return _COMPARE[name](a, b)
    nan = numpy.isnan(a) | numpy.isnan(b)
    if "num" in modifiers or "nan" in modifiers:
        return nan if "nan" in modifiers else ~nan
    name = next(m for m in modifiers if m in _COMPARE or m[:-1] in _COMPARE and m[-1] == "u")
    if name in _COMPARE:
        return _COMPARE[name](a, b) & ~nan
    return _COMPARE[name[:-1]](a, b) | nan


@rule("selp", "kkp")
def _select(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, p: ndarray) -> ndarray:
    return numpy.where(p, a, b)


@rule("slct", "kks")
def _by_sign(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, c: ndarray) -> ndarray:
    return numpy.where(c >= 0, a, b)


# ------------------------------------------------------------------ conversions


def converted(to: str, kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    if is_float(kind):
        a = flushed(a, modifiers)
        return (
            _to_float(to, kind, modifiers, a) if is_float(to) else _to_int(to, kind, modifiers, a)
        )
    if is_float(to):
        return a.astype(DTYPES[to])
    if "sat" in modifiers:
        info = numpy.iinfo(DTYPES[to])
        return numpy.array([min(max(x, info.min), info.max) for x in a.tolist()], DTYPES[to])
    return a.astype(DTYPES[to])


_WHOLE = {"rni": numpy.rint, "rzi": numpy.trunc, "rmi": numpy.floor, "rpi": numpy.ceil}


def _to_float(to: str, kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    for name, whole in _WHOLE.items():
        if name in modifiers:
            a = whole(a)
    return a if to == kind else _narrow(a.astype("f8"), modifiers, DTYPES[to])


def _to_int(to: str, kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    """Out of range is the nearest there is; of a NaN 0, or the top bit alone where 64 bits are
    involved.
    """
    whole = next(function for name, function in _WHOLE.items() if name in modifiers)
    info = numpy.iinfo(DTYPES[to])
    nan = 1 << (bits_of(to) - 1) if "64" in to + kind else 0

    def one(value: float) -> int:
        if value != value:
            return nan
        if value in (numpy.inf, -numpy.inf):
            return int(info.max if value > 0 else info.min)
        return int(min(max(int(value), info.min), info.max))

    values = [one(x) & ((1 << bits_of(to)) - 1) for x in whole(a.astype("f8")).tolist()]
    return numpy.array(values, f"u{bits_of(to) // 8}").view(DTYPES[to])
