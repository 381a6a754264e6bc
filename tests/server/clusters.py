# SPDX-License-Identifier: Apache-2.0
"""Servers of a cluster in this process, on a clock that tests move. No workers."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Optional

from bitfusion.inventory import Gpu
from bitfusion.server.asks import Waiting
from bitfusion.server.caller import Limits
from bitfusion.server.cluster import Cluster
from bitfusion.server.pool import Pool, Slice
from bitfusion.server.records import Claim
from bitfusion.server.schedule import Scheduler
from bitfusion.server.store import Store
from bitfusion.server.store_memory import Memory
from bitfusion.server.views import Ask, GpuView, ServerView
from bitfusion.wire.control import Json

MIB = 1 << 20
Action = Callable[[], object]
Start = Callable[..., "Server"]


class Clock:
    """Timers in order, no waiting."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._due: list[tuple[float, int, Action]] = []
        self._count = itertools.count()

    def after(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._due, (self.now_s + seconds, next(self._count), action))

    def read(self) -> float:
        return self.now_s

    def step(self) -> None:
        self.now_s, _, action = heapq.heappop(self._due)
        action()

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._due and self._due[0][0] <= end_s:
            self.step()
        self.now_s = end_s

    def until(self, condition: Callable[[], object], patience_s: float = 60.0) -> bool:
        end_s = self.now_s + patience_s
        while not condition():
            if not self._due or self._due[0][0] > end_s:
                return False
            self.step()
        return True


class FakeHost:
    """A server's GPUs and sessions; memory beyond the GPU's is refused, as the real one does."""

    def __init__(self, gpus: int, mib: int) -> None:
        self.pool = Pool([Gpu("Test GPU", mib * MIB, f"gpu-{i}") for i in range(gpus)])
        self.open: dict[str, Claim] = {}
        self.ends: list[tuple[str, str]] = []
        self.refuse = ""
        self.cluster: Optional[Cluster] = None
        self.keep_ended = False  # its workers do not end
        self.opened: list[str] = []

    def free(self, index: int) -> int:
        return self.pool.gpus[index].memory - sum(
            part.memory
            for claim in self.open.values()
            for part in claim.slices
            if part.gpu == index
        )

    def open_claim(self, claim: Claim) -> str:
        assert claim.session not in self.open
        if self.refuse:
            return self.refuse
        if any(part.memory > self.free(part.gpu) for part in claim.slices):
            return "no room"
        self.open[claim.session] = claim
        self.opened.append(claim.session)
        return ""

    def end_claim(self, session: str, why: str) -> None:
        self.ends.append((session, why))
        if not self.keep_ended:
            self.finish(session)

    def finish(self, session: str) -> None:
        self.open.pop(session, None)
        assert self.cluster
        self.cluster.ended(session)


class Client:
    """One ask and what was heard of it."""

    def __init__(self, server: Server, waiting_of: Callable[[Client], Waiting]) -> None:
        self.server = server
        self.changes: list[str] = []
        self.waiting = waiting_of(self)

    def heard(self, waiting: Waiting) -> None:
        self.changes.append(waiting.state)

    @property
    def session(self) -> str:
        return self.waiting.id

    @property
    def granted(self) -> bool:
        return self.waiting.state == "granted"

    @property
    def on(self) -> str:
        """Which server it was given."""
        assert self.waiting.claim
        return self.waiting.claim.server


class Server:
    numbers = itertools.count(1)

    def __init__(
        self,
        name: str,
        timers: object,
        store: Store,
        gpus: int = 2,
        mib: int = 1000,
        forget_s: float = 600.0,
        clock: Callable[[], float] = lambda: 0.0,
        host: Optional[FakeHost] = None,
        keys: Optional[str] = None,
    ) -> None:
        self.id = (name.encode().hex() * 16)[:16]
        self.host = host or FakeHost(gpus, mib)
        views = tuple(
            GpuView(i, gpu.name, gpu.memory, gpu.uuid) for i, gpu in enumerate(self.host.pool.gpus)
        )
        view = ServerView(self.id, name, (f"{name}:56001",), views)
        self.store = store
        self.cluster = Cluster(
            timers,  # type: ignore[arg-type]
            store,
            view,
            Scheduler(),
            self.host,
            forget_s,
            clock,
            keys,
        )
        self.host.cluster = self.cluster
        self.cluster.adopt(self.host.open.values())

    def start(self) -> Server:
        self.cluster.start()
        return self

    @property
    def ready(self) -> bool:
        return self.cluster.synced and self.id in self.cluster.facts.servers

    def ask(
        self,
        client: str = "alice",
        gpus: int = 1,
        fraction: str = "1",
        limits: Limits = Limits(),
        turn: str = "",
    ) -> Client:
        """turn: what a server of the cluster said of the client's place."""
        number = next(Server.numbers)
        known = self.cluster.turn_of(client, turn)
        name = known.ask if known and known.ask not in self.cluster.facts.claims else ""
        ask = Ask(name or f"{number:016x}", client, gpus, fraction)
        details: Json = {"program": "it", "number": number}
        return Client(self, lambda me: self.cluster.ask(ask, limits, details, me.heard, known))

    def turn(self, client: Client) -> str:
        """What it tells the client of its place."""
        return self.cluster.turn(client.waiting)

    def slices(self, session: str) -> tuple[Slice, ...]:
        return self.host.open[session].slices


def kill(memory: Memory, server: Server, expire: bool = True) -> None:
    """As its process ends: nothing more comes from it; its lease ends now or later."""
    server.cluster._desk.closed = True
    memory.stores.remove(server.store)  # type: ignore[arg-type]
    if expire:
        memory.expire(server.store)  # type: ignore[arg-type]


def keys(memory: Memory, prefix: str) -> list[str]:
    return [key for key in memory.entries if key.startswith(prefix)]
