# SPDX-License-Identifier: Apache-2.0
"""Device time between the sessions on one GPU: nobody gets far ahead of another who wants it too.

Each session has a virtual time per GPU: the device time that it used there. Whoever is active may
use so much that its virtual time stays within SLACK_S of the least of the active ones; workers
wait where they have used it up (executor/pace.c). Who was idle does not save up: it starts from
the least of the others. A session that is alone on its GPUs is not held at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Protocol

from bitfusion import log
from bitfusion.server.loop import Timers

TICK_S = 0.05
SLACK_S = 0.1
ACTIVE_S = 0.3  # after the last device time that was seen
SECOND = 1_000_000_000  # device time is counted in nanoseconds


class Ledger(Protocol):
    """Of executor/core.py."""

    def busy(self) -> list[int]: ...
    def ration(self, until: Optional[Sequence[int]]) -> None: ...


class Tenant:
    """A session on one GPU."""

    def __init__(self) -> None:
        self.busy = 0  # as last seen
        self.virtual = 0
        self.active_at = float("-inf")


def share_out(tenants: Sequence[Tenant], busy: Sequence[int], now_s: float) -> list[Optional[int]]:
    """Up to which sum of device time each tenant of a GPU may go on; None: as it likes. Pure but
    for the tenants, whose state it moves on; `busy` is what each has used so far.
    """
    was_active = [now_s - tenant.active_at < ACTIVE_S for tenant in tenants]
    least = min((t.virtual for t, active in zip(tenants, was_active) if active), default=0)
    for tenant, used, active in zip(tenants, busy, was_active):
        spent = used - tenant.busy
        tenant.busy = used
        if spent <= 0:
            continue
        if not active:
            tenant.virtual = max(tenant.virtual, least)
        tenant.virtual += spent
        tenant.active_at = now_s
    busy_ones = [tenant for tenant in tenants if now_s - tenant.active_at < ACTIVE_S]
    if len(busy_ones) < 2:
        return [None] * len(tenants)
    limit = min(tenant.virtual for tenant in busy_ones) + int(SLACK_S * SECOND)
    # who is not active yet may begin
    return [
        tenant.busy + max(0, limit - tenant.virtual) if tenant in busy_ones else None
        for tenant in tenants
    ]


class Member(NamedTuple):
    gpus: tuple[int, ...]  # indexes in the server's inventory
    ledger: Ledger
    tenants: tuple[Tenant, ...]  # one for each


NEVER = 1 << 62


class Fairness:
    """Looks at the sessions that share a GPU, as long as some do."""

    def __init__(self, timers: Timers, clock: Callable[[], float] = time.monotonic) -> None:
        self._timers = timers
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._timer: Any = None
        self._rationed: set[str] = set()

    def add(self, session: str, gpus: Sequence[int], ledger: Ledger) -> None:
        self._members[session] = Member(tuple(gpus), ledger, tuple(Tenant() for _ in gpus))
        if self._timer is None and self._shared():
            self._timer = self._timers.after(TICK_S, self._tick)

    def remove(self, session: str) -> None:
        self._members.pop(session, None)
        self._rationed.discard(session)

    def _shared(self) -> dict[int, list[str]]:
        """The sessions on each GPU that has several."""
        on: dict[int, list[str]] = {}
        for name, member in self._members.items():
            for gpu in member.gpus:
                on.setdefault(gpu, []).append(name)
        return {gpu: names for gpu, names in on.items() if len(names) > 1}

    def _tick(self) -> None:
        shared = self._shared()
        self._timer = self._timers.after(TICK_S, self._tick) if shared else None
        try:
            self._look(shared)
        except Exception as error:  # an optional good: the sessions matter more
            log.once(f"cannot share the time of GPUs out: {error}")

    def _look(self, shared: dict[int, list[str]]) -> None:
        now_s = self._clock()
        names = {name for there in shared.values() for name in there}
        busy = {name: self._members[name].ledger.busy() for name in names}
        until = {name: [NEVER] * len(self._members[name].gpus) for name in names}
        for gpu, there in shared.items():
            places = [self._members[name].gpus.index(gpu) for name in there]
            tenants = [self._members[name].tenants[place] for name, place in zip(there, places)]
            used = [busy[name][place] for name, place in zip(there, places)]
            for name, place, limit in zip(there, places, share_out(tenants, used, now_s)):
                until[name][place] = NEVER if limit is None else limit
        held = {name for name, limits in until.items() if min(limits) < NEVER}
        for name in held:
            self._members[name].ledger.ration(until[name])
        for name in self._rationed - held:
            if name in self._members:
                self._members[name].ledger.ration(None)
        self._rationed = held
