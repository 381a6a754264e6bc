# SPDX-License-Identifier: Apache-2.0
"""Tells this server's scheduler what the store says: servers, queue, claims. Every server does so,
to tell its clients their places; the leader's scheduler decides too.

Decisions are in force in the scheduler before they stand in the store: until then they are
pending here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from bitfusion.server.records import Claim, Entry
from bitfusion.server.schedule import Scheduler
from bitfusion.server.views import Ask, Grant, ServerView, TooMuch

MAX_AGE_S = 30 * 86400.0
LOOKS_A_TURN = 100  # at asks that wait


class Facts:
    def __init__(self, scheduler: Scheduler, clock: Callable[[], float]) -> None:
        self.scheduler = scheduler
        self.queue: dict[str, Entry] = {}  # by the ask's id
        self.waits: Counter[str] = Counter()  # asks in it, by client
        self.claims: dict[str, Claim] = {}  # by session, which is the ask's id too
        self.servers: dict[str, ServerView] = {}  # those that are up
        self.seen: dict[str, ServerView] = {}  # those that were, too
        self.gone_since: dict[str, float] = {}
        self.pending: dict[str, Grant] = {}
        self._clock = clock
        self._stuck: dict[str, Ask] = {}  # nothing could meet them: perhaps it is away
        self._submitted: set[str] = set()  # the scheduler knows their places, also once granted

    # ------------------------------------------ servers

    def put_server(self, view: ServerView) -> None:
        self.servers[view.id] = self.seen[view.id] = view
        self.gone_since.pop(view.id, None)
        self.scheduler.set_server(view)
        stuck, self._stuck = self._stuck, {}
        for ask in stuck.values():
            self._submit(ask)

    def drop_server(self, server: str) -> None:
        if self.servers.pop(server, None) is not None:
            self.gone_since[server] = self._clock()
            self.scheduler.remove_server(server)

    def forget_server(self, server: str) -> None:
        self.gone_since.pop(server, None)
        self.seen.pop(server, None)
        self.scheduler.remove_server(server, forget=True)

    # ------------------------------------------ the queue

    def check(self, ask: Ask) -> None:
        """Raises TooMuch where waiting would not help."""
        self.scheduler.check(ask)

    def _submit(self, ask: Ask) -> None:
        try:
            self.scheduler.submit(ask)
            self._submitted.add(ask.id)
        except TooMuch:
            self._stuck[ask.id] = ask

    def put_entry(self, entry: Entry) -> None:
        ask = entry.ask
        before = self.queue.get(ask.id)
        if before is not None:
            self._uncount(before)
        self.queue[ask.id] = entry
        self.waits[ask.client] += 1
        if ask.id in self.claims or ask.id in self.pending:
            return
        if before is not None and before.ask != ask:
            self._cancel(ask.id)  # its client came back and wants something else
        if before is None or before.ask != ask:
            self._submit(ask)

    def drop_entry(self, ask_id: str) -> None:
        entry = self.queue.pop(ask_id, None)
        if entry is not None:
            self._uncount(entry)
        if ask_id not in self.claims and ask_id not in self.pending:
            self._cancel(ask_id)

    def _uncount(self, entry: Entry) -> None:
        client = entry.ask.client
        self.waits[client] -= 1
        if not self.waits[client]:
            del self.waits[client]

    def _cancel(self, ask_id: str) -> None:
        self.scheduler.cancel(ask_id)
        self._submitted.discard(ask_id)
        self._stuck.pop(ask_id, None)

    # ------------------------------------------ claims

    def put_claim(self, claim: Claim) -> None:
        session = claim.session
        self.pending.pop(session, None)
        self._stuck.pop(session, None)
        known = self.claims.get(session)
        self.claims[session] = claim
        if known is None or (known.server, known.slices) != (claim.server, claim.slices):
            since_s = self._clock() - min(max(0.0, time.time() - claim.since), MAX_AGE_S)
            self.scheduler.hold(session, claim.client, claim.server, claim.slices, since_s)

    def drop_claim(self, session: str) -> None:
        claim = self.claims.pop(session, None)
        if claim is None:
            return
        entry = self.queue.get(session)
        known = session in self._submitted and claim.entry.ask
        if entry is not None and known == entry.ask:  # it waits again, where it was
            self.scheduler.undo(Grant(entry.ask, claim.server, claim.slices))
            return
        self.scheduler.release(session, self._clock())
        self._submitted.discard(session)
        if entry is not None:
            self._submit(entry.ask)

    # ------------------------------------------ decisions

    def decide(self) -> list[Grant]:
        """To be called again as long as the scheduler is deciding."""
        grants = self.scheduler.decide(self._clock(), LOOKS_A_TURN)
        for grant in grants:
            self.pending[grant.ask.id] = grant
        return grants

    def undo(self, grant: Grant) -> None:
        """It does not stand in the store."""
        if self.pending.get(grant.ask.id) is grant:
            del self.pending[grant.ask.id]
            self.scheduler.undo(grant)
            entry = self.queue.get(grant.ask.id)
            if entry is None or entry.ask != grant.ask:
                self._cancel(grant.ask.id)
                if entry is not None:
                    self._submit(entry.ask)
