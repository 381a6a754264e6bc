# SPDX-License-Identifier: Apache-2.0
"""What a service manager hears of a server, and that a server that hangs says nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import pytest

from bitfusion.server.manager import Manager

ROOT = Path(__file__).resolve().parents[2]


class Listener:
    """A service manager's end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path if path[0] == "/" else "\0" + path[1:])

    def next(self, patience_s: float) -> str:
        self.socket.settimeout(patience_s)
        return self.socket.recv(256).decode()

    def waiting(self) -> List[str]:
        found = []
        try:
            while True:
                found.append(self.next(0.01))
        except OSError:
            return found


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify"))
    yield made
    made.socket.close()


class Timers:
    """A loop's, that go off when the test says so."""

    def __init__(self) -> None:
        self.set: List[Tuple[float, Callable[[], object]]] = []

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        self.set.append((seconds, action))

    def go_off(self) -> float:
        """The next; returns after which time it was to."""
        seconds, action = self.set.pop(0)
        action()
        return seconds


def test_ready_then_from_the_loop_at_half_the_interval(listener: Listener) -> None:
    environment = {"NOTIFY_SOCKET": listener.path, "WATCHDOG_USEC": "200000"}
    environment["WATCHDOG_PID"] = str(os.getpid())
    manager, timers = Manager(environment), Timers()
    assert environment == {}, "no process that we start may speak for us"
    assert listener.waiting() == [] and not timers.set
    manager.ready(timers)
    assert listener.waiting() == ["READY=1", "WATCHDOG=1"]
    for _ in range(3):
        assert listener.waiting() == [], "a loop that hangs is silent"
        assert timers.go_off() == 0.1
        assert listener.waiting() == ["WATCHDOG=1"] and len(timers.set) == 1
    manager.stopping()
    assert listener.waiting() == ["STOPPING=1"]


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "x"}],
)
def test_nobody_listens(environment: Dict[str, str]) -> None:
    manager = Manager(environment)
    manager.ready(Timers())
    manager.stopping()


def test_anothers_watchdog_is_not_ours(listener: Listener) -> None:
    environment = {"NOTIFY_SOCKET": listener.path, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    timers = Timers()
    Manager(environment).ready(timers)
    assert listener.waiting() == ["READY=1"] and not timers.set


def test_abstract_names() -> None:
    listener = Listener(f"@bitfusion-test-{os.getpid()}")
    Manager({"NOTIFY_SOCKET": listener.path}).tell("READY=1")
    assert listener.waiting() == ["READY=1"]
    listener.socket.close()


ENDED_AT_ONCE = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
number = int(sys.argv.pop(1))
from bitfusion import cli
from bitfusion.server.manager import Manager
Manager.ready = lambda _self, _timers: os.kill(os.getpid(), number)
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_ended_as_soon_as_it_serves(tmp_path: Path, number: int) -> None:
    words = ["server", "--listen", "127.0.0.1:0", "--state_dir", str(tmp_path / "state")]
    done = subprocess.run(
        [sys.executable, "-c", ENDED_AT_ONCE, str(ROOT), str(int(number)), *words],
        env={**os.environ, "BITFUSION_SOFTGPU_MEMORY": "64M"},
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 0 and "server ends" in done.stderr, done.stderr


def test_a_server_says_when_it_serves_and_when_it_ends(listener: Listener, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "bin/bitfusion"), "server", "--listen", "127.0.0.1:0"),
            *("--state_dir", str(tmp_path / "state"), "--spare_workers", "0"),
        ],
        env={
            **os.environ,
            "NOTIFY_SOCKET": listener.path,
            "WATCHDOG_USEC": "400000",
            "BITFUSION_SOFTGPU_MEMORY": "64M",
        },
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert listener.next(60) == "READY=1"
        assert [listener.next(10) for _ in range(3)] == ["WATCHDOG=1"] * 3
        assert server.stderr and "serves" in server.stderr.readline()
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        assert children
        server.send_signal(signal.SIGTERM)
        assert "STOPPING=1" in iter(lambda: listener.next(10), "")
        assert server.wait(100) == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
