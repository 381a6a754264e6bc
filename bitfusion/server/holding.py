# SPDX-License-Identifier: Apache-2.0
"""How long sessions hold their GPUs, as measured, and what that says of those that run. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Optional

KEPT = 512
ENOUGH = 8  # measured sessions, before anything is said


class Holding:
    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=KEPT)  # seconds, GPUs
        self._sorted: list[float] = []
        self._sums: list[float] = []  # of the longest ones: [i] is that of sorted[i:]

    def add(self, seconds: float, gpus: float) -> None:
        self._recent.append((max(0.0, seconds), gpus))
        self._sorted = []

    def mean(self) -> Optional[float]:
        """Seconds that a GPU is held."""
        gpus = sum(count for _, count in self._recent)
        if len(self._recent) < ENOUGH or gpus <= 0:
            return None
        return sum(seconds * count for seconds, count in self._recent) / gpus

    def rest(self, age_s: float) -> Optional[float]:
        """Seconds that one which is that old still takes; None where none became so old."""
        if len(self._recent) < ENOUGH:
            return None
        if not self._sorted:
            self._sorted = sorted(seconds for seconds, _ in self._recent)
            self._sums = [0.0]
            for seconds in reversed(self._sorted):
                self._sums.append(self._sums[-1] + seconds)
            self._sums.reverse()
        at = bisect_right(self._sorted, age_s)
        older = len(self._sorted) - at
        return self._sums[at] / older - age_s if older else None
