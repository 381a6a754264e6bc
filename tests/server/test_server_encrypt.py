# SPDX-License-Identifier: Apache-2.0
"""Encrypted data connections: what goes through arrives, and its end and its errors too."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from identities import Lab
from servers import Server, claim_over, connect, name_of, parent_of, wait_for

from bitfusion import certificates, pump
from bitfusion.client import control, health, secure
from bitfusion.client.access import Access
from bitfusion.errors import BitfusionError, ServerRefused
from bitfusion.pump import CHUNK, Pump

Pair = tuple[socket.socket, socket.socket]


class Tunnel:
    """Two pumps back to back over TCP: near and far are the ends in clear text."""

    def __init__(self, lab: Lab) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        sock = socket.create_connection(listener.getsockname())
        accepted, _address = listener.accept()
        listener.close()
        server: list[ssl.SSLSocket] = []
        context = lab.keys.context()
        shaking = threading.Thread(
            target=lambda: server.append(pump.secure(context, accepted, server_side=True))
        )
        shaking.start()
        self.wire = pump.secure(certificates.client_context(lab.ca), sock)
        shaking.join(100)
        self.near, self.inner = socket.socketpair()
        self.far, far = socket.socketpair()
        self.threads = [
            threading.Thread(target=Pump(self.wire, self.inner).run, daemon=True),
            threading.Thread(target=Pump(server[0], far).run, daemon=True),
        ]
        for sock in (self.near, self.far):
            sock.settimeout(60)

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def ended(self) -> bool:
        for thread in self.threads:
            thread.join(100)
        return not any(thread.is_alive() for thread in self.threads)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(str(tmp_path_factory.mktemp("keys")))


@pytest.fixture()
def tunnel(keys: Lab) -> Iterator[Tunnel]:
    made = Tunnel(keys)
    made.start()
    yield made
    made.near.close()
    made.far.close()
    assert made.ended()


def digest_of(sock: socket.socket, pause_s: float = 0.0) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    while data := sock.recv(100_000):
        size += len(data)
        digest.update(data)
        if pause_s:
            time.sleep(pause_s)
    return size, digest.hexdigest()


def test_both_ways_at_once_in_pieces_of_all_sizes(tunnel: Tunnel) -> None:
    seed = random.Random(4)
    blobs = [seed.randbytes(5_000_000), seed.randbytes(3_000_001)]
    found: dict[int, tuple[int, str]] = {}

    def send(sock: socket.socket, blob: bytes) -> None:
        at, sizes = 0, random.Random(len(blob))
        while at < len(blob):
            size = sizes.choice([1, 7, 16384, 16385, 100_000, 999_999])
            sock.sendall(blob[at : at + size])
            at += size
        sock.shutdown(socket.SHUT_WR)

    def receive(number: int, sock: socket.socket) -> None:
        found[number] = digest_of(sock)

    threads = [
        threading.Thread(target=send, args=(tunnel.near, blobs[0])),
        threading.Thread(target=send, args=(tunnel.far, blobs[1])),
        threading.Thread(target=receive, args=(0, tunnel.far)),
        threading.Thread(target=receive, args=(1, tunnel.near)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    for number, blob in enumerate(blobs):
        assert found[number] == (len(blob), hashlib.sha256(blob).hexdigest())
    assert tunnel.ended()


def test_half_an_end_leaves_the_other_way_open(tunnel: Tunnel) -> None:
    tunnel.near.sendall(b"the last")
    tunnel.near.shutdown(socket.SHUT_WR)
    assert tunnel.far.recv(100) == b"the last" and tunnel.far.recv(1) == b""
    tunnel.far.sendall(b"x" * 1_000_000)
    tunnel.far.close()
    assert digest_of(tunnel.near)[0] == 1_000_000


def test_what_was_sent_arrives_although_the_sender_read_nothing(keys: Lab) -> None:
    """Its kernel then says that the connection broke, before the pump has read what came first."""
    tunnel = Tunnel(keys)
    tunnel.inner.sendall(b"what it does not read")
    tunnel.near.sendall(b"z" * 100_000)
    tunnel.near.close()
    tunnel.start()
    assert digest_of(tunnel.far)[0] == 100_000
    tunnel.far.close()
    assert tunnel.ended()


def test_what_was_sent_before_an_end_arrives(tunnel: Tunnel) -> None:
    """A program that exits right after its last calls, while answers are on their way to it."""
    tunnel.far.setblocking(False)
    try:
        while True:
            tunnel.far.send(b"y" * 65536)
    except BlockingIOError:
        tunnel.far.settimeout(60)
    tunnel.near.sendall(b"z" * 100_000)
    tunnel.near.close()
    assert digest_of(tunnel.far)[0] == 100_000


def test_who_does_not_read_stops_the_other(tunnel: Tunnel) -> None:
    """Bounded: what waits is in the kernel's buffers and a chunk or two of ours."""
    tunnel.near.setblocking(False)
    sent, quiet = 0, 0
    while quiet < 20:
        try:
            sent += tunnel.near.send(b"x" * 65536)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)
    assert sent < 40 << 20
    tunnel.near.settimeout(60)
    tunnel.near.shutdown(socket.SHUT_WR)
    assert digest_of(tunnel.far)[0] == sent
    assert sent >= CHUNK


