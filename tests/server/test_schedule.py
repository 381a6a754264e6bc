# SPDX-License-Identifier: Apache-2.0
"""What the scheduler promises, one case each; test_schedule_model.py has the histories."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from bitfusion.quantity import MIB
from bitfusion.server import filters
from bitfusion.server.caller import Limits
from bitfusion.server.pool import Slice
from bitfusion.server.schedule import Scheduler
from bitfusion.server.views import Ask, GpuView, Grant, ServerView, TooMuch


def server(number: int, gpus: int = 4, mib: int = 1000, name: str = "Tesla V100") -> ServerView:
    views = tuple(GpuView(i, name, mib * MIB, f"GPU-{number}-{i}") for i in range(gpus))
    return ServerView(f"s{number}", f"gpu{number}", (f"10.0.0.{number}:56001",), views)


class Desk:
    """A scheduler and a clock."""

    def __init__(self, *views: ServerView, **options: Any) -> None:
        self.scheduler = Scheduler(**options)
        self.now = 0.0
        self.count = 0
        for view in views:
            self.scheduler.set_server(view)

    def ask(self, client: str = "ann", gpus: int = 1, fraction: str = "1", **more: Any) -> str:
        self.count += 1
        name = f"{client}{self.count}"
        more["filters"] = tuple(filters.parse(text) for text in more.get("filters", ()))
        self.scheduler.submit(Ask(name, client, gpus, fraction, at_s=self.count, **more))
        return name

    def decide(self) -> list[str]:
        return [grant.ask.id for grant in self.grants()]

    def grants(self) -> list[Grant]:
        return self.scheduler.decide(self.now)

    def place(self, ask: str) -> tuple[int, Optional[float]]:
        place = self.scheduler.place(ask, self.now)
        return place.position, place.estimate_s

    def end(self, *sessions: str) -> list[str]:
        for session in sessions:
            self.scheduler.release(session, self.now)
        return self.decide()


def test_best_fit_keeps_whole_gpus_and_servers_free() -> None:
    desk = Desk(server(1), server(2), server(3))
    for client in ("ann", "bob", "cyd", "dan"):
        desk.ask(client, 1, "0.5")
    assert [(g.server, g.slices[0].gpu) for g in desk.grants()] == [
        ("s1", 0),
        ("s1", 0),
        ("s1", 1),
        ("s1", 1),
    ]
    desk.ask("ann", 2)
    desk.ask("bob", 4)
    assert [g.server for g in desk.grants()] == ["s1", "s2"]


def test_spread_does_the_opposite() -> None:
    desk = Desk(server(1), server(2), spread=True)
    for _ in range(4):
        desk.ask("ann", 1, "0.1")
    assert [(g.server, g.slices[0].gpu) for g in desk.grants()] == [
        ("s1", 0),
        ("s2", 0),
        ("s1", 1),
        ("s2", 1),
    ]


def test_parts_down_to_a_mib_and_exact_fractions() -> None:
    desk = Desk(server(1, 1, 800))
    small = [desk.ask("ann", memory=MIB) for _ in range(400)]
    assert len(desk.decide()) == len(small)
    desk.ask("bob", 1, "0.5")
    (grant,) = desk.grants()
    assert grant.slices == (Slice(0, 400 * MIB),)
    last = desk.ask("cyd", memory=1)
    assert desk.decide() == []
    assert desk.end(small[0]) == [last]


def test_all_gpus_of_one_ask_are_of_one_server() -> None:
    desk = Desk(server(1), server(2))
    one, two = desk.ask("ann", 3), desk.ask("bob", 3)
    assert desk.decide() == [one, two]
    both = desk.ask("cyd", 2)
    assert desk.decide() == [], "one here and one there are not two"
    assert desk.end(one) == [both]


def test_a_crowd_of_one_client_starves_nobody() -> None:
    desk = Desk(server(1))
    crowd = [desk.ask("crowd") for _ in range(40)]
    held = desk.decide()
    assert held == crowd[:4]
    ann, bob = desk.ask("ann"), desk.ask("bob")
    assert desk.place(ann)[0] <= 2
    assert desk.end(*held[:2]) == [crowd[4], ann]
    assert bob in desk.end(*held[2:])


def test_a_large_ask_is_not_starved_by_small_ones() -> None:
    desk = Desk(server(1), server(2))
    running = [desk.ask(f"c{n}") for n in range(8)]
    assert desk.decide() == running
    large, steps = desk.ask("large", 4), 0
    while large not in running:
        steps += 1
        assert steps < 20
        desk.ask(f"small{steps}")  # one more for each that ends
        running += desk.end(running.pop(0))
    assert steps <= 8


def test_others_pass_only_where_they_cannot_delay() -> None:
    desk = Desk(server(1, 2), server(2, 2))
    held = [desk.ask("ann") for _ in range(4)]
    desk.decide()
    big = desk.ask("big", 2)
    assert desk.decide() == []
    little = desk.ask("little")
    assert desk.end(held[0]) == [], "kept for the big one"
    assert desk.end(held[2]) == [little], "this server is not"
    assert desk.end(held[1]) == [big]


def test_what_a_kept_server_can_spare_is_given() -> None:
    desk = Desk(server(1, 1))
    first = desk.ask("ann", 1, "0.6")
    desk.decide()
    waits, small, other = (
        desk.ask("bob", 1, "0.7"),
        desk.ask("cyd", 1, "0.3"),
        desk.ask("dan", 1, "0.1"),
    )
    assert desk.decide() == [small], "0.7 stay for the one that waits"
    assert desk.end(first) == [waits]
    assert desk.end(waits) == [other]


def test_quotas_hold_back_their_client_only() -> None:
    desk = Desk(server(1))
    desk.scheduler.set_limits("ann", Limits(gpus=2, memory=1500 * MIB))
    one, two, three = desk.ask("ann"), desk.ask("ann", 1, "0.5"), desk.ask("ann", 1, "0.1")
    bob = desk.ask("bob")
    assert desk.decide() == [one, bob, two]
    assert desk.place(three) == (1, None)
    assert desk.end(two) == [three]
    with pytest.raises(TooMuch, match="^client 'ann' may hold at most 2 GPUs at once, and this"):
        desk.ask("ann", 3)
    with pytest.raises(TooMuch, match="^client 'ann' may hold at most 1500 MiB at once, and this"):
        desk.ask("ann", 2)


def test_undo_keeps_the_place() -> None:
    desk = Desk(server(1, 1))
    first, second = desk.ask("ann"), desk.ask("bob")
    (grant,) = desk.grants()
    desk.scheduler.undo(grant)
    assert [desk.place(first)[0], desk.place(second)[0]] == [1, 2]
    assert desk.decide() == [first]


def test_servers_drain_go_and_come() -> None:
    desk = Desk(server(1), server(2))
    desk.scheduler.set_server(server(1)._replace(drained=True))
    held = [desk.ask("ann", 4)]
    assert [grant.server for grant in desk.grants()] == ["s2"]
    waits = desk.ask("bob", 4)
    desk.scheduler.remove_server("s2")
    assert desk.decide() == []
    desk.scheduler.set_server(server(2))
    assert desk.decide() == [], "its sessions are still there"
    desk.scheduler.set_server(server(1))
    assert desk.decide() == [waits]
    assert desk.end(*held) == []


def test_sessions_on_unknown_servers_count() -> None:
    desk = Desk()
    desk.scheduler.set_limits("ann", Limits(gpus=1))
    desk.scheduler.hold("old", "ann", "s1", [Slice(0, 500 * MIB)], 0)
    desk.scheduler.set_server(server(1, 1))
    waits, other = desk.ask("ann", 1, "0.1"), desk.ask("bob", 1, "0.6")
    assert desk.decide() == []
    assert desk.end("old") == [waits, other]


V100_ONLY = {"filters": ("device.name=V100",)}


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        ({"gpus": 5}, "no server has more than 4 GPUs"),
        ({"gpus": 3, **V100_ONLY}, "no server has more than 2 GPUs that it may have"),
        ({"memory": 4001 * MIB}, "the largest GPU has 4000 MiB"),
        ({"memory": 1001 * MIB, **V100_ONLY}, "the largest GPU that it may have has 1000 MiB"),
        ({"gpus": 4, "memory": 3000 * MIB}, "no server has 4 GPUs with 3000 MiB"),
        ({"filters": ("device.name=H200",)}, "no GPU of the pool passes 'device.name=H200'"),
        (
            {"filters": ("device.name=V100", "device.phy-memory>2000")},
            "no GPU of the pool passes all of 'device.name=V100', 'device.phy-memory>2000'",
        ),
        ({"servers": ("gpu7",)}, "the pool has no server 'gpu7'"),
        (
            {"servers": ("gpu2",), "filters": ("device.name=V100",)},
            "no GPU of the servers asked for passes 'device.name=V100'",
        ),
    ],
)
def test_too_much_says_why(ask: dict[str, Any], why: str) -> None:
    mixed = server(2, 4, 1000, "Small S1")._replace(
        gpus=(
            *(GpuView(i, "Small S1", 1000 * MIB) for i in range(2)),
            *(GpuView(i, "Large A100", 4000 * MIB) for i in (2, 3)),
        )
    )
    desk = Desk(server(1, 2), mixed)
    with pytest.raises(TooMuch, match=f"^{why}$"):
        desk.ask(**ask)
    with pytest.raises(TooMuch, match="^the pool has no GPU$"):
        Desk().ask()


def test_who_waits_for_a_server_that_is_away_is_not_refused() -> None:
    desk = Desk(server(1), server(2, 8))
    desk.scheduler.remove_server("s2")
    waits = desk.ask("ann", 8)
    assert desk.decide() == []
    assert desk.place(waits) == (1, None)
    desk.scheduler.set_server(server(2, 8))
    assert desk.decide() == [waits]
    desk.scheduler.remove_server("s2", forget=True)
    with pytest.raises(TooMuch, match="no server has more than 4 GPUs"):
        desk.ask("ann", 8)


def test_who_waits_for_its_own_limit_is_told_so() -> None:
    desk = Desk(server(1, 8))
    desk.scheduler.set_limits("ann", Limits(gpus=2))
    first, second = desk.ask("ann", 2), desk.ask("ann", 1)
    assert desk.scheduler.place(first, 0).away == ""
    assert desk.decide() == [first]
    assert desk.scheduler.place(second, 0).away == "limit"
    assert desk.end(first) == [second]


def test_who_waits_for_a_drained_server_is_told_so() -> None:
    big = server(2, 8)
    desk = Desk(server(1), big)
    desk.scheduler.set_server(big._replace(drained=True))
    waits = desk.ask("ann", 8)
    assert desk.decide() == []
    assert desk.scheduler.place(waits, 0).away == "drained"
    desk.scheduler.remove_server("s2")
    assert desk.scheduler.place(waits, 0).away == "down"
    desk.scheduler.set_server(big)
    assert desk.scheduler.place(waits, 0).away == ""


def test_estimates_come_from_what_was_measured() -> None:
    desk = Desk(server(1, 1))
    for _ in range(8):
        session = desk.ask("ann")
        assert desk.decide() == [session]
        waits = desk.ask("bob")
        assert desk.place(waits) == (1, None), "nothing is known yet"
        desk.scheduler.cancel(waits)
        desk.now += 100
        desk.scheduler.release(session, desk.now)
    running = desk.ask("ann")
    desk.decide()
    first, second = desk.ask("bob"), desk.ask("cyd")
    desk.decide()
    desk.now += 40
    assert desk.place(first) == (1, pytest.approx(60))
    assert desk.place(second) == (2, pytest.approx(210)), "what runs has run for a while, too"
    desk.now += 70
    assert desk.place(first) == (1, None), "none has lasted as long as this one"
    desk.scheduler.set_limits("ann", Limits(time_s=120))
    assert desk.place(first) == (1, pytest.approx(10)), "but it may not last longer"
    assert desk.end(running) == [first]


def test_who_comes_back_is_where_it_was() -> None:
    """Its contact ended; meanwhile others were served, and time went on."""
    desk = Desk(server(1, 1))
    held = [desk.ask(client) for client in ("h1", "h2", "h3", "h4")]
    first = desk.ask("ann")
    desk.decide()
    desk.end(held[0])
    last = desk.ask("bob")
    ask = Ask(first, "ann", 1, at_s=5.0)
    assert desk.place(first)[0] < desk.place(last)[0]
    desk.scheduler.cancel(first)
    desk.end(held[1])
    desk.scheduler.submit(ask)
    assert desk.place(first)[0] < desk.place(last)[0]
