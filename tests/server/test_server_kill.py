# SPDX-License-Identifier: Apache-2.0
"""Killed workers, nurseries, servers and spares: others go on, memory comes back."""

from __future__ import annotations

import os
import random
import signal
import socket
import time

import pytest
from servers import Server, connect, fake_proxy, name_of, parent_of
from waiting import wait_for

from bitfusion.client import control
from bitfusion.errors import Busy, ServerLost
from bitfusion.server import nursery


@pytest.mark.parametrize("server", [("stubborn", 1, 1000)], indirect=True)
def test_memory_returns_when_the_worker_is_gone_and_not_before(server: Server) -> None:
    session = server.claim(memory=600 << 20)
    _stream, pid = connect(session)
    closed = time.monotonic()
    session.channel.close()
    seen = []
    assert wait_for(lambda: seen.append(server.free()) or seen[-1] == [1000])
    assert not os.path.exists(f"/proc/{pid}")
    assert seen.count([400]) == len(seen) - 1
    assert time.monotonic() - closed > 1.5  # it withstood SIGTERM for two seconds


def test_a_killed_worker_is_its_sessions_business(server: Server) -> None:
    first, second = server.claim(fraction="0.5"), server.claim(fraction="0.5")
    (one, pid), (other, _) = connect(first), connect(second)
    os.kill(pid, signal.SIGKILL)
    assert one.recv(9) == b""
    other.sendall(b"x")
    assert other.recv(9) == b"x"
    again, _ = connect(first)
    again.sendall(b"y")
    assert again.recv(9) == b"y"


def test_a_killed_nursery_is_replaced(server: Server) -> None:
    session = server.claim()
    stream, pid = connect(session)
    os.kill(parent_of(pid), signal.SIGKILL)
    assert stream.recv(9) == b""
    assert wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    stream, _pid = connect(session)
    stream.sendall(b"z")
    assert stream.recv(9) == b"z"


def ask_warm(session: control.Session, cold: bool) -> bytes:
    stream, _transport = session.open_data(os.getpid(), cold)
    stream.settimeout(60)
    fake_proxy.hello(stream)
    stream.sendall(b"warm?")
    return stream.recv(9)


def spares(server: Server) -> list[int]:
    return [pid for pid in server.processes() if name_of(pid) == "bitfusion-spare"]


def test_spares_are_used_and_replaced(server: Server) -> None:
    session = server.claim()
    for _ in range(3):
        assert wait_for(lambda: spares(server))
        assert ask_warm(session, False) == b"warm"
    assert ask_warm(session, True) == b"cold"


@pytest.mark.parametrize("server", [("coldonly", 1, 1000)], indirect=True)
def test_a_driver_that_cannot_be_warmed_is_not_tried_for_ever(server: Server) -> None:
    """Each attempt writes a line; without the limit the nursery would make the next at once."""

    def failures() -> int:
        return server.log.count("cannot be warmed")

    assert wait_for(lambda: failures() == nursery.MAX_SPARE_FAILURES and not spares(server))
    assert ask_warm(server.claim(), False) == b"cold"
    assert failures() == nursery.MAX_SPARE_FAILURES


def test_a_killed_spare_is_replaced(server: Server) -> None:
    assert wait_for(lambda: spares(server))
    (spare,) = spares(server)
    os.kill(spare, signal.SIGKILL)
    assert wait_for(lambda: spares(server) not in ([], [spare]))
    connect(server.claim())


@pytest.mark.parametrize("server", [("echo", 2, 1000, 0, {"cluster.lease": "0.5"})], indirect=True)
def test_workers_of_a_killed_server_wait_for_the_next_and_end(server: Server) -> None:
    session = server.claim()
    stream, _pid = connect(session)
    killed_s = time.monotonic()
    server.process.kill()
    try:
        stream.sendall(b"x")
        assert stream.recv(9) == b"x"
        assert stream.recv(9) == b""  # nobody came
    except (AssertionError, ConnectionError):
        assert time.monotonic() - killed_s > 0.5, "it did not wait"
    assert wait_for(lambda: not server.processes())
    assert not [name for name in os.listdir(server.state) if name.startswith("nursery")]
    with pytest.raises(ServerLost):
        session.channel.request("GET", "/v1/gpus")


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_random_kills_leak_nothing(server: Server) -> None:
    """Sessions, workers and connections ended in any order; the pool is whole at the end."""
    chance = random.Random(7)
    assert wait_for(lambda: spares(server))
    assert server.free() == [1000, 1000]  # it answers, so it has opened all that it keeps
    nursery = parent_of(spares(server)[0])
    descriptors = {pid: open_descriptors(pid) for pid in (server.process.pid, nursery)}
    open_sessions: list[tuple[control.Session, list[tuple[socket.socket, int]]]] = []
    for _ in range(120):
        action = chance.randrange(5)
        if action <= 1 and len(open_sessions) < 8:
            try:
                open_sessions.append((server.claim(memory=chance.randrange(1, 500) << 20), []))
            except Busy:
                pass
        elif open_sessions:
            session, streams = chance.choice(open_sessions)
            if action == 2 and len(streams) < 3:
                streams.append(connect(session))
            elif action == 3 and streams:
                stream, pid = streams.pop(chance.randrange(len(streams)))
                os.kill(pid, signal.SIGKILL) if chance.randrange(2) else stream.close()
            elif action == 4:
                session.channel.close()
                open_sessions = [pair for pair in open_sessions if pair[0] is not session]
    for session, _streams in open_sessions:
        session.channel.close()
    assert wait_for(lambda: server.free() == [1000, 1000])
    assert wait_for(lambda: len(server.processes()) == 3)  # server, nursery, spare
    assert wait_for(lambda: all(open_descriptors(pid) <= n for pid, n in descriptors.items()))
