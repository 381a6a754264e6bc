# SPDX-License-Identifier: Apache-2.0
"""A program hears of its dead connection before its launcher hears why: the run's exit status, and
a line that says the reason.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import Optional

import pytest
from identities import BITFUSION, Lab
from servers import HERE, Server, name_of, parent_of
from waiting import wait_for

from bitfusion.client import channels

# Uses its GPU until that is gone, and fails at once then.
USER = (
    "import fake_proxy as p, sys; s = p.connect()[0]; print(p.hello(s)[1], flush=True)\n"
    "try: s.recv(1)\n"
    "finally: sys.exit(9)\n"
)


def start(server: Server, environment: Optional[dict[str, str]] = None) -> subprocess.Popen[str]:
    where = f"127.0.0.1:{server.port}"
    client = os.path.join(os.path.dirname(HERE), "client")
    words = ["run", "-n", "1", "--server_list", where, "--transport", "tcp"]
    return subprocess.Popen(
        [*BITFUSION, *words, "--", sys.executable, "-c", USER],
        env={**(environment or os.environ), "PYTHONPATH": client},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def worker_of(run: subprocess.Popen[str]) -> int:
    assert run.stdout is not None
    return int(run.stdout.readline())


def end(run: subprocess.Popen[str]) -> tuple[int, str]:
    _out, said = run.communicate(timeout=100)
    return run.returncode, said


@pytest.mark.parametrize("victim", ["worker", "nursery"])
def test_a_worker_that_is_killed(server: Server, victim: str) -> None:
    run = start(server)
    worker = worker_of(run)
    os.kill(worker if victim == "worker" else parent_of(worker), signal.SIGKILL)
    status, said = end(run)
    how = r"was ended by signal 9 \(Killed\)" if victim == "worker" else "ended with the nursery"
    assert status == 125, said
    assert re.search(f"the program failed, as its GPUs were lost: worker 1 of .* {how}", said)


def test_what_a_program_does_itself_stays_its_own(server: Server) -> None:
    where = f"127.0.0.1:{server.port}"
    for script, status in (("exit 3", 3), ("kill -ABRT $$", -signal.SIGABRT)):
        words = ["run", "-n", "1", "--server_list", where, "sh", "-c", script]
        done = subprocess.run([*BITFUSION, *words], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (status, "")


def test_a_machine_that_is_gone(server: Server) -> None:
    run = start(server)
    worker = worker_of(run)
    nursery = parent_of(worker)
    server.process.kill()  # first: it would start another nursery
    server.process.wait()
    os.kill(nursery, signal.SIGKILL)
    status, said = end(run)
    assert status == 125 and f"127.0.0.1:{server.port}" in said, said


def test_a_client_that_is_revoked(lab: Lab) -> None:
    server = lab.start()
    for number in range(3):
        access = lab.client(f"alice{number}")
        more = {"BITFUSION_TOKEN": access.token, "BITFUSION_CA": access.ca}
        run = start(server, lab.environment(**more))
        worker_of(run)
        lab.token("revoke", f"alice{number}")
        status, said = end(run)
        assert status == 122 and "token" in said, said


@pytest.mark.parametrize("verb", ["disable", "revoke"])
def test_an_operator_hears_what_its_own_token_comes_to(lab: Lab, verb: str) -> None:
    """It is cut off by what it asks for, and not before it is told."""
    boss, server = lab.client("boss", "--admin"), lab.start()
    more = {
        "BITFUSION_TOKEN": boss.token,
        "BITFUSION_CA": boss.ca,
        "BITFUSION_SERVER_LIST": f"127.0.0.1:{server.port}",
    }
    lab.state = os.path.join(lab.folder, "none")  # where commands look for a server
    other = lab.channel(boss)
    assert other.request("GET", "/v1/tokens").status == 200
    asked = lab.popen("token", verb, "boss", **more)
    out, said = asked.communicate(timeout=60)
    assert asked.returncode == 0 and "boss" in out, said
    assert "That is the token used here: servers refuse this client from now on." in out
    assert wait_for(lambda: channels.is_dead(other))
    again = lab.popen("token", "list", **more)
    assert "refused" in again.communicate(timeout=60)[1] and again.returncode == 1


def test_a_relay_that_is_killed(lab: Lab) -> None:
    server = lab.start(encrypt="always")
    access = lab.client("alice")
    run = start(server, lab.environment(BITFUSION_TOKEN=access.token, BITFUSION_CA=access.ca))
    worker_of(run)
    relays = [pid for pid in server.processes() if name_of(pid) == "bitfusion-relay"]
    (relay,) = [pid for pid in relays if parent_of(pid) in relays]
    os.kill(relay, signal.SIGKILL)
    status, said = end(run)
    assert status == 125 and "the encrypted connection of process" in said, said
