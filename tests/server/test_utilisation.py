# SPDX-License-Identifier: Apache-2.0
"""How long GPUs worked for each session: no more in all than the time that passed."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Tuple

import pytest

from bitfusion.server.pool import Slice
from bitfusion.server.record import Record
from bitfusion.server.usage import Note, Usage
from bitfusion.server.utilisation import SECOND, WINDOWS, Utilisation

STEP_S = 0.005


class FakeLedger:
    def __init__(self) -> None:
        self.used = [0]

    def busy(self) -> List[int]:
        return list(self.used)


class FakeTimers:
    def __init__(self) -> None:
        self.actions: List[Callable[[], object]] = []

    def after(self, _seconds: float, action: Callable[[], object]) -> None:
        self.actions.append(action)


def make_session(name: str) -> Any:
    return SimpleNamespace(name=name, ledger=FakeLedger(), slices=[Slice(0, 1 << 30)])


class Bench:
    """Sessions on a GPU, a second at a time."""

    def __init__(self, *names: str) -> None:
        self.now_s, self.timers = 100.0, FakeTimers()
        self.sessions: Any = SimpleNamespace(by_name={})
        self.measured = Utilisation(self.sessions, self.timers, lambda: self.now_s)
        for name in names:
            self.begin(name)

    def begin(self, name: str) -> Any:
        session = self.sessions.by_name[name] = make_session(name)
        self.measured.start()
        return session

    def second(self, **spent_s: float) -> None:
        """Told at its end."""
        self.now_s += 1
        for name, seconds in spent_s.items():
            self.sessions.by_name[name].ledger.used[0] += int(seconds * SECOND)
        self.timers.actions.pop()()

    def counted(self) -> List[float]:
        return [self.measured.counted(one) for one in self.sessions.by_name.values()]

    def now(self) -> List[Any]:
        return [self.measured.of(one)[0] for one in self.sessions.by_name.values()]


def test_one_alone_counts_as_measured() -> None:
    bench = Bench("a")
    assert bench.now() == [None] and len(bench.timers.actions) == 1
    bench.second(a=0.25)
    assert bench.now() == [0.25] and bench.counted() == [0.25]
    bench.second()
    bench.second(a=2.5)  # a kernel that took longer than a second has ended
    assert bench.now() == [1.0] and bench.counted() == [2.75]
    bench.second(a=9)  # of several processes, which measure each other
    assert bench.now() == [1.0] and bench.counted() == [4.0]


def test_those_who_take_turns_share_the_time() -> None:
    bench = Bench("a", "b")
    for _ in range(4):
        bench.second(a=0.75, b=0.75)
        assert bench.now() == [0.5, 0.5]
    assert bench.counted() == [2.0, 2.0]
    bench.second(a=1, b=0.25)
    assert bench.counted() == [pytest.approx(2.8), pytest.approx(2.2)]


@pytest.mark.parametrize("late_s", [1, 7])
def test_long_kernels_that_took_turns_share_the_time(late_s: int) -> None:
    """Though the first one counted alone until the other ended."""
    bench = Bench("a", "b")
    for _ in range(19):
        bench.second()
    bench.second(a=20)
    assert bench.counted() == [20, 0]
    for _ in range(late_s - 1):
        bench.second()
    bench.second(b=20 + late_s)
    assert bench.counted() == [pytest.approx(10), pytest.approx(10 + late_s)]


def test_a_kernel_that_is_older_than_all_windows_counts_whole() -> None:
    bench = Bench("a", "idle")
    for _ in range(3 * WINDOWS):
        bench.second()
    bench.second(a=3 * WINDOWS)
    assert bench.counted() == [3 * WINDOWS, 0]
    for _ in range(2 * WINDOWS):  # nor is it forgotten, nor counted again
        bench.second(a=0.5)
    assert bench.counted() == [4 * WINDOWS, 0]


def test_the_next_server_goes_on_counting() -> None:
    bench = Bench("a")
    bench.second(a=0.5)
    (session,) = bench.sessions.by_name.values()
    again = Utilisation(bench.sessions, bench.timers, lambda: bench.now_s)
    again.start()
    again.go_on(session, 0.5)
    assert again.counted(session) == 0.5
    session.ledger.used[0] += SECOND // 4
    bench.now_s += 1
    again.look()
    assert again.counted(session) == 0.75


def test_nobody_is_there_and_nothing_wakes_the_server() -> None:
    bench = Bench("a")
    bench.sessions.by_name.clear()
    bench.second()
    assert not bench.timers.actions
    bench.begin("b")
    assert bench.timers.actions


class Client:
    """Whose kernels take so much of the GPU's time, one after the other."""

    def __init__(self, name: str, begins_s: float, ends_s: float, piece_s: float) -> None:
        self.name, self.begins_s, self.ends_s, self.piece_s = name, begins_s, ends_s, piece_s
        self.session = make_session(name)
        self.done_s = self.gpu_s = 0.0  # of its kernel, and in all
        self.since_s = begins_s

    def work(self, seconds: float, now_s: float) -> None:
        self.done_s += seconds
        self.gpu_s += seconds
        if self.done_s >= self.piece_s:
            self.session.ledger.used[0] += int((now_s - self.since_s) * SECOND)
            self.done_s, self.since_s = 0.0, now_s


