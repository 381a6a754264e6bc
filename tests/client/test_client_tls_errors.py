# SPDX-License-Identifier: Apache-2.0
"""What one connection of TLS left in its thread when it failed is not said of another.

Some versions of Python leave errors of the system in OpenSSL's queue of the thread. Here they
are put there by hand, so that the tests mean something with every version.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import ssl
from pathlib import Path
from typing import Iterator

import pytest

from bitfusion import certificates, pump
from bitfusion.certificates import Certificate
from bitfusion.client.channels import HttpChannel
from bitfusion.errors import ServerLost

OF_SYSTEM = 2  # ERR_LIB_SYS


class Queue:
    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.ERR_peek_error.restype = ctypes.c_ulong

    def leave(self) -> None:
        self._library.ERR_new()
        self._library.ERR_set_error(OF_SYSTEM, errno.EPIPE, None)
        assert self.has_any()

    def has_any(self) -> bool:
        return bool(self._library.ERR_peek_error())


@pytest.fixture()
def queue() -> Iterator[Queue]:
    assert ssl.OPENSSL_VERSION
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = {line.split()[-1] for line in lines if "/libcrypto.so.3" in line}
    if not found:
        pytest.skip("does not apply: this Python has OpenSSL in itself, or an old one")
    queue = Queue(ctypes.CDLL(found.pop()))
    yield queue
    certificates.forget_errors()


def test_errors_are_forgotten(queue: Queue) -> None:
    queue.leave()
    certificates.forget_errors()
    assert not queue.has_any()


def test_a_connection_that_fails_leaves_nothing(queue: Queue) -> None:
    class Broken:
        sock = None

        def request(self, *_words: object) -> None:
            queue.leave()
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    channel = HttpChannel.__new__(HttpChannel)
    channel.__dict__.update(name="a", _connection=Broken(), _answered=True, _broken=ValueError)
    channel._timeout_s = 1.0
    channel.access = type("Access", (), {"token": ""})()  # type: ignore[assignment]
    channel.certificate = Certificate("a", 0)
    with pytest.raises(ServerLost):
        channel.request("GET", "/")
    assert not queue.has_any()


def test_a_stream_is_read_on_when_nobody_takes_what_is_written(queue: Queue) -> None:
    class Gone(socket.socket):
        def send(self, *_words: object) -> int:
            queue.leave()
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with Gone() as target:
        flow = pump.Flow(target, target)
        flow.waiting = memoryview(b"x")
        flow.write()
    assert flow.lost and not queue.has_any()
