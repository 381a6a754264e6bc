# SPDX-License-Identifier: Apache-2.0
"""A server on the network with workers in Python: sessions, tickets, rudeness, kills."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

import pytest

from bitfusion import config
from bitfusion.client import control, pool
from bitfusion.errors import Busy, NotAServer, ServerLost, ServerRefused, TooMuch, VersionMismatch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "client"))

import fake_proxy  # noqa: E402


def wait_for(condition: Callable[[], object], patience_s: float = 5.0) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Server:
    def __init__(self, worker: str, gpus: int, mib: int) -> None:
        self.mark = f"{os.getpid()}-{random.random()}"
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "serve.py"), worker, str(gpus), str(mib)],
            env={**os.environ, "TEST_MARK": self.mark},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "serves" in line, line
        words = line.replace(",", "").split()
        self.port = int(words[words.index("on") + 1].rpartition(":")[2])
        self.data_port = int(words[words.index("port") + 1])
        self.log = ""

    def channel(self) -> control.HttpChannel:
        return control.HttpChannel(("127.0.0.1", self.port), f"127.0.0.1:{self.port}", 5.0)

    def claim(self, transport: str = "auto", **request: Any) -> control.Session:
        return control.claim(self.channel(), {"gpus": 1, **request}, "it", transport, 5.0)

    def free(self) -> list[int]:
        rows = pool.remote(("127.0.0.1", self.port), 5.0).gpus
        return [row.free >> 20 for row in rows]

    def processes(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/environ", "rb") as file:
                        if f"TEST_MARK={self.mark}".encode() in file.read():
                            found.append(int(name))
                except OSError:
                    pass
        return found

    def stop(self) -> int:
        self.process.terminate()
        assert self.process.stderr is not None
        self.log += self.process.stderr.read()
        return self.process.wait(10)


@pytest.fixture()
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(*getattr(request, "param", ("echo", 2, 1000)))
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0
    assert wait_for(lambda: not running.processes())
    assert "Traceback" not in running.log, running.log


def connect(session: control.Session) -> tuple[socket.socket, int]:
    """A data connection and the pid of its worker."""
    stream, _transport = session.open_data(os.getpid())
    stream.settimeout(5)
    name, pid = fake_proxy.hello(stream)
    assert name == session.name
    return stream, pid


def test_a_session_from_claim_to_release(server: Server) -> None:
    session = server.claim(fraction="0.25")
    assert session.gpus[0]["memory"] == 250 << 20 and session.software
    assert server.free() == [750, 1000]
    stream, pid = connect(session)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    row = pool.remote(("127.0.0.1", server.port), 5.0).gpus[0]
    assert row.sessions == [
        {"session": session.name, "memory": 250 << 20, "used": 0, "processes": 1}
    ]
    session.channel.close()
    assert stream.recv(9) == b""
    assert wait_for(lambda: server.free() == [1000, 1000])
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("transport", ["auto", "tcp", "unix"])
def test_transports(server: Server, transport: str) -> None:
    session = server.claim(transport)
    stream, _pid = connect(session)
    expected = socket.AF_INET if transport == "tcp" else socket.AF_UNIX
    assert stream.family == expected and stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_delete_ends_a_session_and_keeps_the_connection(server: Server) -> None:
    session = server.claim()
    stream, _pid = connect(session)
    assert session.channel.request("DELETE", f"/v1/sessions/{session.name}").status == 200
    assert stream.recv(9) == b""
    assert wait_for(lambda: server.free() == [1000, 1000])
    assert session.channel.request("DELETE", f"/v1/sessions/{session.name}").status == 404


def test_too_much_and_in_use_are_told_apart(server: Server) -> None:
    with pytest.raises(TooMuch, match="there are 2") as error:
        server.claim(gpus=3)
    assert error.value.exit_status == 2
    with pytest.raises(TooMuch, match="1000 MiB"):
        server.claim(memory=1001 << 20)
    first = server.claim(gpus=2)
    with pytest.raises(Busy) as busy:
        server.claim(memory=1 << 20)
    assert busy.value.exit_status == 1
    first.channel.close()
    assert wait_for(lambda: server.free() == [1000, 1000])


@pytest.mark.parametrize(
    "body",
    [{}, {"gpus": 0}, {"gpus": "1"}, {"gpus": True}, {"gpus": 1, "fraction": "2"},
     {"gpus": 1, "fraction": 0.5}, {"gpus": 1, "memory": -1}, {"gpus": 1 << 40}],
)  # fmt: skip
def test_bad_requests(server: Server, body: dict[str, Any]) -> None:
    channel = server.channel()
    reply = channel.request("POST", "/v1/sessions", body)
    assert reply.status in (400, 409) and reply.body["error"]
    assert channel.request("GET", "/v1/server").status == 200


def test_another_clients_session_is_out_of_reach(server: Server) -> None:
    mine, other = server.claim(), server.channel()
    for method, path in (("DELETE", ""), ("POST", "/tickets")):
        assert other.request(method, f"/v1/sessions/{mine.name}{path}", {}).status == 404
    connect(mine)


def ticket_of(session: control.Session) -> bytes:
    path = f"/v1/sessions/{session.name}/tickets"
    reply = session.channel.request("POST", path, {"pid": 1})
    return str(reply.body["ticket"]).encode()


def show(server: Server, line: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.data_port), 8) as sock:
        sock.sendall(line)
        return sock.makefile("rb").readline()


def test_a_ticket_is_good_once(server: Server) -> None:
    session = server.claim()
    line = b"BITFUSION/1 TICKET " + ticket_of(session) + b"\n"
    assert show(server, line) == b"OK\n"
    assert show(server, line).startswith(b"ERR unknown or used")


def test_a_ticket_dies_with_its_session(server: Server) -> None:
    session = server.claim()
    line = b"BITFUSION/1 TICKET " + ticket_of(session) + b"\n"
    session.channel.close()
    assert wait_for(lambda: server.free() == [1000, 1000])
    assert show(server, line).startswith(b"ERR")


def test_tickets_are_bounded(server: Server) -> None:
    session = server.claim()
    path = f"/v1/sessions/{session.name}/tickets"
    statuses = [session.channel.request("POST", path, {"pid": 1}).status for _ in range(70)]
    assert statuses[:64] == [201] * 64 and statuses[-1] == 429


GARBAGE = [
    b"\n", b"GET / HTTP/1.1\r\n\r\n", b"BITFUSION/1 TICKET \n", b"BITFUSION/1 TICKET x y\n",
    b"BITFUSION/2 TICKET 00\n", b"\0" * 128, b"A" * 5000, bytes(range(256)) * 4,
    b"BITFUSION/1 TICKET " + b"a" * 200 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_on_the_data_port(server: Server, garbage: bytes) -> None:
    try:
        assert show(server, garbage).startswith((b"ERR", b""))
    except ConnectionError:
        pass  # it hung up while we still talked
    connect(server.claim())


@pytest.mark.parametrize("garbage", [*GARBAGE[:1], *GARBAGE[5:], b"GET /" + b"x" * 20000,
    b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{{{",
    b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b" " * 70000,
    b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"[" * 5000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])  # fmt: skip
def test_garbage_on_the_control_port(server: Server, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        try:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
    assert server.channel().request("GET", "/v1/server").status == 200


def test_methods_and_paths_that_do_not_exist(server: Server) -> None:
    channel = server.channel()
    for method, path in (("GET", "/"), ("PUT", "/v1/gpus"), ("POST", "/v1/sessions/x/y"),
                         ("GET", "/v1/" + "x" * 5000)):  # fmt: skip
        assert channel.request(method, path).status == 404


def test_head_and_pipelining(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        one = b"GET /v1/server HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(one * 3 + b"GET /v1/gpus HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        sock.settimeout(5)
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.count(b"HTTP/1.1 200") == 4


def test_a_slow_ticket_is_not_waited_for(server: Server) -> None:
    """One byte every now and then: the deadline is for the whole line, and nobody else waits."""
    slow = socket.create_connection(("127.0.0.1", server.data_port), 8)
    started = time.monotonic()
    slow.settimeout(0.25)
    answer = b""
    while not answer and time.monotonic() - started < 8:
        try:
            slow.sendall(b"B")
            answer = slow.recv(100)
        except TimeoutError:
            if time.monotonic() - started < 1:
                connect(server.claim(fraction="0.1"))
        except ConnectionError:
            answer = b"ERR"
    assert answer.startswith(b"ERR") and 4 < time.monotonic() - started < 7


@pytest.mark.parametrize("server", [("echo", 4, 1000)], indirect=True)
def test_fifty_clients_at_once(server: Server) -> None:
    streams = []
    for number in range(50):
        session = server.claim("tcp" if number % 2 else "unix", memory=76 << 20)
        streams.append((session, *connect(session)))
    assert sum(server.free()) == 4000 - 50 * 76
    for number, (_session, stream, _pid) in enumerate(streams):
        stream.sendall(b"%d" % number)
    for number, (_session, stream, _pid) in enumerate(streams):
        assert stream.recv(9) == b"%d" % number
    assert len({pid for _, _, pid in streams}) == 50
    for session, _stream, _pid in streams:
        session.channel.close()
    assert wait_for(lambda: server.free() == [1000] * 4)
    assert server.stop() == 0
    turn = server.log.rpartition("longest turn of its loop ")[2].split()[0]
    assert float(turn) < 250, server.log  # a blocking call would take longer


@pytest.mark.parametrize("server", [("stubborn", 1, 1000)], indirect=True)
def test_memory_returns_when_the_worker_is_gone_and_not_before(server: Server) -> None:
    session = server.claim(memory=600 << 20)
    _stream, pid = connect(session)
    session.channel.close()
    time.sleep(0.3)
    assert server.free() == [400] and os.path.exists(f"/proc/{pid}")
    assert wait_for(lambda: server.free() == [1000])
    assert not os.path.exists(f"/proc/{pid}")


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


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


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
    fake_proxy.hello(stream)
    stream.sendall(b"warm?")
    stream.settimeout(0.3)
    try:
        return stream.recv(9)
    except TimeoutError:
        return b""


def test_spares_are_used_and_replaced(server: Server) -> None:
    session = server.claim()
    assert wait_for(lambda: len(server.processes()) == 3)
    for _ in range(3):
        assert ask_warm(session, False) == b"warm"
        assert wait_for(lambda: len(server.processes()) >= 3)
        time.sleep(0.05)
    assert ask_warm(session, True) == b""


@pytest.mark.parametrize("server", [("coldonly", 1, 1000)], indirect=True)
def test_a_driver_that_cannot_be_warmed_is_not_tried_for_ever(server: Server) -> None:
    session = server.claim()
    time.sleep(0.3)
    assert len(server.processes()) == 2
    assert ask_warm(session, False) == b""


def test_a_killed_spare_is_replaced(server: Server) -> None:
    assert wait_for(lambda: len(server.processes()) == 3)
    spare = max(server.processes())
    os.kill(spare, signal.SIGKILL)
    assert wait_for(lambda: len(server.processes()) == 3 and spare not in server.processes())
    connect(server.claim())


def test_a_killed_server_takes_its_workers_along(server: Server) -> None:
    session = server.claim()
    stream, _pid = connect(session)
    server.process.kill()
    assert stream.recv(9) == b""
    assert wait_for(lambda: not server.processes())
    with pytest.raises(ServerLost):
        session.channel.request("GET", "/v1/gpus")


def test_random_kills_leak_nothing(server: Server) -> None:
    """Sessions, workers and connections ended in any order; the pool is whole at the end."""
    chance = random.Random(7)
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


def test_two_servers_of_one_address_are_refused(server: Server) -> None:
    from bitfusion.errors import CannotListen
    from bitfusion.server import public

    with pytest.raises(CannotListen, match="in use"):
        public.listen(("127.0.0.1", server.port))
    taken = public.listen_first_free("127.0.0.1", (server.data_port, server.data_port + 50))
    assert taken.getsockname()[1] != server.data_port
    taken.close()
    with pytest.raises(CannotListen, match="no port of these is free"):
        public.listen_first_free("127.0.0.1", (server.data_port, server.data_port))


class FixedChannel:
    """Answers every request the same."""

    name, host = "gpu01:56001", "gpu01"

    def __init__(self, status: int, body: dict[str, object]) -> None:
        self._reply = control.Reply(status, body)

    def fileno(self) -> int:
        return -1

    def request(
        self, method: str, path: str, body: Optional[control.Json] = None
    ) -> control.Reply:
        return self._reply

    def close(self) -> None: ...


def test_other_versions_are_named() -> None:
    with pytest.raises(
        VersionMismatch, match=r"version 9.0.0 \(protocol 7\).*protocol 1"
    ) as error:
        control.greet(FixedChannel(200, {"version": "9.0.0", "protocol": 7}))
    assert error.value.exit_status == 1 and "\n" not in str(error.value)
    with pytest.raises(VersionMismatch):
        control.greet(FixedChannel(426, {"version": "9.0.0", "protocol": 1}))
    with pytest.raises(NotAServer):
        control.greet(FixedChannel(200, {"hello": "world"}))
    with pytest.raises(ServerRefused, match="full"):
        control.claim(FixedChannel(503, {"error": {"kind": "x", "text": "full"}}), {}, "", "", 1)


def test_smi_and_list_gpus(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    from bitfusion import cli

    session = server.claim(fraction="0.5")
    servers = ["--server_list", f"127.0.0.1:{server.port}"]
    assert cli.dispatch(["smi", *servers]) == 0
    out = capsys.readouterr().out
    assert "500MiB / 1000MiB" in out and session.name in out and "Test GPU" in out
    assert len({len(line) for line in out.splitlines()}) == 1
    assert cli.dispatch(["smi", "--json", *servers]) == 0
    assert json.loads(capsys.readouterr().out)[0]["gpus"][0]["free"] == 500 << 20
    assert cli.dispatch(["list_gpus", *servers]) == 0
    assert "running 1 tasks" in capsys.readouterr().out
    assert cli.dispatch(["list_gpus", "--json", servers[0], servers[1] + ",127.0.0.1:1"]) == 1
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["gpus"][1]["free"] == 1000 << 20 and "refused" in listed[1]["error"]


def test_addresses_of_the_default_configuration() -> None:
    assert config.Config().address("server.listen") == ("127.0.0.1", 56001)
    assert config.Config().ports("server.data_ports") == (55001, 55100)
