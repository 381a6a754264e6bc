# SPDX-License-Identifier: Apache-2.0
"""What the parts of a cluster's member share: who we are, what is known, writing to the store.

The parts (asks.py, owner.py, leader.py, cluster.py) compare what the store says with what it
should say, and write the difference. They do so again whenever something changed, whenever a write
has ended, however it did, and every few seconds. So nothing depends on a write that must not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

from bitfusion.server.facts import Facts
from bitfusion.server.loop import Timers
from bitfusion.server.replica import Replica
from bitfusion.server.store import APPLIED, CONFLICT, UNAVAILABLE, Change, Check, Done

CONFLICT_PAUSE_S = 0.01  # the change that was quicker is about to be told
FAILED_PAUSE_S = 0.5


class Desk:
    def __init__(
        self,
        me: str,
        instance: str,
        replica: Replica,
        facts: Facts,
        timers: Timers,
        clock: Callable[[], float],
    ) -> None:
        self.me = me
        self.instance = instance
        self.replica = replica
        self.facts = facts
        self.timers = timers
        self.clock = clock
        self.closed = False
        self.look: Callable[[], None] = lambda: None
        self.failed: Callable[[str, str], None] = lambda _ask, _why: None  # a write about it
        self.dirty: dict[str, None] = {}  # asks and sessions to look at, in order
        self._busy: set[str] = set()
        self._stirred = False

    def stir(self, ask_id: str = "", pause_s: float = 0.0) -> None:
        """Have a look, soon; at this ask or session too."""
        if ask_id:
            self.dirty[ask_id] = None
        if pause_s:
            self.timers.after(pause_s, lambda: self.stir(ask_id))
        elif not self._stirred:
            self._stirred = True
            self.timers.after(0, self._act)

    def _act(self) -> None:
        self._stirred = False
        if self.replica.synced and not self.closed:
            self.look()

    def busy(self, purpose: str) -> bool:
        return purpose in self._busy

    def write(
        self,
        purpose: str,
        changes: Sequence[Change],
        checks: Sequence[Check] = (),
        ask_id: str = "",
        done: Optional[Done] = None,
    ) -> None:
        """Nothing where a write for the same purpose is on its way."""
        if purpose in self._busy:
            return

        failures = self.replica.store.failures

        def ended(outcome: str) -> None:
            self._busy.discard(purpose)
            self.judge(ask_id, outcome, failures)
            if done is not None:
                done(outcome)
            pauses_s = {APPLIED: 0.0, CONFLICT: CONFLICT_PAUSE_S}
            self.stir(ask_id, pauses_s.get(outcome, FAILED_PAUSE_S))

        self._busy.add(purpose)
        self.replica.commit(changes, ended, checks)

    def judge(self, ask_id: str, outcome: str, failures: int) -> None:
        """failures: of the store, before the write: one that it could not make though it is there
        will not be made soon.
        """
        store = self.replica.store
        if ask_id and outcome == UNAVAILABLE and store.failures > failures:
            self.failed(ask_id, store.trouble)
