# SPDX-License-Identifier: Apache-2.0
"""Servers that share a real etcd, which goes away in every way it can."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from clusters import Client, Server
from etcds import EtcdServer
from stores import turn_until

from bitfusion.server import etcd as etcd_client
from bitfusion.server.loop import Loop
from bitfusion.server.store import StoreLost

LEASE_S = 5.0


class Both:
    """Two servers of one GPU each."""

    def __init__(self, etcd: EtcdServer, lease_s: float) -> None:
        self.etcd = etcd
        self.loop = Loop()
        self.servers = [
            Server(
                name, self.loop, etcd.store(self.loop, lease_s=lease_s), 1, clock=time.monotonic
            )
            for name in ("a", "b")
        ]
        for server in self.servers:
            server.start()
        self.wait(lambda: all(server.ready for server in self.servers))

    def wait(self, condition: object, patience_s: float = 60.0) -> None:
        assert callable(condition)
        assert turn_until(self.loop, condition, patience_s)

    def fill(self) -> tuple[list[Client], Client]:
        """Who has a GPU, and who waits for one."""
        running = [server.ask() for server in self.servers]
        self.wait(lambda: all(client.granted for client in running))
        queued = self.servers[1].ask("bob")
        self.wait(lambda: queued.waiting.place)
        self.wait(lambda: all(len(list(server.cluster.queue())) == 1 for server in self.servers))
        return running, queued

    def finish(self, client: Client) -> None:
        next(s for s in self.servers if s.id == client.on).host.finish(client.session)

    def check_after(self, running: list[Client], queued: Client) -> None:
        """As before the loss; and it works again."""
        self.wait(lambda: all(server.ready for server in self.servers))
        for server in self.servers:
            assert len(server.host.open) == 1 and not server.host.ends
        self.wait(lambda: all(len(server.cluster.claims()) == 2 for server in self.servers))
        self.wait(lambda: all(len(list(server.cluster.queue())) == 1 for server in self.servers))
        assert not queued.granted
        self.finish(running[0])
        self.wait(lambda: queued.granted)
        self.finish(running[1])
        self.finish(queued)
        self.wait(lambda: not any(server.cluster.claims() for server in self.servers))

    def close(self) -> None:
        for server in self.servers:
            server.cluster.close()


@pytest.fixture()
def both(etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Both]:
    servers = Both(etcd, getattr(request, "param", LEASE_S))
    yield servers
    servers.close()


def lost(both: Both) -> None:
    both.wait(lambda: not any(server.cluster.synced for server in both.servers))
    with pytest.raises(StoreLost, match="cannot be reached now"):
        both.servers[0].ask()


def test_one_leads_and_both_serve(both: Both) -> None:
    running, queued = both.fill()
    assert {client.on for client in running} == {server.id for server in both.servers}
    assert [server.cluster.leads for server in both.servers].count(True) == 1
    assert (
        both.servers[0].cluster.membership.cluster
        == both.servers[1].cluster.membership.cluster
        != ""
    )
    both.check_after(running, queued)


def test_etcd_is_killed_and_started_again(both: Both) -> None:
    running, queued = both.fill()
    both.etcd.kill()
    lost(both)
    both.etcd.start()
    both.check_after(running, queued)


def test_etcd_freezes(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until nobody can wait any longer, and then longer than the leases."""
    running, queued = both.fill()
    monkeypatch.setattr(etcd_client.Etcd.call, "__defaults__", (0.5,))
    both.etcd.freeze()
    lost(both)
    monkeypatch.undo()
    turn_until(both.loop, lambda: False, LEASE_S)
    both.etcd.thaw()
    both.check_after(running, queued)


def test_etcd_comes_back_empty(both: Both) -> None:
    running, queued = both.fill()
    identity = both.servers[0].cluster.membership.cluster
    both.etcd.kill()
    lost(both)
    both.etcd.empty()
    both.etcd.start()
    both.check_after(running, queued)
    assert {server.cluster.membership.cluster for server in both.servers} == {identity}


def test_etcd_comes_back_as_it_once_was(both: Both) -> None:
    old = both.servers[0].ask()
    both.wait(lambda: old.granted)
    both.etcd.kill()
    lost(both)
    both.etcd.copy()
    both.etcd.start()
    both.wait(lambda: all(server.ready for server in both.servers))
    both.finish(old)
    running, queued = both.fill()
    both.etcd.kill()
    lost(both)
    both.etcd.put_copy_back()
    both.etcd.start()
    both.check_after(running, queued)


def test_a_session_ends_while_etcd_is_away(both: Both) -> None:
    running, queued = both.fill()
    both.etcd.kill()
    lost(both)
    both.finish(running[0])
    both.etcd.start()
    both.wait(lambda: queued.granted)
    assert queued.on == running[0].on


@pytest.mark.parametrize("both", [60.0], indirect=True)
def test_the_leader_goes_in_good_order(both: Both) -> None:
    """It gives its lease back: nobody waits for that to end."""
    running, queued = both.fill()
    leader = next(server for server in both.servers if server.cluster.leads)
    other = next(server for server in both.servers if server is not leader)
    leader.cluster.close()
    both.wait(lambda: other.cluster.leads)
    both.wait(lambda: [m.state for m in other.cluster.servers()].count("down") == 1, 50)
    mine = next(client for client in running if client.on == other.id)
    third = other.ask("carol")
    both.finish(mine)
    both.wait(lambda: third.granted or queued.granted)


def test_a_storm_of_short_sessions(both: Both) -> None:
    """Both are asked at once, again and again; each GPU is one session's at a time."""
    chance = random.Random(5)
    clients: list[Client] = []
    made = done = 0

    def step() -> bool:
        nonlocal made, done
        while len(clients) < 8 and made < 60:
            clients.append(chance.choice(both.servers).ask(f"c{made % 5}"))
            made += 1
        for client in [c for c in clients if c.granted]:
            clients.remove(client)
            both.finish(client)
            done += 1
        return done == 60

    both.wait(step, 60)
    opened = [session for server in both.servers for session in server.host.opened]
    assert len(opened) == len(set(opened)) == 60
