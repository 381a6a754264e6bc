# SPDX-License-Identifier: Apache-2.0
"""What a session's launcher is to be told: numbered, kept a while, and waited for."""

from __future__ import annotations

from typing import Any

from bitfusion.server.loop import Timers
from bitfusion.server.peer import Answer, Later
from bitfusion.wire.control import Json, Reply

WARN, END = "warn", "end"
WORKER = "worker"  # why something is told: one broke
CUT_S = 1.0  # the longest that a launcher waits which is to attach again
ALL = -1  # for those who want all that there are
MAX_KEPT = 64  # of one session; warnings repeat where a session is idle again and again
MAX_WAITING = 4  # connections of one session that wait for events


class Events:
    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._kept: list[Json] = []
        self._count = 0
        self._waiting: list[tuple[Later, int, Any]] = []  # with what it knows, and its timer
        self._cut = False

    def add(self, kind: str, why: str, in_s: float, text: str) -> None:
        self._count += 1
        self._kept.append(
            {"number": self._count, "kind": kind, "why": why, "in_s": in_s, "text": text}
        )
        del self._kept[:-MAX_KEPT]
        for waiting in list(self._waiting):
            self._answer(waiting)

    def cut(self, cut: bool) -> None:
        """Whether the connection that is the lease has been lost: nobody else tells a launcher
        whose own end of it lives.
        """
        self._cut = cut
        for waiting in list(self._waiting) if cut else ():
            self._answer(waiting)

    def get(self, after: int, wait_s: float) -> Answer:
        """Those with higher numbers; where there are none, wait for one."""
        if self._since(after) or not wait_s:
            return self._reply(after)
        return self._wait(after, min(wait_s, CUT_S) if self._cut else wait_s)

    def _reply(self, after: int) -> Reply:
        return Reply(200, {"events": self._since(after), "cut": self._cut})

    def get_all(self, settled: bool, wait_s: float) -> Answer:
        """What there is, as soon as that is all, or after that time."""
        if settled or not wait_s:
            return Reply(200, {"events": self._kept})
        return self._wait(ALL, wait_s)

    def release(self) -> None:
        """Nothing more is on its way: who waits for all of them has them."""
        for waiting in list(self._waiting):
            if waiting[1] == ALL:
                self._answer(waiting)

    def _wait(self, after: int, wait_s: float) -> Answer:
        while len(self._waiting) >= MAX_WAITING:
            self._answer(self._waiting[0])
        later = Later()
        timer = self._timers.after(wait_s, lambda: self._answer(waiting))
        waiting = (later, after, timer)
        later.on_gone = lambda: self._forget(waiting)
        self._waiting.append(waiting)
        return later

    def _since(self, after: int) -> list[Json]:
        return self._kept[max(0, len(self._kept) - max(0, self._count - after)) :]

    def _answer(self, waiting: tuple[Later, int, Any]) -> None:
        if waiting in self._waiting:
            self._forget(waiting)
            waiting[0].complete(self._reply(waiting[1]))

    def _forget(self, waiting: tuple[Later, int, Any]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting[2].cancel()
