# SPDX-License-Identifier: Apache-2.0
"""Forty runs of a few clients with quotas on two real server processes, everything that can end at
random, and a model of who holds what. crowd_rules.py says what must hold beside that.

Runs are connections: one that is killed closes them without a word, as the system does for it.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Optional

from crowd_nodes import GPUS, MIB, QUOTAS, Node
from crowd_rules import Asked, Picture, Quota, Rules
from etcds import EtcdServer
from servers import connect
from waiting import wait_for

from bitfusion.client import channels, control
from bitfusion.client.channels import HttpChannel
from bitfusion.errors import BitfusionError
from bitfusion.wire.control import Json, Reply

RUNS = 40
NAMES = (*QUOTAS, "free", "idle", "rich", "calm")  # the last ones without quotas
NEWCOMERS = 0.3  # of all that ask
TWINS = 0.6  # of all that ask want what somebody wants who waits: only then is there an order
LEASE_S = 90.0  # longer than it takes a busy machine to start a server
RETURN_S = 2.0  # a server takes away what an earlier run of it put into the queue
LOST = (OSError, BitfusionError)


class Run:
    def __init__(self, client: str) -> None:
        self.usual = client
        self.forget()

    def forget(self) -> None:
        self.state = "idle"  # asking, holding
        self.client = self.usual
        self.channel: Optional[HttpChannel] = None
        self.entry = ""
        self.asked_at = 0
        self.position = 0
        self.request: Json = {}
        self.turn = ""
        self.asked: Optional[Asked] = None
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
    def __init__(self, seed: int, etcd: Optional[EtcdServer]) -> None:
        """Without etcd, two servers that know nothing of each other."""
        self.pick = random.Random(seed)
        self.etcd = etcd
        settings = {"cluster.lease": f"{LEASE_S}", "server.spare_workers": "0"}
        if etcd:
            settings["cluster.store"] = f"etcd://127.0.0.1:{etcd.port}"
        first = Node(settings)
        self.nodes = [first, Node(settings, first if etcd else None)]
        for node in self.nodes[: 1 if etcd else 2]:
            for name in NAMES:
                node.admit(name)
        for node in self.nodes:
            assert wait_for(lambda node=node: node.knows(NAMES))
        self.runs = [Run(NAMES[number % len(NAMES)]) for number in range(RUNS)]
        self.rules = [Rules(QUOTAS) for _ in range(1 if etcd else 2)]
        self.counts: Counter[str] = Counter()
        self.made = 0  # asks
        self.ends: dict[str, str] = {}  # how asks and sessions ended, for whoever looks into it

    # ---- what happens

    def step(self) -> None:
        run = self.pick.choice(self.runs)
        try:
            getattr(self, f"_{run.state}")(run)
        except LOST:
            if run.state == "holding":
                raise
            self.counts["lost"] += 1
            self.leave(run)
        self.check()
        self.look()

    def leave(self, run: Run) -> None:
        if run.entry:
            self._rules_of(run).left(run.entry)
            self.ends[run.entry] = f"left when {run.state}"
        run.close()

    def _rules_of(self, run: Run) -> Rules:
        """Of the servers that the run asked."""
        return self.rules[run.asked_at % len(self.rules)]

    def _idle(self, run: Run) -> None:
        run.asked_at = self.pick.randrange(len(self.nodes))
        run.node = self.nodes[run.asked_at]
        self.made += 1
        fraction = self.pick.choice(("1", "1", "1", "1", "0.5", "0.3", "0.01"))
        gpus = self.pick.choice((1, 1, 1, 1, 2, 3))
        waiting = [other for other in self.runs if other.state == "asking"]
        if waiting and self.pick.random() < TWINS:
            mine = [other for other in waiting if other.client == run.usual]
            twin = self.pick.choice(mine or waiting)
            gpus, fraction = twin.request["gpus"], twin.request["fraction"]  # type: ignore[assignment]
            run.asked_at = twin.asked_at
            run.node = self.nodes[run.asked_at]
        newcomer = self.pick.random() < NEWCOMERS
        if newcomer:
            run.client = f"new{self.made}"
            run.node.admit(run.client)
        run.channel = run.node.channel(run.client)
        run.request = {"gpus": gpus, "fraction": fraction, "wait": self.pick.choice((0, 0.1))}
        reply = run.channel.request("POST", "/v1/sessions", run.request)
        entry = str(reply.body.get("entry") or reply.body.get("session", ""))
        run.asked = Asked(self.made, run.client, run.asked_at, (gpus, fraction), newcomer)
        self._rules_of(run).asked(entry, run.asked)
        self._answer(run, reply)

    def _asking(self, run: Run) -> None:
        assert run.channel is not None
        kind = self.pick.random()
        if kind < 0.1:
            self.counts["left the queue"] += 1
            run.channel.request("DELETE", f"/v1/queue/{run.entry}")
            self.leave(run)
        elif kind < 0.2:
            self.counts["killed in the queue"] += 1
            self.leave(run)
        else:
            path = f"/v1/queue/{run.entry}?wait=0&position={run.position}"
            self._answer(run, run.channel.request("GET", path))

    def _answer(self, run: Run, reply: Reply) -> None:
        if reply.status == 202:
            self.counts["queued"] += run.state == "idle"
            run.state, run.entry = "asking", str(reply.body["entry"])
            run.turn = str(reply.body["turn"])
            run.position = int(reply.body.get("position", 0))  # 0: not known yet
            assert run.position <= int(reply.body.get("of", 0))
        elif reply.status == 201:
            self.counts["granted"] += 1
            self._rules_of(run).served(str(reply.body["session"]))
            self._attach(run, reply.body)
        else:
            kind, text = channels.kind_of(reply)
            assert kind in ("in-use", "no-entry", "unavailable", "too-much"), (kind, text)
            quota = QUOTAS.get(run.client, Quota())
            assert (kind == "too-much") != quota.allows(*size_of(run.request)), (quota, text)
            self.counts[kind] += 1
            self.leave(run)

    def _attach(self, run: Run, granted: Json) -> None:
        """On the server that owns the GPUs, whichever was asked."""
        server: Any = granted["server"]
        port = int(str(server["addresses"][0]).rpartition(":")[2])
        node = next(node for node in self.nodes if node.now.port == port)
        if node is not run.node:
            assert run.channel is not None
            run.channel.close()
            run.node, run.channel = node, node.channel(run.client)
            self.counts["elsewhere"] += 1
        assert run.channel is not None
        session = control.Session(run.channel, granted, "auto", 10.0, str(granted["secret"]))
        attached = session.attach_over(run.channel)
        if attached.status != 200:
            self.counts["not attached"] += 1
            self.ends[session.name] = f"not attached: {attached}"
            self.leave(run)
            return
        session.renew(run.channel, attached.body)
        run.session, run.state = session, "holding"
        run.held = {int(gpu["index"]): int(gpu["memory"]) >> 20 for gpu in session.gpus}
        assert (len(run.held), sum(run.held.values())) == size_of(run.request)
        assert len(set(run.held.values())) == 1

    def _holding(self, run: Run) -> None:
        assert run.session is not None and run.channel is not None
        kind = self.pick.choice(("work", "work", "kill a worker", "release", "release", "killed"))
        if kind == "work" and len(run.streams) < 2:
            run.streams.append(connect(run.session))
        elif kind == "work":
            stream, _ = self.pick.choice(run.streams)
            stream.sendall(b"ping")
            assert stream.recv(4) == b"ping"
        elif kind == "kill a worker" and run.streams:
            stream, pid = run.streams.pop(self.pick.randrange(len(run.streams)))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            stream.close()
        elif kind == "release":
            reply = run.channel.request("DELETE", f"/v1/sessions/{run.session.name}")
            assert reply.status == 200, reply
            run.close()
        elif kind == "killed":
            self.ends[run.session.name] = kind
            run.close()
        self.counts[kind] += 1

    def break_server(self, settle: bool) -> None:
        """Whoever held GPUs of it holds them yet, by a new connection. What was granted and not
        taken waits for its client as long as a lease is, unless we let that settle before.
        """
        node = self.pick.choice(self.nodes)
        if settle:
            for run in self.runs:
                if run.state == "asking":
                    self.leave(run)
            assert wait_for(self.is_settled, LEASE_S + 30), self.differences()
        node.restart(self.pick.choice((signal.SIGKILL, signal.SIGTERM)))
        self.counts["servers"] += 1
        for rules in self.rules:
            rules.forget()
        for run in self.runs:
            if run.state == "holding" and run.node is node:
                self._attach_again(run)
        for run in self.runs:
            if run.state == "asking" and run.node is node:
                self._come_back(run)
            if run.state == "asking" and run.asked is not None:  # the order goes on as it was
                self._rules_of(run).asked(
                    run.entry, run.asked._replace(newcomer=False, returned=True)
                )
        time.sleep(0 if settle else RETURN_S)
        self.check()

    def _attach_again(self, run: Run) -> None:
        assert run.node and run.channel is not None and run.session is not None
        run.channel.close()
        run.channel = run.node.channel(run.client)
        attached = run.session.attach_over(run.channel)
        assert attached.status == 200, (attached, run.node.all[-2].log, run.node.now.log)
        run.session.renew(run.channel, attached.body)
        self.counts["taken over"] += 1

    def _come_back(self, run: Run) -> None:
        """To wait where it was, at the server that it asked or at another of the cluster."""
        assert run.channel is not None
        run.channel.close()
        run.node = self.pick.choice(self.nodes) if self.etcd else run.node
        assert run.node is not None
        try:
            run.channel = run.node.channel(run.client)
            body = {**run.request, "turn": run.turn}
            self._answer(run, run.channel.request("POST", "/v1/sessions", body))
            self.counts["came back"] += 1
        except LOST:
            self.counts["lost"] += 1
            self.leave(run)

        self.check()

    # ---- what must be so

    def check(self) -> None:
        """Nothing is given twice, and nobody has more than it may, as clients know."""
        used: Counter[tuple[int, int]] = Counter()
        held: list[dict[str, tuple[int, int]]] = [{} for _ in self.rules]
        for run in self.runs:
            if run.node is not None:
                for gpu, mib in run.held.items():
                    used[self.nodes.index(run.node), gpu] += mib
                add(held[run.asked_at % len(held)], run.client, len(run.held), run.held.values())
        assert all(mib <= MIB for mib in used.values()), used
        for rules, each in zip(self.rules, held):
            rules.check_quotas(each)

    def look(self) -> None:
        """What the servers say, and what it says about the order in which they serve."""
        pictures = [picture_of(node.pool()) for node in self.nodes]
        for number, rules in enumerate(self.rules):
            mine = pictures if self.etcd else [pictures[number]]
            for picture in mine:
                rules.check_quotas(picture.held)
            decides = mine[self.leader() if self.etcd else 0]
            rules.look(decides, mine, self.made)

    def leader(self) -> int:
        """Which of the nodes decides."""
        assert self.etcd
        found = self.etcd.get("/bitfusion/leader")
        return [node.id for node in self.nodes].index(str(found["server"])) if found else 0

    def compare(self) -> None:
        """What servers say they gave is at least what clients know they have."""
        for node in self.nodes:
            free, rooms = node.free(), self.rooms(node)
            assert all(0 <= has <= room for has, room in zip(free, rooms)), (free, rooms)

    def is_settled(self) -> bool:
        """Nobody waits, and all servers know of what runs have, and of nothing else."""
        pools = [node.pool() for node in self.nodes]
        return not any(pool["queue"] for pool in pools) and all(
            [int(gpu["free"]) >> 20 for gpu in server["gpus"]] == self.rooms(node)
            for pool in pools
            for server in pool["servers"]
            for node in self.nodes
            if node.id == server["id"]
        )

    def differences(self) -> str:
        """Sessions that no run has, and runs whose session no server has."""
        held = {run.session.name for run in self.runs if run.session}
        there = {session for node in self.nodes for session in sessions_of(node.pool())}
        logs = "\n".join(f"---- {node.id}\n{node.now.log}" for node in self.nodes)
        unknown = {session: self.ends.get(session, "") for session in there - held}
        return f"unknown: {unknown}, lost: {held - there}\n{logs}"

    def rooms(self, node: Node) -> list[int]:
        """What is free on each GPU, as clients know."""
        mine = [run.held for run in self.runs if run.node is node]
        return [MIB - sum(held.get(gpu, 0) for held in mine) for gpu in range(GPUS)]

    def end(self) -> None:
        """All leave; everything must be free again, and no process left over."""
        for run in self.runs:
            run.close()
        whole = [MIB] * GPUS
        for node in self.nodes:
            free = wait_for(lambda node=node: node.free() == whole, LEASE_S + 30)
            assert free, node.now.log
        for node in self.nodes:
            assert node.now.stop() == 0
            assert wait_for(lambda node=node: not node.left()), node.now.log
            for server in node.all:
                assert "Traceback" not in server.log, server.log


def size_of(request: Json) -> tuple[int, int]:
    """GPUs and MiB of a request."""
    gpus = int(str(request["gpus"]))
    return gpus, gpus * int(float(str(request["fraction"])) * MIB)


def add(held: dict[str, tuple[int, int]], client: str, gpus: int, mibs: Iterable[int]) -> None:
    before = held.get(client, (0, 0))
    held[client] = before[0] + gpus, before[1] + sum(mibs)


def sessions_of(pool: Any) -> set[str]:
    gpus = (gpu for server in pool["servers"] for gpu in server["gpus"])
    return {str(session["session"]) for gpu in gpus for session in gpu["sessions"]}


def picture_of(pool: Any) -> Picture:
    held: dict[str, tuple[int, int]] = {}
    for gpu in (gpu for server in pool["servers"] for gpu in server["gpus"]):
        mibs = [int(session["memory"]) >> 20 for session in gpu["sessions"]]
        assert int(gpu["free"]) >> 20 == MIB - sum(mibs) >= 0, gpu
        for session, mib in zip(gpu["sessions"], mibs):
            add(held, str(session["client"]), 1, [mib])
    return Picture({str(e["entry"]): e["position"] for e in pool["queue"]}, held)
