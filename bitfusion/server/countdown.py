# SPDX-License-Identifier: Apache-2.0
"""When to warn that a limit comes near, and when it strikes. Pure."""

from __future__ import annotations

from typing import NamedTuple

WARN_BEFORE_S = (300.0, 60.0, 10.0)  # where the limit is longer than that


class Look(NamedTuple):
    warn: bool
    left_s: float  # 0: it strikes now
    again_s: float  # when to look again, at the latest


class Countdown:
    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._all = [before for before in WARN_BEFORE_S if before < limit_s]
        self._pending = self._all

    def look(self, spent_s: float) -> Look:
        """What it says after so much of it is used up, which may be less than before."""
        left_s = max(0.0, self.limit_s - spent_s)
        warn = left_s > 0 and any(left_s <= before for before in self._pending)
        self._pending = [before for before in self._all if before < left_s]
        return Look(warn, left_s, left_s - max(self._pending, default=0.0))


def describe(seconds: float) -> str:
    """5 minutes, 1 minute, 10 seconds; rounded, as a warning needs it."""
    if seconds >= 45:
        minutes = max(1, round(seconds / 60))
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    whole = max(1, round(seconds))
    return f"{whole} second{'' if whole == 1 else 's'}"
