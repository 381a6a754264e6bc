# SPDX-License-Identifier: Apache-2.0
"""A server is ended and started again under clients that go on."""

from __future__ import annotations

import http.client
import os
import pathlib
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ports import Port
from servers import ROOT, Server, connect, name_of, parent_of, wait_for
from waiting import stop

from bitfusion import __version__
from bitfusion.client import channels, control
from bitfusion.client.lease import Event, Keeper

LEASE_S = 60.0  # longer than it takes a busy machine to start a server


class Restarts:
    """One server after another, on the same port and in the same folder."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bf-")
        self.settings = {"cluster.lease": f"{LEASE_S}"}
        self.all: list[Server] = []
        self._where = Port()
        self.start()

    @property
    def now(self) -> Server:
        return self.all[-1]

    def start(self, gpus: int = 2, tree: str = "") -> Server:
        how: Any = {"settings": self.settings, "state": self._folder.name, "tree": tree}
        self.all.append(Server("echo", gpus, 1000, where=self._where, **how))
        return self.now

    def end(self, number: int) -> None:
        self.now.process.send_signal(number)
        self.now.process.wait(100)

    def left(self) -> list[int]:
        return [pid for server in self.all for pid in server.processes()]

    def nurseries(self) -> list[int]:
        return [pid for pid in self.left() if name_of(pid) == "bitfusion-nurse"]


@pytest.fixture()
def servers() -> Iterator[Restarts]:
    restarts = Restarts()
    yield restarts
    if restarts.now.process.poll() is None:
        assert restarts.now.stop() == 0
    assert wait_for(lambda: not restarts.left()), restarts.now.log
    for server in restarts.all:
        assert "Traceback" not in server.log, server.log
    assert not [n for n in os.listdir(restarts.now.state) if n.startswith("nursery-")]


def keep(servers: Restarts, session: control.Session, heard: list[Event]) -> Keeper:
    keeper = Keeper(session, lambda _timeout_s: servers.now.channel(), LEASE_S, heard.append)
    keeper.start()
    return keeper


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_clients_go_on(servers: Restarts, number: int) -> None:
    session = servers.now.claim(memory=300 << 20)
    heard: list[Event] = []
    stream, pid = connect(session)
    keeper = keep(servers, session, heard)
    for _ in range(3):
        servers.end(number)
        stream.sendall(b"between")
        assert stream.recv(9) == b"between"
        servers.start()
        assert "took over 1 session" in servers.now.log
        assert servers.now.free() == [700, 1000]
        other, _transport = keeper.open_data(os.getpid())  # waits until it is attached again
        other.settimeout(60)
        assert other.recv(99).startswith(session.name.encode())
        other.close()
    stream.sendall(b"x")
    assert stream.recv(9) == b"x" and heard == []
    keeper.stop()
    session.channel.close()
    assert stream.recv(9) == b""
    assert wait_for(lambda: servers.now.free() == [1000, 1000])
    assert not os.path.exists(f"/proc/{pid}")
    assert wait_for(lambda: len(servers.nurseries()) == 1)  # earlier ones are gone


def test_a_session_that_was_ending_ends(servers: Restarts) -> None:
    """Its worker did not end in time, and then its server was killed."""
    session = servers.now.claim()
    stream, pid = connect(session)
    stop(pid)
    channel = session.channel
    assert channel.request("DELETE", f"/v1/sessions/{session.name}").status == 200
    servers.end(signal.SIGKILL)
    servers.start()
    assert "took over 1 session" in servers.now.log
    assert wait_for(lambda: servers.now.free() == [1000, 1000]), servers.now.log
    assert "was ending when its server ended" in servers.now.log
    assert not os.path.exists(f"/proc/{pid}")
    stream.close()
    channel.close()


def another_version(folder: str, *changes: tuple[str, str, str]) -> str:
    """A copy of what a server needs, with such changes of its files' texts."""
    for part in ("bitfusion", "tests/server", "tests/client"):
        ignored = shutil.ignore_patterns("__pycache__", "softgpu", "*.c", "*.h")
        shutil.copytree(os.path.join(ROOT, part), os.path.join(folder, part), ignore=ignored)
    for path, old, new in changes:
        with open(os.path.join(folder, path), "r+") as file:
            text = file.read()
            assert old in text
            file.seek(0)
            file.truncate()
            file.write(text.replace(old, new, 1))
    return folder


VERSION = ("bitfusion/__init__.py", f'"{__version__}"', f'"{__version__}.7"')
MORE = (
    "bitfusion/server/record.py",
    "    ending: str",
    '    colour: str = "red"\n    ending: str',
)


def test_another_version_of_the_same_format(servers: Restarts, tmp_path: pathlib.Path) -> None:
    """Both ways: an upgrade, and going back."""
    other = another_version(str(tmp_path / "other"), VERSION, MORE)
    session = servers.now.claim(memory=300 << 20)
    stream, _pid = connect(session)
    keeper = keep(servers, session, [])
    for tree in (other, ""):
        servers.end(signal.SIGTERM)
        servers.start(tree=tree)
        assert (f"{__version__}.7 serves" in servers.now.log) == bool(tree)
        assert "took over 1 session" in servers.now.log
        assert servers.now.free() == [700, 1000]
        added, _transport = keeper.open_data(os.getpid())
        added.close()
        stream.sendall(b"x")
        assert stream.recv(9) == b"x"
    keeper.stop()
    session.channel.close()
    stream.close()


