# SPDX-License-Identifier: Apache-2.0
"""How long GPUs worked for each session, out of what the sessions' workers measured.

A worker measures each piece of work from its beginning to its end, and tells when it has ended.
Those of several processes take turns on a GPU, so each measures the others', too: together more
than the time that passed. So time is cut into windows; what is told is taken for the time just
before, back through the windows that have room for it, and who shared a window shares its time.
What the last windows count may change yet, by a kernel that began in them and has not ended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Optional

from bitfusion.server.loop import Timers
from bitfusion.server.sessions import Session, Sessions

WINDOW_S = 1.0
WINDOWS = 60  # of a GPU that are remembered one by one
SECOND = 1_000_000_000  # device time is counted in nanoseconds


class Window:
    """Some time of one GPU."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.used: dict[str, float] = {}  # by session, each no more than what passed
        self.total = 0.0

    def put(self, session: str, spent: float) -> float:
        """Returns what there is no room for."""
        piece = min(spent, self.passed - self.used.get(session, 0.0))
        if piece > 0:
            self.used[session] = self.used.get(session, 0.0) + piece
            self.total += piece
            spent -= piece
        return spent

    def counts(self, session: str) -> float:
        used = self.used.get(session, 0.0)
        return used * self.passed / self.total if self.total > self.passed else used

    @property
    def free(self) -> float:
        return max(0.0, self.passed - self.total)


class Gpu:
    """The windows of one, the open one last."""

    def __init__(self) -> None:
        self.windows: deque[Window] = deque([Window()])
        self.closed: Optional[Window] = None  # the last one
        self.idle: dict[str, float] = {}  # before these: while nothing was told of a session

    def spend(self, session: str, spent: float) -> float:
        """Returns what counts for sure, of a kernel that is older than the windows."""
        for window in reversed(self.windows):
            spent = window.put(session, spent)
            if spent <= 0:
                return 0.0
        return min(spent, self.idle.pop(session, 0.0))

    def close(self) -> Optional[Window]:
        """Begin a new window. Returns one that is too old to change."""
        self.closed = self.windows[-1]
        self.windows.append(Window())
        return self.windows.popleft() if len(self.windows) > WINDOWS else None

    def counts(self, session: str) -> float:
        return sum(window.counts(session) for window in self.windows)


class Utilisation:
    """Looks by itself as long as there are sessions."""

    def __init__(
        self,
        sessions: Sessions,
        timers: Timers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._timers = timers
        self._clock = clock
        self._told: dict[str, list[int]] = {}  # by the ledgers, at the last look
        self._looked_s = clock()
        self._gpus: dict[int, Gpu] = {}
        self._sure: dict[str, float] = {}  # by session: what no window will change
        self._running = False

    def start(self) -> None:
        """A session has begun, or goes on from an earlier server."""
        self.look()
        if not self._running:
            self._running = True
            self._timers.after(WINDOW_S, self._tick)

    def _tick(self) -> None:
        self.look()
        there, on = self._sessions.by_name, self._by_gpu()
        self._sure = {name: sure for name, sure in self._sure.items() if name in there}
        self._gpus = {index: gpu for index, gpu in self._gpus.items() if index in on}
        for index, gpu in self._gpus.items():
            old = gpu.close()
            if old is None:
                continue
            for name in on[index]:
                self._sure[name] = self._sure.get(name, 0.0) + old.counts(name)
                gpu.idle[name] = 0.0 if name in old.used else gpu.idle.get(name, 0.0) + old.free
        self._running = bool(there)
        if self._running:
            self._timers.after(WINDOW_S, self._tick)

    def _by_gpu(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for name, session in self._sessions.by_name.items():
            for part in session.slices:
                found.setdefault(part.gpu, []).append(name)
        return found

    def look(self, ended: Optional[Session] = None) -> None:
        """Take in what was told since the last look; of a session that is about to be forgotten,
        too.
        """
        now_s, there = self._clock(), {**self._sessions.by_name}
        if ended is not None:
            there[ended.name] = ended
        passed, self._looked_s = (now_s - self._looked_s) * SECOND, now_s
        for gpu in self._gpus.values():
            gpu.windows[-1].passed += passed
        told, self._told = self._told, {}
        for name, session in there.items():
            if session.ledger is None:
                continue
            busy = self._told[name] = session.ledger.busy()
            for part, now, before in zip(session.slices, busy, told.get(name, busy)):
                gpu = self._gpus.setdefault(part.gpu, Gpu())
                if now > before:
                    sure = gpu.spend(name, now - before)
                    self._sure[name] = self._sure.get(name, 0.0) + sure

    def counted(self, session: Session) -> float:
        """Seconds that GPUs worked for it, as of the last look."""
        gpus = [gpu for part in session.slices if (gpu := self._gpus.get(part.gpu))]
        counts = sum(gpu.counts(session.name) for gpu in gpus)
        return (self._sure.get(session.name, 0.0) + counts) / SECOND

    def go_on(self, session: Session, counted_s: float) -> None:
        """Of a session that an earlier server counted so much of."""
        self._sure[session.name] = counted_s * SECOND

    def of(self, session: Session) -> list[Optional[float]]:
        """Per GPU of the session, which part of the last second it used; None where nothing was
        measured.
        """
        found: list[Optional[float]] = []
        for part in session.slices:
            gpu = self._gpus.get(part.gpu)
            window = gpu.closed if gpu else None
            known = window is not None and window.passed > 0 and session.name in self._told
            found.append(window.counts(session.name) / window.passed if known and window else None)
        return found
