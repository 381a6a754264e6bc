# SPDX-License-Identifier: Apache-2.0
"""Amounts: sizes of memory as people write them, exact fractions, numbers of things. Pure."""

from __future__ import annotations

MIB = 1 << 20
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def parse_size(text: str) -> int:
    """Bytes from '536870912', '512M', '4G', '4GiB'; ValueError for anything else."""
    digits = text.rstrip("KMGTiBkmgtb")
    unit = text[len(digits) :].upper().removesuffix("IB").removesuffix("B")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15 or unit not in UNITS:
        raise ValueError(f"'{text}' is not a size such as 512M or 4G")
    return int(digits) * UNITS[unit]


def parse_fraction(text: str) -> tuple[int, int]:
    """Exact (numerator, denominator) of a decimal in (0, 1]: binary floats would make 0.29 of 100
    be 28.
    """
    whole, _, decimals = text.partition(".")
    digits = whole + decimals
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise ValueError(f"'{text}' is not a number above 0 and at most 1")
    numerator, denominator = int(digits), int(10 ** len(decimals))
    if not 0 < numerator <= denominator:
        raise ValueError(f"'{text}' is not above 0 and at most 1")
    return numerator, denominator


def part_of(memory: int, fraction: str) -> int:
    """floor(fraction * memory)"""
    numerator, denominator = parse_fraction(fraction)
    return memory * numerator // denominator


def format_mib(size: int) -> str:
    return f"{size // MIB} MiB"
