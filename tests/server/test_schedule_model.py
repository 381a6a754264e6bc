# SPDX-License-Identifier: Apache-2.0
"""The scheduler against a plain one that looks at everything, over random histories."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference_schedule import Reference, Waiting

from bitfusion.server import filters, fleet, schedule, waiting
from bitfusion.server.caller import Limits
from bitfusion.server.pool import Slice
from bitfusion.server.schedule import Scheduler
from bitfusion.server.views import Ask, GpuView, Grant, ServerView, TooMuch

CLIENTS = ("ann", "bob", "cyd", "dan")
SIZES = (100, 160, 400)
NAMES = {100: "Small S1", 160: "Tesla V100", 400: "Large A100"}
FILTERS = (
    (),
    (),
    (),
    ("device.name=Tesla",),
    ("device.phy-memory>=160",),
    ("device.phy-memory>=160", "device.name!=Tesla"),
    ("device.id=0",),
    ("device.id<2", "server.has-rdma=true"),
    ("server.hostname=gpu1",),
    ("server.cuda-version>=12",),
)
SERVERS = ((), (), (), (), ("gpu0",), ("10.0.0.1:56001", "10.0.0.2:56001"), ("s3", "s0"))
FRACTIONS = ("1", "1", "0.5", "0.5", "0.25", "0.3", "0.01", "0.999", "0.001")

ASKS = st.fixed_dictionaries(
    {
        "client": st.sampled_from(CLIENTS),
        "gpus": st.sampled_from((1, 1, 1, 2, 2, 3, 4)),
        "fraction": st.sampled_from(FRACTIONS),
        "memory": st.sampled_from((0, 0, 1, 30, 100, 101, 160, 350)),
        "filters": st.sampled_from(FILTERS),
        "servers": st.sampled_from(SERVERS),
    }
)
VIEWS = st.builds(
    lambda number, sizes, version, rdma, drained: view(number, sizes, version, rdma, drained),
    st.integers(0, 4),
    st.one_of(
        st.builds(lambda size, count: [size] * count, st.sampled_from(SIZES), st.integers(1, 4)),
        st.lists(st.sampled_from(SIZES), max_size=4),
    ),
    st.sampled_from(("11.8", "12.4")),
    st.booleans(),
    st.sampled_from((False, False, True)),
)


def view(
    number: int, sizes: list[int], version: str = "", rdma: bool = False, drained: bool = False
) -> ServerView:
    gpus = tuple(
        GpuView(i, NAMES[size], size << 20, f"GPU-{number}-{i}") for i, size in enumerate(sizes)
    )
    return ServerView(
        f"s{number}", f"gpu{number}", (f"10.0.0.{number}:56001",), gpus, version, "", rdma, drained
    )


BASE = (view(0, [160] * 4, "12.4"), view(1, [160] * 4, "11.8"), view(2, [400, 100, 160]))


class Pool(RuleBasedStateMachine):
    """Each step goes to both; whatever they show must be the same."""

    @initialize(
        spread=st.booleans(),
        per_fence=st.sampled_from((1, 2, 16)),
        views=st.lists(VIEWS, max_size=4),
    )
    def start(self, spread: bool, per_fence: int, views: list[ServerView]) -> None:
        self.real = Scheduler(spread, per_fence)
        self.plain = Reference(spread, per_fence)
        self.number = 0
        self.now = 0.0
        self.last: list[Grant] = []
        self.facts: set[str] = set()  # sessions that nobody granted here
        for each in (*BASE, *views):
            self.set_server(each)

    @rule(view=VIEWS)
    def set_server(self, view: ServerView) -> None:
        self.real.set_server(view)
        self.plain.set_server(view)

    @rule(server=st.sampled_from(("s0", "s1", "s2", "s3")), forget=st.booleans())
    def remove_server(self, server: str, forget: bool) -> None:
        self.real.remove_server(server, forget)
        self.plain.remove_server(server, forget)

    @rule(server=st.sampled_from(("s0", "s1", "s2", "s3")), drained=st.booleans())
    def drain(self, server: str, drained: bool) -> None:
        if server in self.plain.up:
            self.set_server(self.plain.views[server]._replace(drained=drained))

    @rule(asks=st.lists(ASKS, min_size=1, max_size=6), old=st.sampled_from((0, 0, 0, 20)))
    def submit(self, asks: list[dict[str, Any]], old: int) -> None:
        for words in asks:
            self.number += 1
            self.now += 1.0
            words = {
                **words,
                "memory": words["memory"] << 20,
                "filters": tuple(map(filters.parse, words["filters"])),
            }
            ask = Ask(id=f"a{self.number:04}", at_s=self.now - old, **words)
            try:
                self.real.submit(ask)
                taken = True
            except TooMuch:
                taken = False
            assert taken == self.plain.submit(ask)

    @rule(which=st.integers(0, 100))
    def cancel(self, which: int) -> None:
        if self.plain.waiting:
            ask = sorted(self.plain.waiting)[which % len(self.plain.waiting)]
            self.real.cancel(ask)
            self.plain.cancel(ask)

    @rule(which=st.lists(st.integers(0, 100), min_size=1, max_size=5))
    def release(self, which: list[int]) -> None:
        for number in which:
            if self.plain.held:
                session = sorted(self.plain.held)[number % len(self.plain.held)]
                self.end(session)

    def end(self, session: str) -> None:
        self.now += 1.0
        self.facts.discard(session)
        self.last = [grant for grant in self.last if grant.ask.id != session]
        self.real.release(session, self.now)
        self.plain.release(session)

    @rule(
        client=st.sampled_from(CLIENTS),
        gpus=st.sampled_from((0, 0, 1, 2, 4)),
        memory=st.sampled_from((0, 0, 0, 100, 300, 801)),
    )
    def set_limits(self, client: str, gpus: int, memory: int) -> None:
        self.real.set_limits(client, Limits(gpus, memory << 20))
        self.plain.set_limits(client, Limits(gpus, memory << 20))

    @rule(
        client=st.sampled_from(CLIENTS),
        server=st.sampled_from(("s0", "s1", "s9")),
        gpus=st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True),
        mib=st.integers(1, 200),
    )
    def fact(self, client: str, server: str, gpus: list[int], mib: int) -> None:
        """A session of before, or of a server that has more than it says."""
        self.number += 1
        session, slices = f"f{self.number:04}", tuple(Slice(gpu, mib << 20) for gpu in gpus)
        self.facts.add(session)
        self.real.hold(session, client, server, slices, self.now)
        self.plain.hold(session, client, server, slices)

    @rule(which=st.integers(0, 100))
    def granted_elsewhere(self, which: int) -> None:
        """Another server is the leader: we only hear of it."""
        if self.plain.waiting and self.plain.views:
            ask = self.plain.waiting[
                sorted(self.plain.waiting)[which % len(self.plain.waiting)]
            ].ask
            server = sorted(self.plain.views)[which % len(self.plain.views)]
            slices = (Slice(0, 1 << 20),)
            self.facts.add(ask.id)
            self.real.hold(ask.id, ask.client, server, slices, self.now)
            self.plain.hold(ask.id, ask.client, server, slices)

    @rule()
    def decide(self) -> None:
        self.now += 1.0
        quotas = {client: self.held_by(client) for client in CLIENTS}
        grants = self.real.decide(self.now)
        assert grants == self.plain.decide()
        self.last = grants
        for grant in grants:
            check_grant(self.plain, grant)
        for client in {grant.ask.client for grant in grants}:
            limits = self.plain.limits.get(client, Limits())
            gpus, memory = self.held_by(client)
            assert not limits.gpus or gpus <= max(limits.gpus, quotas[client][0])
            assert not limits.memory or memory <= max(limits.memory, quotas[client][1])
        assert self.real.decide(self.now) == []

    def held_by(self, client: str) -> tuple[int, int]:
        return self.plain.gpus_of(client), self.plain.memory_of(client)

    @rule(which=st.lists(st.integers(0, 10), min_size=1, max_size=3))
    def undo(self, which: list[int]) -> None:
        for number in which:
            if self.last:
                grant = self.last.pop(number % len(self.last))
                self.real.undo(grant)
                self.plain.undo(grant)

    @rule()
    def everybody_is_served_in_the_end(self) -> None:
        """As sessions end, nobody is left over but those who need servers that are away."""
        for _ in range(400):
            self.decide()
            waiting = {w.ask.id for w in self.plain.waiting.values() if self.may_hope(w)}
            if not waiting:
                break
            assert self.plain.held, waiting
            self.end(min(self.plain.held))
        else:
            raise AssertionError("somebody waits for ever")

    def may_hope(self, w: Waiting) -> bool:
        """Not so who needs servers that are away, or whose limits were lowered below what it or
        one before it asks for.
        """
        if w.state == "back":
            limits = self.plain.limits[w.ask.client]
            first = self.plain.of(w.ask.client, "back")[0].ask
            least = self.plain.least(first)
            if 0 < limits.gpus < first.gpus or 0 < limits.memory < least:
                return False
        return w.state != "aside"

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "real"):
            return
        plain = self.plain
        queue = plain.queue()
        assert [w.ask.id for w in queue] == [w.ask.id for w in self.real._queue.order.waiters]
        assert set(self.real._aside) == {i for i, w in plain.waiting.items() if w.state == "aside"}
        assert set(self.real._waiters) == set(plain.waiting)
        kept = {i: w.host.id for i, w in self.real._fences.owners.items() if w.host}
        assert kept == {w.ask.id: w.fence.server for w in queue if w.fence}
        for number, w in enumerate(queue):
            place = self.real.place(w.ask.id, self.now)
            assert (place.position, place.of) == (number + 1, len(plain.waiting))
        for w in plain.waiting.values():
            assert 1 <= self.real.place(w.ask.id, self.now).position <= len(plain.waiting)

    @invariant()
    def never_more_than_there_is(self) -> None:
        if not hasattr(self, "real"):
            return
        for server, each in self.plain.views.items():
            host = self.real._fleet.hosts[server]
            for gpu in each.gpus:
                assert host.free[gpu.index] == self.plain.free(server, gpu.index)
        assert set(self.real._held) == set(self.plain.held)


def check_grant(plain: Reference, grant: Grant) -> None:
    """It is what was asked for, on one server that is up, and there was room."""
    ask, view = grant.ask, plain.views[grant.server]
    assert grant.server in plain.up and not view.drained
    assert len({part.gpu for part in grant.slices}) == len(grant.slices) == ask.gpus
    for part in grant.slices:
        gpu = next(gpu for gpu in view.gpus if gpu.index == part.gpu)
        assert filters.match(ask.filters, view, gpu)
        assert part.memory == plain.need(ask, gpu.memory)
        assert plain.free(grant.server, part.gpu) >= 0


Pool.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestPool = pytest.mark.timeout(300)(Pool.TestCase)


class Walk:
    """A busy pool, longer than hypothesis would go: more is asked for than there is."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pool = Pool()
        extra = [view(3, [400] * 4, "12.4", True), view(4, [160] * 2, "12.4", True)]
        self.pool.start(seed % 3 == 2, (1, 2, 16)[seed % 3], extra)
        self.granted = self.fenced = 0

    def step(self) -> None:
        pool, pick = self.pool, self.random
        kind = pick.choices(range(8), (30, 30, 4, 2, 2, 2, 2, 1))[0]
        numbers = [pick.randrange(100) for _ in range(pick.randint(1, 3))]
        if kind == 0 and len(pool.plain.waiting) < 40:
            pool.submit([self.ask() for _ in numbers], pick.choice((0, 0, 20)))
        elif kind <= 1:
            pool.release(numbers)
        elif kind == 2:
            pool.cancel(numbers[0])
        elif kind == 3:
            memory = pick.choice((0, 0, 500, 900))
            pool.set_limits(pick.choice(CLIENTS), pick.choice((0, 0, 4, 6)), memory)
        elif kind == 4:
            pool.drain(f"s{pick.randrange(5)}", pick.random() < 0.3)
        elif kind == 5:
            pool.undo(numbers)
        elif kind == 6:
            pool.fact(pick.choice(CLIENTS), f"s{pick.randrange(4)}", [pick.randrange(4)], 40)
        else:
            server = f"s{pick.randrange(5)}"
            pool.remove_server(server, False)
            pool.same()
            pool.set_server(pool.plain.views[server])
        if pick.random() < 0.7:
            pool.decide()
            self.granted += len(pool.last)
        self.fenced += len(pool.real._fences.owners)
        pool.same()
        pool.never_more_than_there_is()

    def ask(self) -> dict[str, Any]:
        pick = self.random
        return {
            "client": pick.choice(CLIENTS),
            "gpus": pick.choice((1, 1, 1, 2, 3, 4)),
            "fraction": pick.choice(FRACTIONS),
            "memory": pick.choice((0, 0, 0, 1, 30, 100, 160)),
            "filters": pick.choice(FILTERS) if pick.random() < 0.4 else (),
            "servers": pick.choice(SERVERS) if pick.random() < 0.3 else (),
        }


@pytest.mark.parametrize("seed", range(6))
def test_a_busy_pool(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them with what is done for large pools only."""
    if seed % 2:
        monkeypatch.setattr(fleet, "MANY", 0)
        monkeypatch.setattr(waiting, "BLOCK", 1)
    if seed % 4 == 3:
        monkeypatch.setattr(schedule, "FEW", 0)
    walk = Walk(seed)
    for _ in range(400):
        walk.step()
    walk.pool.everybody_is_served_in_the_end()
    assert walk.granted > 100
    assert walk.fenced > 50
