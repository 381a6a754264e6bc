# SPDX-License-Identifier: Apache-2.0
"""Real programs on a server that is killed, started again, limits them and is operated on."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest

BITFUSION = str(Path(__file__).resolve().parents[2] / "bin" / "bitfusion")


class Servers:
    """One after the other, on one port and in one folder."""

    def __init__(self, gpu: Any, folder: Path, *lines: str) -> None:
        self._gpu = gpu
        self._config = folder / "server.toml"
        self.address = "127.0.0.1:0"
        self._log = folder / "server.log"
        self.file = str(folder / "held")
        self._lines = lines
        self.start()

    def start(self) -> None:
        listen = '[server]\nlisten = "%s"\n' % self.address
        self._config.write_text(listen + "\n".join(self._lines))
        said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [BITFUSION, "server", "--config", str(self._config)],
                env=self._gpu.environment(),
                stdin=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        until = time.monotonic() + 60
        found = None
        while not found and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
            text = self._log.read_bytes()[said:].decode()
            found = re.search(r"serves .* on (127\.0\.0\.1:\d+)", text)
        assert found, "the server did not start: %s" % self._log.read_text()
        self.address = found.group(1)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(100)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return self._start("run", *self._slice(), *words)

    def run(self, *words: str) -> subprocess.Popen[str]:
        return until_ready(self.begin(*words))

    def use(self, *words: str) -> subprocess.Popen[str]:
        """Of GPUs that are held."""
        return until_ready(self._start("client", "-f", self.file, *words))

    def hold_and_use(self, *words: str) -> subprocess.Popen[str]:
        """Again where a limit has ended what is held before it is used."""
        self.hold()
        process = self._start("client", "-f", self.file, *words)
        if is_ready(process):
            return process
        process.communicate(timeout=100)
        return self.hold_and_use(*words)

    def hold(self) -> None:
        done = self._gpu.bitfusion("request_gpus", "-f", self.file, *self._slice())
        assert done.returncode == 0, done.stderr

    def _slice(self) -> List[str]:
        return ["-n", "1", "-p", "0.25", "--server_list", self.address]

    def _start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BITFUSION, *words],
            env=self._gpu.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def is_ready(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    return bool(ready) and process.stdout.readline() == "ready\n"


def until_ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert is_ready(process), process.communicate(timeout=100)
    return process


@pytest.fixture
def servers(gpu: Any, tmp_path: Path, request: Any) -> Iterator[Servers]:
    running = Servers(gpu, tmp_path, *getattr(request, "param", ()))
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGINT)


def operator(gpu: Any, *words: str) -> str:
    done = gpu.bitfusion(*words)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def sessions(gpu: Any, servers: Servers) -> List[str]:
    shown = operator(gpu, "smi", "--json", "--server_list", servers.address)
    return sorted(set(re.findall(r'"session": "([0-9a-f]{16})"', shown)))


def used(found: Any) -> List[float]:
    """Of which part of the last second each session in it used its GPU, as smi shows."""
    if isinstance(found, list):
        return [part for each in found for part in used(each)]
    if not isinstance(found, dict):
        return []
    mine = [float(found["busy"] or 0)] if found.get("session") and "busy" in found else []
    return mine + used(list(found.values()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_programs_go_on_over_a_restart(
    servers: Servers, gpu: Any, programs: Path, number: int
) -> None:
    """They check what they compute, all the time; at last they hear the server that is there."""
    steady = str(programs / "steady")
    runs = [servers.run("--transport", how, steady) for how in ("tcp", "unix")]
    before = sessions(gpu, servers)
    for _ in range(2):
        servers.end(number)
        time.sleep(0.3)  # they work meanwhile
        servers.start()
        for run in runs:
            assert run.poll() is None, (run.communicate(), servers.log)
    assert sessions(gpu, servers) == before and len(before) == 2
    measured: List[float] = []
    until = time.monotonic() + 30
    while len([part for part in measured if part > 0]) != 2 and time.monotonic() < until:
        shown = operator(gpu, "smi", "--json", "--server_list", servers.address)
        measured = used(json.loads(shown))
    assert len(measured) == 2 and min(measured) > 0, shown
    for name in before:
        operator(gpu, "kill", name)
    for run in runs:
        _, err = run.communicate(timeout=100)
        assert run.returncode == 122 and "connected to" in err, err


@pytest.mark.slow
def test_an_operator_kills_a_run(servers: Servers, gpu: Any, programs: Path) -> None:
    steady = str(programs / "steady")
    servers.hold()
    runs = [servers.run(steady), servers.use(steady), servers.use(steady)]
    for name in sessions(gpu, servers):
        assert "ends" in operator(gpu, "kill", name)
    for run in runs:
        _, err = run.communicate(timeout=100)
        assert run.returncode == 122 and "an operator ended it" in err
    again = gpu.bitfusion("client", "-f", servers.file, "true")
    assert again.returncode == 1 and "an operator ended it" in again.stderr
    servers.hold()  # the file's name may be taken again
    assert gpu.bitfusion("client", "-f", servers.file, "sh", "-c", "exit 7").returncode == 7
    held = servers.use(steady)
    operator(gpu, "release_gpus", "-f", servers.file)
    _, err = held.communicate(timeout=100)
    assert held.returncode == 125 and "they were released" in err


@pytest.mark.slow
@pytest.mark.parametrize("servers", [("[limits]", 'time = "5s"')], indirect=True)
def test_a_time_limit_ends_a_run(servers: Servers, programs: Path) -> None:
    run = servers.begin(str(programs / "steady"))  # it may take long to begin
    held = servers.hold_and_use("sh", "-c", "echo ready; exec sleep 60")
    for limited in (run, held):
        _, err = limited.communicate(timeout=100)
        assert limited.returncode == 124, err
        assert "the run ends: its time limit of 5 seconds has passed" in err


@pytest.mark.slow
@pytest.mark.parametrize("servers", [("[limits]", 'idle = "5s"')], indirect=True)
def test_an_idle_limit_ends_who_does_nothing(servers: Servers, programs: Path) -> None:
    busy = servers.run(str(programs / "steady"))
    idle = servers.run("sh", "-c", "echo ready; exec sleep 60")
    _, err = idle.communicate(timeout=100)
    assert idle.returncode == 123 and "idle" in err
    assert busy.poll() is None
    busy.kill()
    busy.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("servers", [("[cluster]", 'lease = "3s"')], indirect=True)
def test_a_server_that_does_not_come_back(servers: Servers, gpu: Any, programs: Path) -> None:
    config = gpu.folder / ".bitfusion"
    config.mkdir()
    (config / "client.toml").write_text('[client]\nlease = "1s"\n')
    run = servers.run(str(programs / "steady"))
    servers.end(signal.SIGKILL)
    _, err = run.communicate(timeout=100)
    assert run.returncode == 125, err


@pytest.mark.slow
def test_drain_and_stop(servers: Servers, gpu: Any, programs: Path) -> None:
    run = servers.run(str(programs / "steady"))
    assert "1 session may go on" in operator(gpu, "server", "drain")
    again = gpu.bitfusion(
        "run", "-n", "1", "-p", "0.25", "--timeout", "0", "--server_list", servers.address, "true"
    )
    assert again.returncode == 1, again.stderr
    assert "in service" in operator(gpu, "server", "undrain")
    assert "stopping" in operator(gpu, "server", "stop", "--now")
    _, err = run.communicate(timeout=100)
    assert run.returncode == 122, err
    assert servers.process.wait(100) == 0
