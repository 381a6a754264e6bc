# SPDX-License-Identifier: Apache-2.0
"""Servers that answer without end, slowly, or in what is no HTTP: a request ends within its time
and its memory, in words.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bitfusion.client.access import CLEAR
from bitfusion.client.channels import MAX_REPLY, HttpChannel
from bitfusion.errors import NotAServer

Script = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"x" * 60_000  # of a line that is short enough
PATIENCE_S = 60.0  # where it is not time that ends the request


@contextlib.contextmanager
def answering(script: Script) -> Iterator[tuple[str, int]]:
    """A server that plays this on one connection, until it is cut."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _address = listener.accept()
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                script(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield listener.getsockname()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def asking(script: Script, timeout_s: float) -> str:
    """Why the request failed."""
    with answering(script) as address:
        channel = HttpChannel(address, "s", timeout_s, CLEAR)
        try:
            with pytest.raises(NotAServer) as caught:
                channel.request("GET", "/v1/server")
        finally:
            channel.close()
    return str(caught.value).partition("'s': ")[2]


def slowly(head: bytes, part: bytes) -> Script:
    """Within the time of each piece, and not within that of all."""

    def play(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)
            time.sleep(0.05)

    return play


@pytest.mark.parametrize(
    ("head", "part"),
    [(b"HTTP/1.1 200 ", b"O"), (HEAD + b"Content-Length: 9999\r\n\r\n", b" "), (CHUNKED, b"0")],
    ids=["head", "body", "chunk"],
)
def test_byte_by_byte(head: bytes, part: bytes) -> None:
    assert asking(slowly(head, part), 0.4) == "no answer in time"


def flood(head: bytes, part: bytes) -> Script:
    def play(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return play


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"", b"HTTP/1.1 100 " + PIECE + b"\r\n\r\n"),
        (CHUNKED + b"-1\r\n", PIECE),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"A: " + PIECE + b"\r\n"),
    ],
    ids=["go on", "chunk of no size", "trailer"],
)
def test_no_end(head: bytes, part: bytes) -> None:
    assert asking(flood(head, part), PATIENCE_S) == "its answer is too long"


def test_a_chunk_of_less_than_nothing() -> None:
    why = asking(lambda connection: connection.sendall(CHUNKED + b"-5\r\n"), PATIENCE_S)
    assert why == "it does not speak HTTP"


def test_a_long_answer_and_the_next() -> None:
    """What is as long as may be arrives, and takes nothing of the next one's time."""
    body = b"{}".ljust(MAX_REPLY)

    def play(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with answering(play) as address:
        channel = HttpChannel(address, "s", PATIENCE_S, CLEAR)
        for _ in range(2):
            assert channel.request("GET", "/v1/server").body == {}
        channel.close()
