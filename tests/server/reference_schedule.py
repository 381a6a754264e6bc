# SPDX-License-Identifier: Apache-2.0
"""The scheduler written down plainly: every decision looks at every ask and every server.

Says what schedule.py must do, and shares with it only values and the arithmetic of fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from bitfusion.quantity import parse_fraction, part_of
from bitfusion.server.caller import Limits
from bitfusion.server.filters import match
from bitfusion.server.pool import Slice
from bitfusion.server.views import Ask, Grant, ServerView


@dataclass
class Held:
    client: str
    server: str
    slices: tuple[Slice, ...]


@dataclass
class Fence:
    server: str
    needs: dict[int, int]
    before: set[str]


@dataclass
class Waiting:
    ask: Ask
    state: str = "back"  # or queued, aside
    start: float = 0.0
    fence: Optional[Fence] = None
    cost: float = 0.0
    served_before: float = 0.0

    @property
    def key(self) -> tuple[float, float, str]:
        return (self.start, self.ask.at_s, self.ask.id)

    @property
    def turn(self) -> tuple[float, str]:
        return (self.ask.at_s, self.ask.id)


class Reference:
    def __init__(self, spread: bool, servers_per_fence: int) -> None:
        self.spread = spread
        self.servers_per_fence = servers_per_fence
        self.views: dict[str, ServerView] = {}
        self.up: set[str] = set()
        self.held: dict[str, Held] = {}
        self.limits: dict[str, Limits] = {}
        self.waiting: dict[str, Waiting] = {}
        self.granted: dict[str, Waiting] = {}
        self.served: dict[str, float] = {}
        self.virtual = 0.0
        self.latest = 0.0
        self.left: dict[str, float] = {}

    # ---- arithmetic

    def live(self) -> list[str]:
        return sorted(s for s in self.up if not self.views[s].drained)

    def memory(self, server: str, gpu: int) -> int:
        return next(g.memory for g in self.views[server].gpus if g.index == gpu)

    def free(self, server: str, gpu: int) -> int:
        held = [h for h in self.held.values() if h.server == server]
        used = sum(s.memory for h in held for s in h.slices if s.gpu == gpu)
        return self.memory(server, gpu) - used

    def fence_of(self, server: str) -> Optional[Waiting]:
        fenced = [w for w in self.waiting.values() if w.fence and w.fence.server == server]
        assert len(fenced) <= 1
        return fenced[0] if fenced else None

    def open(self, server: str, gpu: int) -> int:
        free, owner = self.free(server, gpu), self.fence_of(server)
        if owner is None or owner.fence is None or gpu not in owner.fence.needs:
            return free
        rest = self.memory(server, gpu) - owner.fence.needs[gpu]
        for session, held in self.held.items():
            if held.server == server and session not in owner.fence.before:
                rest -= sum(s.memory for s in held.slices if s.gpu == gpu)
        return min(free, rest)

    def need(self, ask: Ask, memory: int, client_may: Optional[int] = None) -> int:
        need = ask.memory or part_of(memory, ask.fraction)
        return 0 if client_may is not None and need * ask.gpus > client_may else need

    def may_hold(self, client: str) -> Optional[int]:
        return self.limits.get(client, Limits()).memory or None

    def may_take(self, client: str) -> Optional[int]:
        limit = self.may_hold(client)
        return None if limit is None else max(0, limit - self.memory_of(client))

    def memory_of(self, client: str) -> int:
        held = [h for h in self.held.values() if h.client == client]
        return sum(s.memory for h in held for s in h.slices)

    def gpus_of(self, client: str) -> int:
        return sum(len(h.slices) for h in self.held.values() if h.client == client)

    def eligible(self, ask: Ask, server: str) -> list[int]:
        view = self.views[server]
        if ask.servers and not {view.id, view.name, *view.addresses} & set(ask.servers):
            return []
        return [gpu.index for gpu in view.gpus if match(ask.filters, view, gpu)]

    def able(self, ask: Ask, server: str, client_may: Optional[int]) -> list[int]:
        """GPUs that are large enough."""
        return [
            gpu
            for gpu in self.eligible(ask, server)
            if 0 < self.need(ask, size := self.memory(server, gpu), client_may) <= size
        ]

    def possible(self, ask: Ask, servers: list[str], client_may: Optional[int]) -> bool:
        return any(len(self.able(ask, server, client_may)) >= ask.gpus for server in servers)

    def least(self, ask: Ask) -> int:
        if ask.memory:
            return ask.memory * ask.gpus
        totals = []
        for server in self.views:
            needs = sorted(
                need
                for gpu in self.eligible(ask, server)
                if (need := self.need(ask, self.memory(server, gpu)))
            )
            if len(needs) >= ask.gpus:
                totals.append(sum(needs[: ask.gpus]))
        return min(totals, default=0)

    # ---- facts

    def set_server(self, view: ServerView) -> None:
        if view.id in self.up and self.views[view.id] == view:
            return
        self.drop_fence(view.id)
        self.views[view.id] = view
        self.up.add(view.id)
        self.come_back([w for w in self.waiting.values() if self.eligible(w.ask, view.id)])

    def remove_server(self, server: str, forget: bool) -> None:
        if server in self.views:
            self.drop_fence(server)
            self.up.discard(server)
            if forget:
                del self.views[server]

    def drop_fence(self, server: str) -> None:
        owner = self.fence_of(server)
        if owner is not None:
            owner.fence = None

    def come_back(self, waiting: list[Waiting]) -> None:
        for w in sorted(waiting, key=lambda w: w.turn):
            may = self.may_hold(w.ask.client)
            if w.state == "aside" and self.possible(w.ask, self.live(), may):
                w.state = "back"
                self.settle(w.ask.client)

    def set_limits(self, client: str, limits: Limits) -> None:
        if self.limits.get(client, Limits()) != limits:
            self.limits[client] = limits
            self.settle(client)
            self.come_back([w for w in self.waiting.values() if w.ask.client == client])

    def hold(
        self, session: str, client: str, server: str, slices: tuple[Slice, ...], _now_s: float = 0
    ) -> None:
        w = self.waiting.get(session)
        if w is not None:
            self.serve(w)
        self.held[session] = Held(client, server, slices)
        self.settle(client)

    def release(self, session: str, _now_s: float = 0) -> None:
        held = self.held.pop(session, None)
        self.granted.pop(session, None)
        if held is not None:
            self.settle(held.client)

    def submit(self, ask: Ask) -> bool:
        """False for too much."""
        if ask.id in self.waiting or ask.id in self.held:
            return True
        limits = self.limits.get(ask.client, Limits())
        if (
            (limits.gpus and ask.gpus > limits.gpus)
            or not self.possible(ask, list(self.views), None)
            or (limits.memory and self.least(ask) > limits.memory)
        ):
            return False
        largest = max(gpu.memory for view in self.views.values() for gpu in view.gpus)
        numerator, denominator = parse_fraction(ask.fraction)
        part = min(1.0, ask.memory / largest) if ask.memory else numerator / denominator
        w = Waiting(ask, cost=ask.gpus * max(part, 1 / 16))
        self.waiting[ask.id] = w
        self.settle(ask.client)
        return True

    def cancel(self, ask_id: str) -> None:
        w = self.waiting.pop(ask_id, None)
        if w is not None:
            if w.state == "queued":
                self.left[ask_id] = w.start
            self.settle(w.ask.client)

    # ---- order

    def queue(self) -> list[Waiting]:
        return sorted(
            (w for w in self.waiting.values() if w.state == "queued"), key=lambda w: w.key
        )

    def of(self, client: str, state: str) -> list[Waiting]:
        found = [w for w in self.waiting.values() if (w.ask.client, w.state) == (client, state)]
        return sorted(found, key=lambda w: w.key if state == "queued" else w.turn)

    def settle(self, client: str) -> None:
        limits = self.limits.get(client, Limits())

        def over(asks: list[Ask]) -> bool:
            gpus = self.gpus_of(client) + sum(a.gpus for a in asks)
            if limits.gpus and gpus > limits.gpus:
                return True
            if not limits.memory:
                return False
            return self.memory_of(client) + sum(map(self.least, asks)) > limits.memory

        while (ready := self.of(client, "queued")) and over([w.ask for w in ready]):
            ready[-1].state, ready[-1].fence = "back", None
        while back := self.of(client, "back"):
            ready = self.of(client, "queued")
            if over([*(w.ask for w in ready), back[0].ask]):
                break
            self.start(back[0], ready)

    def start(self, w: Waiting, ready: list[Waiting]) -> None:
        if not self.possible(w.ask, self.live(), self.may_hold(w.ask.client)):
            w.state = "aside"
            return
        queue = self.queue()
        self.virtual = max(self.virtual, queue[0].start if queue else self.latest)
        ends = [0.0, *(r.start + r.cost for r in ready if r.turn < w.turn)][-1:]
        back = max(ends[0], self.left.pop(w.ask.id, float("inf")))
        ends += [self.served.get(w.ask.client, 0.0)]
        later = [r for r in ready if r.turn > w.turn]
        w.start = min([max(self.virtual, *ends), *(r.start for r in later), back])
        w.state = "queued"
        before = w
        for r in later:
            if r.start >= before.start + before.cost:
                break
            r.start, r.fence = before.start + before.cost, None
            before = r

    def serve(self, w: Waiting) -> None:
        if w.state == "queued":
            clients = {other.ask.client for other in self.queue()}
            self.virtual += w.cost / len(clients)
            self.latest = max(self.latest, w.start + w.cost)
            w.served_before = self.served.get(w.ask.client, 0.0)
            self.served[w.ask.client] = max(w.served_before, w.start + w.cost)
        del self.waiting[w.ask.id]
        w.fence = None
        self.granted[w.ask.id] = w

    def undo(self, grant: Grant) -> None:
        w = self.granted.pop(grant.ask.id)
        client = grant.ask.client
        if self.served[client] == w.start + w.cost:
            self.served[client] = w.served_before
        possible = self.possible(w.ask, self.live(), self.may_hold(client))
        w.state = "queued" if possible else "aside"
        self.waiting[grant.ask.id] = w
        del self.held[grant.ask.id]
        self.settle(client)

    # ---- decisions

    def decide(self) -> list[Grant]:
        gone = [
            w
            for w in self.queue()
            if not self.possible(w.ask, self.live(), self.may_hold(w.ask.client))
        ]
        for w in gone:
            w.state, w.fence = "aside", None
        for w in gone:
            self.settle(w.ask.client)
        grants: list[Grant] = []
        while more := self.walk():
            grants += more
        return grants

    def walk(self) -> list[Grant]:
        count = max(1, len(self.live()) // self.servers_per_fence)
        for w in self.queue()[count:]:
            w.fence = None
        grants: list[Grant] = []
        blocked = 0
        for w in self.queue():
            if w.state != "queued":
                continue
            grant = self.place(w)
            if grant is not None:
                self.serve(w)
                self.held[w.ask.id] = Held(w.ask.client, grant.server, grant.slices)
                self.settle(w.ask.client)
                grants.append(grant)
                continue
            blocked += 1
            if blocked <= count and w.fence is None:
                self.keep(w)
        return grants

    def place(self, w: Waiting) -> Optional[Grant]:
        anywhere = [(s, False) for s in self.live()]
        kept = []
        for server in self.live():
            owner = self.fence_of(server)
            if owner is not None and owner.key >= w.key:
                kept.append((server, True))
        for places in (anywhere, kept):
            found = [p for server, raw in places if (p := self.fit(w, server, raw))]
            if found:
                _, server, slices = min(found)
                return Grant(w.ask, server, slices)
        return None

    def fit(self, w: Waiting, server: str, raw: bool) -> Optional[tuple]:  # type: ignore[type-arg]
        ask, rows = w.ask, []
        for gpu in self.able(ask, server, self.may_take(ask.client)):
            size = self.memory(server, gpu)
            need = self.need(ask, size)
            room = self.free(server, gpu) if raw else self.open(server, gpu)
            if need <= room:
                whole = room == size and not self.spread
                rows.append((whole, need - room if self.spread else room - need, gpu, need, size))
        if len(rows) < ask.gpus:
            return None
        rows = sorted(rows)[: ask.gpus]
        view = self.views[server]
        untouched = sum(self.free(server, g.index) == g.memory for g in view.gpus)
        rank = (
            sum(row[0] for row in rows),
            rows[-1][1] if self.spread else rows[0][1],
            sum(row[1] for row in rows),
            max(row[4] for row in rows),
            -untouched if self.spread else untouched,
        )
        return rank, server, tuple(sorted(Slice(row[2], row[3]) for row in rows))

    def keep(self, w: Waiting) -> None:
        best = None
        for server in self.live():
            gpus = self.able(w.ask, server, self.may_hold(w.ask.client))
            if self.fence_of(server) is not None or len(gpus) < w.ask.gpus:
                continue
            sizes = {gpu: self.memory(server, gpu) for gpu in gpus}
            lacks = sorted((self.need(w.ask, sizes[g]) - self.open(server, g), g) for g in gpus)
            lacks = lacks[: w.ask.gpus]
            largest = max(sizes[gpu] for _, gpu in lacks)
            view = self.views[server]
            untouched = sum(self.free(server, g.index) == g.memory for g in view.gpus)
            tie = -untouched if self.spread else 0
            rank = (lacks[-1][0], sum(lack for lack, _ in lacks), largest, tie, server)
            if best is None or rank < best[0]:
                needs = {gpu: self.need(w.ask, sizes[gpu]) for _, gpu in lacks}
                best = (rank, server, needs)
        if best is not None:
            _, server, needs = best
            before = {name for name, held in self.held.items() if held.server == server}
            w.fence = Fence(server, needs, before)
