# SPDX-License-Identifier: Apache-2.0
"""Forty clients of two real server processes, everything that can end at random, and a model of
who holds what.

Clients are connections: one that is killed closes them without a word, as the system does for it.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import tempfile
from collections import Counter
from contextlib import suppress
from typing import Any, Optional

from servers import Server, connect
from waiting import wait_for

from bitfusion.client import control
from bitfusion.client.control import HttpChannel
from bitfusion.errors import BitfusionError
from bitfusion.wire.control import Json, Reply

GPUS, MIB = 4, 1000
CLIENTS = 40
LEASE_S = 90.0  # longer than it takes a busy machine to start a server
LOST = (OSError, BitfusionError)


class Node:
    """One server after another, on the same port and in the same folder."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bf-")
        self._settings = settings
        self.all: list[Server] = []
        self.start()
        self._settings = {**settings, "server.listen": f"127.0.0.1:{self.now.port}"}

    @property
    def now(self) -> Server:
        return self.all[-1]

    def start(self) -> None:
        self.all.append(
            Server("echo", GPUS, MIB, settings=self._settings, state=self._folder.name)
        )

    def restart(self, number: int) -> None:
        self.now.process.send_signal(number)
        self.now.process.wait(30)
        self.start()

    def left(self) -> list[int]:
        return [pid for server in self.all for pid in server.processes()]


class Client:
    def __init__(self, name: int) -> None:
        self.name = name
        self.forget()

    def forget(self) -> None:
        self.state = "idle"  # asking, holding
        self.channel: Optional[HttpChannel] = None
        self.entry = ""
        self.position = 0
        self.request: Json = {}
        self.node: Optional[Node] = None  # that it speaks to
        self.session: Optional[control.Session] = None
        self.held: dict[int, int] = {}  # GPU -> MiB
        self.streams: list[tuple[socket.socket, int]] = []

    def close(self) -> None:
        """As if killed."""
        for stream, _ in self.streams:
            stream.close()
        if self.channel is not None:
            self.channel.close()
        self.forget()


