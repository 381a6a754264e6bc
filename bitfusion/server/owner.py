# SPDX-License-Identifier: Apache-2.0
"""Claims to this server's GPUs: sessions are made for them, and they go with their sessions.

What runs here is what counts: a claim that vanished from the store is put back, and one without a
session is removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional, Protocol

from bitfusion.server.asks import CANCELLED
from bitfusion.server.desk import Desk
from bitfusion.server.records import GRANTED, READY, REFUSED, Claim, Entry, pack_claim
from bitfusion.server.store import ABSENT, Change


class Host(Protocol):
    """Who has the GPUs and makes sessions."""

    def open_claim(self, claim: Claim) -> str:
        """Make the session; else say why not."""

    def end_claim(self, session: str, why: str) -> None:
        """Somebody wants it to end; `ended` is to follow when its GPUs are free."""


class Held:
    def __init__(self, claim: Claim, told: bool) -> None:
        self.claim = claim
        self.told = told  # the store knows that it is there, and perhaps its client
        self.ending = False


class Owner:
    def __init__(self, desk: Desk, host: Host) -> None:
        self.desk = desk
        self.host = host
        self.sessions: dict[str, Held] = {}
        self._refused: dict[str, str] = {}  # claims, and why
        self.leaving = False
        self._ended: set[str] = set()  # sessions whose claims are still there

    def adopt(self, claims: Iterable[Claim]) -> None:
        """Sessions that run here already."""
        for claim in claims:
            self.sessions[claim.session] = Held(claim._replace(state=READY), told=True)
            self.desk.stir(claim.session)

    def ended(self, session: str) -> None:
        self.sessions.pop(session, None)
        self._ended.add(session)
        self.desk.stir(session)

    @property
    def settled(self) -> bool:
        """The claims of all sessions that ended are gone."""
        return not self._ended

    def ours(self) -> set[str]:
        """Which sessions to look at now and then."""
        ids = {*self.sessions, *self._ended, *self._refused}
        return ids.union(i for i, c in self.desk.facts.claims.items() if c.server == self.desk.me)

    def look(self, session: str) -> None:
        if self.desk.busy(f"claim {session}"):
            return
        claim, held = self.desk.facts.claims.get(session), self.sessions.get(session)
        elsewhere = claim is not None and claim.server != self.desk.me
        if elsewhere and held is not None and not held.ending:
            self._end(session, held, CANCELLED)  # it was given to another server meanwhile
        elif claim is None or elsewhere:
            self._ended.discard(session)
            self._refused.pop(session, None)
            if held is not None:
                self._look_at_unclaimed(session, held)
        elif held is not None:
            self._look_at_held(claim, held)
        elif claim.state != REFUSED:
            self._look_at_new(claim)

    def _write(self, claim: Claim, version: int, entry: Optional[Entry] = None) -> None:
        """entry: of the queue, which it is to leave."""
        changes = [Change(claim.key, pack_claim(claim), version)]
        if entry is not None:
            changes.append(Change(entry.key, None, self.desk.replica.version(entry.key)))
        self.desk.write(f"claim {claim.session}", changes, (), claim.session)

    def _look_at_unclaimed(self, session: str, held: Held) -> None:
        """Before it was told, its client left or was sent elsewhere; else the store forgot."""
        if held.ending:
            return
        if held.told:
            self._write(held.claim, ABSENT, self.desk.facts.queue.get(session))
        else:
            self._end(session, held, CANCELLED)

    def _look_at_held(self, claim: Claim, held: Held) -> None:
        if held.ending:
            return
        if claim.end:
            self._end(claim.session, held, claim.end)
        elif grant_of(claim) != grant_of(held.claim) and held.told:
            self._write(held.claim, self.desk.replica.version(claim.key))
        elif grant_of(claim) != grant_of(held.claim):  # given back, and then to us again
            self._end(claim.session, held, CANCELLED)
        elif claim.state == GRANTED:
            self._write(claim._replace(state=READY), self.desk.replica.version(claim.key))
        else:
            held.told, held.claim = True, claim

    def _end(self, session: str, held: Held, why: str) -> None:
        held.ending = True
        self.host.end_claim(session, why)

    def _look_at_new(self, claim: Claim) -> None:
        session, version = claim.session, self.desk.replica.version(claim.key)
        if self.desk.busy(f"ask {session}"):
            return  # we are its contact, too, and nobody waits for it any more
        if claim.end or claim.state == READY or session in self._ended:
            change = Change(claim.key, None, version)
            self.desk.write(f"claim {session}", [change], (), session)
            return
        why = self._refused.get(session) or ("the server ends" if self.leaving else "")
        why = why or self.host.open_claim(claim)
        if why:
            self._refused[session] = why
            self._write(claim._replace(state=REFUSED, why=why), version)
        else:
            self.sessions[session] = Held(claim._replace(state=READY), told=False)
            self._write(claim._replace(state=READY), version)


def grant_of(claim: Claim) -> tuple[object, ...]:
    return claim.since, claim.slices
