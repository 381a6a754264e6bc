# SPDX-License-Identifier: Apache-2.0
"""A server, which must end in good order and leave no process behind; and servers of a cluster in
this process, over a store in memory, and an etcd.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from clusters import Clock, Start
from clusters import Server as Member
from etcds import EtcdServer
from identities import Lab
from servers import Server
from waiting import wait_for

from bitfusion.server.store_memory import Memory


@pytest.fixture()
def lab(tmp_path: pathlib.Path) -> Iterator[Lab]:
    made = Lab(str(tmp_path))
    yield made
    if made.server is not None:
        check_end(made.server)


@pytest.fixture()
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(*getattr(request, "param", ("echo", 2, 1000)))
    yield running
    check_end(running)


def check_end(running: Server) -> None:
    if running.process.poll() is None:
        assert running.stop() == 0
    assert wait_for(lambda: not running.processes())
    assert "Traceback" not in running.log, running.log


@pytest.fixture()
def clock() -> Clock:
    return Clock()


@pytest.fixture()
def memory(clock: Clock) -> Memory:
    return Memory(clock)


@pytest.fixture()
def start(clock: Clock, memory: Memory) -> Start:
    """Starts a server of the cluster and waits until it takes asks, or knows why it may not."""

    def make(name: str = "a", **how: object) -> Member:
        server = Member(name, clock, memory.store(), clock=clock.read, **how).start()  # type: ignore[arg-type]
        assert clock.until(lambda: server.ready or server.cluster.membership.other_keys)
        return server

    return make


@pytest.fixture()
def etcd() -> Iterator[EtcdServer]:
    server = EtcdServer()
    yield server
    server.thaw()
    server.end()
