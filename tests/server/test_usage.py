# SPDX-License-Identifier: Apache-2.0
"""What clients used: booked once, whatever ends in between, and added up over servers."""

from __future__ import annotations

import csv
import io
import json
import time
from typing import Any

import pytest

from bitfusion.commands import stats
from bitfusion.options import parse
from bitfusion.quantity import MIB
from bitfusion.server.meter import AT_ONCE_S, waited_s
from bitfusion.server.pool import Slice
from bitfusion.server.record import Record
from bitfusion.server.records import Claim, Entry, pack_claim
from bitfusion.server.usage import Note, Usage
from bitfusion.server.views import Ask

HOUR, DAY = 3600, 24 * 3600
EPOCH = 1_800_000_000 // DAY * DAY
EVERYBODY = ("client", "day")


class Clock:
    """Wall clock."""

    def __init__(self) -> None:
        self.now = EPOCH + 30 * 60.0

    def __call__(self) -> float:
        return self.now


def record(session: str, client: str, mib: int = 100, started_s: float = 0) -> Record:
    slices = (Slice(0, mib * MIB), Slice(1, mib * MIB))
    return Record(session, client, "", slices, ("a", "b"), started_s, 0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_hours_of_clients_add_up(clock: Clock, tmp_path: Any) -> None:
    usage = Usage(str(tmp_path / "usage.db"), clock)
    first, second = record("s1", "ann", 100, 10), record("s2", "bob", 50, 40)
    usage.book([Note(first, 0.5, 3.0, 7.5), Note(second, 2.0, 0.0)], 70)
    usage.book([Note(first, 0.5, 4.0, 7.5)], 130)
    clock.now += HOUR
    usage.book([Note(first, 0.5, 4.5), Note(second, 2.0, 1.0)], 190, ["s1"])
    assert usage.used(0, 1e11, EVERYBODY) == [
        (EPOCH, "ann", 90.0, 180 * 200.0, 4.5, 1, 1, 7.5),
        (EPOCH, "bob", 300.0, 150 * 100.0, 1.0, 1, 0, 0.0),
    ]
    assert usage.used(0, 1e11, EVERYBODY, "bob") == usage.used(0, 1e11, EVERYBODY)[1:]
    assert usage.used(EPOCH, EPOCH + HOUR, ["client"], "ann")[0].gpu_s == 60.0
    assert usage.used(EPOCH + HOUR, EPOCH + DAY, []) == [
        (0, "", 30.0 + 240.0, 60 * 200.0 + 120 * 100.0, 1.5, 0, 0, 0.0)
    ]
    assert usage.used(EPOCH + DAY, 1e11, []) == []


def test_a_server_that_restarts_goes_on(clock: Clock, tmp_path: Any) -> None:
    path, held = str(tmp_path / "usage.db"), record("s1", "ann", started_s=100)
    usage = Usage(path, clock)
    usage.book([Note(held, 1.0, 5.0), Note(record("s2", "ann", started_s=150), 1.0, 0.0)], 160)
    usage.close()
    usage = Usage(path, clock)  # s2 ended while nobody looked
    usage.book([Note(held, 1.0, 6.0)], 200)
    usage.keep_only(["s1"])
    usage.book([Note(held, 1.0, 6.0)], 210, ["s1"])
    (row,) = usage.used(0, 1e11, ["client"])
    assert (row.sessions, row.gpu_s, row.busy_s) == (2, 120.0, 6.0)
    usage.close()
    usage = Usage(path, clock)
    usage.book([Note(record("s2", "ann", started_s=210), 1.0, 0.0)], 211)
    assert usage.used(0, 1e11, [])[0].sessions == 3, "nothing is left of a session that ended"


def test_a_machine_that_restarts_loses_nothing_and_invents_nothing(clock: Clock) -> None:
    usage = Usage(":memory:", clock)
    held = record("s1", "ann", started_s=1000)
    usage.book([Note(held, 1.0, 5.0)], 1060)
    usage.book([Note(held, 1.0, 2.0)], 5)
    (row,) = usage.used(0, 1e11, [])
    assert (row.gpu_s, row.busy_s) == (60.0, 5.0)


def test_hours_of_long_ago_go(clock: Clock) -> None:
    usage = Usage(":memory:", clock)
    usage.book([Note(record("s1", "ann"), 1.0, 0.0)], 60, ["s1"])
    clock.now += 399 * DAY
    usage.keep_only([])
    assert usage.used(0, 1e11, [])
    clock.now += 2 * DAY
    usage.keep_only([])
    assert usage.used(0, 1e11, []) == []


def test_a_write_that_fails_books_nothing(clock: Clock) -> None:
    usage = Usage(":memory:", clock)
    good = Note(record("s1", "ann"), 1.0, 0.0)
    with pytest.raises(TypeError):
        usage.book([good, good._replace(gpus="x")], 60.5)  # type: ignore[arg-type]
    assert usage.used(0, 1e11, []) == []
    usage.book([good], 80)
    assert usage.used(0, 1e11, [])[0].gpu_s == 80.0


def answer(server: str, *used: tuple[int, str, float]) -> dict[str, Any]:
    names = ("sessions", "memory_mib_s", "busy_s", "waits", "waited_s")
    rows = [
        {"begin": begin, "client": client, "gpu_s": gpu_s, **dict.fromkeys(names, 1)}
        for begin, client, gpu_s in used
    ]
    return {"server": {"id": server, "name": server}, "others": [], "used": rows}


ANSWERS = (
    answer("gpu1", (EPOCH, "ann", 3600), (EPOCH, "=bob", 1800), (EPOCH + DAY, "ann", 7200)),
    answer("gpu2", (EPOCH, "ann", 360)),
)


def test_servers_are_added_up() -> None:
    rows = stats.merge(ANSWERS, ["client"])
    assert [(r["client"], r["gpu_s"], r["sessions"]) for r in rows] == [
        ("=bob", 1800, 1),
        ("ann", 11160, 3),
    ]
    rows = stats.merge(ANSWERS, ["day", "server"])
    assert [(r["day"], r["server"], r["gpu_s"]) for r in rows] == [
        ("2027-01-15", "gpu1", 5400),
        ("2027-01-15", "gpu2", 360),
        ("2027-01-16", "gpu1", 7200),
    ]


def test_two_servers_of_a_host_are_two_rows() -> None:
    """By the address that the client has asked, else the one that the server gives."""
    found = [answer("gpu1", (EPOCH, "ann", 3600)) for _ in range(3)]
    found[0]["asked"], found[1]["asked"] = "gpu1:56001", "gpu1:56002"
    found[2]["server"]["address"] = "gpu1:56003"
    rows = stats.merge(found, ["server"])
    assert [r["server"] for r in rows] == ["gpu1:56001", "gpu1:56002", "gpu1:56003"]


def test_as_csv_and_as_a_table() -> None:
    rows = stats.merge(ANSWERS, ["client"])
    lines = list(csv.DictReader(io.StringIO(stats.as_csv(rows, ["client"]))))
    assert [line["client"] for line in lines] == ["'=bob", "ann"], "no formulas"
    assert (lines[1]["gpu_s"], lines[1]["sessions"], lines[1]["waits"]) == ("11160.0", "3", "3")
    table = stats.as_table(rows, ["client"]).splitlines()
    assert table[0].split() == [
        *("CLIENT", "SESSIONS", "GPU-HOURS", "GIB-HOURS", "BUSY-HOURS", "WAITED", "MEAN", "WAIT")
    ]
    assert table[2].split() == ["ann", "3", "3.10", "0.00", "0.00", "3", "1s"]


@pytest.mark.parametrize(
    ("text", "end", "seconds"),
    [
        ("1970-01-02", False, DAY),
        ("1970-01-02", True, 2 * DAY - 1),
        ("1h", False, EPOCH - HOUR),
        ("30d", True, EPOCH - 30 * DAY),
    ],
)
def test_moments(text: str, end: bool, seconds: float) -> None:
    parsed = parse("stats", stats.OPTIONS, ["--from", text])
    assert stats.moment(parsed, "from", "30d", EPOCH, end) == seconds


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--from", "yesterday"], "'yesterday' is neither a day such as 2026-11-01 nor a time"),
        (["--from", "2026-13-01"], "'2026-13-01' is neither a day"),
        (["--by", "week"], "--by knows day, server, client, not 'week'"),
    ],
)
def test_usage_errors(words: list[str], why: str) -> None:
    with pytest.raises(stats.UsageError, match=why):
        stats.run(parse("stats", stats.OPTIONS, words))


