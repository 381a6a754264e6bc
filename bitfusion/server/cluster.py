# SPDX-License-Identifier: Apache-2.0
"""This server as a member of its cluster, of which it may be the only one: registered in the
store, taking clients' asks, serving claims to its GPUs, and leading when it is its turn.

Losing the store ends nothing. What runs goes on, what waits waits, new asks are refused with
StoreLost; when the store is back, each member writes again what should be there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Optional, TypeVar

from bitfusion import log
from bitfusion.server.asks import CANCELLED, Asks, Waiting, ask_of
from bitfusion.server.caller import Limits, Refusal
from bitfusion.server.desk import Desk
from bitfusion.server.facts import Facts
from bitfusion.server.leader import Leader
from bitfusion.server.loop import Timers
from bitfusion.server.membership import Membership
from bitfusion.server.owner import Host, Owner
from bitfusion.server.records import (
    CLAIMS,
    DRAINED,
    GRANTED,
    QUEUE,
    SERVERS,
    Claim,
    Entry,
    pack_claim,
    unpack_claim,
    unpack_entry,
    unpack_server,
)
from bitfusion.server.replica import Replica
from bitfusion.server.schedule import Scheduler
from bitfusion.server.seal import Seal, Turn
from bitfusion.server.spent import Spent
from bitfusion.server.store import ANY, Change, Done, Store, StoreLost
from bitfusion.server.views import Ask, Place, ServerView
from bitfusion.wire.control import Json

Thing = TypeVar("Thing")
SWEEP_S = 2.0
LOOKS_A_TURN = 50  # at asks and sessions
FORGET_S = 600.0
UP, IS_DRAINED, DOWN = "up", "drained", "down"


class Member(NamedTuple):
    view: ServerView
    state: str  # UP, IS_DRAINED, DOWN
    version: str


class Queued(NamedTuple):
    entry: Entry
    place: Optional[Place]


class Cluster:
    def __init__(
        self,
        timers: Timers,
        store: Store,
        me: ServerView,
        scheduler: Scheduler,
        host: Host,
        forget_s: float = FORGET_S,
        clock: Callable[[], float] = time.monotonic,
        keys: Optional[str] = None,
    ) -> None:
        """keys: see Membership."""
        self.replica = Replica(store)
        self.facts = Facts(scheduler, clock)
        self._desk = Desk(me.id, os.urandom(8).hex(), self.replica, self.facts, timers, clock)
        self._desk.look = self._look
        self.membership = Membership(self._desk, me, keys)
        self._asks = Asks(self._desk)
        self._owner = Owner(self._desk, host)
        self._leader = Leader(self._desk, forget_s)
        self._forget_s = forget_s
        self.on_state: list[Callable[[bool], None]] = []  # whether all keys are known
        self._seal = Seal(self.replica)
        self._spent = Spent(self._desk)
        self._ends: dict[str, str] = {}  # sessions that are to end, and why
        self._versions: dict[str, str] = {}
        for prefix, heard in (
            (SERVERS, self._hear_server),
            (DRAINED, self._hear_drained),
            (QUEUE, self._hear_entry),
            (CLAIMS, self._hear_claim),
            ("", lambda _key, _value: self._desk.stir()),
        ):
            self.replica.subscribe(prefix, heard)

    # ------------------------------------------ its life

    def adopt(self, claims: Iterable[Claim]) -> None:
        """Before start: sessions that run on this server already."""
        self._owner.adopt(claims)

    def start(self) -> None:
        """Raises StoreUnusable."""
        self.replica.open(self._state)
        self._sweep_later()

    def leave(self) -> None:
        """Before close, with the loop running on until `settled`: take no more claims."""
        self._owner.leaving = True

    def close(self) -> None:
        self._desk.closed = True
        self.replica.store.close()

    @property
    def synced(self) -> bool:
        return self.replica.synced

    @property
    def trouble(self) -> str:
        """Why nobody gets GPUs from here, and what is known may be over; "" where all is well."""
        return self.membership.trouble if self.synced else str(self.lost())

    @property
    def leads(self) -> bool:
        return self.synced and self._leader.leads

    @property
    def settled(self) -> bool:
        """Nothing of what ended here counts any more; or nobody can be told."""
        return not self.synced or self._owner.settled

    def _state(self, synced: bool) -> None:
        for tell in self.on_state:
            tell(synced)
        if synced:
            self._sweep()

    def _sweep_later(self) -> None:
        def sweep() -> None:
            if not self._desk.closed:
                self._sweep()
                self._sweep_later()

        self._desk.timers.after(SWEEP_S, sweep)

    def _sweep(self) -> None:
        """Look at everything that is ours, in case that some change was missed."""
        facts, now_s = self.facts, self._desk.clock()
        if not self.synced:
            for server in facts.gone_since:  # nobody knows who is gone meanwhile
                facts.gone_since[server] = now_s
            return
        ours = {*self._asks.ours(), *self._owner.ours(), *self._spent.ours(), *self._ends}
        self._desk.dirty.update(dict.fromkeys(sorted(ours)))
        self._leader.sweep()
        held = {claim.server for claim in facts.claims.values()}
        for server, since_s in list(facts.gone_since.items()):
            if now_s - since_s > self._forget_s and server not in held:
                facts.forget_server(server)
        self._desk.stir()

    def _look(self) -> None:
        if not self.membership.look():
            return
        for ask_id in list(islice(self._desk.dirty, LOOKS_A_TURN)):
            del self._desk.dirty[ask_id]
            self._asks.look(ask_id)
            self._owner.look(ask_id)
            self._look_at_end(ask_id)
            self._spent.look(ask_id)
        self._leader.look()
        if self._desk.dirty:
            self._desk.stir()

    # ------------------------------------------ what the store says

    def _hear_server(self, key: str, value: Optional[Json]) -> None:
        server = key[len(SERVERS) :]
        drained = self.is_drained(server)
        view = read(key, value, lambda found: unpack_server(server, found, drained))
        if view is not None:
            version = value.get("version") if value else ""
            self._versions[server] = version if isinstance(version, str) else ""
            self.facts.put_server(view)
        else:
            self.facts.drop_server(server)
            self._desk.dirty.update(dict.fromkeys(sorted(self._asks.ours())))
        self._leader.changed = True

    def _hear_drained(self, key: str, _value: Optional[Json]) -> None:
        server = f"{SERVERS}{key[len(DRAINED) :]}"
        if server in self.replica.values:
            self._hear_server(server, self.replica.values[server])

    def _hear_entry(self, key: str, value: Optional[Json]) -> None:
        ask_id = ask_of(key)
        entry = read(key, value, unpack_entry)
        if entry is None or entry.key != key:
            self.facts.drop_entry(ask_id)
        else:
            limits = entry_limits(entry)
            if limits is not None:
                self.facts.scheduler.set_limits(entry.ask.client, limits)
            self.facts.put_entry(entry)
            self._asks.saw(entry)
        self._changed(ask_id)

    def _hear_claim(self, key: str, value: Optional[Json]) -> None:
        session = key[len(CLAIMS) :]
        claim = read(key, value, unpack_claim)
        if claim is None or claim.key != key:
            self.facts.drop_claim(session)
        else:
            self.facts.put_claim(claim)
            self._asks.saw(claim.entry)
        self._changed(session)

    def _changed(self, ask_id: str) -> None:
        self._leader.changed = True
        self._desk.dirty[ask_id] = None

    # ------------------------------------------ what the store should say

    def _look_at_end(self, session: str) -> None:
        why = self._ends.get(session)
        if why is None:
            return
        claim = self.facts.claims.get(session)
        if claim is None or claim.end:
            del self._ends[session]
        else:
            change = Change(
                claim.key, pack_claim(claim._replace(end=why)), self.replica.version(claim.key)
            )
            self._desk.write(f"end {session}", [change], (), session)

    # ------------------------------------------ what others want

    def ask(
        self,
        ask: Ask,
        limits: Limits,
        details: Json,
        on_change: Callable[[Waiting], None],
        turn: Optional[Turn] = None,
    ) -> Waiting:
        """turn: the place that it had. Raises TooMuch where waiting would not help, StoreLost
        where nobody knows.
        """
        if not self.synced or not self.membership.registered:
            raise self.lost()
        if ask.id in self.facts.claims or (turn is None and ask.id in self.facts.queue):
            raise ValueError(f"ask {ask.id} is known already")
        self.facts.scheduler.set_limits(ask.client, limits)
        self.facts.check(ask)
        if turn is not None:
            self._withdraw(turn.ask)
        return self._asks.add(ask, {**details, "limits": list(limits)}, on_change, turn)

    def lost(self) -> Refusal:
        """Where not even the store's answer is waited for."""
        if self.synced and self.membership.trouble:
            return Refusal(503, "no-state", self.membership.trouble)
        return StoreLost(self.replica.store, self.replica.store.failures)

    def waits_of(self, client: str) -> int:
        """How many of its asks are in the queue, at whatever server."""
        return self.facts.waits[client] - self._asks.leaving(client)

    def turn(self, waiting: Waiting) -> str:
        """For its client, which may show it to any server of the cluster."""
        entry = waiting.entry
        turn = Turn(waiting.id, entry.seq, entry.at)
        return self._seal.write(entry.ask.client, turn, time.time())

    def turn_of(self, client: str, words: object) -> Optional[Turn]:
        """What this client was told by a server of the cluster; None where it was not, or the ask
        is over.
        """
        turn = self._seal.read(client, words, time.time())
        return None if turn is None or self._spent.has(turn.ask) else turn

    def spend(self, ask_id: str) -> None:
        """It is over: its client left, or used its session."""
        self._spent.add(ask_id)

    def _withdraw(self, session: str) -> None:
        """What is about to become a session for a client that waits elsewhere now. One that is
        ready may be in use.
        """
        claim = self.facts.claims.get(session)
        if claim is not None and claim.state == GRANTED and not claim.end:
            ended = pack_claim(claim._replace(end=CANCELLED))
            change = Change(claim.key, ended, self.replica.version(claim.key))
            self._desk.write(f"end {session}", [change], (), session)

    def ended(self, session: str) -> None:
        """A session of this server: its GPUs are free again."""
        self._owner.ended(session)

    def end(self, session: str, why: str) -> bool:
        """Any session of the cluster; False where there is none."""
        if session not in self.facts.claims:
            return False
        self._ends[session] = why
        self._desk.stir(session)
        return True

    def drain(self, server: str, done: Done) -> None:
        self.replica.commit([Change(f"{DRAINED}{server}", {}, ANY)], done)

    def undrain(self, server: str, done: Done) -> None:
        self.replica.commit([Change(f"{DRAINED}{server}", None, ANY)], done)

    def is_drained(self, server: str) -> bool:
        return f"{DRAINED}{server}" in self.replica.values

    def set_limits(self, client: str, limits: Limits) -> None:
        """They changed: for those of its asks that wait already."""
        self.facts.scheduler.set_limits(client, limits)
        self._leader.changed = True
        self._desk.stir()

    # ------------------------------------------ what there is

    def servers(self) -> list[Member]:
        members = []
        for server, view in sorted(self.facts.seen.items()):
            up = server in self.facts.servers
            state = (IS_DRAINED if view.drained else UP) if up else DOWN
            members.append(Member(view, state, self._versions.get(server, "")))
        return members

    def claims(self) -> list[Claim]:
        return list(self.facts.claims.values())

    def queue(self) -> Iterator[Queued]:
        """In no order. Each is as it is when it is taken: there may be thousands."""
        for ask_id, entry in list(self.facts.queue.items()):
            try:
                place = self.facts.scheduler.place(ask_id, self._desk.clock())
            except KeyError:
                place = None  # it is being granted, or nothing that is up could meet it
            yield Queued(entry, place)


def entry_limits(entry: Entry) -> Optional[Limits]:
    found = entry.details.get("limits")
    if not isinstance(found, list) or len(found) != len(Limits()):
        return None
    return Limits(*found) if all(isinstance(n, (int, float)) for n in found) else None


def read(key: str, value: Optional[Json], unpack: Callable[[Json], Thing]) -> Optional[Thing]:
    """None for what is gone, and for what a newer or a broken server wrote."""
    try:
        return unpack(value) if value is not None else None
    except (KeyError, ValueError) as error:
        log.once(f"cannot read '{key}' of the cluster's state, ignoring it: {error}")
        return None
