# SPDX-License-Identifier: Apache-2.0
"""Checks of a machine and what they found. Both sides use it: a client checks itself and its way
to the servers, a server checks itself and tells who asks.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import NamedTuple

from bitfusion.quantity import MIB, format_duration

PASS, MARGINAL, WARNING, FAIL = "PASS", "MARGINAL", "WARNING", "FAIL"
LEVELS = (PASS, MARGINAL, WARNING, FAIL)  # from good to bad
EXIT_STATUS = {PASS: 0, MARGINAL: 0, WARNING: 3, FAIL: 1}
DAY_S = 86400.0
EXPIRY_WARNING_S = 30 * DAY_S


class Check(NamedTuple):
    name: str
    level: str
    found: str  # in a few words
    advice: str = ""  # what to do, where it is not PASS


def worst(checks: Iterable[Check]) -> str:
    return max((check.level for check in checks), key=LEVELS.index, default=PASS)


def grade(
    name: str, value: float, at_least: float, usable: float, words: str, advice: str
) -> Check:
    """PASS from at_least on, MARGINAL from usable on, else WARNING."""
    if value >= at_least:
        return Check(name, PASS, words)
    return Check(name, MARGINAL if value >= usable else WARNING, words, advice)


# ------------------------------------------------------------------ of any machine


def limit_of(which: int) -> float:
    soft, _hard = resource.getrlimit(which)
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)


def open_files(needed: int) -> Check:
    limit = limit_of(resource.RLIMIT_NOFILE)
    advice = f"set the limit 'nofile' to {needed} or more (limits.conf, LimitNOFILE)"
    return grade("open files", limit, needed, needed / 4, f"{limit:.0f} at most", advice)


def locked_memory() -> Check:
    """Pinned memory of programs is only ordinary memory to us; RDMA and drivers pin for real."""
    limit = limit_of(resource.RLIMIT_MEMLOCK)
    words = "unlimited" if limit == float("inf") else f"{limit / MIB:.0f} MiB at most"
    advice = "set the limit 'memlock' to unlimited (limits.conf, LimitMEMLOCK)"
    return grade("locked memory", limit, float("inf"), 8 * MIB, words, advice)


def disk(folder: str, needed: int = 512 * MIB) -> Check:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "/"
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    words = f"{free // MIB} MiB free at {folder}"
    if free < 16 * MIB:
        return Check("disk", FAIL, words, "make room there: state cannot be kept")
    return grade("disk", free, needed, needed / 4, words, "make room there")


def expiry(name: str, left_s: float, advice: str) -> Check:
    """Of a certificate or token."""
    if left_s <= 0:
        return Check(name, FAIL, f"expired {format_duration(-left_s)} ago", advice)
    words = f"valid for {format_duration(left_s // DAY_S * DAY_S or left_s)}"
    return Check(name, PASS if left_s > EXPIRY_WARNING_S else WARNING, words, advice)


def shown(checks: Iterable[Check]) -> list[str]:
    """Lines for people: the good ones short."""
    lines = []
    for check in checks:
        lines.append(f"  {check.level:8}  {check.name}: {check.found}")
        if check.level != PASS and check.advice:
            lines.append(f"            -> {check.advice}")
    return lines