def test_waits_are_told_from_grants_at_once() -> None:
    def waited(at: float, since: float) -> float:
        ask = Ask("s1", "ann", 1)
        claim = Claim(Entry(ask, "c", {}, at, 1), "s", (Slice(0, MIB),), since)
        return waited_s(record("s1", "ann")._replace(claim=pack_claim(claim)))

    assert waited(1000.0, 1005.0) == 5.0
    assert waited(1000.0, 1000.2) == 0.0
    assert waited(1000.0, 900.0) == 0.0, "clocks differ"
    assert waited_s(record("s1", "ann")) == 0.0


def test_a_real_server_counts(capsys: Any) -> None:
    from servers import Server, wait_for

    server = Server("echo", 2, 1000)
    try:
        asked_s = time.monotonic()
        session = server.claim(gpus=2, fraction="0.5")
        slow = time.monotonic() - asked_s >= AT_ONCE_S
        words = ["--server_list", f"127.0.0.1:{server.port}", "--json"]

        def rows() -> list[dict[str, Any]]:
            assert stats.run(parse("stats", stats.OPTIONS, words)) == 0
            found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
            return found

        assert wait_for(lambda: [r["client"] for r in rows()] == ["anonymous"])
        before = rows()[0]
        assert before["sessions"] == 1 and (slow or before["waits"] == 0)
        assert before["memory_mib_s"] == pytest.approx(before["gpu_s"] * 1000, abs=2)
        session.channel.close()
        assert wait_for(lambda: server.free() == [1000, 1000])
        after = rows()[0]
        assert after["gpu_s"] > before["gpu_s"] > 0
        assert rows()[0] == after, "what has ended uses nothing"
    finally:
        server.stop()
