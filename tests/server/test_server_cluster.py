# SPDX-License-Identifier: Apache-2.0
"""Two server processes of one cluster, over a real etcd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd_nodes import Node
from etcds import EtcdServer
from identities import BITFUSION
from servers import Server, connect
from waiting import wait_for

from bitfusion.client import channels, control, pool
from bitfusion.client.claim import Wanted, claim
from bitfusion.client.trust import Seen
from bitfusion.config import format_address
from bitfusion.errors import Busy, ServerRefused
from bitfusion.server.keys import Keys
from bitfusion.server.state import StateFolder
from bitfusion.values import Address

LEASE = "4s"


def connect_to(address: Address, timeout_s: float, seen: Seen) -> channels.HttpChannel:
    return channels.HttpChannel(address, format_address(address), timeout_s, seen=seen)


def ask(server: Server, gpus: int = 1, patience_s: float = 0.0) -> control.Session:
    """A client's whole way: ask this server, and go where it says."""
    wanted = Wanted(
        {"gpus": gpus}, "it", "program", "list", connect_to, "auto", 60.0, patience_s, 0.0
    )
    return claim([("127.0.0.1", server.port)], wanted)


class Pair:
    """Two servers of two GPUs each."""

    def __init__(self) -> None:
        self.etcd = EtcdServer()
        self.folders = [tempfile.TemporaryDirectory(prefix="bf-") for _ in range(2)]
        self.servers = [self.start(number) for number in range(2)]
        self.everyone = list(self.servers)
        for server in self.servers:
            assert wait_for(lambda server=server: self.sees(server) == ["up", "up"])  # type: ignore[misc]

    def start(self, number: int) -> Server:
        where = f"etcd://127.0.0.1:{self.etcd.port}"
        settings = {"cluster.store": where, "cluster.lease": LEASE}
        return Server("echo", 2, 1000, settings=settings, state=self.folders[number].name)

    def start_again(self, number: int) -> None:
        self.servers[number] = self.start(number)
        self.everyone.append(self.servers[number])

    def sees(self, server: Server) -> list[str]:
        channel = server.channel()
        rows = channel.request("GET", "/v1/pool").body["servers"]
        channel.close()
        assert isinstance(rows, list)
        return [row["state"] for row in rows]

    def by_port(self, session: control.Session) -> Server:
        port = session.channel.address[1]
        return next(server for server in self.servers if server.port == port)

    def end(self) -> None:
        for server in self.everyone:
            if server.process.poll() is None:
                server.stop()
        for server in self.everyone:
            assert wait_for(lambda server=server: not server.processes())  # type: ignore[misc]
            assert "Traceback" not in server.log, server.log
        self.etcd.thaw()
        self.etcd.end()
        for folder in self.folders:
            folder.cleanup()


@pytest.fixture()
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.end()


def test_one_server_gives_the_gpus_of_both(pair: Pair) -> None:
    one, two = pair.servers
    sessions = [ask(one, 2) for _ in range(2)]
    assert {session.channel.address[1] for session in sessions} == {one.port, two.port}
    assert one.free() == two.free() == [0, 0]
    for session in sessions:
        stream, _pid = connect(session)
        stream.close()
    with pytest.raises(Busy):
        ask(two)
    sessions[0].channel.close()
    assert wait_for(lambda: sorted(one.free() + two.free()) == [0, 0, 1000, 1000])
    again = ask(two, 2, patience_s=90)  # the other server hears of it later
    assert again.channel.address == sessions[0].channel.address


def test_a_server_with_keys_of_its_own_is_not_started(pair: Pair, tmp_path: Path) -> None:
    Keys(StateFolder(str(tmp_path))).make("other")
    where = f"etcd://127.0.0.1:{pair.etcd.port}"
    with pytest.raises(AssertionError, match="its servers have other keys, 'none'"):
        Server("echo", 4, 1000, settings={"cluster.store": where}, state=str(tmp_path))
    assert pair.sees(pair.servers[0]) == ["up", "up"]


