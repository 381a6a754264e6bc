# SPDX-License-Identifier: Apache-2.0
"""Which session holds what, and for how long. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional

from bitfusion.server.pool import Slice
from bitfusion.server.waiting import Waiter


class Held(NamedTuple):
    client: str
    server: str
    slices: tuple[Slice, ...]
    since_s: float
    weight: float  # in GPUs
    waiter: Optional[Waiter] = None  # which undo puts back


class Holdings:
    def __init__(self) -> None:
        self.by_session: dict[str, Held] = {}
        self.in_use = 0.0  # GPUs
        self._since = 0.0  # sum of weight * since_s

    def add(self, session: str, held: Held) -> None:
        self.by_session[session] = held
        self.in_use += held.weight
        self._since += held.weight * held.since_s

    def remove(self, session: str) -> Optional[Held]:
        held = self.by_session.pop(session, None)
        if held is not None:
            self.in_use -= held.weight
            self._since -= held.weight * held.since_s
        return held

    def age(self, now_s: float) -> float:
        """For how long, in GPUs times seconds, those have held what still hold it."""
        return max(0.0, self.in_use * now_s - self._since)
