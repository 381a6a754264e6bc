# SPDX-License-Identifier: Apache-2.0
"""One selectors loop: descriptors, timers, signals. No threads, and nothing that it calls may
block.
"""

from __future__ import annotations

import heapq
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Optional, Protocol

from bitfusion import linux, log

if TYPE_CHECKING:
    from bitfusion.server.turns import TurnMeter

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
SLOW_TURN_S = 0.1
WORK_S = 0.02  # of one turn, for what may wait for the next
MOST_A_TURN = 16  # descriptors, and timers; the others have the next turn


class Timers(Protocol):
    """What most parts need of the loop."""

    def after(self, seconds: float, action: Callable[[], object]) -> Any: ...


def in_turns(
    timers: Timers, pieces: Iterator[object], count: int, done: Callable[[], object]
) -> None:
    """Have `count` pieces of work done at once, and as many in each turn to come."""
    if sum(1 for _ in islice(pieces, count)) < count:
        done()
    else:
        timers.after(0, lambda: in_turns(timers, pieces, count, done))


class Timer:
    def __init__(self, due_s: float, action: Callable[[], object]) -> None:
        self.due_s = due_s
        self.action: Optional[Callable[[], object]] = action

    def cancel(self) -> None:
        self.action = None

    def __lt__(self, other: Timer) -> bool:
        return self.due_s < other.due_s


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._ready: list[tuple[selectors.SelectorKey, int]] = []  # left over by the last turn
        self._timers: list[Timer] = []
        self._work: deque[Callable[[], object]] = deque()
        self._running = False
        self.clock = time.monotonic
        self.longest_turn_s = 0.0
        self.meter: Optional[TurnMeter] = None  # of one that serves many for long

    def watch(self, fd: int, events: int, action: Callable[[int], None]) -> None:
        """Call action(events) when the descriptor is ready; replaces an earlier watch of it."""
        try:
            self._selector.modify(fd, events, action)
        except KeyError:
            self._selector.register(fd, events, action)

    def unwatch(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass  # not watched (any more)

    def after(self, seconds: float, action: Callable[[], object]) -> Timer:
        timer = Timer(self.clock() + seconds, action)
        heapq.heappush(self._timers, timer)
        return timer

    def soon(self, action: Callable[[], object]) -> None:
        """Call it in this turn or a later one: all of these share a bounded part of each turn, in
        the order in which they came. So whoever has much to do comes back for each part of it.
        """
        self._work.append(action)

    def on_signals(self, numbers: tuple[int, ...], action: Callable[[int], None]) -> None:
        fd = linux.open_signals(numbers)

        def read(_events: int) -> None:
            for info in linux.read_signals(fd):
                action(info.number)

        self.watch(fd, READ, read)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        self._running = True
        while self._running:
            self.turn(self._patience())

    def _patience(self) -> Optional[float]:
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        if self._work or self._ready:
            return 0.0
        if not self._timers:
            return None
        return max(0.0, self._timers[0].due_s - self.clock())

    def turn(self, timeout_s: Optional[float]) -> None:
        """Wait for events and timers once, and act on them."""
        ready = self._ready or self._selector.select(timeout_s)
        started = self.clock()
        if self.meter is not None:
            self.meter.begin()
        self._ready = ready[MOST_A_TURN:]
        for key, events in ready[:MOST_A_TURN]:
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:  # else closed by an earlier one
                self._act(key, events)
        fired = 0
        while self._timers and self._timers[0].due_s <= started and fired < MOST_A_TURN:
            timer = heapq.heappop(self._timers)
            if timer.action is not None:
                fired += 1
                self._fire(timer.action)
        self._work_on()
        log.flush()
        lasted = self.clock() - started
        self.longest_turn_s = max(self.longest_turn_s, lasted)
        if self.meter is not None:
            self.meter.end()
        elif lasted > SLOW_TURN_S:
            log.debug(f"a turn of the loop took {lasted * 1000:.0f} ms")

    def _work_on(self) -> None:
        until_s = self.clock() + WORK_S
        for _ in range(len(self._work)):  # what is added meanwhile is for the next turn
            self._fire(self._work.popleft())
            if self.clock() >= until_s:
                return

    def _act(self, key: selectors.SelectorKey, events: int) -> None:
        try:
            self._time(key.data, events)
        except Exception:
            report_bug("dropping one descriptor")
            self.unwatch(key.fd)  # else it would be ready, and fail, for ever

    def _fire(self, action: Callable[[], object]) -> None:
        try:
            self._time(action)
        except Exception:
            report_bug("in a timer")

    def _time(self, action: Callable[..., object], *arguments: int) -> None:
        started = self.clock()
        action(*arguments)
        if self.meter is not None:
            self.meter.did(action, self.clock() - started)


def report_bug(where: str) -> None:
    log.bug(where)
