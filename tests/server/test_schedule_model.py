# SPDX-License-Identifier: Apache-2.0
"""The scheduler against a plain one that looks at everything, over random histories."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from reference_schedule import Reference, Waiting

from bitfusion.server import filters
from bitfusion.server.caller import Limits
from bitfusion.server.pool import Slice
from bitfusion.server.schedule import Scheduler
from bitfusion.server.views import Ask, GpuView, Grant, ServerView, TooMuch

Act = Callable[[Any], object]  # on a scheduler, whichever
Hear = Callable[[Act], None]
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
        self.gone: list[Ask] = []
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
            self.gone.append(self.plain.waiting[ask].ask)
            self.real.cancel(ask)
            self.plain.cancel(ask)

    @rule()
    def come_back(self) -> None:
        if self.gone:
            ask = self.gone.pop()
            taken = self.may_ask(ask)
            if taken:
                self.real.submit(ask)
            assert taken == self.plain.submit(ask)

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
        self.check_decision(lambda: self.real.decide(self.now))

    @rule(most=st.integers(1, 4), seed=st.integers(0, 1000))
    def decide_in_slices(self, most: int, seed: int) -> None:
        """What is heard between them comes after the decision."""
        self.slices(most, random.Random(seed).randrange)

    def slices(self, most: int, draw: Callable[[int], int]) -> None:
        heard: list[Callable[[], None]] = []

        def hear(act: Act) -> None:
            act(self.real)
            heard.append(lambda: act(self.plain))

        def decide() -> list[Grant]:
            grants = self.real.decide(self.now, most)
            while self.real.deciding:
                self.meanwhile(draw, hear)
                grants += self.real.decide(self.now, most)
            return grants

        self.check_decision(decide, heard)

    def meanwhile(self, draw: Callable[[int], int], hear: Hear) -> None:
        """Something that servers hear of while the leader decides."""
        kind = draw(5)
        if kind == 0:
            self.number += 1
            ask = Ask(f"a{self.number:04}", CLIENTS[draw(4)], 1 + draw(3), at_s=self.now)
            if self.may_ask(ask):
                hear(lambda each: each.submit(ask))
        elif kind == 1 and self.plain.waiting:
            name = sorted(self.plain.waiting)[draw(len(self.plain.waiting))]
            again = self.plain.waiting[name].ask
            hear(lambda each: each.cancel(name))
            if draw(2) and self.may_ask(again):  # its entry in the store is another one now
                hear(lambda each: each.submit(again))
        elif kind == 2 and self.plain.held:
            name = sorted(self.plain.held)[draw(len(self.plain.held))]
            self.facts.discard(name)
            hear(lambda each: each.release(name, self.now))
        elif kind == 3:
            self.number += 1
            name, parts = f"f{self.number:04}", (Slice(draw(3), 30 << 20),)
            server = f"s{draw(3)}"
            self.facts.add(name)
            hear(lambda each: each.hold(name, CLIENTS[0], server, parts, self.now))

    def may_ask(self, ask: Ask) -> bool:
        try:
            self.real.check(ask)
        except TooMuch:
            return False
        return True

    def check_decision(
        self, decide: Callable[[], list[Grant]], heard: Sequence[Callable[[], None]] = ()
    ) -> None:
        self.now += 1.0
        quotas = {client: self.held_by(client) for client in CLIENTS}
        grants = decide()
        assert grants == self.plain.decide()
        for grant in grants:
            check_grant(self.plain, grant)
        for client in {grant.ask.client for grant in grants}:
            limits = self.plain.limits.get(client, Limits())
            gpus, memory = self.held_by(client)
            assert not limits.gpus or gpus <= max(limits.gpus, quotas[client][0])
            assert not limits.memory or memory <= max(limits.memory, quotas[client][1])
        for each in heard:
            each()
        gone = set(self.plain.held).symmetric_difference(self.real._held)
        assert not gone, gone
        self.last = [grant for grant in grants if grant.ask.id in self.plain.held]
        if not heard:
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
        assert [w.key for w in queue] == self.real._queue.order.keys
        assert plain.virtual == self.real._queue.virtual
        for name, client in self.real._clients.items():
            assert max(client.served, plain.virtual) == max(
                plain.served.get(name, 0), plain.virtual
            )
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
