# SPDX-License-Identifier: Apache-2.0
"""One server of a cluster decides who gets what, as long as the key `leader` is under its lease.

A decision is one transaction: the ask leaves the queue and its claim appears, if we still lead,
the ask still waits and the server is still there and not drained. One that a former leader made
too late changes nothing.
"""

from __future__ import annotations

import time
from collections import deque

from bitfusion import log
from bitfusion.server.desk import CONFLICT_PAUSE_S, FAILED_PAUSE_S, Desk
from bitfusion.server.records import (
    DRAINED,
    GRANTED,
    LEADER,
    READY,
    SERVERS,
    Claim,
    Reign,
    pack_claim,
    unpack_reign,
)
from bitfusion.server.store import ABSENT, APPLIED, CONFLICT, Change, Check
from bitfusion.server.views import Grant

MAX_WRITES = 64  # at once


class Leader:
    def __init__(self, desk: Desk, forget_s: float) -> None:
        self.desk = desk
        self.changed = True  # since the last decision
        self._forget_s = forget_s
        self._grants: deque[Grant] = deque()  # decided, not yet on their way
        self._writes = 0

    @property
    def reign(self) -> Reign:
        return Reign(self.desk.me, self.desk.instance)

    @property
    def leads(self) -> bool:
        return unpack_reign(self.desk.replica.values.get(LEADER)) == self.reign

    def look(self) -> None:
        current = unpack_reign(self.desk.replica.values.get(LEADER))
        if current == self.reign:
            if self.changed or self.desk.facts.scheduler.deciding is not None:
                self.changed = False
                self._grants.extend(self.desk.facts.decide())
                if self.desk.facts.scheduler.deciding is not None:
                    self.desk.stir()
            self._write_grants()
            return
        self.desk.facts.scheduler.interrupt()
        while self._grants:  # of our time
            self.desk.facts.undo(self._grants.popleft())
        if current is None or current.server == self.desk.me:  # of an earlier run of ours
            version = self.desk.replica.version(LEADER)
            change = Change(LEADER, dict(self.reign._asdict()), version, lease=True)
            self.desk.write(LEADER, [change])

    # ------------------------------------------ decisions

    def _write_grants(self) -> None:
        while self._grants and self._writes < MAX_WRITES:
            self._write_grant(self._grants.popleft())

    def _write_grant(self, grant: Grant) -> None:
        facts, version = self.desk.facts, self.desk.replica.version
        entry = facts.queue.get(grant.ask.id)
        if entry is None or facts.pending.get(grant.ask.id) is not grant:
            facts.undo(grant)
            return
        claim = Claim(entry, grant.server, grant.slices, time.time(), GRANTED)
        server = f"{SERVERS}{grant.server}"
        changes = [
            Change(claim.key, pack_claim(claim), ABSENT),
            Change(entry.key, None, version(entry.key)),
        ]
        checks = [
            Check(LEADER, version(LEADER)),
            Check(server, version(server)),
            Check(f"{DRAINED}{grant.server}", ABSENT),
        ]
        if not version(server) or not version(LEADER):
            self._failed(grant, CONFLICT)
            return

        failures = self.desk.replica.store.failures

        def done(outcome: str) -> None:
            self._writes -= 1
            self.desk.judge(grant.ask.id, outcome, failures)
            if outcome != APPLIED:
                self._failed(grant, outcome)
            self.desk.stir()

        self._writes += 1
        self.desk.replica.commit(changes, done, checks)

    def _failed(self, grant: Grant, outcome: str) -> None:
        self.desk.facts.undo(grant)
        self.changed = True
        self.desk.stir("", CONFLICT_PAUSE_S if outcome == CONFLICT else FAILED_PAUSE_S)

    # ------------------------------------------ what nobody else removes

    def sweep(self) -> None:
        """Claims of servers that are gone for good, and those that nobody will put back."""
        facts, now_s = self.desk.facts, self.desk.clock()
        late = [s for s, since_s in facts.gone_since.items() if now_s - since_s > self._forget_s]
        if not self.leads:
            return
        for claim in list(facts.claims.values()):
            if claim.server in facts.servers and claim.state in (GRANTED, READY):
                continue
            known = claim.server in facts.gone_since or claim.server in facts.servers
            if not known:
                facts.gone_since[claim.server] = now_s  # it went before we came
            orphan = claim.state != READY and claim.entry.contact not in facts.servers
            if claim.server in late or orphan:
                self._forget(claim)

    def _forget(self, claim: Claim) -> None:
        if not self.desk.busy(f"forget {claim.session}"):
            log.info(f"forgetting session {claim.session}: server {claim.server} is gone")
            checks = [Check(LEADER, self.desk.replica.version(LEADER))]
            if claim.server not in self.desk.facts.servers:
                checks.append(Check(f"{SERVERS}{claim.server}", ABSENT))
            change = Change(claim.key, None, self.desk.replica.version(claim.key))
            self.desk.write(f"forget {claim.session}", [change], checks)
