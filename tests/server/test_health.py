# SPDX-License-Identifier: Apache-2.0
"""bitfusion health: grades, both sides' checks, and what scripts get of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, List

import pytest
from servers import Server

from bitfusion import health
from bitfusion.client import health as client
from bitfusion.health import FAIL, MARGINAL, PASS, WARNING, Check
from bitfusion.inventory import Gpu, Inventory
from bitfusion.server import health as server

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GIB = 1 << 30


def inventory(
    gpus: int = 1, gib: int = 16, version: str = "", software: bool = False, cuda: str = ""
) -> Inventory:
    cards = tuple(Gpu("Test GPU", gib * GIB) for _ in range(gpus))
    return Inventory(cards, "libcuda.so.1", "test", {}, version, software, cuda)


def driver(version: str) -> Check:
    return server.driver(inventory(version=version))[0]


def cuda(version: str) -> Check:
    return server.driver(inventory(cuda=version))[1]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return bitfusion("health", *words, **environment)


def bitfusion(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, "bin/bitfusion"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": "/nonexistent", **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    "check,level",
    [
        (server.memory(inventory(2, 16), 48 * GIB), PASS),
        (server.memory(inventory(2, 16), 47 * GIB), MARGINAL),
        (server.memory(inventory(2, 16), 31 * GIB), WARNING),
        (server.memory(inventory(2, 4, software=True), 8 * GIB), PASS),
        (server.memory(inventory(2, 4, software=True), 3 * GIB), WARNING),
        (server.cores(inventory(2), 8), PASS),
        (server.cores(inventory(2), 7), MARGINAL),
        (server.cores(inventory(2), 1), WARNING),
        (driver("580.65.06"), PASS),
        (driver("525.60.13"), PASS),
        (driver("470.82.01"), WARNING),
        (driver("99.0.0"), WARNING),
        (driver("5x5.6"), MARGINAL),
        (driver(""), MARGINAL),
        (server.driver(inventory(software=True))[0], PASS),
        (cuda("13.0"), PASS),
        (cuda("13.10"), PASS),
        (cuda("12.9"), MARGINAL),
        (cuda("11.8"), WARNING),
        (cuda(""), MARGINAL),
        (server.loop(0.01), PASS),
        (server.loop(0.5), MARGINAL),
        (health.expiry("it", 31 * 86400, "renew"), PASS),
        (health.expiry("it", 29 * 86400, "renew"), WARNING),
        (health.expiry("it", 0, "renew"), FAIL),
        (client.clock(1000.0, 999.9, 1000.1), PASS),
        (client.clock(1000.0, 990.0, 990.1), WARNING),
        (client.clock(1000.0, 1010.0, 1010.1), WARNING),
        (client.clock(1000.0, 1100.0, 1100.1), FAIL),
        (client.clock("noon", 0.0, 0.1), MARGINAL),
        (client.mtu(9000), PASS),
        (client.mtu(1500), MARGINAL),
        (client.mtu(1200), WARNING),
        (client.link_speed(25_000, "eth0"), PASS),
        (client.link_speed(1000, "eth0"), MARGINAL),
        (client.link_speed(100, "eth0"), WARNING),
        (client.link_speed(None, "eth0"), MARGINAL),
        (health.open_files(1), PASS),
        (health.open_files(1 << 62), WARNING),
    ],
)
def test_grades(check: Check, level: str) -> None:
    assert check.level == level, check
    assert check.advice or level == PASS


def test_the_worst_decides() -> None:
    levels = [PASS, WARNING, MARGINAL]
    assert health.worst(Check("", level, "") for level in levels) == WARNING
    assert health.worst([]) == PASS
    assert [health.EXIT_STATUS[level] for level in (PASS, MARGINAL, WARNING, FAIL)] == [0, 0, 3, 1]


def test_no_room(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: str) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", full)
    assert health.disk(str(tmp_path)).level == FAIL


def of_server(text: str) -> List[Any]:
    machines = json.loads(text)
    assert [machine["name"] for machine in machines][0] == "this machine"
    return machines


def test_a_server_and_the_way_to_it() -> None:
    there = Server("echo", 1, 100)
    try:
        done = run("--json", "--server_list", f"127.0.0.1:{there.port}")
        assert done.stderr == ""
        checks = {check["name"]: check for check in of_server(done.stdout)[1]["checks"]}
        for name in ("memory", "cores", "driver", "disk", "clock", "round trip", "data port"):
            assert checks[name]["level"] in (PASS, MARGINAL, WARNING), checks[name]
        assert checks["data port"]["found"] == f"{there.data_port} is open"
        assert checks["identity"]["level"] == MARGINAL
        assert "us on the network" in checks["round trip"]["found"]
        text = run("--server_list", f"127.0.0.1:{there.port}").stdout
        assert f"127.0.0.1:{there.port}: " in text and "MARGINAL  identity: clear text" in text
    finally:
        there.stop()


def test_no_server() -> None:
    done = run("--server_list", "127.0.0.1:1")
    assert done.returncode == 1
    assert "FAIL      server: cannot reach '127.0.0.1:1'" in done.stdout
    assert "-> is 'bitfusion server' running there" in done.stdout


def test_without_servers() -> None:
    done = run("--quiet", BITFUSION_SERVER_LIST="")
    assert done.returncode in (0, 3) and done.stderr == ""
    assert "PASS" not in done.stdout.replace("machine: PASS", "")


def test_a_server_that_talks_nonsense() -> None:
    answer: Any = {"checks": [{"name": "x", "level": "GREAT"}, {"level": FAIL, "name": "y"}, 3]}
    assert client.server_checks(answer) == [Check("y", FAIL, "", "")]


def test_who_rules_the_server_of_this_machine_is_shown_it() -> None:
    """Without a configured server: what nvidia-smi's users expect on the machine with the GPUs."""
    there = Server("echo", 2, 100)
    session = there.claim(memory=30 << 20)
    try:
        listed = pool_of(there.state)
        assert [gpu["free"] >> 20 for gpu in listed["gpus"]] == [70, 100]
        machines = of_server(run("--json", BITFUSION_STATE_DIR=there.state).stdout)
        assert [machine["name"] for machine in machines] == [
            "this machine",
            "the server on localhost",
        ]
        assert "responsiveness" in [check["name"] for check in machines[1]["checks"]]
    finally:
        session.channel.close()
        there.stop()
    assert pool_of(there.state)["name"] == "this machine"


def pool_of(state: str) -> Any:
    done = bitfusion("smi", "--json", BITFUSION_STATE_DIR=state)
    assert done.returncode == 0, done.stderr
    (server,) = json.loads(done.stdout)["servers"]
    return server