@pytest.mark.parametrize("harm", ["cut", "garbage"])
def test_a_harmed_connection_ends_both_ends(tunnel: Tunnel, harm: str) -> None:
    tunnel.near.sendall(b"hello")
    assert tunnel.far.recv(9) == b"hello"
    if harm == "cut":
        socket.socket.shutdown(tunnel.wire, socket.SHUT_RDWR)
    else:
        socket.socket.sendall(tunnel.wire, b"\x17\x03\x03\x00\x20" + b"?" * 32)
    for sock in (tunnel.near, tunnel.far):
        try:
            assert sock.recv(1) == b""
        except ConnectionError:
            pass
        sock.close()
    assert tunnel.ended()


# ------------------------------------------ with a server


@pytest.mark.parametrize(
    ("ours", "theirs", "encrypted"),
    [("auto", "auto", False), ("auto", "", False), ("always", "auto", True),
     ("auto", "never", False),
     ("auto", "always", True), ("never", "auto", False), ("always", "always", True),
     ("never", "never", False), ("always", "never", None), ("never", "always", None),
     ("always", "", None)],
)  # fmt: skip
def test_who_decides(ours: str, theirs: str, encrypted: object) -> None:
    if encrypted is None:
        with pytest.raises(ServerRefused, match="encrypt"):
            secure.agree(ours, theirs, "gpu01")
    else:
        assert secure.agree(ours, theirs, "gpu01") is encrypted


def claim(lab: Lab, access: Access, encrypt: str) -> control.Session:
    channel = lab.channel(access._replace(encrypt=encrypt))
    return claim_over(channel, "tcp", memory=1 << 20)


def relays(server: Server) -> int:
    return [name_of(pid) for pid in server.processes()].count("bitfusion-relay")


def test_sessions_with_encrypted_data(lab: Lab) -> None:
    alice = lab.client("alice")
    server = lab.start()
    held = [claim(lab, alice, encrypt) for encrypt in ("always", "auto", "always")]
    streams = [connect(session)[0] for session in held]
    assert [stream.family == socket.AF_UNIX for stream in streams] == [True, False, True]
    assert wait_for(lambda: relays(server) == 1 + 2)
    for number, stream in enumerate(streams):
        stream.sendall(b"%d" % number * 100_000)
    for number, stream in enumerate(streams):
        got = b""
        while len(got) < 100_000:
            got += stream.recv(65536)
        assert got == b"%d" % number * 100_000
    streams[0].close()  # the program's process ends, and the worker with it
    held[2].channel.close()  # the run ends
    assert streams[2].recv(1) == b""
    streams[2].close()
    assert wait_for(lambda: relays(server) == 1)
    streams[1].sendall(b"ping")
    assert streams[1].recv(9) == b"ping"


