# SPDX-License-Identifier: Apache-2.0
"""The asks of clients that speak to this server: into the queue, and told what becomes of them.

An ask stands either in the queue or under claims, never in both: one transaction takes it from the
one to the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional

from bitfusion.server.desk import Desk
from bitfusion.server.records import (
    GRANTED,
    QUEUE,
    READY,
    REFUSED,
    SERVERS,
    Claim,
    Entry,
    pack_claim,
    pack_entry,
)
from bitfusion.server.seal import Turn
from bitfusion.server.store import ABSENT, Change, Check
from bitfusion.server.views import Ask, Place
from bitfusion.wire.control import Json

CANCELLED = "cancelled"
FIRST_REFUSAL_S, LAST_REFUSAL_S = 0.2, 10.0
MAX_REFUSALS = 10
PLACES_S, PLACES_A_TURN = 0.5, 20

QUEUED, FAILED = "queued", "failed"
MOVED = "moved"  # its client asked somebody else to go on with it


class Waiting:
    """One client's ask. It is told when `state` or `place` changed."""

    def __init__(self, asks: Asks, entry: Entry, on_change: Callable[[Waiting], None]) -> None:
        self.id = entry.ask.id
        self.entry = entry
        self.state = QUEUED  # then "granted", "failed" or "moved"
        self.claim: Optional[Claim] = None  # where it was granted
        self.why = ""  # it failed
        self.trouble = ""  # why the store could not make a change for it
        self.place: Optional[Place] = None
        self.refusals = 0
        self.retry_s = 0.0  # not before
        self.stood = False  # in the queue, as we put it there
        self._asks = asks
        self._on_change = on_change

    def cancel(self) -> None:
        """The client left: whatever it has got meanwhile returns."""
        self._asks.cancel(self.id)

    def tell(self) -> None:
        self._on_change(self)


