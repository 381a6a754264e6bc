# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong: one clear line on stderr, nothing on stdout, the right exit status."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest

CASES: List[Tuple[str, List[str], int, str]] = [
    ("unknown option", ["run", "--frobnicate", "--", "true"], 2, "frobnicate"),
    ("no share", ["run", "-n", "1", "-p", "0", "--", "true"], 2, "-p"),
    ("more than a GPU", ["run", "-n", "1", "-p", "1.5", "--", "true"], 2, "1.5"),
    ("not a number", ["run", "-n", "1", "-p", "half", "--", "true"], 2, "half"),
    ("share and size", ["run", "-n", "1", "-p", "0.5", "-m", "100", "--", "true"], 2, "-m"),
    ("no GPUs", ["run", "-n", "0", "--", "true"], 2, "-n"),
    ("no program", ["run", "-n", "1"], 2, "program"),
    ("unknown transport", ["run", "-n", "1", "--transport", "pigeon", "--", "true"], 2, "pigeon"),
    ("unknown verb", ["fly"], 2, "fly"),
    (
        "no such driver",
        ["run", "-n", "1", "--driver", "/no/libcuda.so.1", "--", "true"],
        2,
        "/no/libcuda.so.1",
    ),
    ("no such program", ["run", "-n", "1", "--", "/no/such/program"], 127, "/no/such/program"),
    ("more GPUs than there are", ["run", "-n", "9", "--", "true"], 2, "9"),
    ("not a server address", ["run", "-n", "1", "--server_list", "::::", "--", "true"], 2, "::::"),
    ("no such configuration", ["server", "--config", "/no/such.toml"], 2, "/no/such.toml"),
]


def check_message(done: Any, word: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line]
    told = [line for line in lines if not line.startswith("hint: ")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("bitfusion: "), done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words, status, word", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_one_clear_line(gpu: Any, words: List[str], status: int, word: str) -> None:
    done = gpu.bitfusion(*words)
    assert done.returncode == status, done.stderr
    check_message(done, word)


def test_unreachable_server(gpu: Any) -> None:
    with socket.socket() as nobody:  # has the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % nobody.getsockname()[1]
        done = gpu.bitfusion("run", "-n", "1", "--server_list", address, "--", "true")
    assert done.returncode == 1, done.stderr
    check_message(done, address)


@pytest.fixture
def foreign_server() -> Iterator[str]:
    """Answers every request like a Bitfusion of a far future would."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    body = b'{"protocol": 999, "version": "99.0", "error": "unsupported protocol"}'
    head = (
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Type: application/json\r\nConnection: close\r\n"
    )

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(60)
                try:
                    peer.recv(65536)
                    peer.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield "127.0.0.1:%d" % listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(2)


def test_server_of_another_version(gpu: Any, foreign_server: str) -> None:
    done = gpu.bitfusion("run", "-n", "1", "--server_list", foreign_server, "--", "true")
    assert done.returncode == 1, done.stderr
    check_message(done, "version")


def test_server_that_is_none(gpu: Any) -> None:
    """Something listens there, but it does not speak HTTP."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b"220 mail.example.com ESMTP\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    done = gpu.bitfusion("run", "-n", "1", "--server_list", address, "--", "true")
    listener.close()
    assert done.returncode == 1, done.stderr
    check_message(done, address)


def test_not_a_cuda_program(gpu: Any) -> None:
    """It simply runs: nothing asks for a GPU."""
    done = gpu.run("tcp", "sh", "-c", "echo fine; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "fine\n", "")


def test_a_script_without_execute_permission(gpu: Any, tmp_path: Path) -> None:
    script = tmp_path / "program"
    script.write_text("#!/bin/sh\n")
    done = gpu.bitfusion("run", "-n", "1", "--", str(script))
    assert done.returncode == 126, done.stderr
    check_message(done, str(script))