class Crowd:
    def __init__(self, seed: int, settings: dict[str, str]) -> None:
        """settings: {} for two servers that know nothing of each other."""
        self.pick = random.Random(seed)
        settings = {**settings, "cluster.lease": f"{LEASE_S}", "server.spare_workers": "0"}
        self.nodes = [Node(settings) for _ in range(2)]
        self.clients = [Client(number) for number in range(CLIENTS)]
        self.counts: Counter[str] = Counter()

    # ---- what happens

    def step(self) -> None:
        client = self.pick.choice(self.clients)
        try:
            getattr(self, f"_{client.state}")(client)
        except LOST:
            if client.state == "holding":
                raise
            self.counts["lost"] += 1
            client.close()
        self.check()

    def _idle(self, client: Client) -> None:
        client.node = self.pick.choice(self.nodes)
        client.channel = client.node.now.channel()
        fraction = self.pick.choice(("1", "1", "0.5", "0.3", "0.01"))
        gpus = self.pick.choice((1, 1, 2, 3))
        client.request = {"gpus": gpus, "fraction": fraction, "wait": self.pick.choice((0, 0.1))}
        self._answer(client, client.channel.request("POST", "/v1/sessions", client.request))

    def _asking(self, client: Client) -> None:
        assert client.channel is not None
        kind = self.pick.random()
        if kind < 0.1:
            self.counts["left the queue"] += 1
            client.channel.request("DELETE", f"/v1/queue/{client.entry}")
            client.close()
        elif kind < 0.2:
            self.counts["killed in the queue"] += 1
            client.close()
        else:
            path = f"/v1/queue/{client.entry}?wait=0&position={client.position}"
            self._answer(client, client.channel.request("GET", path))

    def _answer(self, client: Client, reply: Reply) -> None:
        if reply.status == 202:
            self.counts["queued"] += client.state == "idle"
            client.state, client.entry = "asking", str(reply.body["entry"])
            client.position = int(reply.body.get("position", 0))  # 0: not known yet
            assert client.position <= int(reply.body.get("of", 0))
        elif reply.status == 201:
            self.counts["granted"] += 1
            self._attach(client, reply.body)
        else:
            kind, text = control.kind_of(reply)
            assert kind in ("in-use", "no-entry", "unavailable", "too-many"), (kind, text)
            self.counts[kind] += 1
            client.close()

    def _attach(self, client: Client, granted: Json) -> None:
        """On the server that owns the GPUs, whichever was asked."""
        server: Any = granted["server"]
        port = int(str(server["addresses"][0]).rpartition(":")[2])
        node = next(node for node in self.nodes if node.now.port == port)
        if node is not client.node:
            assert client.channel is not None
            client.channel.close()
            client.node, client.channel = node, node.now.channel()
            self.counts["elsewhere"] += 1
        assert client.channel is not None
        session = control.Session(client.channel, granted, "auto", 10.0, str(granted["secret"]))
        attached = session.attach_over(client.channel)
        if attached.status != 200:
            self.counts["not attached"] += 1
            client.close()
            return
        session.renew(client.channel, attached.body)
        client.session, client.state = session, "holding"
        client.held = {int(gpu["index"]): int(gpu["memory"]) >> 20 for gpu in session.gpus}
        assert len(client.held) == client.request["gpus"]
        part = int(float(str(client.request["fraction"])) * MIB)
        assert set(client.held.values()) == {part}

    def _holding(self, client: Client) -> None:
        assert client.session is not None and client.channel is not None
        kind = self.pick.choice(("work", "work", "kill a worker", "release", "release", "killed"))
        if kind == "work" and len(client.streams) < 2:
            client.streams.append(connect(client.session))
        elif kind == "work":
            stream, _ = self.pick.choice(client.streams)
            stream.sendall(b"ping")
            assert stream.recv(4) == b"ping"
        elif kind == "kill a worker" and client.streams:
            stream, pid = client.streams.pop(self.pick.randrange(len(client.streams)))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            stream.close()
        elif kind == "release":
            reply = client.channel.request("DELETE", f"/v1/sessions/{client.session.name}")
            assert reply.status == 200, reply
            client.close()
        elif kind == "killed":
            client.close()
        self.counts[kind] += 1

    def break_server(self, settle: bool) -> None:
        """Whoever held GPUs of it holds them yet, by a new connection. What was granted and not
        taken waits for its client as long as a lease is, unless we let that settle before.
        """
        node = self.pick.choice(self.nodes)
        if settle:
            for client in self.clients:
                if client.state == "asking":
                    client.close()
            assert wait_for(self.is_settled, 20), [node.now.log for node in self.nodes]
        node.restart(self.pick.choice((signal.SIGKILL, signal.SIGTERM)))
        self.counts["servers"] += 1
        for client in self.clients:
            if client.node is not node:
                continue
            if client.state != "holding" or client.session is None:
                client.close()
                continue
            assert client.channel is not None
            client.channel.close()
            client.channel = node.now.channel()
            attached = client.session.attach_over(client.channel)
            assert attached.status == 200, (attached, node.all[-2].log, node.now.log)
            client.session.renew(client.channel, attached.body)
            self.counts["taken over"] += 1
        self.check()

    # ---- what must be so

    def check(self) -> None:
        """Nothing is given twice."""
        used: Counter[tuple[int, int]] = Counter()
        for client in self.clients:
            if client.node is not None:
                for gpu, mib in client.held.items():
                    used[self.nodes.index(client.node), gpu] += mib
        assert all(mib <= MIB for mib in used.values()), used

    def compare(self) -> None:
        """What servers say they gave is at least what clients know they have."""
        for node in self.nodes:
            free, rooms = node.now.free(), self.rooms(node)
            assert all(0 <= has <= room for has, room in zip(free, rooms)), (free, rooms)

    def is_settled(self) -> bool:
        return all(self.rooms(node) == node.now.free() for node in self.nodes)

    def rooms(self, node: Node) -> list[int]:
        """What is free on each GPU, as clients know."""
        mine = [client.held for client in self.clients if client.node is node]
        return [MIB - sum(held.get(gpu, 0) for held in mine) for gpu in range(GPUS)]

    def end(self) -> None:
        """All leave; everything must be free again, and no process left over."""
        for client in self.clients:
            client.close()
        whole = [MIB] * GPUS
        for node in self.nodes:
            free = wait_for(lambda node=node: node.now.free() == whole, LEASE_S + 30)
            assert free, node.now.log
        for node in self.nodes:
            assert node.now.stop() == 0
            assert wait_for(lambda node=node: not node.left(), 20), node.now.log
            for server in node.all:
                assert "Traceback" not in server.log, server.log
