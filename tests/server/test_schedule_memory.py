# SPDX-License-Identifier: Apache-2.0
"""What the scheduler has to remember of clients, and when it must not: what they were served, what
their limits leave them, whom they made wait.
"""

from __future__ import annotations

import pytest
from test_schedule import Desk, server

from bitfusion.quantity import MIB
from bitfusion.server import fleet
from bitfusion.server.caller import Limits
from bitfusion.server.pool import Slice
from bitfusion.server.views import Ask, GpuView


def test_who_was_served_comes_after_those_who_were_not() -> None:
    """Also when it gave all back and waits for nothing in between."""
    desk = Desk(server(1, 1))
    hog = desk.ask("hog")
    desk.decide()
    ann, bob = desk.ask("ann"), desk.ask("bob")
    assert desk.end(hog) == [ann]
    desk.scheduler.release(ann, desk.now)
    again, cyd = desk.ask("ann"), desk.ask("cyd")
    assert desk.place(bob)[0] < desk.place(cyd)[0] < desk.place(again)[0]


def test_a_grant_that_did_not_stand_is_not_charged() -> None:
    desk = Desk(server(1, 1))
    first, _bob = desk.ask("ann"), desk.ask("bob")
    (grant,) = desk.grants()
    assert grant.ask.id == first
    desk.scheduler.undo(grant)
    desk.scheduler.cancel(first)
    again, cyd = desk.ask("ann"), desk.ask("cyd")
    assert desk.place(again)[0] < desk.place(cyd)[0]


def test_nobody_waits_for_one_that_waits_for_its_limit_of_memory() -> None:
    desk = Desk(server(1, 1))
    desk.scheduler.set_limits("ann", Limits(memory=600 * MIB))
    first = desk.ask("ann", memory=600 * MIB)
    assert desk.decide() == [first]
    second, bob = desk.ask("ann", memory=300 * MIB), desk.ask("bob", memory=400 * MIB)
    assert desk.scheduler.place(second, 0).away == "limit"
    assert desk.decide() == [bob]
    assert desk.end(first) == [second]


def test_a_limit_that_shrinks_holds_back_who_waits() -> None:
    desk = Desk(server(1, 1))
    hog = desk.ask("hog")
    assert desk.decide() == [hog]
    first, second = (desk.ask("ann", memory=400 * MIB) for _ in range(2))
    desk.scheduler.set_limits("ann", Limits(memory=500 * MIB))
    assert [desk.scheduler.place(ask, 0).away for ask in (first, second)] == ["", "limit"]
    assert desk.end(hog) == [first]
    desk.scheduler.set_limits("ann", Limits())
    assert desk.decide() == [second]


def test_memory_that_its_client_gives_back_may_be_what_one_waited_for() -> None:
    """There was room for it all the time, on a GPU that its client's limit did not allow."""
    desk = Desk(server(1, 1, 1000), server(2, 1, 500))
    desk.scheduler.set_limits("ann", Limits(memory=650 * MIB))
    held = desk.ask("ann", memory=200 * MIB, servers=("s2",))
    bob = desk.ask("bob", memory=300 * MIB, servers=("s2",))
    assert desk.decide() == [held, bob]
    half = desk.ask("ann", fraction="0.5")
    assert desk.decide() == []
    assert desk.end(held) == [half]


def test_nobody_gets_a_slice_without_a_byte() -> None:
    views = (GpuView(0, "Small", 100, "a"), GpuView(1, "Large", 1000, "b"))
    desk = Desk(server(1)._replace(gpus=views))
    large = desk.ask("hog", memory=1000)
    assert desk.decide() == [large]
    least = desk.ask("ann", fraction="0.001")  # a byte of the large one, and none of the other
    assert desk.decide() == []
    assert desk.end(large) == [least]


def test_what_nobody_asks_for_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_IDLE", 4)
    desk = Desk(server(1, 1))
    for number in range(40):
        desk.scheduler.cancel(desk.ask("ann", servers=("s1", f"s{number}")))
    assert len(desk.scheduler._fleet._selectors) <= 2 * fleet.MAX_IDLE


def test_time_goes_on_by_those_who_wait_now() -> None:
    """Not by those who waited once: it would go too slowly, and newcomers come before others."""
    desk = Desk(server(1, 1))
    for number in range(10):
        desk.scheduler.cancel(desk.ask(f"stranger{number}"))
    first = desk.ask("ann")
    assert desk.decide() == [first]
    assert desk.scheduler._queue.virtual == 1.0


def test_what_ended_on_a_server_that_was_not_known_is_free() -> None:
    desk = Desk(server(1, 1))
    for session in ("one", "two"):
        desk.scheduler.hold(session, "ann", "s2", (Slice(0, 500 * MIB),), 0.0)
    desk.scheduler.release("one", 1.0)
    desk.scheduler.set_server(server(2, 2))
    assert len([desk.ask("bob", fraction="0.5") for _ in range(5)]) == 5
    assert len(desk.decide()) == 5
    assert desk.end("two") == []
    desk.ask("bob", fraction="0.5")
    assert len(desk.decide()) == 1


@pytest.mark.parametrize("alike", [True, False])
def test_a_server_is_kept_for_one_alone(alike: bool) -> None:
    """Two that wait for the same server, as only that is large enough."""
    large = server(1, 2)
    if not alike:
        sizes = (GpuView(0, "Small", 900 * MIB, "a"), GpuView(1, "Large", 1000 * MIB, "b"))
        large = large._replace(gpus=sizes)
    desk = Desk(large, server(2, 1), servers_per_fence=1)
    held = desk.ask("hog", memory=MIB, servers=("s1",))
    assert desk.decide() == [held]
    ann, bob, cyd = desk.ask("ann", 2), desk.ask("bob", 2), desk.ask("cyd", servers=("s1",))
    assert desk.decide() == []
    assert list(desk.scheduler._fences.owners) == [ann]
    assert desk.end(held) == [ann]
    assert desk.end(ann) == [bob] and desk.end(bob) == [cyd]


def test_later_asks_make_way_for_one_that_comes_back_for_more() -> None:
    desk = Desk(server(1, 1))
    hog = desk.ask("hog")
    assert desk.decide() == [hog]
    first, later = desk.ask("ann", fraction="0.5"), desk.ask("ann")
    cyd = [desk.ask("cyd", fraction="0.7") for _ in range(2)]
    assert desk.place(later)[0] < desk.place(cyd[1])[0]
    desk.scheduler.cancel(first)
    desk.scheduler.submit(Ask(first, "ann", 1, at_s=2.0))
    places = [desk.place(ask)[0] for ask in (first, cyd[0], cyd[1], later)]
    assert places == [1, 2, 3, 4]
