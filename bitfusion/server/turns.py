# SPDX-License-Identifier: Apache-2.0
"""What long turns of a loop were spent on: the processor, waiting for it, or something that
blocked, which no handler may do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from bitfusion import log

SLOW_S = 0.25
EVERY_S = 60.0  # at most so often is one logged
MAX_NAME = 100
# Nanoseconds that this thread ran, and that it could have run and did not.
STATISTICS = "/proc/thread-self/schedstat"


class Spent(NamedTuple):
    """Seconds of the longest turn so far."""

    lasted_s: float = 0.0
    ran_s: float = 0.0
    waited_s: float = 0.0  # for the processor

    @property
    def own_s(self) -> float:
        """What others that wanted the processor have no part in."""
        return self.lasted_s - self.waited_s

    def describe(self) -> str:
        other_s = max(0.0, self.lasted_s - self.ran_s - self.waited_s)
        return (
            f"{self.lasted_s * 1000:.1f} ms (running {self.ran_s * 1000:.1f}, waiting for the "
            f"processor {self.waited_s * 1000:.1f}, for something else {other_s * 1000:.1f})"
        )


class TurnMeter:
    """Of the loop of one thread, which makes it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        try:
            self._file = os.open(STATISTICS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1
        self._begun = Spent()
        self._longest = ("nothing", 0.0)  # action of this turn
        self._logged_s = float("-inf")
        self._unlogged = 0
        self.longest = Spent()

    def _now(self) -> Spent:
        waited = 0
        if self._file >= 0:
            waited = int(os.pread(self._file, 100, 0).split()[1])
        return Spent(self._clock(), time.thread_time(), waited / 1e9)

    def begin(self) -> None:
        self._begun = self._now()
        self._longest = ("nothing", 0.0)

    def did(self, action: object, seconds: float) -> None:
        if seconds > self._longest[1]:
            self._longest = (describe(action) if seconds > SLOW_S / 10 else "", seconds)

    def end(self) -> None:
        lasted_s = self._clock() - self._begun.lasted_s
        if lasted_s <= self.longest.lasted_s and lasted_s <= SLOW_S:
            return
        now, then = self._now(), self._begun
        spent = Spent(*(after - before for after, before in zip(now, then)))
        if spent.lasted_s > self.longest.lasted_s:
            self.longest = spent
        if spent.lasted_s > SLOW_S:
            self._say(spent)

    def _say(self, spent: Spent) -> None:
        if self._clock() - self._logged_s < EVERY_S:
            self._unlogged += 1
            return
        name, seconds = self._longest
        more = f"; {self._unlogged} more since the last line" if self._unlogged else ""
        what = f", {name} {seconds * 1000:.0f} ms of it" if name else ""
        log.warn(f"a turn of the loop took {spent.describe()}{what}{more}")
        self._logged_s, self._unlogged = self._clock(), 0


def describe(action: object) -> str:
    """Which handler it is, and what it is busy with, where it says that."""
    owner = getattr(action, "__self__", None)
    name = getattr(action, "__qualname__", type(action).__name__)
    doing = getattr(owner, "doing", "")
    return f"{name}{f' ({doing})' if doing else ''}"[:MAX_NAME]
