# SPDX-License-Identifier: Apache-2.0
"""The broker by itself: what the program's processes meet when something is amiss."""

from __future__ import annotations

import pathlib
import resource
import socket
import time

import fake_proxy

from bitfusion.client.broker import Broker


class Nothing:
    """A session that fails as nobody expects."""

    def open_data(self, pid: int, cold: bool) -> tuple[socket.socket, int]:
        raise RuntimeError("nothing here")


def ask(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    sock.sendall(fake_proxy.REQUEST.pack(b"BFBROKR\0", 1, 1, 7, 0))
    return sock


def is_refused(sock: socket.socket) -> bool:
    with sock:
        answer = sock.recv(4096)
    return fake_proxy.ANSWER.unpack_from(answer)[2] == 802 and b"nothing here" in answer


def test_without_descriptors_the_broker_waits_and_does_not_spin(tmp_path: pathlib.Path) -> None:
    """A program of many processes may take all that the launcher may open."""
    ours, theirs = socket.socketpair()
    broker = Broker(str(tmp_path / "broker"), Nothing(), ours.fileno(), lambda: None)
    broker.start()
    assert is_refused(ask(broker.path))  # an error that nobody expects does not end the thread
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [ask(broker.path) for _ in range(3)]
    late = socket.socket(socket.AF_UNIX)
    late.settimeout(60)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        late.connect(broker.path)
        before = time.process_time()
        time.sleep(0.5)
        spent = time.process_time() - before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    late.sendall(fake_proxy.REQUEST.pack(b"BFBROKR\0", 1, 1, 7, 0))
    assert all(is_refused(sock) for sock in [*waiting, late])
    assert spent < 0.1
    broker.stop()
    ours.close()
    theirs.close()
