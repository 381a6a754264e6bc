# SPDX-License-Identifier: Apache-2.0
"""Device time shared out between sessions, on GPUs that are only simulated."""

from __future__ import annotations

import heapq
import random
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import pytest

from bitfusion.server.fairness import SECOND, SLACK_S, TICK_S, Fairness

STEP_S = 0.005


class Clock:
    """Timers whose time the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: List[Any] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[[], object]) -> object:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, action))
        return object()

    def move(self, seconds: float) -> None:
        self.now += seconds
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()


class FakeLedger:
    def __init__(self, gpus: int = 1) -> None:
        self.used = [0] * gpus
        self.until: Optional[List[int]] = None
        self.rations = 0
        self.waits = False

    def busy(self) -> List[int]:
        return list(self.used)

    def ration(self, until: Optional[Sequence[int]]) -> None:
        self.until = None if until is None else list(until)
        self.rations += 1

    def last_call(self) -> Tuple[float, int]:
        return 0.0, int(self.waits)

    def may(self, place: int = 0) -> bool:
        return self.until is None or self.used[place] < self.until[place]


def run(clock: Clock, demand: Dict[FakeLedger, float], seconds: float) -> None:
    """One GPU that gives its time to who may have it in proportion to their demand: a session with
    three processes gets three times as much of a real one.
    """
    for _ in range(round(seconds / STEP_S)):
        wanting = [ledger for ledger in demand if ledger.may()]
        weight = sum(demand[ledger] for ledger in wanting)
        for ledger in wanting:
            ledger.waits = True
            ledger.used[0] += int(STEP_S * SECOND * demand[ledger] / weight)
        clock.move(STEP_S)
        for ledger in wanting:
            ledger.waits = False  # till the next piece of work


def shares(ledgers: Sequence[FakeLedger]) -> List[float]:
    total = sum(ledger.used[0] for ledger in ledgers)
    return [ledger.used[0] / total for ledger in ledgers]


def test_a_greedy_session_gets_no_more() -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    greedy, modest = FakeLedger(), FakeLedger()
    fairness.add("a", [0], greedy)
    fairness.add("b", [0], modest)
    run(clock, {greedy: 8, modest: 1}, 20)
    assert shares([greedy, modest])[1] == pytest.approx(0.5, abs=0.02)


def test_whoever_is_alone_is_not_held() -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    one, idle = FakeLedger(), FakeLedger()
    fairness.add("a", [0], one)
    run(clock, {one: 1}, 1)
    assert one.rations == 0
    fairness.add("b", [0], idle)
    run(clock, {one: 1}, 2)
    assert one.used[0] == pytest.approx(3 * SECOND, rel=0.01)
    assert one.until is None


def test_the_idle_do_not_save_up() -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    early, late = FakeLedger(), FakeLedger()
    fairness.add("a", [0], early)
    fairness.add("b", [0], late)
    run(clock, {early: 1}, 10)
    before = early.used[0]
    run(clock, {early: 1, late: 1}, 2)
    assert early.used[0] - before == pytest.approx(1 * SECOND, abs=2 * SLACK_S * SECOND)


def test_who_goes_away_frees_the_others() -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    one, two = FakeLedger(), FakeLedger()
    fairness.add("a", [0], one)
    fairness.add("b", [0], two)
    run(clock, {one: 5, two: 1}, 1)
    fairness.remove("b")
    clock.move(2 * TICK_S)
    before = one.used[0]
    run(clock, {one: 1}, 1)
    assert one.used[0] - before == pytest.approx(SECOND, rel=0.02)


def test_two_gpus_are_apart() -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    both, zero = FakeLedger(2), FakeLedger()
    fairness.add("a", [0, 1], both)
    fairness.add("b", [0], zero)
    both.waits = zero.waits = True
    for _ in range(400):
        if both.may(0):
            both.used[0] += int(STEP_S * SECOND)
        if zero.may():
            zero.used[0] += int(STEP_S * SECOND / 4)
        both.used[1] += int(STEP_S * SECOND)
        assert both.until is None or both.until[1] > both.used[1]
        clock.move(STEP_S)
    assert both.used[0] <= zero.used[0] + 3 * SLACK_S * SECOND


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_ever_stuck(seed: int) -> None:
    """Whatever the others do, somebody who wants a GPU may always go on."""
    pick = random.Random(seed)
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    ledgers: Dict[str, FakeLedger] = {}
    for turn in range(2000):
        if pick.random() < 0.02 and len(ledgers) < 6:
            ledgers[str(turn)] = FakeLedger()
            fairness.add(str(turn), [0], ledgers[str(turn)])
        if pick.random() < 0.01 and ledgers:
            gone = pick.choice(sorted(ledgers))
            fairness.remove(gone)
            del ledgers[gone]
        wanting = {
            ledger: pick.choice([1, 5]) for ledger in ledgers.values() if pick.random() < 0.7
        }
        run(clock, wanting, STEP_S)
        if turn % 20 == 0 and wanting:
            clock.move(TICK_S)
            assert any(ledger.may() for ledger in ledgers.values())


class Modest:
    """A session that works for a while now and then, and waits for each piece of it."""

    def __init__(self, piece_s: float, period_s: float, most: float = 1.0) -> None:
        """most: of the GPU's time, to which its own share holds it."""
        self.ledger = FakeLedger()
        self.piece_s, self.period_s, self.most = piece_s, period_s, most
        self.begun_s = self.rest_s = 0.0
        self.late_s = 0.0  # the longest that a piece took

    def wants(self, now_s: float) -> bool:
        if self.rest_s <= 0 and now_s - self.begun_s >= self.period_s:
            self.begun_s, self.rest_s = now_s, self.piece_s
        return self.rest_s > 0

    def work(self, seconds: float, now_s: float) -> None:
        self.rest_s -= seconds
        self.ledger.used[0] += int(seconds * SECOND)
        self.late_s = max(self.late_s, now_s - self.begun_s)


