# SPDX-License-Identifier: Apache-2.0
"""Servers that are kept for the first of those who wait, so that nobody who asks for much starves.
Pure.
"""

from __future__ import annotations

from typing import Optional

from bitfusion.server.capacity import Fence, Host, Rank, place
from bitfusion.server.fleet import Fleet, wanted
from bitfusion.server.pool import Slice
from bitfusion.server.waiting import Waiter


class News:
    """What the next decision has to look at."""

    def __init__(self) -> None:
        self.gained: dict[str, Host] = {}  # servers where there may be room that was not
        self.fresh: dict[str, Waiter] = {}  # asks in the queue that were not tried yet
        self.shaken = 0  # counts what may give luck to somebody whose turn has passed

    def clear(self) -> None:
        self.gained.clear()
        self.fresh.clear()


class Fences:
    def __init__(self, fleet: Fleet, news: News) -> None:
        self._fleet = fleet
        self._news = news
        self.owners: dict[str, Waiter] = {}  # those for whom a server is kept
        self._changes = 0  # what may let somebody keep one

    def changed(self) -> None:
        """Servers, limits or fences did: who found none to keep may find one."""
        self._changes += 1

    def keep(self, waiter: Waiter) -> None:
        """The server that lacks the least, if there is one."""
        if waiter.tried == self._changes:
            return
        count, selector = waiter.ask.gpus, waiter.selector
        host = self._fleet.emptiest(selector, count, waiter.need_ever)
        if host is None:
            waiter.tried = self._changes
            return
        needs = wanted(host, selector.gpus(host), count, waiter.need_ever)
        host.fence = Fence(waiter.key, needs, frozenset(host.sessions))
        waiter.host = host
        self.owners[waiter.ask.id] = waiter
        self._fleet.changed(host)

    def lift(self, waiter: Waiter) -> None:
        """No server is kept for it any more."""
        host, waiter.host = waiter.host, None
        if host is not None:
            del self.owners[waiter.ask.id]
            host.fence = None
            self._fleet.changed(host)
            self.changed()
            self._news.gained[host.id] = host
            self._news.shaken += 1

    def best(self, waiter: Waiter) -> Optional[tuple[Host, tuple[Slice, ...]]]:
        """The best place on servers that are kept for it, or for those who come later."""
        best: Optional[tuple[Rank, tuple[Slice, ...]]] = None
        for owner in self.owners.values():
            host = owner.host
            if host is None or owner.key < waiter.key or not waiter.selector.includes(host):
                continue
            gpus, count = waiter.selector.gpus(host), waiter.ask.gpus
            found = place(host, host.free, gpus, count, waiter.need_now, self._fleet.spread)
            if found is not None and (best is None or found < best):
                best = found
        return (self._fleet.hosts[best[0][-1]], best[1]) if best else None
