# SPDX-License-Identifier: Apache-2.0
"""Long turns of a loop are logged with what they were spent on, and not too often."""

from __future__ import annotations

import time

import pytest

from bitfusion import log
from bitfusion.server import turns
from bitfusion.server.loop import Loop
from bitfusion.server.turns import TurnMeter

LONG_S = 0.03


class Handler:
    doing = "GET /v1/slow"

    def block(self) -> None:
        time.sleep(LONG_S)

    def work(self) -> None:
        ends_s = time.thread_time() + LONG_S
        while time.thread_time() < ends_s:
            pass


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(turns, "SLOW_S", LONG_S / 2)
    lines: list[str] = []
    monkeypatch.setattr(log, "warn", lines.append)
    return lines


@pytest.fixture
def loop() -> Loop:
    made = Loop()
    made.meter = TurnMeter()
    return made


def test_what_blocks_is_told_from_work(said: list[str], loop: Loop) -> None:
    assert loop.meter is not None
    loop.soon(Handler().work)
    loop.turn(0)
    worked = loop.meter.longest
    assert worked.ran_s >= LONG_S * 0.9
    loop.meter = TurnMeter()
    loop.after(0, Handler().block)
    loop.turn(0)
    blocked = loop.meter.longest
    assert blocked.lasted_s - blocked.waited_s - blocked.ran_s >= LONG_S / 2
    assert blocked.ran_s < LONG_S / 2
    assert ["Handler.work (GET /v1/slow)" in said[0], "Handler.block" in said[1]] == [True] * 2


def test_the_longest_of_a_turn_is_named(said: list[str], loop: Loop) -> None:
    loop.after(0, Handler().block)
    loop.soon(lambda: None)
    loop.turn(0)
    assert "Handler.block (GET /v1/slow) " in said[0], said


def test_one_line_a_minute(said: list[str], loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        loop.after(0, Handler().block)
        loop.turn(0)
    assert len(said) == 1
    monkeypatch.setattr(turns, "EVERY_S", 0.0)
    loop.after(0, Handler().block)
    loop.turn(0)
    assert said[1].endswith("; 2 more since the last line")
    loop.meter = TurnMeter(lambda: 0.0)  # a turn that is not long, however busy the machine is
    loop.turn(0)
    assert len(said) == 2