def run_beside(greedy: FakeLedger, modest: Modest, clock: Clock, weight: float) -> float:
    """For 20 s; the part of the GPU's time that is used by the greedy one, which has `weight`
    times as many processes.
    """
    before = greedy.used[0]
    for _ in range(round(20 / STEP_S)):
        wants = modest.wants(clock.now)
        modest.ledger.waits = wants
        may = wants and modest.ledger.may()
        if greedy.may():
            part = STEP_S * weight / (weight + may)
            greedy.used[0] += int(part * SECOND)
            greedy.waits = True
            if may:
                modest.work(STEP_S - part, clock.now)
        elif may:
            modest.work(STEP_S, clock.now)
        clock.move(STEP_S)
    return (greedy.used[0] - before) / SECOND / 20


@pytest.mark.parametrize("weight", [1, 8])
@pytest.mark.parametrize(("piece_s", "period_s"), [(0.01, 0.2), (0.01, 0.5), (0.03, 0.1)])
def test_who_uses_little_costs_little(piece_s: float, period_s: float, weight: float) -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    greedy, modest = FakeLedger(), Modest(piece_s, period_s)
    fairness.add("a", [0], greedy)
    fairness.add("b", [0], modest.ledger)
    part = run_beside(greedy, modest, clock, weight)
    little = modest.ledger.used[0] / SECOND / 20
    assert little >= 0.85 * piece_s / period_s
    assert part + little >= 0.87
    assert modest.late_s < 0.4


def test_a_share_holds_its_owner_alone() -> None:
    """Its worker waits, with the client's next call unread or not."""
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    greedy, capped = FakeLedger(), FakeLedger()
    fairness.add("a", [0], greedy)
    fairness.add("b", [0], capped, 0.02)
    started_s = clock.now
    for _ in range(round(20 / STEP_S)):
        may = capped.may() and capped.used[0] / SECOND < 0.02 * (clock.now - started_s)
        capped.waits = True
        capped.used[0] += int(may * STEP_S * SECOND / 2)
        if greedy.may():
            greedy.waits = True
            greedy.used[0] += int(STEP_S * SECOND / (2 if may else 1))
        clock.move(STEP_S)
    assert capped.used[0] / SECOND / 20 == pytest.approx(0.02, rel=0.1)
    assert greedy.used[0] / SECOND / 20 > 0.93


def test_nobody_is_held_for_one_that_lets_the_gpu_idle() -> None:
    """Its client waits for another GPU all the time, and uses this one a little."""
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    greedy, other = FakeLedger(), FakeLedger()
    fairness.add("a", [0], greedy)
    fairness.add("b", [0], other)
    for turn in range(round(20 / STEP_S)):
        other.waits = greedy.waits = True
        if turn % 40 == 0:
            other.used[0] += int(STEP_S * SECOND)
        elif greedy.may():
            greedy.used[0] += int(STEP_S * SECOND)
        clock.move(STEP_S)
    assert greedy.used[0] / SECOND / 20 > 0.75


def test_whoever_comes_to_one_that_was_alone_does_not_stop_it() -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    early, late = FakeLedger(), FakeLedger()
    fairness.add("a", [0], early)
    run(clock, {early: 1}, 10)
    before = early.used[0]
    fairness.add("b", [0], late)
    run(clock, {early: 1, late: 1}, 2)
    assert early.used[0] - before == pytest.approx(SECOND, abs=2 * SLACK_S * SECOND)


def run_long_kernels(greedy: FakeLedger, modest: FakeLedger, clock: Clock, long_s: float) -> None:
    """Of four processes and of one, in turn, for a hundred kernels; a ledger hears of a kernel
    when it has ended.
    """
    owners = [greedy, greedy, greedy, greedy, modest]
    waiting: List[FakeLedger] = []  # a launched kernel each, in the order in which they run
    ends_s = clock.now + 100 * long_s
    idle = list(owners)
    left_s = 0.0
    while clock.now < ends_s:
        for owner in [one for one in idle if one.may()]:
            idle.remove(owner)
            waiting.append(owner)
        if waiting and left_s <= 0:
            left_s = long_s
        for owner in (greedy, modest):
            owner.waits = owner in waiting or not owner.may()
        clock.move(STEP_S)
        left_s -= STEP_S
        if waiting and left_s <= 0:
            owner = waiting.pop(0)
            owner.used[0] += int(long_s * SECOND)
            idle.append(owner)


@pytest.mark.parametrize("long_s", [0.2, 1.0, 1.5, 3.0])
def test_long_kernels_are_shared_out_too(long_s: float) -> None:
    clock = Clock()
    fairness = Fairness(clock, lambda: clock.now)
    greedy, modest = FakeLedger(), FakeLedger()
    fairness.add("a", [0], greedy)
    fairness.add("b", [0], modest)
    run_long_kernels(greedy, modest, clock, long_s)
    assert shares([greedy, modest])[1] == pytest.approx(0.5, abs=0.1)
    assert greedy.used[0] + modest.used[0] > 85 * long_s * SECOND
