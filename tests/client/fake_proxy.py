# SPDX-License-Identifier: Apache-2.0
"""The broker's other end, as the C proxy does it; as a program it shows what the worker says."""

from __future__ import annotations

import os
import socket
import struct
import sys

REQUEST = struct.Struct("<8sIIII")
ANSWER = struct.Struct("<8sIiII")


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def connect(path: str = "") -> tuple[socket.socket, int]:
    """A connected stream and its transport."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as broker:
        broker.connect(path or os.environ["BITFUSION_SOCKET"])
        broker.sendall(REQUEST.pack(b"BFBROKR\0", 1, 1, os.getpid(), 0))
        data, fds, _flags, _address = socket.recv_fds(broker, 4096, 4)
    magic, version, status, transport, size = ANSWER.unpack_from(data)
    assert (magic, version) == (b"BFBROKR\0", 1)
    text = data[ANSWER.size :].decode()
    assert len(text) == size
    if status:
        raise Refused(status, text)
    return socket.socket(fileno=fds[0]), transport


def hello(stream: socket.socket) -> tuple[str, int]:
    """The session and the pid of the worker at the other end."""
    session, pid = stream.makefile("r").readline().split()
    return session, int(pid)


def main() -> None:
    stream, transport = connect()
    session, pid = hello(stream)
    stream.sendall(b"ping")
    line = f"{session} {pid} {transport} {stream.recv(100).decode()}\n"
    os.write(1, line.encode())  # in one piece, when several of us write at once
    if "wait" in sys.argv:
        stream.recv(1)
    if "fail" in sys.argv:
        sys.exit("the GPU is lost")  # as programs do; one that did not would have succeeded


if __name__ == "__main__":
    main()
