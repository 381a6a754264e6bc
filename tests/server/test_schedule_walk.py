# SPDX-License-Identifier: Apache-2.0
"""The scheduler against a plain one, on a busy pool, for longer than hypothesis would go."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from test_schedule_model import CLIENTS, FILTERS, FRACTIONS, SERVERS, Pool
from test_schedule_model import view as a_view

from bitfusion.server import fleet, waiting
from bitfusion.server import walk as walking

BUSY = (30, 30, 4, 2, 2, 2, 2, 1, 0, 0)  # how often each kind of step comes
SHAKY = (24, 16, 4, 10, 10, 12, 4, 6, 6, 4)


class Walk:
    """More is asked for than there is."""

    def __init__(self, seed: int, weights: Sequence[int]) -> None:
        self.random = random.Random(seed)
        self.weights = weights
        self.pool = Pool()
        extra = [a_view(3, [400] * 4, "12.4", True), a_view(4, [160] * 2, "12.4", True)]
        self.pool.start(seed % 3 == 2, (1, 2, 16)[seed % 3], extra)
        self.granted = self.fenced = 0

    def step(self) -> None:
        pool, pick = self.pool, self.random
        kind = pick.choices(range(len(self.weights)), self.weights)[0]
        numbers = [pick.randrange(100) for _ in range(pick.randint(1, 3))]
        if kind == 0 and len(pool.plain.waiting) < 40:
            pool.submit([self.ask() for _ in numbers], pick.choice((0, 0, 20)))
        elif kind <= 1:
            pool.release(numbers)
        elif kind == 2:
            pool.cancel(numbers[0])
        elif kind == 3:
            memory = pick.choice((0, 0, 160, 500, 900))
            pool.set_limits(pick.choice(CLIENTS), pick.choice((0, 0, 2, 4, 6)), memory)
        elif kind == 4:
            pool.drain(f"s{pick.randrange(5)}", pick.random() < 0.3)
        elif kind == 5:
            pool.undo(numbers)
        elif kind == 6:
            pool.fact(pick.choice(CLIENTS), f"s{pick.randrange(4)}", [pick.randrange(4)], 40)
        elif kind == 7:
            server = f"s{pick.randrange(5)}"
            view = pool.plain.views[server]
            pool.remove_server(server, pick.random() < 0.3)
            if pick.random() < 0.5:
                pool.decide()
            else:
                pool.undo(numbers)
            pool.same()
            pool.set_server(view)
        elif kind == 9:
            pool.granted_elsewhere(numbers[0])
        else:
            sizes = [pick.choice((100, 160, 160, 400)) for _ in range(pick.randint(1, 4))]
            alike = pick.random() < 0.5
            sizes = sizes[:1] * 4 if alike else sizes
            pool.set_server(a_view(pick.randrange(5), sizes, "12.4", pick.random() < 0.5))
        if pick.random() < 0.7:
            if pick.random() < 0.5:
                pool.decide()
            else:
                pool.slices(pick.randint(1, 4), pick.randrange)
            self.granted += len(pool.last)
            if pick.random() < self.weights[5] / sum(self.weights):
                pool.undo(numbers)  # before anything else has happened
                pool.same()
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
    go(seed, BUSY, 400, monkeypatch)


@pytest.mark.parametrize("seed", range(10))
def test_a_shaky_pool(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers come, go and change, limits too, and grants come to nothing."""
    go(seed, SHAKY, 250, monkeypatch)


def go(seed: int, weights: Sequence[int], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        monkeypatch.setattr(fleet, "MANY", 0)
        monkeypatch.setattr(fleet, "MAX_IDLE", 2)
        monkeypatch.setattr(waiting, "BLOCK", 1)
    if seed % 4 == 3:
        monkeypatch.setattr(walking, "FEW", 0)
    walk = Walk(seed, weights)
    for _ in range(steps):
        walk.step()
    walk.pool.everybody_is_served_in_the_end()
    assert walk.granted > steps // 8
    assert walk.fenced > 0
