# SPDX-License-Identifier: Apache-2.0
"""A server without descriptors: it waits without spinning, says so once, and goes on later."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Optional

import pytest
from servers import Server, connect
from waiting import wait_for

from bitfusion.inventory import Gpu, Inventory
from bitfusion.server.accept import PAUSE_S
from bitfusion.server.nursery import Job
from bitfusion.server.pool import Request
from bitfusion.server.sessions import Ledger, Sessions

LIMIT = 40
WATCHED_S = 1.0


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_exhausted(server: Server) -> bool:
    return len(os.listdir(f"/proc/{server.process.pid}/fd")) >= LIMIT


@pytest.mark.parametrize("port", ["control", "data"])
@pytest.mark.parametrize("server", [("echo", 1, 1000, LIMIT)], indirect=True)
def test_no_descriptor_left(server: Server, port: str) -> None:
    address = ("127.0.0.1", server.port if port == "control" else server.data_port)
    crowd = [socket.create_connection(address, 60) for _ in range(LIMIT + 5)]
    assert wait_for(lambda: is_exhausted(server))
    before = cpu_s(server.process.pid)
    time.sleep(WATCHED_S)
    spent = cpu_s(server.process.pid) - before
    assert is_exhausted(server), "nothing was measured"
    crowd.pop(0).close()  # its place is taken at once by one that waits: no news
    time.sleep(3 * PAUSE_S)
    for sock in crowd:
        sock.close()
    session = server.claim("tcp")
    stream, _pid = connect(session)
    stream.sendall(b"x")
    assert stream.recv(9) == b"x"
    assert server.stop() == 0
    assert spent < WATCHED_S / 4
    assert server.log.count("accepting no connections") == 1, server.log
    assert "accepting connections again" in server.log


class FakeWorkers:
    def __init__(self) -> None:
        self.started: list[int] = []

    def start(self, number: int, job: Job, data: socket.socket, ledger: int, cold: bool) -> None:
        self.started.append(number)
        data.close()

    def keep_spares(self, count: int, job: Job) -> None: ...

    def signal(self, number: int, signal_number: int) -> None: ...


class FakeTimer:
    def cancel(self) -> None: ...


class FakeTimers:
    def after(self, seconds: float, action: Callable[[], object]) -> FakeTimer:
        if not seconds:
            action()
        return FakeTimer()


def test_a_session_without_a_ledger_starts_no_worker() -> None:
    """Its worker would not know its limits; the client is told why, and may try again."""
    lacking = [OSError(24, "Too many open files")] * 2

    def make_ledger(_limits: Sequence[int]) -> Optional[Ledger]:
        if lacking:
            raise lacking.pop()
        return None

    workers = FakeWorkers()
    gpus = Inventory((Gpu("gpu", 1000),), "none", "test GPUs", {})
    sessions = Sessions(gpus, workers, FakeTimers(), make_ledger)
    session = sessions.open(1, Request(1))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        why = sessions.redeem(sessions.make_ticket(1, session.name, 0), theirs)
        assert "no resources" in why and workers.started == []
        assert sessions.redeem(sessions.make_ticket(1, session.name, 0), theirs) == ""
        assert workers.started == [1] and ours.recv(9) == b"OK\n"
    sessions.worker_ended(1, "ended")
    sessions.close(1, session.name)
    assert sessions.pool.free(0) == 1000
