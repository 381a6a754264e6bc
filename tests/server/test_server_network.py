# SPDX-License-Identifier: Apache-2.0
"""A server on the network with workers in Python: sessions, transports, many clients."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from servers import Server, connect
from waiting import wait_for

from bitfusion import __version__, config, linux
from bitfusion.client import control, pool
from bitfusion.errors import Busy, CannotReach, NotAServer, ServerRefused, TooMuch, VersionMismatch
from bitfusion.server.clients import addresses_of
from bitfusion.values import parse_server
from bitfusion.wire.calls import CALLS


def test_a_session_from_claim_to_release(server: Server) -> None:
    session = server.claim(fraction="0.25")
    assert session.gpus[0]["memory"] == 250 << 20 and session.software
    assert server.free() == [750, 1000]
    stream, pid = connect(session)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    row = pool.remote(("127.0.0.1", server.port), 60.0).gpus[0]
    (held,) = row.sessions
    assert (held["session"], held["client"]) == (session.name, "anonymous")
    assert (held["memory"], held["used"], held["processes"]) == (250 << 20, 0, 1)
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


@pytest.fixture
def squatter() -> Iterator[socket.socket]:
    """Somebody who took a name for himself, and listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0squatter-{os.urandom(8).hex()}")
        listener.listen()
        listener.setblocking(False)
        yield listener


