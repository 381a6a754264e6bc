# SPDX-License-Identifier: Apache-2.0
"""Interactive use, on a pseudo terminal: Ctrl-C, Ctrl-Z and fg, shells, hang-up."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from runs import HARNESS, PROXY, Terminal, marked, run, status_of

from bitfusion import inventory

BASH = ("/bin/bash", "--norc", "--noprofile", "--noediting", "-i")


def test_ctrl_c_interrupts_the_program_and_not_the_run(environment: dict[str, str]) -> None:
    code = (
        "import time\ntry:\n print('rea' + 'dy', flush=True)\n"
        # a signal that comes in just before a sleep does not end it
        " for _ in range(600): time.sleep(0.1)\n"
        "except KeyboardInterrupt:\n print('inter' + 'rupted', flush=True)\n"
    )
    terminal = Terminal(environment, *HARNESS, "--", sys.executable, "-c", code)
    terminal.expect("ready")
    terminal.type("\x03")
    terminal.expect("interrupted")
    assert terminal.end() == 0


def test_a_terminal_hears_that_the_gpu_is_software(environment: dict[str, str]) -> None:
    if not inventory.find("", 1, 1 << 30).software:
        pytest.skip("does not apply: this machine has a GPU")
    terminal = Terminal(environment, *HARNESS, "--", "true")
    terminal.expect("no GPU here: running on a software GPU")
    assert terminal.end() == 0
    assert run(environment, "--", "true").stderr == ""  # where nobody watches


def test_an_interactive_shell(environment: dict[str, str]) -> None:
    terminal = Terminal(environment, *HARNESS, "--", *BASH)
    terminal.expect("$ ")
    terminal.type(" ".join(PROXY) + "\n")
    terminal.expect("ping")
    terminal.expect("$ ")
    terminal.type("sleep 60\n")
    terminal.wait_for_foreground("sleep")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("fg\n")
    terminal.expect("sleep 60")
    terminal.wait_for_foreground("sleep")
    terminal.type("\x03")
    terminal.expect("$ ")
    terminal.type("exit 3\n")
    assert os.WEXITSTATUS(terminal.end()) == 3


def test_ctrl_z_and_fg_in_the_users_shell(environment: dict[str, str]) -> None:
    terminal = Terminal(environment, *BASH)
    terminal.expect("$ ")
    command = " ".join(HARNESS)
    terminal.type(f"{command} -- sh -c 'echo start$((1+1)); sleep 60; read x; echo got-$x'\n")
    terminal.expect("start2")
    terminal.wait_for_foreground("sleep")  # a shell in the middle of vfork cannot be stopped
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("echo shell$((1+1))\n")
    terminal.expect("shell2")
    terminal.type("fg\n")
    terminal.expect("harness.py")
    (sleep,) = [pid for pid in marked(environment["TEST_MARK"]) if status_of(pid)[0] == "sleep"]
    os.kill(sleep, signal.SIGKILL)
    terminal.type("line\n")
    terminal.expect("got-line")
    terminal.expect("$ ")
    terminal.type("exit\n")
    terminal.end()


def test_hang_up_ends_everything(environment: dict[str, str]) -> None:
    terminal = Terminal(environment, *BASH)
    terminal.expect("$ ")
    terminal.type(" ".join([*HARNESS, "--", *PROXY, "wait"]) + "\n")
    terminal.expect("ping")
    os.close(terminal.fd)
    os.waitpid(terminal.pid, 0)