def test_a_newer_format_is_refused_in_words(servers: Restarts, tmp_path: pathlib.Path) -> None:
    """Its sessions end at once, because their GPUs are about to be given to others."""
    newer = ("bitfusion/server/record.py", "FORMAT = 1 ", "FORMAT = 2 ")
    servers.end(signal.SIGTERM)
    servers.start(tree=another_version(str(tmp_path / "newer"), VERSION, newer))
    session = servers.now.claim(memory=300 << 20)
    stream, pid = connect(session)
    servers.end(signal.SIGKILL)
    servers.start()
    assert "a newer version of Bitfusion wrote it (format 2, ours is 1)" in servers.now.log
    assert stream.recv(9) == b"" and wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    assert servers.now.free() == [1000, 1000]
    stream.close()
    session.channel.close()


def test_a_session_without_its_launcher_ends_after_the_lease(servers: Restarts) -> None:
    session = servers.now.claim()
    stream, _pid = connect(session)
    servers.end(signal.SIGKILL)
    session.channel.close()
    servers.settings["cluster.lease"] = "1"
    servers.start()
    stream.settimeout(60)
    assert stream.recv(9) == b""
    assert "took over 1 session" in servers.now.log
    assert wait_for(lambda: servers.now.free() == [1000, 1000])
    assert "nobody attached" in servers.now.log


def test_an_ended_worker_is_not_taken_over(servers: Restarts) -> None:
    session = servers.now.claim()
    (_one, pid), (two, _other) = connect(session), connect(session)
    servers.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    servers.start()
    rows = servers.now.channel().request("GET", "/v1/gpus").body["gpus"]
    assert isinstance(rows, list) and rows[0]["sessions"][0]["processes"] == 1
    two.sendall(b"x")
    assert two.recv(9) == b"x"


def test_a_killed_nursery_is_not_taken_over(servers: Restarts) -> None:
    session = servers.now.claim()
    _stream, pid = connect(session)
    servers.end(signal.SIGKILL)
    os.kill(parent_of(pid), signal.SIGKILL)
    assert wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    servers.start()
    assert servers.now.free() == [1000, 1000]


def test_a_session_whose_gpu_is_gone_ends(servers: Restarts) -> None:
    first, second = servers.now.claim(), servers.now.claim()
    (one, _), (two, _) = connect(first), connect(second)
    servers.end(signal.SIGTERM)
    servers.start(gpus=1)
    assert servers.now.free() == [0]
    assert two.recv(9) == b"" and "is not there any more" in servers.now.log
    one.sendall(b"x")
    assert one.recv(9) == b"x"


def test_an_interrupted_server_ends_its_sessions(servers: Restarts) -> None:
    session = servers.now.claim()
    heard: list[Event] = []
    stream, _pid = connect(session)
    asked = threading.Event()

    def open_channel(_timeout_s: float) -> channels.Channel:
        channel = servers.now.channel()
        hear = channel._connection.getresponse

        def asked_and_hears() -> http.client.HTTPResponse:
            asked.set()
            return hear()

        channel._connection.getresponse = asked_and_hears  # type: ignore[method-assign]
        return channel

    Keeper(session, open_channel, LEASE_S, heard.append).start()
    assert asked.wait(60)
    servers.end(signal.SIGINT)
    assert stream.recv(9) == b""
    assert wait_for(lambda: [event.why for event in heard] == ["drained"])


def test_random_restarts_lose_and_leak_nothing(servers: Restarts) -> None:
    """A client ends before an orderly restart only: killed at that moment, a server may not have
    said so to the nursery, and then the session waits for its launcher in vain.
    """
    chance = random.Random(4)
    clients = []
    for _ in range(6):
        session = servers.now.claim(memory=200 << 20)
        heard: list[Event] = []
        clients.append((session, connect(session)[0], keep(servers, session, heard), heard))
    for _ in range(4):
        servers.end(signal.SIGTERM)
        for _ in range(chance.randrange(3)):
            servers.start()
            servers.end(signal.SIGKILL)  # at whatever point of taking over
        servers.start()
        assert sum(servers.now.free()) == 2000 - 200 * len(clients)
        for _session, stream, keeper, _heard in clients:
            stream.sendall(b"x")
            assert stream.recv(9) == b"x"
            data, _transport = keeper.open_data(os.getpid())
            data.close()
        session, stream, keeper, heard = clients.pop(chance.randrange(len(clients)))
        keeper.stop()
        session.channel.close()
        assert stream.recv(9) == b"" and heard == []
        assert wait_for(lambda: sum(servers.now.free()) == 2000 - 200 * len(clients))
    for session, _stream, keeper, heard in clients:
        keeper.stop()
        session.channel.close()
        assert heard == []
    assert wait_for(lambda: servers.now.free() == [1000, 1000])
    assert wait_for(lambda: len(servers.nurseries()) == 1)
