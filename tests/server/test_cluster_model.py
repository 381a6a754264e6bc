# SPDX-License-Identifier: Apache-2.0
"""Two servers of four GPUs, forty clients that ask at random, and everything that can go wrong, on
a clock that runs ahead: thousands of steps, and after each of them what must always be so.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Optional

import pytest
from clusters import MIB, Client, Clock, FakeHost, Server

from bitfusion.server.caller import Limits
from bitfusion.server.records import CLAIMS, QUEUE, Claim, unpack_claim, unpack_entry
from bitfusion.server.store import StoreLost
from bitfusion.server.store_memory import LOST_AFTER, LOST_BEFORE, Memory
from bitfusion.wire.control import unpack_object

GPUS, MEMORY_MIB = 4, 1000
CLIENTS = 40
STEPS = 800
LEASE_S, FORGET_S = 30.0, 200.0
LIMITED = Limits(gpus=3)
FRACTIONS = ("1", "1", "0.5", "0.25", "0.01")


def limits_of(client: str) -> Limits:
    return LIMITED if int(client[1:]) % 4 == 0 else Limits()


class Watched(FakeHost):
    def __init__(self, world: World) -> None:
        super().__init__(GPUS, MEMORY_MIB)
        self._world = world

    def end_claim(self, session: str, why: str) -> None:
        """Never of a session whose client knows of it, and is there."""
        told = {client.session for client in self._world.clients if client.granted}
        if session in told:
            self._world.wrong.append(f"{session} ended: {why}")
        super().end_claim(session, why)


class World:
    def __init__(self, seed: int, rough: bool) -> None:
        self.chance = random.Random(seed)
        self.rough = rough
        self.clock = Clock()
        self.memory = Memory(self.clock)
        self.hosts = {name: Watched(self) for name in ("a", "b")}
        self.servers: dict[str, Optional[Server]] = {}
        self.clients: list[Client] = []
        self.left: set[str] = set()  # sessions whose clients went
        self.counts: Counter[str] = Counter()
        self.known: set[str] = set()
        self.wrong: list[str] = []
        self.checked = 0
        Server.numbers = itertools.count(1)
        for name in self.hosts:
            self.start(name)
        self.clock.run(1)

    # ------------------------------------------ what happens

    def start(self, name: str) -> None:
        server = Server(
            name,
            self.clock,
            self.memory.store(),
            forget_s=FORGET_S,
            clock=self.clock.read,
            host=self.hosts[name],
        )
        self.servers[name] = server.start()

    def up(self) -> list[Server]:
        return [server for server in self.servers.values() if server]

    def ask(self) -> None:
        servers = [server for server in self.up() if server.ready]
        if len(self.clients) >= CLIENTS or not servers:
            return
        name = f"c{self.chance.randrange(CLIENTS)}"
        gpus = self.chance.choice((1, 1, 1, 2, 3))
        try:
            self.clients.append(
                self.chance.choice(servers).ask(
                    name, gpus, self.chance.choice(FRACTIONS), limits_of(name)
                )
            )
        except StoreLost:
            self.counts["lost"] += 1

    def leave(self) -> None:
        """A client goes: its connection to the contact, or its lease of the session, ends."""
        if not self.clients:
            return
        client = self.clients.pop(self.chance.randrange(len(self.clients)))
        self.drop(client)

    def drop(self, client: Client) -> None:
        self.left.add(client.session)
        self.counts["left"] += 1
        host = next((h for h in self.hosts.values() if client.session in h.open), None)
        if not client.granted:
            if client.server in self.up():
                client.waiting.cancel()
        elif host is not None and host.cluster and not host.cluster._desk.closed:
            host.finish(client.session)
        elif host is not None:  # its worker ends alone
            del host.open[client.session]

    def kill_server(self) -> None:
        """Its process; its workers live on."""
        name = self.chance.choice(list(self.servers))
        server = self.servers[name]
        if server is None:
            return
        self.counts["server"] += 1
        self.servers[name] = None
        server.cluster._desk.closed = True
        self.memory.stores.remove(server.store)  # type: ignore[arg-type]
        store = server.store
        self.clock.after(
            self.chance.uniform(0, LEASE_S),
            lambda: self.memory.expire(store),  # type: ignore[arg-type]
        )
        waiting = [c for c in self.clients if c.server is server and not c.granted]
        for client in waiting:
            self.clients.remove(client)
            self.left.add(client.session)
        if self.chance.random() < 0.3:  # the machine
            self.counts["machine"] += 1
            for session in list(self.hosts[name].open):
                self.left.add(session)
            self.hosts[name].open.clear()
            self.clients = [c for c in self.clients if c.session not in self.left]
        away_s = self.chance.choice((0.0, 1.0, 40.0, 300.0))
        self.clock.after(away_s, lambda: self.start(name) if not self.servers[name] else None)

    def lose_store(self) -> None:
        self.counts["store"] += 1
        self.memory.set_reachable(False)
        self.clock.after(
            self.chance.choice((0.1, 5.0, 100.0)), lambda: self.memory.set_reachable(True)
        )

    def lose_lease(self) -> None:
        server = self.chance.choice(list(self.servers.values()))
        if server is not None and self.memory.reachable:
            self.counts["lease"] += 1
            self.memory.expire(server.store)  # type: ignore[arg-type]

    def drain(self) -> None:
        for server in self.up()[:1]:
            other = self.chance.choice(list(self.hosts))
            target = (other.encode().hex() * 16)[:16]
            if self.chance.random() < 0.3:
                server.cluster.drain(target, lambda _outcome: None)
            else:
                server.cluster.undrain(target, lambda _outcome: None)

    def fail_writes(self) -> None:
        self.counts["faults"] += 1
        fault = self.chance.choice(("conflict", LOST_BEFORE, LOST_AFTER))
        often = self.chance.choice((2, 3, 5))
        end_s = self.clock.now_s + self.chance.uniform(0.1, 5)

        def fail(_changes: object) -> str:
            if self.clock.now_s > end_s:
                return ""
            return fault if self.chance.randrange(often) == 0 else ""

        self.memory.fault = fail

    def step(self) -> None:
        actions = [self.ask] * 6 + [self.leave] * 5
        if self.rough:
            actions += [self.kill_server, self.lose_store, self.lose_lease, self.drain]
            actions += [self.fail_writes] * 2
            if self.chance.random() < 0.6:
                actions = actions[:11]
        self.chance.choice(actions)()
        for _ in range(self.chance.randrange(12)):
            self.clock.step()
            self.check()
        if self.chance.random() < 0.2:
            self.clock.run(self.chance.choice((0.1, 1.0, 10.0)))
        self.check()

    # ------------------------------------------ what must be so

    def claims(self) -> list[Claim]:
        return [
            unpack_claim(unpack_object(entry.value))
            for key, entry in self.memory.entries.items()
            if key.startswith(CLAIMS)
        ]

    def check(self) -> None:
        assert not self.wrong
        if self.checked != self.memory._version:
            self.checked = self.memory._version
            self.check_state()

    def check_state(self) -> None:
        claims = self.claims()
        gpus: Counter[str] = Counter()
        room: Counter[tuple[str, int]] = Counter()
        for claim in claims:
            gpus[claim.client] += len(claim.slices)
            for part in claim.slices:
                room[claim.server, part.gpu] += part.memory
        if not self.counts["machine"] and not self.counts["server"]:
            assert all(used <= MEMORY_MIB * MIB for used in room.values()), claims
        for client, count in gpus.items():
            limit = limits_of(client).gpus
            assert not limit or count <= limit, f"{client} has {count} GPUs of {limit}"
        for host in self.hosts.values():
            for index in range(GPUS):
                assert host.free(index) >= 0
        if not self.rough:
            self.check_order(claims)

    def check_order(self, claims: list[Claim]) -> None:
        """Nobody is served before an equal ask that the same client made earlier."""
        waiting: dict[tuple[object, ...], int] = {}
        for key, value in self.memory.entries.items():
            if key.startswith(QUEUE):
                entry = unpack_entry(unpack_object(value.value))
                shape = (entry.ask.client, entry.ask.gpus, entry.ask.fraction, entry.contact)
                waiting[shape] = min(waiting.get(shape, entry.seq), entry.seq)
        for claim in claims:
            if claim.session not in self.known:
                self.known.add(claim.session)
                entry = claim.entry
                shape = (entry.ask.client, entry.ask.gpus, entry.ask.fraction, entry.contact)
                assert entry.seq < waiting.get(shape, entry.seq + 1)

    def finish_unattached(self) -> None:
        """Whoever was granted something and left before knowing never comes for it: servers end
        such sessions after a while.
        """
        for host in self.hosts.values():
            for session in [session for session in host.open if session in self.left]:
                host.finish(session)

    def heal(self) -> None:
        """Everything works again: everybody who waits is served, and nothing remains."""
        self.memory.fault = lambda _changes: ""
        self.memory.set_reachable(True)
        self.clock.run(400)
        for name, server in self.servers.items():
            assert server is not None
            self.servers[name].cluster.undrain(server.id, lambda _outcome: None)  # type: ignore[union-attr]
        for _ in range(10 * CLIENTS):
            self.finish_unattached()
            self.clock.run(2)
            granted = [client for client in self.clients if client.granted]
            for client in granted:
                self.clients.remove(client)
                self.drop(client)
            if not self.clients:
                break
        assert not self.clients, [
            (client.waiting.state, client.waiting.entry) for client in self.clients
        ]
        self.clock.run(FORGET_S + 60)
        self.finish_unattached()
        assert not any(host.open for host in self.hosts.values()), "nobody knows of this session"
        self.clock.run(30)
        left = [k for k in self.memory.entries if k.startswith((CLAIMS, QUEUE))]
        assert not left, left


@pytest.mark.parametrize("seed", range(3))
def test_everything_that_can_go_wrong(seed: int) -> None:
    world = World(seed, rough=True)
    for _ in range(STEPS):
        world.step()
    world.heal()
    kinds = ("left", "server", "machine", "store", "lease", "faults")
    assert all(world.counts[kind] > 1 for kind in kinds), world.counts


@pytest.mark.parametrize("seed", range(2))
def test_a_quiet_day(seed: int) -> None:
    world = World(seed, rough=False)
    for _ in range(STEPS // 2):
        world.step()
    world.heal()
    assert len(world.known) > 60
    assert all(host.opened for host in world.hosts.values())
