# SPDX-License-Identifier: Apache-2.0
"""What a crowd of clients may count on, looked at from outside through GET /v1/pool: their quotas,
and the order of the queue.

The queue is fair over clients, so there is no order of arrival over all asks. What must hold, of
asks for equally many equal parts of GPUs, and restarts of servers aside:

1. Of two that one client made at one server, the one made later is not served first. Nor where
   that server ended, and they came back to it or to another one.
2. Of two in the queue, the one whose place is worse is not served first, where no limits may hold
   their clients back. Places are those that the server tells which decides.
3. One of a client that never had anything is served before all that are made after it, whoever
   makes them: as soon as every server knows of it.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Optional

Shape = tuple[int, str]  # GPUs, part of each


class Quota(NamedTuple):
    gpus: int = 0  # 0: none
    mib: int = 0

    def allows(self, gpus: int, mib: int) -> bool:
        return (not self.gpus or gpus <= self.gpus) and (not self.mib or mib <= self.mib)


class Asked(NamedTuple):
    number: int  # in the order in which they were made
    client: str
    node: int  # that was asked
    shape: Shape
    newcomer: bool
    returned: bool = False  # after its server ended; perhaps before others made earlier


class Picture(NamedTuple):
    """What one server says at one moment."""

    places: dict[str, Optional[int]]  # of asks in the queue; None: about to be served
    held: dict[str, tuple[int, int]]  # by client: GPUs, MiB


class Rules:
    """Of the servers that decide together."""

    def __init__(self, quotas: dict[str, Quota]) -> None:
        self.quotas = quotas
        self.asks: dict[str, Asked] = {}
        self.compared: Counter[int] = Counter()  # pairs, by the number of the rule
        self._left: set[str] = set()
        self._served: set[str] = set()  # as their clients heard, since the last picture
        self._known: dict[str, int] = {}  # newcomers -> asks made until every server knew
        self._last: Optional[Picture] = None

    def asked(self, entry: str, asked: Asked) -> None:
        self.asks[entry] = asked

    def left(self, entry: str) -> None:
        self._left.add(entry)

    def served(self, entry: str) -> None:
        self._served.add(entry)

    def forget(self) -> None:
        """A server ended: what waited may have been given and taken back with it."""
        self._last = None
        self.asks.clear()
        self._known.clear()
        self._served.clear()

    def check_quotas(self, held: dict[str, tuple[int, int]]) -> None:
        for client, (gpus, mib) in held.items():
            quota = self.quotas.get(client, Quota())
            assert quota.allows(gpus, mib), f"{client} has {gpus} GPUs, {mib} MiB of {quota}"

    def look(self, decides: Picture, others: list[Picture], made: int) -> None:
        """made: how many asks there were so far."""
        if self._last is not None:
            self._compare(self._last, decides)
        self._last = decides
        self._served.clear()
        for entry in decides.places:
            known = entry in self.asks and self.asks[entry].newcomer
            if known and all(entry in other.places for other in others):
                self._known.setdefault(entry, made)

    def _compare(self, before: Picture, now: Picture) -> None:
        gone = {e for e, place in before.places.items() if place and e not in now.places}
        gone -= {e for e in gone if e in self.asks and self.asks[e].returned}  # and puts it again
        served = [e for e in (gone | self._served) - self._left if e in self.asks]
        waiting = [
            e
            for e, place in before.places.items()
            if place and now.places.get(e) and e in self.asks
        ]
        for one in served:
            for other in waiting:
                if self.asks[one].shape == self.asks[other].shape:
                    self._compare_two(one, other, before)

    def _compare_two(self, served: str, waits: str, before: Picture) -> None:
        one, other = self.asks[served], self.asks[waits]
        what = f"{served} {one} was served before {waits} {other}"
        places = before.places.get(served), before.places[waits]
        known = places[0] or not one.returned
        if known and (one.client, one.node) == (other.client, other.node):
            self.compared[1] += 1
            assert one.number < other.number, what
        if places[0] and places[1] and not self.quotas.keys() & {one.client, other.client}:
            self.compared[2] += 1
            assert places[0] < places[1], f"{what}: their places were {places}"
        if waits in self._known:
            self.compared[3] += 1
            assert one.number <= self._known[waits], f"{what}, a newcomer"
