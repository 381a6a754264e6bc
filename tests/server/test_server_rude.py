# SPDX-License-Identifier: Apache-2.0
"""Clients that break the rules: used tickets, garbage, dawdling."""

from __future__ import annotations

import errno
import socket
import time

import pytest
from servers import Server, connect
from waiting import wait_for

from bitfusion.client import control


def ticket_of(session: control.Session) -> bytes:
    path = f"/v1/sessions/{session.name}/tickets"
    reply = session.channel.request("POST", path, {"pid": 1})
    return str(reply.body["ticket"]).encode()


def show(server: Server, line: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.data_port), 60) as sock:
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
    with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
        try:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except OSError as error:  # it hung up, perhaps before we did
            assert isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN
    assert server.channel().request("GET", "/v1/server").status == 200


def test_methods_and_paths_that_do_not_exist(server: Server) -> None:
    channel = server.channel()
    for method, path in (("GET", "/"), ("PUT", "/v1/gpus"), ("POST", "/v1/sessions/x/y"),
                         ("GET", "/v1/" + "x" * 5000)):  # fmt: skip
        assert channel.request(method, path).status == 404


def test_head_and_pipelining(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
        one = b"GET /v1/server HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(one * 3 + b"GET /v1/gpus HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        sock.settimeout(60)
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.count(b"HTTP/1.1 200") == 4


def test_a_slow_ticket_is_not_waited_for(server: Server) -> None:
    """One byte every now and then: the deadline is for the whole line, and nobody else waits."""
    slow = socket.create_connection(("127.0.0.1", server.data_port), 60)
    started = time.monotonic()
    slow.settimeout(0.25)
    answer = b""
    while not answer and time.monotonic() - started < 60:
        try:
            slow.sendall(b"B")
            answer = slow.recv(100)
        except TimeoutError:
            if time.monotonic() - started < 1:
                connect(server.claim(fraction="0.1"))
        except ConnectionError:
            answer = b"ERR"
    assert answer.startswith(b"ERR") and time.monotonic() - started > 4