def test_a_server_that_always_encrypts(lab: Lab) -> None:
    alice = lab.client("alice")
    server = lab.start(encrypt="always")
    held = claim(lab, alice, "auto")
    stream, _pid = connect(held)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"
    with pytest.raises(ServerRefused, match="its data is always encrypted"):
        claim(lab, alice, "never").open_data(1)
    session = claim(lab, alice, "auto")
    path = f"/v1/sessions/{session.name}/tickets"
    ticket = session.channel.request("POST", path, {"pid": 1}).body["ticket"]
    with socket.create_connection(("127.0.0.1", server.data_port), 60) as sock:
        sock.sendall(f"BITFUSION/1 TICKET {ticket}\n".encode())
        assert sock.recv(99).startswith(b"ERR data is encrypted here")
    for garbage in (b"\x16", b"\x16\x03\x01\x00\x05hello", b"\x16" * 5000):
        with socket.create_connection(("127.0.0.1", server.data_port), 60) as sock:
            sock.sendall(garbage)
            sock.settimeout(60)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionError:
                pass
    assert wait_for(lambda: relays(server) == 2)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"


def test_tickets_inside_tls_are_single_use_too(lab: Lab) -> None:
    alice = lab.client("alice")
    server = lab.start()
    session = claim(lab, alice, "always")
    path = f"/v1/sessions/{session.name}/tickets"
    ticket = session.channel.request("POST", path, {"pid": 1}).body["ticket"]
    answers = []
    for _ in range(2):
        sock = socket.create_connection(("127.0.0.1", server.data_port), 60)
        with certificates.client_context(lab.ca).wrap_socket(sock) as tls:
            tls.sendall(f"BITFUSION/1 TICKET {ticket}\n".encode())
            answers.append(tls.recv(20)[:11])
    assert answers[0].startswith(b"OK\n") and answers[1] == b"ERR unknown"
    assert "refused 127.0.0.1: data port: unknown or used ticket" in server.log


def test_a_relay_that_is_killed_is_started_again(lab: Lab) -> None:
    alice = lab.client("alice")
    server = lab.start()
    held = claim(lab, alice, "always")
    stream, _pid = connect(held)
    (parent,) = [pid for pid in server.processes() if is_relay(pid, server)]
    os.kill(parent, 9)
    stream.sendall(b"ping")
    assert stream.recv(9) == b"ping"

    def works() -> bool:
        try:
            session = claim(lab, alice, "always")
            again, _pid = connect(session)
        except (BitfusionError, OSError):
            return False
        again.sendall(b"ping")
        return again.recv(9) == b"ping"

    assert wait_for(works)


def is_relay(pid: int, server: Server) -> bool:
    """The one that forks the others."""
    return name_of(pid) == "bitfusion-relay" and parent_of(pid) == server.process.pid


def test_another_server_s_certificate_is_refused(keys: Lab) -> None:
    """A certificate of the same cluster, but of another server than the control plane's."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _address = listener.accept()
        with sock:
            try:
                pump.secure(keys.keys.context(), sock, server_side=True)
                sock.recv(1)
            except (OSError, ssl.SSLError):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    sock = socket.create_connection(listener.getsockname())
    with pytest.raises(BitfusionError, match="it is another server of the cluster"):
        secure.secure(sock, keys.ca, "0123456789abcdef", "gpu01:55001")
    thread.join(100)
    listener.close()


@pytest.mark.parametrize(
    ("ours", "level", "found"),
    [("auto", health.MARGINAL, "calls and data go in clear text"),
     ("always", health.PASS, "calls and data go by TLS")],
)  # fmt: skip
def test_health_says_whether_data_is_in_the_clear(
    lab: Lab, ours: str, level: object, found: str
) -> None:
    alice = lab.client("alice")
    lab.start()
    channel = lab.channel(alice._replace(encrypt=ours))
    greeting = control.greet(channel)
    assert greeting["encrypt"] == "auto" and greeting["auth"] is True
    check = health.data_encryption(channel, greeting["encrypt"])
    assert (check.level, check.found) == (level, found)
    never = health.data_encryption(lab.channel(alice._replace(encrypt="never")), "always")
    assert never.level == health.FAIL and "always encrypted" in never.found