def book(clients: List[Client], read_s: float) -> Dict[str, Tuple[float, float]]:
    """What is booked of each, and what it used: those who are there have the GPU in turns.
    Somebody reads it as often as that.
    """
    now_s, due = [0.0], [1.0]
    timers, there = FakeTimers(), {}
    sessions: Any = SimpleNamespace(by_name=there)
    measured = Utilisation(sessions, timers, lambda: now_s[0])
    usage = Usage(":memory:", lambda: 0.0)

    def note(client: Client) -> Note:
        record = Record(client.name, client.name, "", (Slice(0, 1),), ("u",), 0.0, 0.0)
        return Note(record, 1.0, measured.counted(client.session))

    for step in range(round(max(client.ends_s for client in clients) / STEP_S) + 2):
        now_s[0] = step * STEP_S
        for client in clients:
            if client.name in there and now_s[0] >= client.ends_s:
                del there[client.name]
                measured.look(client.session)
                usage.book([note(client)], now_s[0], [client.name])
            elif client.name not in there and client.begins_s <= now_s[0] < client.ends_s:
                there[client.name] = client.session
                measured.start()
        if now_s[0] >= due[0] and timers.actions:
            timers.actions.pop()()
            due[0] += 1.0
        here = [client for client in clients if client.name in there]
        if step % round(read_s / STEP_S) == 0:
            measured.look()
            usage.book([note(client) for client in here], now_s[0])
        for client in here:
            client.work(STEP_S / len(here), now_s[0] + STEP_S)
    booked = {row.client: row.busy_s for row in usage.used(-1, 1, ("client",))}
    return {client.name: (booked[client.name], client.gpu_s) for client in clients}


@pytest.mark.parametrize("read_s", [0.1, 0.5, 100.0])
@pytest.mark.parametrize(("piece_s", "within"), [(0.01, 0.25), (0.5, 0.8), (3.0, 3.5)])
def test_what_is_booked_is_what_was_used(piece_s: float, within: float, read_s: float) -> None:
    """Of sessions that come and go at any time, however often it is read; kernels that have not
    ended when it is, count later.
    """
    chance = random.Random(f"{piece_s} {read_s}")
    clients = [Client(name, chance.random(), 19 + chance.random(), piece_s) for name in "ab"]
    found = book(clients, read_s)
    for booked, used in found.values():
        assert abs(booked - used) <= within, found
    assert sum(booked for booked, _ in found.values()) <= 20.0 + piece_s / 2, found
