# SPDX-License-Identifier: Apache-2.0
"""A decision: along the queue, in its order, and whoever fits is served. Pure.

Only those are looked at who may have luck: new ones, and those who fit where there is new room.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from heapq import heappop, heappush
from typing import Optional

from bitfusion.server.capacity import Host, Key
from bitfusion.server.fences import Fences, News
from bitfusion.server.fleet import Fleet
from bitfusion.server.pool import Slice
from bitfusion.server.waiting import Lane, Queue, Waiter

FEW = 16  # servers with new room: for more, the whole queue is looked at

Candidates = list[tuple[Key, int, Waiter, Optional[Lane], Optional[Host]]]
Serve = Callable[[Waiter, Host, tuple[Slice, ...]], None]
START: Key = (float("-inf"), 0.0, "")


class Walk:
    def __init__(
        self, queue: Queue, fleet: Fleet, fences: Fences, news: News, servers_per_fence: int
    ) -> None:
        self._queue = queue
        self._fleet = fleet
        self._fences = fences
        self._news = news
        self._servers_per_fence = servers_per_fence

    def steps(self, serve: Serve) -> Iterator[object]:
        """A step is a look at an ask. Between two, nothing but the walk may change anything."""
        served = [0]

        def attempt(waiter: Waiter) -> bool:
            ask = waiter.ask
            found = self._fleet.best(waiter.selector, ask.gpus, waiter.need_now)
            found = found or self._fences.best(waiter)
            if found is not None:
                served[0] += 1
                serve(waiter, *found)
            return found is not None

        while True:
            before = self._news.shaken, served[0]
            after = yield from self._serve_first(attempt)
            yield from self._serve_others(attempt, after)
            if self._news.shaken == before[0] or served[0] == before[1]:
                break  # nobody who was passed over can have luck now
        self._news.clear()

    def _serve_first(self, attempt: Callable[[Waiter], bool]) -> Generator[object, None, Key]:
        """Those who may keep a server; returns the place of the last of them."""
        order = self._queue.order
        count = max(1, self._fleet.totals.hosts // self._servers_per_fence)
        if len(order) > count:
            last = order.keys[count]
            for waiter in [w for w in self._fences.owners.values() if w.key >= last]:
                self._fences.lift(waiter)
        blocked, after = 0, START
        while blocked < count:
            yield None
            at = bisect_right(order.keys, after)
            if at == len(order):
                break
            waiter = order.waiters[at]
            after = waiter.key
            if self._may_fit(waiter) and attempt(waiter):
                continue
            blocked += 1
            if waiter.host is None:
                self._fences.keep(waiter)
        return after

    def _may_fit(self, waiter: Waiter) -> bool:
        gained = self._news.gained
        if waiter.ask.id in self._news.fresh or len(gained) > FEW:
            return True
        return any(
            waiter.selector.includes(host) and waiter.fits(host) for host in gained.values()
        )

    def _serve_others(self, attempt: Callable[[Waiter], bool], after: Key) -> Iterator[object]:
        """Those behind, of whom only new ones and those who fit where there is new room may have
        luck.
        """
        gained = self._news.gained
        if len(gained) > FEW:
            order = self._queue.order
            start = bisect_right(order.keys, after)
            for key, waiter in zip(order.keys[start:], order.waiters[start:]):
                yield None
                if waiter.queued and waiter.key == key:
                    attempt(waiter)
            return
        heap: Candidates = []
        numbers = itertools.count()
        for waiter in self._news.fresh.values():
            if waiter.key > after:
                heappush(heap, (waiter.key, next(numbers), waiter, None, None))
        for host in gained.values():
            self._look_for(heap, numbers, after, host)
        while heap:
            yield None
            key, _, waiter, lane, host_gained = heappop(heap)
            shaken = self._news.shaken
            fits = host_gained is None or waiter.fits(host_gained)
            if waiter.queued and waiter.key == key and fits:
                attempt(waiter)
            if self._news.shaken != shaken:
                for host in gained.values():
                    self._look_for(heap, numbers, key, host)
            elif lane is not None and host_gained is not None:
                room = waiter.selector.room(host_gained, waiter.ask.gpus)
                found = lane.first(key, room, host_gained)
                if found is not None:
                    heappush(heap, (found.key, next(numbers), found, lane, host_gained))

    def _look_for(self, heap: Candidates, numbers: Iterator[int], after: Key, host: Host) -> None:
        """Add the first of each lane that fits on this server."""
        for selector in (*host.selectors, *(host.group.selectors if host.group else ())):
            for count, lane in self._queue.lanes.get(selector, {}).items():
                found = lane.first(after, selector.room(host, count), host)
                if found is not None:
                    heappush(heap, (found.key, next(numbers), found, lane, host))