class Asks:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        desk.failed = self._failed
        self.waiting: dict[str, Waiting] = {}
        self._given_up: set[str] = set()
        # Ours come after those that an earlier run of this server, or nobody any more, knows of.
        self._last_seq = int(time.time() * 1e6)
        self._telling = False

    # ------------------------------------------ what clients do

    def add(
        self,
        ask: Ask,
        details: Json,
        on_change: Callable[[Waiting], None],
        turn: Optional[Turn] = None,
    ) -> Waiting:
        """turn: the place in the queue that it had. Under the same id, it takes the place of the
        entry that may still stand there.
        """
        if turn is None:
            self._last_seq += 1
            turn = Turn(ask.id, self._last_seq, time.time())
        entry = Entry(ask, self.desk.me, details, turn.at, turn.seq)
        waiting = self.waiting[ask.id] = Waiting(self, entry, on_change)
        self._given_up.discard(ask.id)
        self.desk.stir(ask.id)
        self._tell_places_soon()
        return waiting

    def cancel(self, ask_id: str) -> None:
        self.waiting.pop(ask_id, None)
        self._given_up.add(ask_id)
        self.desk.stir(ask_id)

    def leaving(self, client: str) -> int:
        """How many of its asks are in the queue only until the store has heard that they left."""
        queue = self.desk.facts.queue
        left = (queue.get(ask_id) for ask_id in self._given_up)
        return sum(entry is not None and entry.ask.client == client for entry in left)

    def saw(self, entry: Entry) -> None:
        """Ours come after all that were seen."""
        self._last_seq = max(self._last_seq, entry.seq)

    def ours(self) -> set[str]:
        """Which asks to look at now and then."""
        facts = self.desk.facts
        ids = {*self.waiting, *self._given_up}
        ids.update(i for i, entry in facts.queue.items() if entry.contact == self.desk.me)
        return ids.union(i for i, c in facts.claims.items() if c.entry.contact == self.desk.me)

    # ------------------------------------------ what the store should say

    def look(self, ask_id: str) -> None:
        facts = self.desk.facts
        if self.desk.busy(f"ask {ask_id}"):
            return
        entry, claim = facts.queue.get(ask_id), facts.claims.get(ask_id)
        waiting = self.waiting.get(ask_id)
        if waiting is None:
            self._look_at_left(ask_id, entry, claim)
        elif claim is not None and not same(claim.entry, waiting.entry):
            self._give_way(waiting)  # it was granted to the one before us
        elif claim is not None:
            self._look_at_claim(waiting, claim)
        elif entry is not None and same(entry, waiting.entry):
            waiting.stood = True
        elif entry is not None and waiting.stood:
            self._give_way(waiting)
        else:
            version = self.desk.replica.version(waiting.entry.key)
            put = Change(waiting.entry.key, pack_entry(waiting.entry), version, lease=True)
            self._write(ask_id, [put], [Check(f"claims/{ask_id}", ABSENT)])

    def _write(self, ask_id: str, changes: list[Change], checks: list[Check]) -> None:
        self.desk.write(f"ask {ask_id}", changes, checks, ask_id)

    def _look_at_left(self, ask_id: str, entry: Optional[Entry], claim: Optional[Claim]) -> None:
        """Nobody waits for this one here. A claim that is not ready was told to nobody, so it is
        for a client that left, perhaps with an earlier run of this server.
        """
        version = self.desk.replica.version
        if entry is not None and entry.contact == self.desk.me:
            self._write(ask_id, [Change(entry.key, None, version(entry.key))], [])
        elif claim is None:
            self._given_up.discard(ask_id)
        elif claim.entry.contact != self.desk.me:
            return
        elif claim.state == REFUSED:
            self._write(ask_id, [Change(claim.key, None, version(claim.key))], [])
        elif claim.state == GRANTED and claim.server not in self.desk.facts.servers:
            gone = Check(f"{SERVERS}{claim.server}", ABSENT)
            self._write(ask_id, [Change(claim.key, None, version(claim.key))], [gone])
        elif (ask_id in self._given_up or claim.state == GRANTED) and not claim.end:
            ended = pack_claim(claim._replace(end=CANCELLED))
            self._write(ask_id, [Change(claim.key, ended, version(claim.key))], [])

    def _look_at_claim(self, waiting: Waiting, claim: Claim) -> None:
        now_s = self.desk.clock()
        if claim.end:
            self._fail(waiting, claim.end)
        elif claim.state == READY:
            del self.waiting[waiting.id]
            waiting.state, waiting.claim = "granted", claim
            waiting.tell()
        elif claim.state == GRANTED and claim.server not in self.desk.facts.servers:
            self._put_back(waiting, claim, [Check(f"{SERVERS}{claim.server}", ABSENT)])
        elif claim.state == REFUSED and not waiting.retry_s:
            pause_s = min(LAST_REFUSAL_S, FIRST_REFUSAL_S * 2**waiting.refusals)
            waiting.refusals += 1
            waiting.retry_s = now_s + pause_s
            self.desk.stir(waiting.id, pause_s)
        elif claim.state == REFUSED and waiting.refusals > MAX_REFUSALS:
            self._fail(waiting, claim.why)
        elif claim.state == REFUSED and now_s >= waiting.retry_s:
            waiting.retry_s = 0.0
            self._put_back(waiting, claim, [])

    def _fail(self, waiting: Waiting, why: str) -> None:
        self.cancel(waiting.id)
        waiting.state, waiting.why = FAILED, why
        waiting.tell()

    def _failed(self, ask_id: str, why: str) -> None:
        waiting = self.waiting.get(ask_id)
        if waiting is not None:
            waiting.trouble = why
            waiting.tell()

    def _give_way(self, waiting: Waiting) -> None:
        """Whoever asked here had gone, as it seems: else it may ask again."""
        del self.waiting[waiting.id]
        self.desk.stir(waiting.id)
        waiting.state = MOVED
        waiting.tell()

    def _put_back(self, waiting: Waiting, claim: Claim, checks: list[Check]) -> None:
        """To its place in the queue, before the claim goes: so schedulers know that it waits."""
        entry = waiting.entry
        version = self.desk.replica.version(claim.key)
        changes = [
            Change(entry.key, pack_entry(entry), ABSENT, lease=True),
            Change(claim.key, None, version),
        ]
        self._write(waiting.id, changes, checks)

    # ------------------------------------------ places

    def _tell_places_soon(self) -> None:
        if not self._telling:
            self._telling = True
            self.desk.timers.after(0, self.tell_places)

    def tell_places(self) -> None:
        """Now and then, as long as somebody waits; to a few in one turn of the loop."""
        self._telling = bool(self.waiting) and not self.desk.closed
        if self._telling:
            self._tell_some(list(self.waiting.values()))

    def _tell_some(self, rest: list[Waiting]) -> None:
        for waiting in rest[:PLACES_A_TURN]:
            if waiting.state == QUEUED and waiting.id in self.waiting:
                self._tell_place(waiting)
        if len(rest) > PLACES_A_TURN:
            self.desk.timers.after(0, lambda: self._tell_some(rest[PLACES_A_TURN:]))
        else:
            self.desk.timers.after(PLACES_S, self.tell_places)

    def _tell_place(self, waiting: Waiting) -> None:
        try:
            place = self.desk.facts.scheduler.place(waiting.id, self.desk.clock())
        except KeyError:
            return  # not in the queue yet, or about to be granted
        if place != waiting.place:
            waiting.place = place
            waiting.tell()


def same(one: Entry, other: Entry) -> bool:
    """Put there by the same request of a client."""
    return pack_entry(one) == pack_entry(other)


def ask_of(key: str) -> str:
    """The ask that a key of the queue is about."""
    return key[len(QUEUE) :].partition("-")[2]
