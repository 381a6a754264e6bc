# SPDX-License-Identifier: Apache-2.0
"""What a server's scheduler is told of what stands in the store."""

from __future__ import annotations

import time

import pytest
from clusters import MIB

from bitfusion.server.facts import MAX_AGE_S, Facts
from bitfusion.server.pool import Slice
from bitfusion.server.records import Claim, Entry
from bitfusion.server.schedule import Scheduler
from bitfusion.server.views import Ask, GpuView, Grant, ServerView, TooMuch

NOW_S = 5000.0


class Held(Scheduler):
    """Keeps since when sessions are held."""

    def __init__(self) -> None:
        super().__init__()
        self.since: dict[str, float] = {}

    def hold(self, session: str, client: str, server: str, slices: object, now_s: float) -> None:
        self.since[session] = now_s
        super().hold(session, client, server, slices, now_s)  # type: ignore[arg-type]


class Store:
    """Tells what stands in it."""

    def __init__(self, servers: str = "a") -> None:
        self.scheduler = Held()
        self.facts = Facts(self.scheduler, lambda: NOW_S)
        for server in servers:
            self.server(server)

    def server(self, name: str, gpus: int = 1) -> None:
        rows = tuple(GpuView(i, "Test GPU", 1000 * MIB, f"{name}{i}") for i in range(gpus))
        self.facts.put_server(ServerView(name, name, (f"{name}:1",), rows))

    def entry(self, name: str, client: str = "", gpus: int = 1, seq: int = 1) -> Entry:
        ask = Ask(name, client or name, gpus, at_s=float(seq))
        entry = Entry(ask, "contact", {}, 0.0, seq)
        self.facts.put_entry(entry)
        return entry

    def claim(self, entry: Entry, server: str = "a", since: float = 0.0) -> Claim:
        claim = Claim(entry, server, (Slice(0, 1000 * MIB),), since or time.time())
        self.facts.put_claim(claim)
        return claim

    def decide(self) -> list[str]:
        """Whose turn it is; as if the store had taken it."""
        return [grant.ask.id for grant in self.grants()]

    def grants(self) -> list[Grant]:
        return self.facts.decide()

    def places(self, *names: str) -> list[int]:
        return [self.scheduler.place(name, NOW_S).position for name in names]


def test_an_ask_that_nothing_can_meet_waits_for_a_server() -> None:
    store = Store("")
    store.entry("x")
    store.entry("gone")
    store.facts.drop_entry("gone")
    served = store.entry("served")
    store.claim(served, "away")
    store.facts.drop_entry("served")
    store.facts.drop_claim("served")
    assert store.decide() == []
    store.server("a", 3)
    assert store.decide() == ["x"]


def test_a_server_that_returns_is_not_gone() -> None:
    store = Store("a")
    store.facts.drop_server("never there")
    assert not store.facts.gone_since
    store.facts.drop_server("a")
    assert store.facts.gone_since == {"a": NOW_S}
    store.server("a")
    assert not store.facts.gone_since


def test_nobody_waits_for_a_server_that_is_forgotten() -> None:
    store = Store("a")
    store.facts.drop_server("a")
    store.facts.check(Ask("x", "x", 1))
    store.facts.forget_server("a")
    assert not store.facts.gone_since and not store.facts.seen
    with pytest.raises(TooMuch):
        store.facts.check(Ask("x", "x", 1))


def test_what_is_put_back_waits_where_it_was() -> None:
    """Its entry stands again before its claim goes."""
    store = Store("a")
    first, _second = store.entry("x", "c", seq=1), store.entry("y", "d", seq=2)
    assert store.decide() == ["x"]
    claim = store.claim(first)
    store.facts.drop_entry("x")
    assert store.places("y") == [1]
    store.facts.put_entry(first)
    assert store.places("y") == [1]
    store.facts.drop_claim(claim.session)
    assert store.places("x", "y") == [1, 2]
    assert store.decide() == ["x"]


def test_what_was_granted_before_we_came_can_be_put_back() -> None:
    store = Store("a")
    claim = store.claim(Entry(Ask("x", "c", 1), "contact", {}, 0.0, 1))
    store.facts.put_entry(claim.entry)
    assert store.decide() == []
    store.facts.drop_claim("x")
    assert store.decide() == ["x"]


