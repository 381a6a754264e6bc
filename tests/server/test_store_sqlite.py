# SPDX-License-Identifier: Apache-2.0
"""The state file: what survives, and what is said about a file or disk that is not as it should
be.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import Listener

from bitfusion import log
from bitfusion.errors import StoreUnusable
from bitfusion.server.loop import Loop
from bitfusion.server.store import APPLIED, UNAVAILABLE, Change
from bitfusion.server.store_sqlite import FILE, SqliteStore, connect
from bitfusion.server.tidy import Tidier
from bitfusion.server.turns import TurnMeter


@pytest.fixture()
def loop() -> Loop:
    made = Loop()
    made.meter = TurnMeter()
    return made


@pytest.fixture()
def server(loop: Loop, tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(loop, SqliteStore(str(tmp_path), loop)).open()
    yield listener
    listener.store.close()


def refusal(folder: Path, loop: Loop) -> StoreUnusable:
    store = SqliteStore(str(folder), loop)
    with pytest.raises(StoreUnusable) as caught:
        store.open(lambda _key, _value, _version: None, lambda _synced: None)
    assert "\n" not in str(caught.value) and caught.value.hint
    return caught.value


def test_the_file_survives_and_leases_do_not(server: Listener, tmp_path: Path) -> None:
    server.put("claims/a", n=1)
    server.commit(Change("leader", {}, 0, lease=True))
    server.store.close()
    again = Listener(server.loop, SqliteStore(str(tmp_path), server.loop)).open()
    assert again.values == {"claims/a": {"n": 1}}
    again.store.close()


def test_the_file_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from stores import Listener\n"
        "from bitfusion.server.loop import Loop\n"
        "from bitfusion.server.store_sqlite import SqliteStore\n"
        "loop = Loop()\n"
        "one = Listener(loop, SqliteStore(sys.argv[1], loop)).open()\n"
        "for i in range(50): one.put(f'k/{i}', i=i)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path), here, root], timeout=30)
    assert ended.returncode == -9
    loop = Loop()
    again = Listener(loop, SqliteStore(str(tmp_path), loop)).open()
    assert again.values == {f"k/{i}": {"i": i} for i in range(50)}
    again.store.close()


def test_nobody_else_may_read_it(server: Listener, tmp_path: Path) -> None:
    server.put("tokens/a", hash="secret")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes and set(modes.values()) == {0o600}, modes


def test_a_file_that_is_none(loop: Loop, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all " * 100)
    error = refusal(tmp_path, loop)
    assert "not a database" in str(error) and str(tmp_path / FILE) in error.hint


def test_a_damaged_file(loop: Loop, tmp_path: Path) -> None:
    one = Listener(loop, SqliteStore(str(tmp_path), loop)).open()
    for i in range(300):
        one.put(f"k/{i}", text="x" * 500)
    one.store.close()
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page : page + 64] = os.urandom(64)
    path.write_bytes(data)
    assert "malformed" in str(refusal(tmp_path, loop))


def test_a_value_that_is_no_json(loop: Loop, tmp_path: Path) -> None:
    Listener(loop, SqliteStore(str(tmp_path), loop)).open().store.close()
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("insert into entries (key, value) values ('a', '{')")
    database.commit()
    database.close()
    assert "damaged" in str(refusal(tmp_path, loop))


def test_a_newer_file(loop: Loop, tmp_path: Path) -> None:
    Listener(loop, SqliteStore(str(tmp_path), loop)).open().store.close()
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("pragma user_version=7")
    database.close()
    assert "newer version of Bitfusion wrote it (format 7" in str(refusal(tmp_path, loop))


def test_no_folder(loop: Loop, tmp_path: Path) -> None:
    error = refusal(tmp_path / "none", loop)
    assert "no such file" in str(error) and "make the folder" in error.hint


def test_a_folder_that_may_not_be_written(loop: Loop, tmp_path: Path) -> None:
    """As root, for whom modes do not count, a read-only file system would be needed."""
    if os.geteuid() == 0:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.chmod(tmp_path.parent, 0o755)
                os.chmod(tmp_path, 0o555)
                os.setuid(65534)
                status = 0 if "state_dir" in refusal(tmp_path, loop).hint else 1
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    else:
        tmp_path.chmod(0o555)
        assert "state_dir" in refusal(tmp_path, loop).hint


def test_a_locked_file_is_waited_for(server: Listener, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("begin immediate")
    outcomes: list[str] = []
    server.store.commit([Change("a", {})], outcomes.append)
    server.store.commit([Change("b", {})], outcomes.append)
    assert not server.wait(lambda: outcomes, 0.2)
    assert server.loop.meter and server.loop.meter.longest.own_s < 1  # SQLite would wait for 5
    other.execute("rollback")
    other.close()
    assert server.wait(lambda: outcomes == [APPLIED, APPLIED])


def test_a_full_disk_is_said_once(
    server: Listener, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_level", log.WARN)
    server.put("a", n=1)
    assert isinstance(server.store, SqliteStore) and server.store._database
    server.store._database.execute("pragma max_page_count=1")
    for number in range(3):
        assert server.put("b", text="x" * 20000) == UNAVAILABLE
        waits = Change(f"queue/{number}", {}, 0, lease=True)
        assert server.commit(waits) == APPLIED  # it takes no room
        server.commit(Change(f"queue/{number}", None))
    server.store._database.execute("pragma max_page_count=100000")
    assert server.values == {"a": {"n": 1}}
    assert server.put("b", n=2) == APPLIED
    assert capfd.readouterr().err.count("disk is full") == 1


def test_a_command_writes_while_the_server_runs(server: Listener, tmp_path: Path) -> None:
    command = Listener(server.loop, SqliteStore(str(tmp_path), server.loop)).open()
    command.put("tokens/a", n=1)
    assert server.wait(lambda: "tokens/a" in server.values)
    command.store.close()
    server.put("tokens/b", n=1)  # goes on alone


def test_no_turn_waits_for_the_disk(server: Listener) -> None:
    """A thousand claims and as many keys of tokens, put and changed, with the log put back."""
    for i in range(1000):
        server.store.commit([Change(f"claims/{i}", {"text": "x" * 600})], lambda _outcome: None)
    assert server.put("last") == APPLIED
    store = server.store
    assert isinstance(store, SqliteStore)
    started = resource.getrusage(resource.RUSAGE_SELF)
    for i in range(200):
        server.commit(Change(f"claims/{i}", None), Change(f"queue/{i}", {}, 0, lease=True))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = spent.ru_utime - started.ru_utime + spent.ru_stime - started.ru_stime
    assert cpu_s / 200 < 0.005, "a transaction costs far more than a millisecond"
    store._tidy()


def test_a_thread_puts_the_log_back(tmp_path: Path) -> None:
    path = tmp_path / FILE
    database = connect(str(path))
    for number in range(50):
        text = f'"{"x" * 1000}"'
        database.execute("replace into entries (key, value) values (?, ?)", (str(number), text))
    before = path.stat().st_size
    tidier = Tidier(str(path))
    tidier.tidy()
    tidier.close()
    assert path.stat().st_size > before + 50_000 and tidier.error is None
    tidier.wrote()
    path.unlink()
    tidier.tidy()  # there is not enough to do yet
    assert not path.exists()
    database.close()
