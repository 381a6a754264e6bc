# SPDX-License-Identifier: Apache-2.0
"""Waiting for the program: no signal that gets lost may keep us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from bitfusion import linux

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from bitfusion import linux
from bitfusion.client.program import Program
threading.Thread(target=threading.Event().wait, daemon=True).start()  # takes SIGCHLD
"""
NO_DESCRIPTOR = "linux.open_process = lambda _pid: -1\n"
WAIT = "sys.exit(Program('/bin/sh', ['sh', '-c', sys.argv[2]], {}).wait() >> 8)\n"


def start(before: str, script: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", START + before + WAIT, ROOT, script]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("before", ["", NO_DESCRIPTOR])
def test_an_end_is_seen_though_its_signal_is_lost(before: str) -> None:
    with start(before, "exit 7") as process:
        assert process.wait(100) == 7


def test_our_threads_take_no_signals() -> None:
    done, seen = threading.Event(), []

    def look() -> None:
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        done.set()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    linux.start_thread(threading.Thread(target=look))
    assert done.wait(100)
    assert seen[0] >= signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
