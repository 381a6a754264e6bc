# SPDX-License-Identifier: Apache-2.0
"""How many connections a server takes follows from how many descriptors it may have, and whose
they are is fair; and how long it waits for what they say, from when they said it.
"""

from __future__ import annotations

import errno
import gc
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
from identities import Lab
from servers import connect

from bitfusion.client import channels, control, trust
from bitfusion.client.access import CLEAR, Access
from bitfusion.errors import ServerLost, ServerNotReady
from bitfusion.server import doorman as module
from bitfusion.server.api import ANYBODY, Route
from bitfusion.server.doorman import MAX_SPARE, OTHERS, Doorman
from bitfusion.server.gate import INTERNAL_ERROR, NO_ROOM_IN_CLEAR, Gate
from bitfusion.server.loop import Loop
from bitfusion.server.peer import Peer
from bitfusion.wire.control import Reply

ROOT = Path(__file__).resolve().parents[2]
RAISE = """
import resource, sys
from bitfusion import linux
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(linux.raise_open_files(1000), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def raised(soft: int, hard: int) -> list[int]:
    out = subprocess.check_output(
        [sys.executable, "-c", RAISE, str(soft), str(hard)], text=True, cwd=ROOT, timeout=60
    )
    return [int(word) for word in out.split()]


def test_open_files_are_raised_as_far_as_they_may_be() -> None:
    assert raised(64, 2000) == [1000, 1000, 2000]
    assert raised(64, 500) == [500, 500, 500]
    assert raised(1500, 2000) == [1500, 1500, 2000]


PLACES = 64
DESCRIPTORS = 2 * PLACES + OTHERS


def test_a_client_does_not_keep_others_out(lab: Lab) -> None:
    """Its connections that hold no session make room, but for some; nobody else's do. Who finds no
    place all the same hears so.
    """
    mal, carol = lab.client("mal"), lab.client("carol")
    server = lab.start(descriptors=DESCRIPTORS)
    before, other = lab.channel(carol), lab.claim(mal, memory=1 << 20)
    held = [lab.claim(carol, memory=1 << 20)]
    stream, _pid = connect(held[0])
    many = [before]
    for _ in range(PLACES):
        assert control.greet(many[-1])
        many.append(lab.channel(mal))
    assert control.greet(many[-1]) and control.greet(lab.channel(carol))
    with pytest.raises(ServerLost):
        control.greet(many[1])
    with pytest.raises(ServerNotReady, match="it has no room for another connection now"):
        for _ in range(PLACES):
            held.append(lab.claim(carol, memory=1 << 20))
    assert len(held) >= PLACES - MAX_SPARE - 3
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    for channel in (before, other.channel, many[-1], *(session.channel for session in held)):
        assert control.greet(channel)
    assert "client 'mal' has more connections than anybody, and 64 of all are" in server.log
    assert "refused 127.0.0.1: 64 connections of clients are the most" in server.log
    assert "client 'carol' has" not in server.log


def answered_with(answer: bytes, access: Access) -> None:
    """What a client makes of it, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]

        def turn_away() -> None:
            sock, _address = listener.accept()
            sock.sendall(answer)
            sock.close()

        thread = threading.Thread(target=turn_away)
        thread.start()
        try:
            control.greet(channels.HttpChannel(address, "it", 5.0, access))
        finally:
            thread.join()


def test_what_a_client_makes_of_being_turned_away(lab: Lab) -> None:
    for answer, access in ((NO_ROOM_IN_CLEAR, CLEAR), (INTERNAL_ERROR, Access(lab.ca, "a:b"))):
        with pytest.raises(ServerNotReady, match="it has no room for another connection now"):
            answered_with(answer, access)
    error = trust.unreachable("it", ConnectionResetError(errno.ECONNRESET, "Reset"))
    assert error.hint == trust.RESET != trust.unreachable("it", OSError(111, "Refused")).hint


class Service:
    """As much of one as a doorman needs."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.routes: list[Route] = []
        self.sessions = self

    def has(self, _peer: Peer) -> bool:
        return False

    def gone(self, _peer: Peer) -> None: ...


def test_nothing_is_left_of_a_connection_that_ended() -> None:
    service = Service()
    listener = socket.create_server(("127.0.0.1", 0))
    doorman = Doorman(service, listener, Gate(service.loop, None, None), 30.0)  # type: ignore[arg-type]
    gc.disable()
    try:
        with socket.create_connection(listener.getsockname()):
            service.loop.turn(5)
            [peer] = map(weakref.ref, doorman.peers)
        while doorman.peers:
            service.loop.turn(5)
        assert peer() is None
    finally:
        gc.enable()
        doorman.close()


@pytest.mark.parametrize(
    ("asked", "answer"), [(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", b"H"), (b"", b"")]
)
def test_who_asked_in_time_is_heard_however_late(
    monkeypatch: pytest.MonkeyPatch, asked: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(module, "FIRST_CALL_S", 0.05)
    service = Service()
    service.routes = [Route("GET", "/x", ANYBODY, lambda _asked: Reply(200, {}))]
    listener = socket.create_server(("127.0.0.1", 0))
    doorman = Doorman(service, listener, Gate(service.loop, None, None), 30.0)  # type: ignore[arg-type]
    with socket.create_connection(listener.getsockname(), 60) as sock:
        sock.sendall(asked)
        while not doorman.peers:
            service.loop.turn(0.01)
        time.sleep(0.1)  # as others' calls may take
        for _ in range(3):
            service.loop.turn(0.01)
        assert sock.recv(1) == answer
    doorman.close()
