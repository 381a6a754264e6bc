# SPDX-License-Identifier: Apache-2.0
"""Device time between the sessions on one GPU: who wants more gets as much as any other who does,
and what some do not want is for the rest.

Each session has a virtual time per GPU: the device time that it used there. Start-time fair
queueing: those who want more may use so much that their virtual time stays within SLACK_S of the
least among them; workers wait where they have used it up (executor/pace.c). Whoever wants nothing
at the moment saves no more than CREDIT_S up: its virtual time goes along with the least of those
who do. So a neighbour that uses little costs the others what it uses, and little more.

That a session wants more is seen from outside: it used up what it may, it had the GPU most of the
time, or its client waited for the device most of the time. Not of one that its own share holds
back. And should a GPU idle nevertheless while somebody is held, those who let it idle count as
wanting nothing for a while.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Protocol

from bitfusion import log
from bitfusion.server.loop import Timers

TICK_S = 0.05
LOOK_S = 0.01  # for clients that wait, while two sessions use one GPU
SLACK_S = 0.15
CREDIT_S = 0.05
ACTIVE_S = 0.3  # after the last device time that was seen
LONG_S = 30.0  # the same, while it waits for the device: it is charged for kernels at their ends
HELD_S = 0.01  # of a session that may use no more than this
MOST = 0.6  # of the time between two ticks
CAPPED = 0.7  # of a session's share: its use swings around all of it
RATE_S = 1.0  # over which use is averaged
IDLES = 0.7  # a GPU that is used less
KERNELS = 4  # over which that is averaged where they are long: they are told of at their ends
EXCUSED_S = 5.0  # whoever let it idle
SECOND = 1_000_000_000  # device time is counted in nanoseconds


class Ledger(Protocol):
    """Of executor/core.py."""

    def busy(self) -> list[int]: ...
    def ration(self, until: Optional[Sequence[int]]) -> None: ...
    def last_call(self) -> tuple[float, int]: ...


class Tenant:
    """A session on one GPU."""

    def __init__(self, share: float = 0.0) -> None:
        self.share = share  # of the GPU's time; 0 for all
        self.busy: Optional[int] = None  # as last seen
        self.virtual = 0
        self.rate = 0.0  # of the GPU's time
        self.until: Optional[int] = None  # it may use so much
        self.wants = False
        self.active_at = self.spent_at = self.excused_until = float("-inf")

    def charge(self, used: int, passed_s: float, waited: float, now_s: float) -> int:
        spent = 0 if self.busy is None else max(0, used - self.busy)
        self.busy = used
        self.virtual += spent
        if spent:
            self.spent_at = now_s
        waits = (waited >= MOST or self.held) and now_s - self.spent_at < LONG_S
        if spent or waits:
            self.active_at = now_s
        self.rate = average(self.rate, spent, passed_s, RATE_S)
        return spent

    def wants_more(self, spent: int, passed_s: float, waited: float) -> bool:
        if self.share and self.rate >= CAPPED * self.share:
            return False
        return waited >= MOST or self.held or spent >= MOST * passed_s * SECOND

    @property
    def held(self) -> bool:
        assert self.busy is not None
        return self.until is not None and self.busy >= self.until - HELD_S * SECOND


def average(before: float, spent: int, passed_s: float, over_s: float) -> float:
    part = min(1.0, passed_s / over_s)
    return before + part * (spent / SECOND / passed_s - before) if passed_s > 0 else before


class Gpu:
    """Who is on it, and how it is used."""

    def __init__(self) -> None:
        self.rate = 1.0
        self.longest_s = 0.0  # about what a session used between two ticks at most, lately
        self.looked_s: Optional[float] = None

    def share_out(
        self, tenants: Sequence[Tenant], busy: Sequence[int], waited: Sequence[float], now_s: float
    ) -> list[Optional[int]]:
        """Up to which sum of device time each tenant may go on; None: as it likes. `busy` is what
        each has used so far; `waited`, which part of the time its client waited for the device.
        """
        passed_s = 0.0 if self.looked_s is None else now_s - self.looked_s
        self.looked_s = now_s
        here = [t for t in tenants if now_s - t.active_at < ACTIVE_S]
        before = min((t.virtual for t in here), default=0)
        used = 0
        self.longest_s *= 1 - min(1.0, passed_s / LONG_S)
        for tenant, sum_of_it, part in zip(tenants, busy, waited):
            if tenant not in here:
                tenant.virtual = max(tenant.virtual, before)
            spent = tenant.charge(sum_of_it, passed_s, part, now_s)
            used += spent
            self.longest_s = max(self.longest_s, spent / SECOND)
            tenant.wants = tenant.wants_more(spent, passed_s, part)
        self._excuse(tenants, used, passed_s, now_s)
        return self._limit(tenants, now_s)

    def _excuse(self, tenants: Sequence[Tenant], used: int, passed_s: float, now_s: float) -> None:
        """Nobody is held for the sake of those who leave the GPU idle."""
        over_s = max(2 * RATE_S, min(KERNELS * self.longest_s, LONG_S))
        self.rate = average(self.rate, used, passed_s, over_s)
        if any(tenant.held for tenant in tenants) and self.rate < IDLES:
            self.rate = 1.0
            for tenant in tenants:
                if not tenant.held:
                    tenant.excused_until = now_s + EXCUSED_S

    def _limit(self, tenants: Sequence[Tenant], now_s: float) -> list[Optional[int]]:
        active = [t for t in tenants if now_s - t.active_at < ACTIVE_S]
        wanting = [t for t in active if t.wants and now_s >= t.excused_until]
        least = min((t.virtual for t in wanting), default=0)
        for tenant in tenants:
            if tenant not in wanting:
                tenant.virtual = max(tenant.virtual, least - int(CREDIT_S * SECOND))
            tenant.until = None
            if len(active) > 1 and wanting and tenant in active:
                assert tenant.busy is not None
                ahead = tenant.virtual - least
                tenant.until = tenant.busy + max(0, int(SLACK_S * SECOND) - ahead)
        return [tenant.until for tenant in tenants]


class Member(NamedTuple):
    gpus: tuple[int, ...]  # indexes in the server's inventory
    ledger: Ledger
    share: float
    tenants: tuple[Tenant, ...]  # one for each


NEVER = 1 << 62


class Fairness:
    """Looks at the sessions that share a GPU, as long as some do."""

    def __init__(self, timers: Timers, clock: Callable[[], float] = time.monotonic) -> None:
        self._timers = timers
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._gpus: dict[int, Gpu] = {}  # those that several share
        self._timer: Any = None
        self._rationed: set[str] = set()
        self._looks = 0  # since the last tick
        self._waits: Counter[str] = Counter()  # of these looks
        self._ticked_s = 0.0

    def add(self, session: str, gpus: Sequence[int], ledger: Ledger, share: float = 0.0) -> None:
        """share: what the session itself asked to be held to; 0 for nothing."""
        self._members[session] = member_of(gpus, ledger, share if share < 1 else 0.0)
        if self._timer is None and self._shared():
            for name, member in self._members.items():  # what was used alone is forgotten
                self._members[name] = member_of(*member[:3])
            self._gpus.clear()
            self._timer = self._timers.after(TICK_S, self._look)

    def remove(self, session: str) -> None:
        self._members.pop(session, None)
        self._rationed.discard(session)
        self._waits.pop(session, None)

    def _shared(self) -> dict[int, list[str]]:
        """The sessions on each GPU that has several."""
        on: dict[int, list[str]] = {}
        for name, member in self._members.items():
            for gpu in member.gpus:
                on.setdefault(gpu, []).append(name)
        return {gpu: names for gpu, names in on.items() if len(names) > 1}

    def _look(self) -> None:
        shared, now_s = self._shared(), self._clock()
        try:
            for name in {name for there in shared.values() for name in there}:
                self._waits[name] += self._members[name].ledger.last_call()[1] > 0
            self._looks += 1
            if not shared or now_s - self._ticked_s >= TICK_S - LOOK_S / 2:
                self._tick(shared, now_s)
        except Exception as error:  # an optional good: the sessions matter more
            log.once(f"cannot share the time of GPUs out: {error}")
        pause_s = LOOK_S if self._rationed else TICK_S
        self._timer = self._timers.after(pause_s, self._look) if shared else None

    def _tick(self, shared: dict[int, list[str]], now_s: float) -> None:
        names = {name for there in shared.values() for name in there}
        busy = {name: self._members[name].ledger.busy() for name in names}
        waited = {name: self._waits[name] / self._looks for name in names}
        self._ticked_s, self._looks = now_s, 0
        self._waits.clear()
        until = {name: [NEVER] * len(self._members[name].gpus) for name in names}
        self._gpus = {gpu: self._gpus.get(gpu) or Gpu() for gpu in shared}
        for gpu, there in shared.items():
            places = [self._members[name].gpus.index(gpu) for name in there]
            tenants = [self._members[name].tenants[place] for name, place in zip(there, places)]
            used = [busy[name][place] for name, place in zip(there, places)]
            parts = [waited[name] for name in there]
            limits = self._gpus[gpu].share_out(tenants, used, parts, now_s)
            for name, place, limit in zip(there, places, limits):
                until[name][place] = NEVER if limit is None else limit
        held = {name for name, limits in until.items() if min(limits) < NEVER}
        for name in held:
            self._members[name].ledger.ration(until[name])
        for name in self._rationed - held:
            if name in self._members:
                self._members[name].ledger.ration(None)
        self._rationed = held


def member_of(gpus: Sequence[int], ledger: Ledger, share: float) -> Member:
    return Member(tuple(gpus), ledger, share, tuple(Tenant(share) for _ in gpus))
