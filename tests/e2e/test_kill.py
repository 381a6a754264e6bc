# SPDX-License-Identifier: Apache-2.0
"""Whoever dies at whatever moment: nothing is left behind, nobody hangs, memory comes back."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, List

import pytest

SEED = int(os.environ.get("BITFUSION_TEST_SEED", "20261121"))
ROLES = ["program", "launcher", "worker", "server", "nursery"]


def comm(pid: int) -> str:
    try:
        return Path("/proc/%d/comm" % pid).read_text().strip()
    except OSError:
        return ""


def find(gpu: Any, launcher: int, role: str) -> List[int]:
    """Processes of one role among those of this test."""
    if role == "launcher":
        return [launcher]
    name = {
        "program": "steady",
        "worker": "bitfusion-work",  # the ones that serve: spares have another name
        "server": "bitfusion-serve",
        "nursery": "bitfusion-nurse",
    }[role]
    return [pid for pid in gpu.processes() if comm(pid) == name[:15]]


def wait_until_ready(run: subprocess.Popen[str]) -> None:
    assert run.stdout is not None
    ready, _, _ = select.select([run.stdout], [], [], 100)
    assert ready and run.stdout.readline() == "ready\n"


def finish(run: subprocess.Popen[str]) -> str:
    """What it still says; it must end by itself."""
    try:
        out, err = run.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        run.kill()
        raise AssertionError("hangs") from None
    return out + err


@pytest.mark.slow
@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("role", ROLES)
def test_a_process_of_a_run_is_killed(gpu: Any, programs: Path, role: str, how: str) -> None:
    chance = random.Random("%s %s %d" % (role, how, SEED))
    for _ in range(3):
        run = gpu.start(how, str(programs / "steady"))
        wait_until_ready(run)
        time.sleep(chance.uniform(0, 0.25))  # a moment by chance: nothing to wait for
        victims = find(gpu, run.pid, role)
        assert victims, "no %s found" % role
        os.kill(chance.choice(victims), signal.SIGKILL)
        said = finish(run)
        assert run.returncode != 0, said
        assert gpu.wait_until_gone() == [], said


@pytest.mark.slow
def test_killed_while_starting(gpu: Any, programs: Path) -> None:
    chance = random.Random(SEED)
    for _ in range(6):
        run = gpu.start("tcp", str(programs / "steady"))
        time.sleep(chance.uniform(0, 0.6))  # as above
        os.kill(run.pid, signal.SIGKILL)
        finish(run)
        assert gpu.wait_until_gone() == []


@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_reach_the_program(gpu: Any, programs: Path, number: int, status: int) -> None:
    run = gpu.start("tcp", str(programs / "steady"))
    wait_until_ready(run)
    os.kill(run.pid, number)
    finish(run)
    assert run.returncode in (status, -number)
    assert gpu.wait_until_gone() == []


# ---------------------------------------------------------------- a server that stays


def free_memory(gpu: Any, programs: Path, server: str) -> int:
    """MiB that a whole-GPU session can have."""
    done = gpu.run(
        "tcp", str(programs / "memory_limits"), options=["-n", "1", "--server_list", server]
    )
    match = re.search(r"got (\d+) MiB", done.stdout)
    assert match, done.stdout + done.stderr
    return int(match.group(1))


@pytest.mark.slow
@pytest.mark.parametrize("role", ["program", "launcher", "worker"])
def test_memory_comes_back(gpu: Any, programs: Path, server: str, role: str) -> None:
    before = free_memory(gpu, programs, server)
    for _ in range(2):
        run = gpu.start(
            "tcp", str(programs / "steady"), options=["-n", "1", "--server_list", server]
        )
        wait_until_ready(run)
        (victim,) = find(gpu, run.pid, role)
        os.kill(victim, signal.SIGKILL)
        finish(run)
        assert run.returncode != 0
    assert free_memory(gpu, programs, server) == before


@pytest.mark.slow
def test_a_crash_is_nobody_elses(gpu: Any, programs: Path, server: str) -> None:
    """Two runs on one server: one worker dies, the other run goes on to its end."""
    options = ["-n", "1", "-p", "0.5", "--server_list", server]
    doomed = gpu.start("tcp", str(programs / "steady"), options=options)
    wait_until_ready(doomed)
    workers = find(gpu, 0, "worker")
    assert len(workers) == 1
    other = gpu.start("tcp", str(programs / "steady"), "200", options=options)
    wait_until_ready(other)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    finish(doomed)
    said = finish(other)
    assert doomed.returncode != 0
    assert other.returncode == 0 and "done, last value 199" in said, said
