# SPDX-License-Identifier: Apache-2.0
"""Amounts: sizes of memory and times as people write them, exact fractions, numbers of things.
Pure.
"""

from __future__ import annotations

import re
from typing import Optional

MIB = 1 << 20
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
MOST_MEMORY = 1 << 50
LONGEST_S = 1e10  # some 300 years
FARTHEST_S = 1e11  # before or after now, or 1970: what any date can be made of
_TIME = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[wdhms])")


def plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def parse_size(text: str) -> int:
    """Bytes from '536870912', '512M', '4G', '4GiB'; ValueError for anything else."""
    digits = text.rstrip("KMGTiBkmgtb")
    unit = text[len(digits) :].upper().removesuffix("IB").removesuffix("B")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15 or unit not in UNITS:
        raise ValueError(f"'{text}' is not a size such as 512M or 4G")
    return int(digits) * UNITS[unit]


def parse_memory(text: str) -> int:
    """Bytes, in whole MiB, at least one: a number is of MiB, else it is a size."""
    try:
        size = parse_size(f"{text}M" if text.isdigit() else text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number of MiB, or a size such as 2G") from None
    if not MIB <= size <= MOST_MEMORY:
        raise ValueError(f"'{text}' is not from 1 MiB to {MOST_MEMORY >> 40} TiB")
    return size // MIB * MIB


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


def parse_duration(text: str) -> float:
    """Seconds from '30', '30s', '10m', '1h30m', '365d'; ValueError for anything else."""
    whole = text + "s" if text.replace(".", "").isdigit() else text
    parts = _TIME.findall(whole)
    if not parts or "".join(number + unit for number, unit in parts) != whole:
        raise ValueError(f"'{text}' is not a time such as 30s, 10m, 8h or 365d")
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if seconds > LONGEST_S:
        raise ValueError(f"'{text}' is too long a time")
    return seconds


def seconds_of(value: object) -> Optional[float]:
    """What another says is a time; None where it makes no sense as one."""
    if isinstance(value, (int, float)) and -FARTHEST_S <= value <= FARTHEST_S:
        return float(value)
    return None


def format_duration(seconds: float) -> str:
    """As parse_duration takes it, in whole seconds: 8h, 1d12h, 1m30s, 0s."""
    left, text = int(seconds + 0.5), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(SECONDS[unit]))
        text += f"{count}{unit}" if count else ""
    return text or "0s"