def test_an_ask_of_the_same_name_later() -> None:
    """Its session ended, and its name stands in the store again: in an old copy of it."""
    store = Store("a")
    first = store.entry("x")
    assert store.decide() == ["x"]
    store.claim(first)
    store.facts.drop_entry("x")
    store.facts.drop_claim("x")
    store.claim(first)
    store.facts.put_entry(first)
    store.facts.drop_claim("x")
    assert store.decide() == ["x"]


@pytest.mark.parametrize("pending", [False, True])
def test_a_client_that_comes_back_for_something_else(pending: bool) -> None:
    """Under the name that it had, while it waits or while it is being granted."""
    store = Store("a")
    store.server("b", 2)
    entry = store.entry("x")
    grants = store.grants() if pending else []
    again = Ask("x", "x", 2, at_s=1.0)
    store.facts.put_entry(entry._replace(ask=again))
    store.entry("y", gpus=2, seq=2)
    for grant in grants:
        store.facts.undo(grant)
    (grant,) = store.grants()
    assert (grant.ask, grant.server, len(grant.slices)) == (again, "b", 2)
    assert store.decide() == []  # there is no room for two such


def test_a_claim_of_something_else_than_waits_now() -> None:
    store = Store("a")
    store.server("b", 2)
    first = store.entry("x")
    assert store.decide() == ["x"]
    store.claim(first)
    store.facts.put_entry(first._replace(ask=first.ask._replace(gpus=2)))
    store.facts.drop_claim("x")
    (grant,) = store.grants()
    assert grant.ask.gpus == len(grant.slices) == 2


def test_a_decision_that_stands_is_not_undone() -> None:
    store = Store("a")
    first = store.entry("x")
    store.entry("y", seq=2)
    (grant,) = store.grants()
    store.claim(first)
    store.facts.drop_entry("x")
    store.facts.undo(grant)
    assert store.decide() == [] and store.places("y") == [1]


def test_a_decision_is_undone_once() -> None:
    store = Store("a")
    store.entry("x")
    (grant,) = store.grants()
    store.facts.undo(grant)
    (again,) = store.grants()
    store.facts.undo(grant)
    assert store.decide() == []
    store.facts.undo(again)
    assert store.decide() == ["x"]


def test_a_decision_for_a_client_that_left_is_undone() -> None:
    store = Store("a")
    store.entry("x")
    (grant,) = store.grants()
    store.facts.drop_entry("x")
    store.entry("y", seq=2)
    assert store.decide() == []  # the claim may stand yet
    store.facts.undo(grant)
    assert store.decide() == ["y"]


def test_who_is_put_back_is_where_it_was() -> None:
    """Its server refused it. That it left the queue was told before that it was granted."""
    store = Store("a")
    first = store.entry("x")
    store.entry("y", seq=2)
    assert store.decide() == ["x"]
    store.facts.drop_entry("x")
    store.claim(first)
    store.facts.put_entry(first)
    store.facts.drop_claim("x")
    assert store.places("x", "y") == [1, 2]


def test_a_session_that_moved() -> None:
    """The store says another server than it did."""
    store = Store("ab")
    claim = store.claim(Entry(Ask("x", "c", 1), "contact", {}, 0.0, 1), "a")
    store.facts.put_claim(claim._replace(server="b"))
    store.entry("y")
    assert [grant.server for grant in store.grants()] == ["a"]


@pytest.mark.parametrize("age_s, known_s", [(100.0, 100.0), (-1e6, 0.0), (1e9, MAX_AGE_S)])
def test_since_when_a_session_runs(age_s: float, known_s: float) -> None:
    """Whatever the clock of the server was that granted it."""
    store = Store("a")
    entry = Entry(Ask("x", "c", 1), "contact", {}, 0.0, 1)
    store.claim(entry, since=time.time() - age_s)
    assert abs(NOW_S - store.scheduler.since["x"] - known_s) < 5


def test_how_many_asks_of_a_client_wait() -> None:
    store = Store("a")
    first = store.entry("x1", "x")
    store.entry("x2", "x")
    store.facts.put_entry(first._replace(contact="another"))
    assert store.facts.waits == {"x": 2}
    for name in ("x1", "x1", "never there", "x2"):
        store.facts.drop_entry(name)
    assert not store.facts.waits
