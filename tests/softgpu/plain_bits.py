# SPDX-License-Identifier: Apache-2.0
"""The plain engine's instructions on bits: logic, shifts, fields, counts, permutations."""

from __future__ import annotations

from typing import Callable

import numpy
from numpy import ndarray
from plain_values import Modifiers, bits_of, rule, unsigned


@rule("and or xor", "kk")
def _logic(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray) -> ndarray:
    if "and" in modifiers:
        return a & b
    return a | b if "or" in modifiers else a ^ b


@rule("not", "k")
def _not(kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    return ~a


@rule("cnot", "k")
def _cnot(kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    return (a == 0).astype(a.dtype)


@rule("shl shr", "ku")
def _shift(kind: str, modifiers: Modifiers, a: ndarray, count: ndarray) -> ndarray:
    size = bits_of(kind)
    inside = numpy.minimum(count, size - 1).astype(a.dtype)
    if "shl" in modifiers:
        return numpy.where(count < size, a << inside, 0).astype(a.dtype)
    if a.dtype.kind == "i":
        return a >> inside
    return numpy.where(count < size, a >> inside, 0).astype(a.dtype)


@rule("shf", "kku")
def _funnel(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, count: ndarray) -> ndarray:
    count = count & 31 if "wrap" in modifiers else numpy.minimum(count, 32)
    both = b.astype("u8") << 32 | a
    if "l" in modifiers:
        return ((both << count.astype("u8")) >> 32).astype("u4")
    return (both >> count.astype("u8")).astype("u4")


@rule("bfe", "kuu")
def _extract(
    kind: str, modifiers: Modifiers, a: ndarray, start: ndarray, size: ndarray
) -> ndarray:
    bits = bits_of(kind)

    def one(value: int, start: int, size: int) -> int:
        start, size = start & 255, size & 255
        raw = value & ((1 << bits) - 1)
        sign = raw >> min(start + size - 1, bits - 1) & 1 if size and kind[0] == "s" else 0
        field = raw >> start & ((1 << size) - 1) if start < bits else 0
        known = max(min(size, bits - start), 0)
        if sign:
            field |= ((1 << bits) - 1) & ~((1 << known) - 1)
        return field & ((1 << bits) - 1)

    return _each(one, a, start, size).astype(f"u{bits // 8}").view(a.dtype)


@rule("bfi", "kkuu")
def _insert(
    kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, start: ndarray, size: ndarray
) -> ndarray:
    bits = bits_of(kind)

    def one(a: int, b: int, start: int, size: int) -> int:
        start, size = start & 255, size & 255
        mask = ((1 << size) - 1) << start & ((1 << bits) - 1)
        return (b & ~mask) | (a << start & mask)

    return _each(one, a, b, start, size).astype(a.dtype)


def _each(one: Callable[..., int], *columns: ndarray) -> ndarray:
    rows = zip(*(column.tolist() for column in columns))
    return numpy.array([one(*row) for row in rows], dtype="u8")


def _highest(value: int) -> int:
    return value.bit_length() - 1


@rule("popc clz brev bfind", "k")
def _count(kind: str, modifiers: Modifiers, a: ndarray) -> ndarray:
    bits = bits_of(kind)
    values = [x & ((1 << bits) - 1) for x in a.tolist()]
    if "popc" in modifiers:
        return numpy.array([bin(x).count("1") for x in values], "u4")
    if "clz" in modifiers:
        return numpy.array([bits - 1 - _highest(x) for x in values], "u4")
    if "brev" in modifiers:
        return numpy.array([int(f"{x:0{bits}b}"[::-1], 2) for x in values], a.dtype)
    if kind[0] == "s":  # the highest bit that is not the sign
        values = [x ^ ((1 << bits) - 1) if x >> (bits - 1) else x for x in values]
    found = [_highest(x) for x in values]
    if "shiftamt" in modifiers:
        found = [bits - 1 - x if x >= 0 else -1 for x in found]
    return numpy.array([x & 0xFFFFFFFF for x in found], "u4")


@rule("prmt", "kku")
def _permute(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, choice: ndarray) -> ndarray:
    def one(a: int, b: int, choice: int) -> int:
        source = (b << 32 | a).to_bytes(8, "little")
        picked = [choice >> 4 * i & 15 for i in range(4)]
        signs = [0xFF if source[p & 7] >> 7 else 0 for p in picked]
        return int.from_bytes(
            bytes(s if p & 8 else source[p & 7] for p, s in zip(picked, signs)), "little"
        )

    return _each(one, a, b, choice).astype("u4")


@rule("lop3", "kkku")
def _table(
    kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, c: ndarray, table: ndarray
) -> ndarray:
    result = numpy.zeros_like(a)
    for row in range(8):
        x, y, z = (v if row >> shift & 1 else ~v for v, shift in ((a, 2), (b, 1), (c, 0)))
        result |= numpy.where(table >> row & 1, x & y & z, 0).astype(a.dtype)
    return result


@rule("sad", "kkk")
def _sad(kind: str, modifiers: Modifiers, a: ndarray, b: ndarray, c: ndarray) -> ndarray:
    larger, smaller = unsigned(numpy.maximum(a, b)), unsigned(numpy.minimum(a, b))
    return ((larger - smaller) + unsigned(c)).view(a.dtype)
