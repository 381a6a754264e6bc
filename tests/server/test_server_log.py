# SPDX-License-Identifier: Apache-2.0
"""The server's log where nobody reads it, and what others' texts may do to it."""

from __future__ import annotations

import fcntl
import os
import pathlib
import select
import socket
import subprocess
import sys

import pytest
from servers import HERE
from waiting import wait_for

from bitfusion import log
from bitfusion.client import channels
from bitfusion.outlet import MAX_KEPT, Outlet
from bitfusion.printable import printable, without_controls

LINE = b"x" * 99 + b"\n"
F_SETPIPE_SZ = 1031


def small_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    fcntl.fcntl(write, F_SETPIPE_SZ, 4096)
    return read, write


def socket_pair() -> tuple[int, int]:
    """As a journal gives."""
    read, write = socket.socketpair()
    write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return read.detach(), write.detach()


def read_all(fd: int) -> bytes:
    """What is there now."""
    data = b""
    while select.select([fd], [], [], 0)[0]:
        part = os.read(fd, 1 << 16)
        if not part:
            break  # its end
        data += part
    return data


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_lines_that_nobody_reads(kind: str) -> None:
    """Kept up to a bound, then counted; what is kept comes whole and in order."""
    read, write = small_pipe() if kind == "pipe" else socket_pair()
    outlet = Outlet(write)
    count = 2 * MAX_KEPT // len(LINE)
    for number in range(count):
        outlet.write(b"%99d\n" % number)
    assert outlet.lost and outlet._size <= MAX_KEPT
    assert not fcntl.fcntl(write, fcntl.F_GETFL) & os.O_NONBLOCK  # others may rely on that
    lost, data = outlet.lost, b""
    while outlet._kept:
        outlet.flush()
        data += read_all(read)
    outlet.write(LINE)
    lines = (data + read_all(read)).splitlines(True)
    assert [int(line) for line in lines[:-2]] == list(range(count - lost))
    assert f" {lost} lines of the log were lost".encode() in lines[-2] and lines[-1] == LINE
    os.close(read)
    outlet.write(LINE)  # to nobody any more
    os.close(write)


def test_a_child_does_not_say_what_its_parent_keeps() -> None:
    read, write = small_pipe()
    outlet = Outlet(write)
    for _ in range(100):
        outlet.write(LINE)
    assert outlet._kept
    outlet._pid += 1  # as after a fork
    outlet.flush()
    assert not outlet._kept
    os.close(read)
    os.close(write)


def test_a_server_whose_log_nobody_reads_serves(tmp_path: pathlib.Path) -> None:
    read, write = small_pipe()
    command = [sys.executable, os.path.join(HERE, "serve.py"), "echo", "1", "1000", str(tmp_path)]
    server = subprocess.Popen(command, stderr=write)
    os.close(write)
    said = bytearray()

    def ready() -> bool:
        said.extend(read_all(read))
        return b"data on port" in said

    assert wait_for(ready)
    words = said.decode().replace(",", "").split()
    port = int(words[words.index("on") + 1].rpartition(":")[2])
    for _ in range(30):  # each has lines of its own
        channel = channels.HttpChannel(("127.0.0.1", port), "it", 10.0)
        reply = channel.request("POST", "/v1/sessions", {"gpus": 1, "fraction": "0.01"})
        assert reply.status == 201
        channel.close()
        for _ in range(4):  # refused, with a line
            with socket.create_connection(("127.0.0.1", port), 60) as sock:
                sock.sendall(b"\0\r\n\r\n")
                sock.recv(100)
    assert len(read_all(read)) > 2000, "the pipe was never full"
    server.terminate()
    assert wait_for(lambda: read_all(read) is not None and server.poll() is not None)
    os.close(read)


@pytest.mark.parametrize(
    ("text", "shown", "dropped"),
    [("a b", "a b", "a b"), ("\x1b[31mred", "\\x1b[31mred", "[31mred"), ("a\nb", "a\\nb", "ab"),
     ("\u202eevil", "\\u202eevil", "evil"), ("\udc80", "\\udc80", ""), ("größe 値", "größe 値",
     "größe 値")],
)  # fmt: skip
def test_what_others_wrote(text: str, shown: str, dropped: str) -> None:
    assert printable(text) == shown
    assert without_controls(text) == dropped


def test_no_escapes_in_the_log() -> None:
    line = log.format_line(log.WARN, "x\x1b[2J\r\ny", 0.0)
    assert line == "[WARN] 1970-01-01T00:00:00Z x\\x1b[2J\\r\\ny\n"


@pytest.mark.parametrize("text", ["x" * 100_000, "\n" * 100_000])
def test_a_line_of_the_log_ends(text: str) -> None:
    line = log.format_line(log.WARN, text, 0.0)
    assert line.count("\n") == 1 and len(line) < select.PIPE_BUF and line.endswith("...\n")


def test_a_bug_whose_words_are_a_client_s(capfd: pytest.CaptureFixture[str]) -> None:
    """Its trace has lines, and none that looks like one of the log."""
    try:
        raise ValueError("x\n[ERROR] client bob was disabled \x1b[31m")
    except ValueError:
        log.bug("in a request")
    first, *trace = capfd.readouterr().err.splitlines()
    assert first.startswith("[ERROR] ") and "a bug, in a request: ValueError(" in first
    assert len(trace) > 2 and all(line.startswith("  | ") for line in trace)
    assert not any("\x1b" in line for line in (first, *trace))
