# SPDX-License-Identifier: Apache-2.0
"""Leases of sessions in this process, on a clock that tests move: who may have one, what is kept
for the next server, what is forgotten.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clusters import Clock

from bitfusion.inventory import Gpu, Inventory
from bitfusion.server import leases as leases_module
from bitfusion.server.caller import Refusal
from bitfusion.server.leases import GRACE_S, Lease, Leases
from bitfusion.server.pool import Slice
from bitfusion.server.record import Record, hash_secret
from bitfusion.server.sessions import Sessions

LEASE_S = 30.0


class Timers(Clock):
    """A clock whose timers can be cancelled."""

    def after(self, seconds: float, action: Any) -> Any:
        timer = SimpleNamespace(on=True)
        timer.cancel = lambda: setattr(timer, "on", False)
        super().after(seconds, lambda: action() if timer.on else None)
        return timer


class Kept:
    """What is kept for the next server."""

    def __init__(self) -> None:
        self.endings: dict[str, object] = {}

    def keep(self, session: str, record: dict[str, object], ledger: int = -1) -> None:
        self.endings[session] = record["ending"]

    def drop(self, session: str) -> None:
        del self.endings[session]


class FakeLedger:
    def fileno(self) -> int:
        return -1

    def close(self) -> None: ...


class Place:
    """A server's sessions, without workers."""

    def __init__(self) -> None:
        self.timers, self.kept = Timers(), Kept()
        self.activity = 0
        inventory = Inventory((Gpu("Test GPU", 1000, "gpu-0"),), "none", "", {}, "", True)
        workers: Any = SimpleNamespace(signal=lambda *_: None)
        self.sessions = Sessions(inventory, workers, self.timers, lambda _limits: None)
        self.leases = Leases(
            self.sessions,
            self.timers,
            LEASE_S,
            self.kept,
            lambda _session: self.activity,
            self.timers.read,
        )
        self.sessions.on_end = self.leases.closed

    def begin(self, name: str, client: str = "alice", **limits: float) -> Lease:
        record = Record(name, client, hash_secret("x"), (Slice(0, 10),), ("gpu-0",), 0.0, 0.0)
        started_s = self.timers.now_s
        return self.leases.begin(record._replace(started_s=started_s, **limits))  # type: ignore[arg-type]

    def there(self) -> list[str]:
        return sorted(self.sessions.by_name)


@pytest.fixture()
def place() -> Place:
    return Place()


PEER: Any = SimpleNamespace(cut=0, broke="")


def test_who_attached_keeps_it(place: Place) -> None:
    place.leases.attach(place.begin("used"), PEER)
    place.begin("unused")
    place.timers.run(LEASE_S - 1)
    assert place.there() == ["unused", "used"]
    place.timers.run(2)
    assert place.there() == ["used"]


def test_who_may_not_come_yet_is_waited_for(place: Place) -> None:
    """The server does not know its clients: their launchers cannot attach."""
    place.begin("s")
    place.leases.reachable = lambda: False
    place.timers.run(5 * LEASE_S)
    assert place.there() == ["s"]
    place.leases.reachable = lambda: True
    place.timers.run(LEASE_S + 1)
    assert place.there() == []


@pytest.mark.parametrize(
    ("name", "client", "secret"), [("s", "bob", "x"), ("s", "alice", "y"), ("t", "alice", "x")]
)
def test_a_session_is_its_clients_who_has_its_secret(
    place: Place, name: str, client: str, secret: str
) -> None:
    lease = place.begin("s")
    assert place.leases.find("s", "alice", "x") is lease
    with pytest.raises(Refusal) as refusal:
        place.leases.find(name, client, secret)
    assert refusal.value.status == 404


def test_one_that_is_to_end_ends_with_the_next_server_too(place: Place) -> None:
    place.leases.attach(lease := place.begin("s"), PEER)
    place.leases.end(lease, "killed", "an operator ended it")
    assert place.kept.endings == {"s": "killed"} and place.there() == ["s"]
    place.timers.run(GRACE_S + 1)
    assert place.kept.endings == {} and place.there() == []


def test_some_that_ended_are_remembered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "MAX_ENDED", 3)
    for number in range(5):
        place.leases.end(place.begin(f"s{number}"), "killed", "an operator ended it", 0)
    for number in range(2, 5):
        assert place.leases.find(f"s{number}", "alice", "x").ending == "killed"
    for number in range(2):
        with pytest.raises(Refusal):
            place.leases.find(f"s{number}", "alice", "x")


def test_nobody_shares_with_one_that_ended(place: Place) -> None:
    lease = place.begin("s")
    lease.session.ledger = FakeLedger()  # type: ignore[assignment]
    place.leases.ledger_made(lease.session)
    assert list(place.leases._fairness._members) == ["s"]
    place.leases.end(lease, "killed", "an operator ended it", 0)
    assert not place.leases._fairness._members


def test_work_puts_the_idle_limit_off(place: Place) -> None:
    place.leases.attach(place.begin("s", idle_s=60.0), PEER)
    for _ in range(5):
        place.timers.run(50)
        place.activity += 1
        place.timers.run(5)
    assert place.there() == ["s"]
    place.timers.run(60 + GRACE_S)
    assert place.there() == []


def test_a_time_limit_counts_from_the_start(place: Place) -> None:
    place.leases.attach(place.begin("s", time_s=100.0), PEER)
    place.timers.run(99)
    assert place.kept.endings == {"s": ""}
    place.timers.run(2)
    assert place.kept.endings == {"s": "time"}
    place.timers.run(GRACE_S)
    assert place.there() == []
