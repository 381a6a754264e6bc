# SPDX-License-Identifier: Apache-2.0
"""Who gets which GPUs of which server, and who is next. Pure: no sockets, files or clocks.

The order of the queue is start-time fair queueing over clients: an ask starts, in virtual time,
when its client's ask before it ends, or now, and ends its cost later; those that start first come
first. So under load each client gets the same, however much it asks for. `decide` serves in this
order whatever fits. So that nobody who asks for much starves, the first ones that do not fit have
a server kept for them, one each: those behind get no memory there that they will need.

An ask of a client that holds, or is next to get, as much as its limits allow is held back, and
with it those that this client made later; nobody else waits for that. One that only servers which
are away could meet is set aside until they return.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, Optional

from bitfusion.server import reasons
from bitfusion.server.caller import Limits
from bitfusion.server.capacity import Host, Key
from bitfusion.server.fences import Fences
from bitfusion.server.fleet import Fleet, Selector
from bitfusion.server.forecast import Forecast
from bitfusion.server.pool import Slice
from bitfusion.server.views import Ask, Grant, Place, ServerView, TooMuch
from bitfusion.server.waiting import Client, Lane, Queue, Waiter

SERVERS_PER_FENCE = 16  # of so many servers, one may be kept for somebody who waits
FEW = 16  # servers with new room: for more, the whole queue is looked at

Candidates = list[tuple[Key, int, Waiter, Optional[Lane], Optional[Host]]]
UNLIMITED = Limits()
START: Key = (float("-inf"), 0.0, "")


class Held(NamedTuple):
    client: str
    server: str
    slices: tuple[Slice, ...]
    since_s: float
    weight: float  # in GPUs
    waiter: Optional[Waiter] = None  # which undo puts back


class Scheduler:
    def __init__(self, spread: bool = False, servers_per_fence: int = SERVERS_PER_FENCE) -> None:
        self._servers_per_fence = servers_per_fence
        self._fleet = Fleet(spread)
        self._limits: dict[str, Limits] = {}
        self._clients: dict[str, Client] = {}
        self._held: dict[str, Held] = {}
        self._waiters: dict[str, Waiter] = {}
        self._queue = Queue()
        self._aside: dict[str, Waiter] = {}  # no server is up that could meet them
        self._fences = Fences(self._fleet)
        self._gained: dict[str, Host] = {}  # servers where there may be room that was not
        self._fresh: dict[str, Waiter] = {}  # asks in the queue that were not tried yet
        self._lost: set[Selector] = set()  # whose servers became fewer
        self._shaken = 0  # counts what may give luck to somebody whose turn has passed
        self._in_use = 0.0  # GPUs
        self._forecast = Forecast()

    # ---- facts

    def set_server(self, view: ServerView) -> None:
        known = self._fleet.hosts.get(view.id)
        if known is not None:
            if known.present and known.view == view:
                return
            self._changing(known)
        host = self._fleet.put(view)
        self._fences.changed()
        self._gained[host.id] = host
        self._return([w for w in self._aside.values() if w.selector.includes(host)])

    def remove_server(self, server: str, forget: bool = False) -> None:
        """It is away: its sessions count on. Forgotten, nobody waits for its return."""
        host = self._fleet.hosts.get(server)
        if host is not None:
            self._changing(host)
            self._fleet.remove(host, forget)
            self._gained.pop(server, None)

    def _changing(self, host: Host) -> None:
        """It will not be as it was: those who count on it are to be looked at again."""
        for waiter in [w for w in self._fences.owners.values() if w.host is host]:
            self._unfence(waiter)
        self._lost.update(selector for selector in self._queue.lanes if selector.includes(host))
        self._fences.changed()

    def set_limits(self, client: str, limits: Limits) -> None:
        if self._limits.get(client, UNLIMITED) != limits:
            self._limits[client] = limits
            known = self._client(client)
            self._settle(known)
            self._fences.changed()
            self._fresh.update((waiter.ask.id, waiter) for waiter in known.ready.waiters)
            self._lost.update(waiter.selector for waiter in known.ready.waiters)
            self._return([w for w in self._aside.values() if w.client is known])
            self._forget(known)

    def hold(
        self, session: str, client: str, server: str, slices: Sequence[Slice], now_s: float
    ) -> None:
        """A session has these slices since then, whoever gave them. Of one that still waits here
        it is the end of its waiting.
        """
        known = self._held.get(session)
        if known is not None:
            if (known.client, known.server, known.slices) == (client, server, tuple(slices)):
                self._held[session] = known._replace(since_s=now_s)
                return
            self._give_back(session)
        waiter = self._waiters.get(session)
        if waiter is not None:
            self._serve(waiter)
        self._take(session, self._as_held(client, server, tuple(slices), now_s, waiter))

    def _as_held(
        self,
        client: str,
        server: str,
        slices: tuple[Slice, ...],
        now_s: float,
        waiter: Optional[Waiter],
    ) -> Held:
        host = self._fleet.hosts.get(server)
        sizes = host.memory if host else {}
        weight = sum(part.memory / sizes.get(part.gpu, part.memory or 1) for part in slices)
        return Held(client, server, slices, now_s, weight, waiter)

    def release(self, session: str, now_s: float) -> None:
        held = self._give_back(session)
        if held is not None:
            self._forecast.add(now_s - held.since_s, held.weight)

    def _take(self, session: str, held: Held) -> None:
        client = self._client(held.client)
        self._held[session] = held
        self._in_use += held.weight
        client.gpus += len(held.slices)
        client.memory += sum(part.memory for part in held.slices)
        self._fleet.take(held.server, session, held.slices)
        self._settle(client)

    def _give_back(self, session: str) -> Optional[Held]:
        held = self._held.pop(session, None)
        if held is None:
            return None
        client = self._client(held.client)
        self._in_use -= held.weight
        client.gpus -= len(held.slices)
        client.memory -= sum(part.memory for part in held.slices)
        host = self._fleet.give_back(held.server, session)
        if host is not None:
            self._gained[host.id] = host
        self._settle(client)
        if client.memory_limit is not None:
            self._fresh.update((waiter.ask.id, waiter) for waiter in client.ready.waiters)
        self._forget(client)
        return held

    # ---- the queue

    def submit(self, ask: Ask) -> None:
        if ask.id in self._waiters or ask.id in self._held:
            return
        client, limits = self._client(ask.client), self._limits.get(ask.client, UNLIMITED)
        selector = self._fleet.selector(ask.filters, ask.servers)
        waiter = Waiter(ask, client, selector, self._fleet.totals.largest)
        why = reasons.too_much(self._fleet, waiter, limits)
        if why:
            self._forget(client)
            raise TooMuch(why)
        self._wait(waiter)
        self._hold_back(waiter)
        self._settle(client)

    def _wait(self, waiter: Waiter) -> None:
        self._waiters[waiter.ask.id] = waiter
        waiter.selector.users += 1
        waiter.client.waiting += 1

    def cancel(self, ask_id: str) -> None:
        waiter = self._waiters.get(ask_id)
        if waiter is not None:
            client = waiter.client
            self._drop(waiter)
            self._settle(client)
            self._forget(client)

    def _drop(self, waiter: Waiter) -> None:
        del self._waiters[waiter.ask.id]
        waiter.selector.users -= 1
        waiter.client.waiting -= 1
        if waiter.queued:
            self._leave(waiter)
        elif self._aside.pop(waiter.ask.id, None) is None:
            waiter.client.back.remove(waiter)

    def _possible(self, waiter: Waiter) -> bool:
        """With the servers that are up."""
        return self._fleet.possible(waiter.selector, waiter.ask.gpus, waiter.need_ever, live=True)

    def _client(self, name: str) -> Client:
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = Client(name)
        return client

    def _forget(self, client: Client) -> None:
        """One who has nothing, waits for nothing and is owed nothing is as good as new."""
        if not client.waiting and not client.gpus and client.served <= self._queue.virtual:
            self._clients.pop(client.name, None)

    def _hold_back(self, waiter: Waiter) -> None:
        turns = [other.turn for other in waiter.client.back]
        waiter.client.back.insert(bisect_left(turns, waiter.turn), waiter)

    def _settle(self, client: Client) -> None:
        """Let as many of its asks into the queue as its limits allow, the oldest first."""
        limits = self._limits.get(client.name, UNLIMITED)
        client.memory_limit = limits.memory or None
        gpus = memory = 1 << 62
        if limits.gpus:
            gpus = limits.gpus - client.gpus - sum(w.ask.gpus for w in client.ready.waiters)
        if limits.memory:
            least = sum(self._least(waiter) for waiter in client.ready.waiters)
            memory = limits.memory - client.memory - least
        while client.ready and (gpus < 0 or memory < 0):
            last = client.ready.waiters[-1]
            gpus += last.ask.gpus
            memory += self._least(last) if limits.memory else 0
            self._leave(last)
            self._hold_back(last)
            self._shaken += 1
        while client.back:
            waiter = client.back[0]
            least = self._least(waiter) if limits.memory else 0
            if waiter.ask.gpus > gpus or least > memory:
                break
            client.back.pop(0)
            if self._possible(waiter):
                gpus, memory = gpus - waiter.ask.gpus, memory - least
                self._queue.schedule(waiter)
                self._enter(waiter)
                self._shaken += 1
            else:
                self._aside[waiter.ask.id] = waiter

    def _least(self, waiter: Waiter) -> int:
        version, least = waiter.least
        if version != self._fleet.version:
            least = reasons.least_memory(self._fleet, waiter)
            waiter.least = self._fleet.version, least
        return least

    def _enter(self, waiter: Waiter) -> None:
        self._queue.enter(waiter)
        self._fresh[waiter.ask.id] = waiter

    def _leave(self, waiter: Waiter) -> None:
        self._queue.leave(waiter)
        self._fresh.pop(waiter.ask.id, None)
        self._unfence(waiter)

    # ---- decisions

    def decide(self, now_s: float) -> list[Grant]:
        """Grants, in the order of the queue; they are in force at once."""
        grants: list[Grant] = []
        self._set_aside()
        while True:
            shaken, given = self._shaken, len(grants)
            after = self._serve_first(grants, now_s)
            self._serve_others(grants, after, now_s)
            if self._shaken == shaken or len(grants) == given:
                break  # nobody who was passed over can have luck now
        self._gained.clear()
        self._fresh.clear()
        return grants

    def undo(self, grant: Grant) -> None:
        """It could not be carried out: the ask has its place in the queue again."""
        held = self._held.get(grant.ask.id)
        waiter = held.waiter if held else None
        if waiter is None:
            return
        self._queue.refund(waiter)
        waiter.selector = self._fleet.selector(waiter.ask.filters, waiter.ask.servers)
        self._wait(waiter)
        if self._possible(waiter):
            self._enter(waiter)
        else:
            self._aside[grant.ask.id] = waiter
        self._give_back(grant.ask.id)

    def _set_aside(self) -> None:
        """Those whom no server that is up could serve."""
        gone = []
        for selector in self._lost:
            for lane in self._queue.lanes.get(selector, {}).values():
                gone += [w for w in lane.waiters() if not self._possible(w)]
        self._lost.clear()
        gone.sort(key=lambda waiter: waiter.key)
        for waiter in gone:
            self._leave(waiter)
            self._aside[waiter.ask.id] = waiter
        for waiter in gone:
            self._settle(waiter.client)

    def _return(self, waiters: list[Waiter]) -> None:
        """The opposite: they get new places, as if they came now."""
        for waiter in sorted(waiters, key=lambda waiter: waiter.turn):
            if self._possible(waiter):
                del self._aside[waiter.ask.id]
                self._hold_back(waiter)
                self._settle(waiter.client)

    def _serve_first(self, grants: list[Grant], now_s: float) -> Key:
        """Those who may keep a server; returns the place of the last of them."""
        order = self._queue.order
        count = max(1, self._fleet.totals.hosts // self._servers_per_fence)
        if len(order) > count:
            for waiter in [w for w in self._fences.owners.values() if w.key >= order.keys[count]]:
                self._unfence(waiter)
        blocked, after = 0, START
        while blocked < count:
            at = bisect_right(order.keys, after)
            if at == len(order):
                break
            waiter = order.waiters[at]
            after = waiter.key
            if self._may_fit(waiter) and self._grant(waiter, grants, now_s):
                continue
            blocked += 1
            if waiter.host is None:
                self._fences.keep(waiter)
        return after

    def _may_fit(self, waiter: Waiter) -> bool:
        if waiter.ask.id in self._fresh or len(self._gained) > FEW:
            return True
        return any(
            waiter.selector.includes(host) and waiter.fits(host) for host in self._gained.values()
        )

    def _serve_others(self, grants: list[Grant], after: Key, now_s: float) -> None:
        """Those behind, of whom only new ones and those who fit where there is new room may have
        luck.
        """
        if len(self._gained) > FEW:
            start = bisect_right(self._queue.order.keys, after)
            for waiter in self._queue.order.waiters[start:]:
                if waiter.queued:
                    self._grant(waiter, grants, now_s)
            return
        heap: Candidates = []
        numbers = itertools.count()
        for waiter in self._fresh.values():
            if waiter.key > after:
                heappush(heap, (waiter.key, next(numbers), waiter, None, None))
        for host in self._gained.values():
            self._look_for(heap, numbers, after, host)
        while heap:
            key, _, waiter, lane, gained = heappop(heap)
            shaken = self._shaken
            if waiter.queued and waiter.key == key and (gained is None or waiter.fits(gained)):
                self._grant(waiter, grants, now_s)
            if self._shaken != shaken:
                for host in self._gained.values():
                    self._look_for(heap, numbers, key, host)
            elif lane is not None and gained is not None:
                room = waiter.selector.room(gained, waiter.ask.gpus)
                found = lane.first(key, room, gained)
                if found is not None:
                    heappush(heap, (found.key, next(numbers), found, lane, gained))

    def _look_for(self, heap: Candidates, numbers: Iterator[int], after: Key, host: Host) -> None:
        """Add the first of each lane that fits on this server."""
        for selector in (*host.selectors, *(host.group.selectors if host.group else ())):
            for count, lane in self._queue.lanes.get(selector, {}).items():
                found = lane.first(after, selector.room(host, count), host)
                if found is not None:
                    heappush(heap, (found.key, next(numbers), found, lane, host))

    def _grant(self, waiter: Waiter, grants: list[Grant], now_s: float) -> bool:
        ask = waiter.ask
        found = self._fleet.best(waiter.selector, ask.gpus, waiter.need_now)
        found = found or self._fences.best(waiter)
        if found is None:
            return False
        host, slices = found
        self._serve(waiter)
        self._take(ask.id, self._as_held(ask.client, host.id, slices, now_s, waiter))
        grants.append(Grant(ask, host.id, slices))
        return True

    def _serve(self, waiter: Waiter) -> None:
        """It waits no more."""
        if waiter.queued:
            self._queue.charge(waiter)
        self._drop(waiter)

    def _unfence(self, waiter: Waiter) -> None:
        host = self._fences.lift(waiter)
        if host is not None:
            self._gained[host.id] = host
            self._shaken += 1

    # ---- telling those who wait

    def place(self, ask_id: str, now_s: float) -> Place:
        """KeyError for an ask that does not wait."""
        waiter = self._waiters[ask_id]
        of, position = len(self._waiters), self._queue.position(waiter)
        estimate = self._estimate(waiter, now_s) if waiter.queued else None
        return Place(min(position, of), of, estimate)

    def _estimate(self, waiter: Waiter, now_s: float) -> Optional[float]:
        ahead, waiting = self._queue.work(waiter)
        gpus = self._fleet.gpus_of(waiter.selector) / max(1, self._fleet.totals.gpus)
        estimate = self._forecast.work(waiter.cost + ahead * waiting, self._in_use * gpus)
        if waiter.host is None or estimate is None:
            return estimate
        assert waiter.host.fence
        holders = []
        for session, slices in waiter.host.sessions.items():
            held = self._held[session]
            limit_s = self._limits.get(held.client, UNLIMITED).time_s
            holders.append((now_s - held.since_s, limit_s, slices))
        empty = self._forecast.room(waiter.host.free, waiter.host.fence.needs, holders)
        return None if empty is None else max(estimate, empty) if ahead else empty
