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

A decision may be made in several calls. What is heard meanwhile waits for its end; where servers
change, it is begun anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Optional

from bitfusion.server import reasons
from bitfusion.server.caller import Limits
from bitfusion.server.capacity import Host
from bitfusion.server.fences import Fences, News
from bitfusion.server.fleet import Fleet, Selector
from bitfusion.server.forecast import Forecast
from bitfusion.server.holdings import Held, Holdings
from bitfusion.server.pool import Slice
from bitfusion.server.views import Ask, Grant, Place, ServerView, TooMuch
from bitfusion.server.waiting import Client, Queue, Waiter
from bitfusion.server.walk import Walk

SERVERS_PER_FENCE = 16  # of so many servers, one may be kept for somebody who waits
UNLIMITED = Limits()


class Scheduler:
    def __init__(self, spread: bool = False, servers_per_fence: int = SERVERS_PER_FENCE) -> None:
        self._fleet = Fleet(spread)
        self._limits: dict[str, Limits] = {}
        self._clients: dict[str, Client] = {}
        self._holdings = Holdings()
        self._held = self._holdings.by_session
        self._waiters: dict[str, Waiter] = {}
        self._queue = Queue()
        self._aside: dict[str, Waiter] = {}  # no server is up that could meet them
        self._news = News()
        self._fences = Fences(self._fleet, self._news)
        self._walk = Walk(self._queue, self._fleet, self._fences, self._news, servers_per_fence)
        self._lost: set[Selector] = set()  # whose servers became fewer
        self.deciding: Optional[Iterator[object]] = None  # a decision that is not over
        self._grants: list[Grant] = []  # of the decision that is being made
        self._heard: list[Callable[[], None]] = []  # meanwhile
        self._forecast = Forecast()

    # ---- facts

    def set_server(self, view: ServerView) -> None:
        self.interrupt()
        known = self._fleet.hosts.get(view.id)
        if known is not None:
            if known.present and known.view == view:
                return
            self._changing(known)
        host = self._fleet.put(view)
        self._fences.changed()
        self._news.gained[host.id] = host
        self._return([w for w in self._aside.values() if w.selector.includes(host)])

    def remove_server(self, server: str, forget: bool = False) -> None:
        """It is away: its sessions count on. Forgotten, nobody waits for its return."""
        self.interrupt()
        host = self._fleet.hosts.get(server)
        if host is not None:
            self._changing(host)
            self._fleet.remove(host, forget)
            self._news.gained.pop(server, None)

    def _changing(self, host: Host) -> None:
        """It will not be as it was: those who count on it are to be looked at again."""
        for waiter in [w for w in self._fences.owners.values() if w.host is host]:
            self._fences.lift(waiter)
        self._lost.update(selector for selector in self._queue.lanes if selector.includes(host))
        self._fences.changed()

    def set_limits(self, client: str, limits: Limits) -> None:
        if self._limits.get(client, UNLIMITED) != limits:
            self._limits[client] = limits
            self._hear(lambda: self._apply_limits(client))

    def _apply_limits(self, client: str) -> None:
        known = self._client(client)
        self._settle(known)
        self._fences.changed()
        self._news.fresh.update((waiter.ask.id, waiter) for waiter in known.ready.waiters)
        self._lost.update(waiter.selector for waiter in known.ready.waiters)
        self._return([w for w in self._aside.values() if w.client is known])
        self._forget(known)

    def hold(
        self, session: str, client: str, server: str, slices: Sequence[Slice], now_s: float
    ) -> None:
        """A session has these slices since then, whoever gave them. Of one that still waits here
        it is the end of its waiting.
        """
        self._hear(lambda: self._hold(session, client, server, tuple(slices), now_s))

    def _hold(
        self, session: str, client: str, server: str, slices: tuple[Slice, ...], now_s: float
    ) -> None:
        known = self._held.get(session)
        if known is not None:
            if (known.client, known.server, known.slices) == (client, server, slices):
                self._holdings.remove(session)
                self._holdings.add(session, known._replace(since_s=now_s))
                return
            self._give_back(session)
        waiter = self._waiters.get(session)
        if waiter is not None:
            self._serve(waiter)
        self._take(session, self._as_held(client, server, slices, now_s, waiter))

    def _as_held(
        self,
        client: str,
        server: str,
        slices: tuple[Slice, ...],
        now_s: float,
        waiter: Optional[Waiter],
    ) -> Held:
        sizes = self._fleet.sizes(server)
        weight = sum(part.memory / sizes.get(part.gpu, part.memory or 1) for part in slices)
        return Held(client, server, slices, now_s, weight, waiter)

    def release(self, session: str, now_s: float) -> None:
        self._hear(lambda: self._release(session, now_s))

    def _release(self, session: str, now_s: float) -> None:
        held = self._give_back(session)
        if held is not None:
            self._forecast.add(now_s - held.since_s, held.weight)

    def _take(self, session: str, held: Held) -> None:
        client = self._client(held.client)
        self._holdings.add(session, held)
        client.gpus += len(held.slices)
        client.memory += sum(part.memory for part in held.slices)
        self._fleet.take(held.server, session, held.slices)
        self._settle(client)

    def _give_back(self, session: str) -> Optional[Held]:
        held = self._holdings.remove(session)
        if held is None:
            return None
        client = self._client(held.client)
        client.gpus -= len(held.slices)
        client.memory -= sum(part.memory for part in held.slices)
        host = self._fleet.give_back(held.server, session)
        if host is not None:
            self._news.gained[host.id] = host
        self._settle(client)
        if client.memory_limit is not None:
            self._news.fresh.update((waiter.ask.id, waiter) for waiter in client.ready.waiters)
        self._forget(client)
        return held

    # ---- the queue

    def check(self, ask: Ask) -> None:
        """Raises TooMuch where waiting would not help."""
        client, limits = self._client(ask.client), self._limits.get(ask.client, UNLIMITED)
        why = reasons.too_much(self._fleet, self._waiter(ask, client), limits)
        self._forget(client)
        if why:
            raise TooMuch(why)

    def _waiter(self, ask: Ask, client: Client) -> Waiter:
        selector = self._fleet.selector(ask.filters, ask.servers)
        return Waiter(ask, client, selector, self._fleet.totals.largest)

    def submit(self, ask: Ask) -> None:
        """Raises TooMuch."""
        known = ask.id in self._waiters or ask.id in self._held
        if not known or self.deciding is not None:  # one that is known may be about to leave
            self.check(ask)
            self._hear(lambda: self._submit(ask))

    def _submit(self, ask: Ask) -> None:
        if ask.id not in self._waiters and ask.id not in self._held:
            client = self._client(ask.client)
            waiter = self._waiter(ask, client)
            self._wait(waiter)
            self._hold_back(waiter)
            self._settle(client)

    def _wait(self, waiter: Waiter) -> None:
        self._waiters[waiter.ask.id] = waiter
        waiter.selector.users += 1
        waiter.client.waiting += 1

    def cancel(self, ask_id: str) -> None:
        self._hear(lambda: self._cancel(ask_id))

    def _cancel(self, ask_id: str) -> None:
        waiter = self._waiters.get(ask_id)
        if waiter is not None:
            client = waiter.client
            if waiter.queued:
                self._queue.remember(waiter)
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
        if name not in self._clients:
            self._clients[name] = Client(name)
        return self._clients[name]

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
            self._news.shaken += 1
        while client.back:
            waiter = client.back[0]
            least = self._least(waiter) if limits.memory else 0
            if waiter.ask.gpus > gpus or least > memory:
                break
            client.back.pop(0)
            if self._possible(waiter):
                gpus, memory = gpus - waiter.ask.gpus, memory - least
                moved = self._queue.schedule(waiter)
                for later, _ in moved:
                    self._leave(later)
                self._enter(waiter)
                for later, later.key in moved:
                    self._enter(later)
                self._news.shaken += 1
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
        self._news.fresh[waiter.ask.id] = waiter

    def _leave(self, waiter: Waiter) -> None:
        self._queue.leave(waiter)
        self._news.fresh.pop(waiter.ask.id, None)
        self._fences.lift(waiter)

    # ---- decisions

    def decide(self, now_s: float, most: Optional[int] = None) -> list[Grant]:
        """Grants, in the order of the queue; they are in force at once. With `most`, after so many
        looks at an ask it is to be called again, as long as `deciding` says so.
        """
        if self.deciding is None:
            self.deciding = self._decide(now_s)
        looks = sum(1 for _ in islice(self.deciding, most))
        grants, self._grants = self._grants, []
        if most is None or looks < most:
            self.interrupt()
        return grants

    def interrupt(self) -> None:
        """Make no more of the decision that is being made: it is over, or to begin anew."""
        self.deciding = None
        heard, self._heard = self._heard, []
        for change in heard:
            change()

    def _hear(self, change: Callable[[], None]) -> None:
        if self.deciding is None:
            change()
        else:
            self._heard.append(change)

    def _decide(self, now_s: float) -> Iterator[object]:
        """A look at each ask."""
        yield from self._set_aside()

        def grant(waiter: Waiter, host: Host, slices: tuple[Slice, ...]) -> None:
            ask = waiter.ask
            self._serve(waiter)
            self._take(ask.id, self._as_held(ask.client, host.id, slices, now_s, waiter))
            self._grants.append(Grant(ask, host.id, slices))

        yield from self._walk.steps(grant)

    def _serve(self, waiter: Waiter) -> None:
        """It waits no more."""
        if waiter.queued:
            self._queue.charge(waiter)
        self._drop(waiter)

    def undo(self, grant: Grant) -> None:
        """It could not be carried out: the ask has its place in the queue again."""
        self._hear(lambda: self._undo(grant))

    def _undo(self, grant: Grant) -> None:
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

    def _set_aside(self) -> Iterator[object]:
        """Those whom no server that is up could serve."""
        gone = []
        for selector in self._lost:
            for lane in self._queue.lanes.get(selector, {}).values():
                for waiter in lane.waiters():
                    yield None
                    if not self._possible(waiter):
                        gone.append(waiter)
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

    # ---- telling those who wait

    def place(self, ask_id: str, now_s: float) -> Place:
        """KeyError for an ask that does not wait."""
        waiter, of = self._waiters[ask_id], len(self._waiters)
        estimate = self._estimate(waiter, now_s) if waiter.queued else None
        away = "" if waiter.queued else reasons.LIMIT
        if ask_id in self._aside:
            away = reasons.away(waiter)
        return Place(min(self._queue.position(waiter), of), of, estimate, away)

    def _estimate(self, waiter: Waiter, now_s: float) -> Optional[float]:
        ahead, waiting = self._queue.work(waiter)
        gpus = self._fleet.gpus_of(waiter.selector) / max(1, self._fleet.totals.gpus)
        work, in_use = waiter.cost + ahead * waiting, self._holdings.in_use * gpus
        estimate = self._forecast.work(work, in_use, self._holdings.age(now_s))
        if waiter.host is None or estimate is None:
            return estimate
        assert waiter.host.fence
        holders = []
        for session, slices in waiter.host.sessions.items():
            held = self._held[session]
            limits = self._limits.get(held.client, UNLIMITED)
            holders.append((now_s - held.since_s, limits.time_s, slices))
        empty = self._forecast.room(waiter.host.free, waiter.host.fence.needs, holders)
        return None if empty is None else max(estimate, empty) if ahead else empty