def test_losing_etcd_ends_no_session(pair: Pair) -> None:
    one, two = pair.servers
    session, later = ask(two, 2), []
    pair.etcd.kill()
    assert wait_for(lambda: all("sessions go on" in server.log for server in (one, two)))
    text = f"the cluster's state at etcd://127.0.0.1:{pair.etcd.port} cannot be reached now"
    with pytest.raises(ServerRefused, match=text):
        ask(one)
    told = pool.ask(one.channel())
    assert told.trouble == text and len(told.servers) == 2
    stream, _pid = connect(session)
    stream.sendall(b"more")
    other_one = next(s for s in (one, two) if str(s.port) not in session.channel.name)
    door = StateFolder(other_one.state).connect("admin", socket.SOCK_STREAM, 60)
    operator = channels.LineChannel(door, 60)
    for method, path in (
        ("DELETE", f"/v1/sessions/{session.name}"),  # not that it ends
        ("POST", "/v1/servers/this/drain"),
        ("POST", "/v1/servers/this/undrain"),
    ):
        refusal = operator.request(method, path)
        assert (refusal.status, channels.kind_of(refusal)) == (503, ("no-state", text)), path
    checked = control.list_of_objects(operator.request("GET", "/v1/health").body["checks"])
    (check,) = (each for each in checked if each["name"] == "cluster's state")
    assert (check["level"], check["found"]) == ("FAIL", text), check
    operator.close()
    waiting = threading.Thread(target=lambda: later.append(ask(one, 2, patience_s=90)))
    waiting.start()  # and asks again until it is answered
    pair.etcd.start()
    assert wait_for(lambda: all("is there again" in server.log for server in (one, two)))
    waiting.join(100)
    (other,) = later
    assert other.channel.address != session.channel.address
    stream.close()
    connect(session)[0].close()


def test_a_server_that_is_killed_keeps_its_gpus_until_it_returns(pair: Pair) -> None:
    """Its workers live on, so nobody else may have their memory; the leader may be the one that
    was killed.
    """
    sessions = [ask(pair.servers[0], 2) for _ in range(2)]
    killed = pair.servers.index(pair.by_port(sessions[0]))
    other = pair.servers[1 - killed]
    pair.servers[killed].process.send_signal(signal.SIGKILL)
    pair.servers[killed].process.wait()
    assert wait_for(lambda: sorted(pair.sees(other)) == ["down", "up"])
    with pytest.raises(Busy):
        ask(other)
    stream, _pid = connect(sessions[1])  # the other's goes on
    stream.close()
    pair.start_again(killed)
    assert wait_for(lambda: pair.sees(other) == ["up", "up"])
    back = pair.servers[killed]
    assert wait_for(lambda: back.free() == [1000, 1000])  # its launcher did not come again
    assert ask(other, 2, patience_s=90).channel.address[1] == back.port


def test_the_other_goes_on_when_one_is_stopped(pair: Pair) -> None:
    sessions = [ask(pair.servers[0], 2) for _ in range(2)]
    one, two = (pair.by_port(session) for session in sessions)
    connect(sessions[0])[0].close()
    one.stop()
    channel = two.channel()

    def held() -> object:
        you = channel.request("GET", "/v1/pool").body["you"]
        return isinstance(you, dict) and you["held"]

    assert wait_for(lambda: held() == {"gpus": 2, "memory": 2000 << 20}), held()
    channel.close()
    sessions[1].channel.close()
    session = ask(two, 2, patience_s=90)
    assert session.channel.address[1] == two.port
    assert wait_for(lambda: sorted(pair.sees(two)) in (["down", "up"], ["up"]))


def test_servers_of_the_command_line_are_the_only_ones(pair: Pair) -> None:
    """And those of the configuration are where to ask."""
    held = ask(pair.servers[0], 2)
    full = pair.by_port(held)
    where = f"127.0.0.1:{full.port}"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BITFUSION, "run", "-n", "1", "--timeout", "0", *words, "true"],
            env={**os.environ, "BITFUSION_SERVER_LIST": where},
            capture_output=True,
            text=True,
            timeout=100,
        )

    assert run().returncode == 0
    for name in (where, where.replace("127.0.0.1", "localhost")):
        done = run("--server_list", name)
        assert done.returncode == 1 and "others have them\n" in done.stderr, done.stderr
        assert "waiting" not in done.stderr
    held.channel.close()


@pytest.mark.slow
def test_a_restart_without_etcd_loses_no_session() -> None:
    """Where clients have tokens, the new server knows none of them before etcd is back."""
    etcd, node = EtcdServer(), None
    try:
        node = Node({"cluster.store": f"etcd://127.0.0.1:{etcd.port}", "cluster.lease": "12s"})
        node.admit("alice")
        assert wait_for(lambda: node.knows(["alice"]))
        channel = node.channel("alice")
        reply = channel.request("POST", "/v1/sessions", {"gpus": 1})
        session = control.Session(channel, reply.body, "auto", 60.0, str(reply.body["secret"]))
        assert session.attach_over(channel).status == 200
        etcd.kill()
        node.now.process.send_signal(signal.SIGTERM)
        node.now.process.wait(100)
        channel.close()
        node.start()
        time.sleep(12.5)  # longer than the lease
        channel = node.channel("alice")
        assert session.attach_over(channel).status == 503
        etcd.start()
        assert wait_for(lambda: session.attach_over(channel).status == 200), node.now.log
        assert "nobody attached" not in node.now.log
    finally:
        if node is not None:
            node.now.stop()
        etcd.end()
