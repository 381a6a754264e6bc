# SPDX-License-Identifier: Apache-2.0
"""What a worker process may: no privileges, no descriptors, no core files."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitfusion import linux
from bitfusion.errors import SystemFailure
from bitfusion.executor import core
from bitfusion.server import nursery, worker
from bitfusion.server.nursery import Job
from bitfusion.server.workers import describe_end

PR_GET_DUMPABLE = 3
ROOT = Path(__file__).resolve().parent.parent.parent


def first_environment() -> str:
    """As it lies in memory since the process, or the one that it is forked from, began."""
    start, end = map(int, linux.process_fields(os.getpid())[47:49])
    return os.fsdecode(ctypes.string_at(start, end - start))


class Confess(worker.ExecutorWorker):
    """Tells what it is instead of serving."""

    def load(self) -> None: ...

    def warm(self, job: Job) -> None: ...

    def serve(self, job: Job, data: int, ledger: int) -> int:
        told = {
            "uid": os.getresuid(),
            "groups": os.getgroups(),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "fds": sorted(
                int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")
            ),
            "known": [data, ledger],
            "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
            "environment": {k: os.environ.get(k) for k in ("EXTRA", "CUDA_VISIBLE_DEVICES")},
            "names": sorted(os.environ),
            "memory": first_environment(),
            "status": Path("/proc/self/status").read_text(),
            "dumpable": bool(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)),
        }
        socket.socket(fileno=data).sendall(json.dumps(told).encode())
        return 7


def confession(user: str, spare: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a worker says, and the event of its end."""
    _pid, control = nursery.start(Confess())
    control.setblocking(True)
    job = Job("session", 3, "none", [0], {"EXTRA": "yes"}, user)
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    ours, theirs = socket.socketpair()
    if spare:
        order = {"order": "spares", "count": 1, "job": job._replace(session="")}
        control.send(json.dumps(order).encode())
    order = {"order": "start", "worker": 1, "job": job, "cold": not spare}
    socket.send_fds(control, [json.dumps(order).encode()], [theirs.fileno()])
    theirs.close()
    told = json.loads(ours.makefile("rb").read())
    started, ended = json.loads(control.recv(9999)), json.loads(control.recv(9999))
    assert started["event"] == "started" and ended["event"] == "ended"
    control.close()
    os.waitpid(_pid, 0)
    os.close(secret)
    return told, ended


@pytest.mark.parametrize("spare", [False, True])
def test_a_worker_holds_only_what_it_needs(monkeypatch: pytest.MonkeyPatch, spare: bool) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    told, ended = confession("", spare)
    assert told["core"] == [0, 0]
    assert told["oom_score"] >= 500  # the server and the nursery outlive it
    assert told["environment"] == {"EXTRA": "yes", "CUDA_VISIBLE_DEVICES": None}
    assert told["fds"] == [0, 1, 2, told["known"][0]]
    assert os.WEXITSTATUS(ended["status"]) == 7


@pytest.mark.parametrize("spare", [False, True])
def test_a_worker_gains_nothing_and_shows_nothing(spare: bool) -> None:
    told, _ended = confession("", spare)
    assert "\nNoNewPrivs:\t1\n" in told["status"]
    assert not told["dumpable"]  # for no core, and for no other worker of the same user


def test_a_worker_has_little_of_the_servers_environment() -> None:
    code = """
from test_server_worker import confession
told, _ended = confession("", False)
assert "LD_PRELOAD" not in told["names"] and "PATH" in told["names"], told["names"]
assert "CUDA_DEVICE_ORDER" in told["names"] and "CUDA_INJECTION64_PATH" not in told["names"]
assert "WANTED_1" in told["names"] and "SECRET" not in told["names"]
assert "swordfish" not in told["memory"] and "/usr/bin" in told["memory"]
"""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/server")]
        ),
        "LD_PRELOAD": "",
        "SECRET": "swordfish",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_INJECTION64_PATH": "/nowhere",
        "WANTED_1": "1",
        "BITFUSION_WORKER_ENVIRONMENT": "OTHER,WANTED_*",
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="does not apply: only root can drop privileges")
@pytest.mark.parametrize("spare", [False, True])
def test_root_is_dropped(spare: bool) -> None:
    told, _ended = confession("nobody", spare)
    assert 0 not in told["uid"] and 0 not in told["groups"]


def test_who_workers_run_as() -> None:
    assert worker.pick_user("root") == "root"
    assert worker.pick_user("") in ("bitfusion-worker", "nobody")
    with pytest.raises(SystemFailure, match="no user 'nobody-of-that-name'"):
        worker.pick_user("nobody-of-that-name")


def test_ends_in_words() -> None:
    assert describe_end(9) == "was ended by signal 9 (Killed)"
    assert describe_end(3 << 8) == "ended with status 3"
    assert "'host_memory'" in describe_end(core.ENDED_MEMORY << 8)
