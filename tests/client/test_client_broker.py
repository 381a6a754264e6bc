# SPDX-License-Identifier: Apache-2.0
"""The broker by itself: what the program's processes meet when something is amiss."""

from __future__ import annotations

import pathlib
import resource
import socket
import struct
import threading
import time
from typing import Optional

import fake_proxy
import pytest

from bitfusion.client import control
from bitfusion.client.access import CLEAR
from bitfusion.client.broker import Broker
from bitfusion.wire.control import Json, Reply


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


class Worker:
    """A server's control connection and its data listener, for one process; then it is silent."""

    name, host, certificate, access = "gpu01:56001", "127.0.0.1", None, CLEAR

    def __init__(self) -> None:
        self._listener = socket.create_server((self.host, 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        data, _address = self._listener.accept()
        data.recv(1000)
        data.sendall(control.OK)
        data.recv(1)
        data.close()
        self._listener.close()

    def fileno(self) -> int:
        return -1

    def request(
        self, method: str, path: str, body: Optional[Json] = None, secret: str = ""
    ) -> Reply:
        return Reply(201, {"ticket": "0" * 32})

    def close(self) -> None:
        pass


@pytest.mark.parametrize("lease_s, patience_s", [(1, control.WELCOME_S), (145.5, 145.5)])
def test_a_process_learns_how_long_its_worker_may_be_silent(
    tmp_path: pathlib.Path, lease_s: float, patience_s: float
) -> None:
    worker = Worker()
    claimed: Json = {"session": "s", "lease_s": lease_s, "data": {"tcp": worker.address[1]}}
    broker = Broker(str(tmp_path / "broker"), control.Session(worker, claimed, "tcp", 60))
    broker.start()
    stream, _transport = fake_proxy.connect(broker.path)
    with stream:
        limit = stream.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    seconds, microseconds = struct.unpack("ll", limit)
    assert abs(seconds + microseconds / 1e6 - patience_s) < 0.1  # the kernel counts ticks
    broker.stop()
