# SPDX-License-Identifier: Apache-2.0
"""What a reservation's holder tells the programs that use it."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Optional

import pytest

from bitfusion import errors
from bitfusion.client.hub import GONE, Hub, Watch
from bitfusion.client.lease import Event, Mark

WARNING = Event("warn", "time", "the time limit ends the run in 1 minute")
END = Event("end", "time", "its time limit of 2 minutes has passed")


class Source:
    def __init__(self) -> None:
        self.number = 7
        self.answer: Optional[Event] = None
        self.asked: list[Mark] = []

    def mark(self) -> Mark:
        return Mark(self.number)

    def verdict(self, since: Mark) -> Optional[Event]:
        self.asked.append(since)
        return self.answer


def watch(path: Path) -> tuple[Watch, queue.Queue[Event]]:
    """One that has been heard."""
    told: queue.Queue[Event] = queue.Queue()
    made = Watch(str(path), told.put)
    made.start()
    assert made.verdict() is None
    return made, told


def test_every_program_is_told_and_may_ask(tmp_path: Path) -> None:
    source, path = Source(), tmp_path / "events"
    hub = Hub(str(path), source)
    hub.start()
    first, told_first = watch(path)
    source.number = 9
    second, told_second = watch(path)
    for event in (WARNING, END):
        hub.tell(event)
        assert told_first.get(timeout=60) == told_second.get(timeout=60) == event
    source.answer = END
    assert first.verdict() == END and second.verdict() == END
    assert source.asked == [Mark(7), Mark(9), Mark(7), Mark(9)]
    assert told_first.empty() and told_second.empty()


def test_the_holder_waits_for_programs(tmp_path: Path) -> None:
    hub = Hub(str(tmp_path / "events"), Source())
    hub.start()
    hub.wait_for_programs(0)
    made, _told = watch(tmp_path / "events")
    assert not hub.wait_for_programs(0.01)
    made.close()
    assert hub.wait_for_programs(60)


def test_a_holder_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with pytest.raises(errors.NoReservation, match="nobody holds any"):
        Watch(str(path), print)
    hub = Hub(str(path), Source())
    hub.start()
    made, _told = watch(path)
    hub.close()
    assert made.verdict() == GONE