def test_a_unix_socket_of_another_machine_is_not_asked_for(
    server: Server, squatter: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name, there the server's, is here whoever's who takes it."""
    session = server.claim("auto")
    session._data["unix"] = "@" + squatter.getsockname()[1:].decode()
    monkeypatch.setattr(linux, "network_place", lambda: "elsewhere")
    stream, _pid = connect(session)
    assert stream.family == socket.AF_INET
    with pytest.raises(BlockingIOError):
        squatter.accept()
    only_unix = server.claim("unix", memory=1 << 20)
    with pytest.raises(CannotReach, match="it is not on this machine"):
        connect(only_unix)


def test_a_unix_socket_of_another_user_is_shown_no_ticket(
    server: Server, squatter: socket.socket
) -> None:
    session = server.claim("auto")
    session._data.update(unix="@" + squatter.getsockname()[1:].decode(), uid=os.geteuid() + 1)
    stream, _pid = connect(session)
    assert stream.family == socket.AF_INET
    assert squatter.accept()[0].recv(100) == b""


def test_delete_ends_a_session_and_keeps_the_connection(server: Server) -> None:
    session = server.claim()
    stream, _pid = connect(session)
    assert session.channel.request("DELETE", f"/v1/sessions/{session.name}").status == 200
    assert stream.recv(9) == b""
    assert wait_for(lambda: server.free() == [1000, 1000])
    assert session.channel.request("DELETE", f"/v1/sessions/{session.name}").status == 404


def test_too_much_and_in_use_are_told_apart(server: Server) -> None:
    with pytest.raises(TooMuch, match="no server has more than 2 GPUs") as error:
        server.claim(gpus=3)
    assert error.value.exit_status == 2 and error.value.hint == "see 'list'"
    with pytest.raises(TooMuch, match="1000 MiB"):
        server.claim(memory=1001 << 20)
    first = server.claim(gpus=2)
    with pytest.raises(Busy) as busy:
        server.claim(memory=1 << 20)
    assert busy.value.exit_status == 1 and "'list' shows what is free" in busy.value.hint
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


@pytest.mark.parametrize("server", [("echo", 1, 1000)], indirect=True)
def test_sessions_of_one_connection_are_bounded(server: Server) -> None:
    """Each costs the server descriptors."""
    channel, request = server.channel(), {"gpus": 1, "memory": 1 << 20}
    statuses = [channel.request("POST", "/v1/sessions", request).status for _ in range(50)]
    assert statuses == [201] * 8 + [429] * 42
    server.claim(memory=1 << 20)
    channel.close()
    assert wait_for(lambda: server.free() == [999] or server.free() == [1000])


def test_another_clients_session_is_out_of_reach(server: Server) -> None:
    mine, other = server.claim(), server.channel()
    for method, path in (("DELETE", ""), ("POST", "/tickets")):
        assert other.request(method, f"/v1/sessions/{mine.name}{path}", {}).status == 404
    connect(mine)


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
    turn = re.search(r"longest turn .* \(running ([\d.]+),.* else ([\d.]+)\)", server.log)
    assert turn and float(turn[1]) + float(turn[2]) < 1000, server.log  # or something blocks


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

    name, host, address = "gpu01:56001", "gpu01", ("gpu01", 56001)

    def __init__(self, status: int, body: dict[str, object]) -> None:
        self._reply = control.Reply(status, body)

    def fileno(self) -> int:
        return -1

    def request(
        self, method: str, path: str, body: Optional[control.Json] = None, secret: str = ""
    ) -> control.Reply:
        return self._reply

    def close(self) -> None: ...


def test_other_versions_are_named() -> None:
    said = r"version 9.0.0 \(protocol 7777, calls unknown\).*protocol %d, " % control.PROTOCOL
    with pytest.raises(VersionMismatch, match=said) as error:
        control.greet(FixedChannel(200, {"version": "9.0.0", "protocol": 7777}))
    assert error.value.exit_status == 1 and "\n" not in str(error.value)
    with pytest.raises(VersionMismatch):
        control.greet(FixedChannel(426, {"version": "9.0.0", "protocol": 2}))
    same = {"version": __version__, "protocol": control.PROTOCOL, "calls": CALLS}
    assert control.greet(FixedChannel(200, same)) == same
    with pytest.raises(VersionMismatch, match="calls 0123abcd"):
        control.greet(FixedChannel(200, {**same, "calls": "0123abcd4567"}))
    with pytest.raises(NotAServer):
        control.greet(FixedChannel(200, {"hello": "world"}))
    with pytest.raises(ServerRefused, match="full"):
        control.claim(
            FixedChannel(503, {"error": {"kind": "x", "text": "full"}}), {}, "", "", 1, ""
        )


def test_smi_and_list_gpus(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    from bitfusion import cli

    session = server.claim(fraction="0.5")
    servers = ["--server_list", f"127.0.0.1:{server.port}"]
    assert cli.dispatch(["smi", *servers]) == 0
    out = capsys.readouterr().out
    assert "500MiB / 1000MiB" in out and session.name in out and "Test GPU" in out
    assert len({len(line) for line in out.splitlines()}) == 1
    assert cli.dispatch(["smi", "--json", *servers]) == 0
    assert json.loads(capsys.readouterr().out)["servers"][0]["gpus"][0]["free"] == 500 << 20
    assert cli.dispatch(["list_gpus", *servers]) == 0
    assert "running 1 task\n" in capsys.readouterr().out
    assert cli.dispatch(["list_gpus", "--json", servers[0], servers[1] + ",127.0.0.1:1"]) == 1
    listed = json.loads(capsys.readouterr().out)["servers"]
    assert listed[0]["gpus"][1]["free"] == 1000 << 20 and "refused" in listed[1]["error"]


def test_addresses_of_the_default_configuration() -> None:
    assert config.Config().address("server.listen") == ("127.0.0.1", 56001)
    assert config.Config().ports("server.data_ports") == (55001, 55100)


def test_clients_are_told_an_address_that_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the name, though the resolver of this machine may give it one of its addresses."""
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("198.51.100.7", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_names: known)
    (told,) = addresses_of(("0.0.0.0", 56001))
    host = parse_server(told)[0]
    assert not linux.own_address() or ipaddress.ip_address(host)
    with socket.create_server((host, 0), family=family_of(host)):
        pass  # else it raises
    assert not host.startswith("127.") or not linux.own_address()
    assert addresses_of(("gpu01", 1)) == ["gpu01:1"]


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
