# SPDX-License-Identifier: Apache-2.0
"""Starting `run` with a worker in Python, and looking for what it leaves."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

from waiting import wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
HARNESS = [sys.executable, os.path.join(HERE, "harness.py"), "-n", "1"]
PROXY = [sys.executable, os.path.join(HERE, "fake_proxy.py")]


def marked(mark: str) -> list[int]:
    """Every process that carries this test's mark in its environment."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if f"TEST_MARK={mark}".encode() in file.read():
                        found.append(int(name))
            except OSError:
                pass
    return found


def describe(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/status") as file:
            return " ".join(file.read().split()[:16])
    except OSError:
        return f"{pid} gone"


def run(environment: dict[str, str], *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARNESS, *words],
        env={**environment, **more},
        capture_output=True,
        text=True,
        timeout=100,
    )


def heed_signals() -> None:
    """What `nohup make test` or a script's `make test &` ignores must not reach the program."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def start(environment: dict[str, str], *words: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HARNESS, *words],
        env={**environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        preexec_fn=heed_signals,
    )


def leftovers(environment: dict[str, str]) -> list[str]:
    base = os.path.join(environment["TMPDIR"], f"bitfusion-{os.geteuid()}")
    return os.listdir(base) if os.path.exists(base) else []


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def status_of(pid: int) -> tuple[str, str, int]:
    """Its name, state and process group; of a process that is gone, nothing."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            head, _, tail = file.read().rpartition(")")
    except OSError:
        return "", "", 0
    return head.partition("(")[2], tail.split()[0], int(tail.split()[2])


class Terminal:
    """An interactive shell on a terminal of its own, to which tests type."""

    def __init__(self, environment: dict[str, str], *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(words[0], list(words), {**environment, "PS1": "$ ", "TERM": "dumb"})
        self.text = ""
        self._mark = environment["TEST_MARK"]

    def wait_for_foreground(self, name: str) -> None:
        """Until a program of that name runs in the foreground, past its fork and exec."""

        def runs() -> bool:
            found = [status_of(pid) for pid in marked(self._mark)]
            group = os.tcgetpgrp(self.fd)
            return any(n == name and state in "SR" and g == group for n, state, g in found)

        assert wait_for(runs), f"{name} does not run in the foreground"

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, patience_s: float = 60.0) -> None:
        deadline = time.monotonic() + patience_s
        while text not in self.text:
            left = deadline - time.monotonic()
            ready = select.select([self.fd], [], [], max(0.0, left))[0]
            assert ready, f"no {text!r} in {self.text!r}"
            try:
                self.text += os.read(self.fd, 4096).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"ended without {text!r}: {self.text!r}") from None
        self.text = self.text.partition(text)[2]

    def end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return status
