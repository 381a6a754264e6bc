# SPDX-License-Identifier: Apache-2.0
"""How long sessions hold their GPUs, as measured, and when there will be room if they go on so.
Pure. Where nothing is known, nothing is said: None.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

from bitfusion.server.pool import Slice

KEPT = 512
ENOUGH = 8  # measured sessions, before anything is said


class Forecast:
    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=KEPT)  # seconds, GPUs
        self._sorted: list[float] = []
        self._sums: list[float] = []  # [i] is the sum of sorted[i:]

    def add(self, seconds: float, gpus: float) -> None:
        self._recent.append((max(0.0, seconds), gpus))
        self._sorted = []

    def work(self, gpus: float, in_use: float, age: float) -> Optional[float]:
        """Seconds until so many GPUs have become free, where `in_use` are held. Sessions end at
        some rate: so many did in all the time, and that of those which still run (`age`, GPUs
        times seconds) counts, too.
        """
        total = sum(count for _, count in self._recent)
        if len(self._recent) < ENOUGH or total <= 0 or in_use <= 0:
            return None
        mean = (sum(seconds * count for seconds, count in self._recent) + age) / total
        return gpus * mean / in_use

    def rest(self, age_s: float) -> Optional[float]:
        """Seconds that a session which is that old still takes; None where none became so old."""
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

    def room(
        self,
        free: Mapping[int, int],
        needs: Mapping[int, int],
        holders: Iterable[tuple[float, float, Sequence[Slice]]],
    ) -> Optional[float]:
        """Seconds until these GPUs have what is needed, as their holders (age, limit of their
        time or 0, slices) end.
        """
        ends = []
        for age_s, limit_s, slices in holders:
            rest = self.rest(age_s)
            rest = math.inf if rest is None else rest
            ends.append((min(rest, max(0.0, limit_s - age_s)) if limit_s else rest, slices))
        room = dict(free)
        for rest, slices in sorted(ends, key=lambda end: end[0]):
            for part in slices:
                room[part.gpu] = room.get(part.gpu, 0) + part.memory
            if all(room[gpu] >= need for gpu, need in needs.items()):
                return None if rest == math.inf else rest
        return None
