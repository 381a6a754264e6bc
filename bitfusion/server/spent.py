# SPDX-License-Identifier: Apache-2.0
"""Asks that are over, whose turns are good for nothing any more: their clients left the queue, or
used the GPUs. All servers of the cluster know of them, as long as such a turn may be shown.

The keys are under the lease of the server that saw the end, so that none is left over. After a
restart of that server turns may be good again that it has told nobody else of.
"""

from __future__ import annotations

from bitfusion.server.desk import Desk
from bitfusion.server.seal import MOST_AGE_S
from bitfusion.server.store import ABSENT, Change

SPENT = "spent/"
KEEP_S = 2 * MOST_AGE_S  # clocks of servers may differ by as much as turns may be old
MOST = 10_000  # of one server


class Spent:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._until_s: dict[str, float] = {}  # those that we saw end, the oldest first

    def add(self, ask_id: str) -> None:
        if ask_id not in self._until_s:
            self._until_s[ask_id] = self._desk.clock() + KEEP_S
            self._desk.stir(ask_id)
        if len(self._until_s) > MOST:
            oldest = next(iter(self._until_s))
            self._until_s[oldest] = 0.0
            self.look(oldest)

    def has(self, ask_id: str) -> bool:
        return ask_id in self._until_s or bool(self._desk.replica.version(f"{SPENT}{ask_id}"))

    def ours(self) -> set[str]:
        """Which to look at now and then."""
        now_s, version = self._desk.clock(), self._desk.replica.version
        return {
            ask_id
            for ask_id, until_s in self._until_s.items()
            if now_s >= until_s or not version(f"{SPENT}{ask_id}")
        }

    def look(self, ask_id: str) -> None:
        until_s = self._until_s.get(ask_id)
        if until_s is None:
            return
        key = f"{SPENT}{ask_id}"
        version = self._desk.replica.version(key)
        if self._desk.clock() < until_s and not version:
            put = Change(key, {}, ABSENT, lease=True)
            self._desk.write(f"spent {ask_id}", [put], (), ask_id)
        elif self._desk.clock() >= until_s and version:
            self._desk.write(f"spent {ask_id}", [Change(key, None, version)], (), ask_id)
        elif self._desk.clock() >= until_s:
            del self._until_s[ask_id]
