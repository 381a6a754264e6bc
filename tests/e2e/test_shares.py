# SPDX-License-Identifier: Apache-2.0
"""Device time on one GPU between sessions of two clients, as their workers measure it and the
server books it: ratios of what was booked between two moments, which do not depend on how busy the
machine is. On software GPUs each process has an engine of its own, so without us each would have
as much device time as it wants.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest

WINDOW_S, PATIENCE_S = 1.0, 15.0
SETTLE_S = 0.5  # until both are seen to share the GPU
AHEAD_S = 0.25  # that who has a share may be
ROUNDS = 300_000  # some milliseconds: the device is never idle for want of the processor


class Busy(NamedTuple):
    """Seconds of device time of both, and at most how long that took."""

    ann: float
    bob: float
    elapsed_s: float


@pytest.fixture
def clients(gpu: Any, tmp_path: Path) -> Dict[str, Dict[str, str]]:
    """What their programs have in their environment."""
    done = gpu.bitfusion("server", "init")
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ("ann", "bob"):
        home = tmp_path / name
        home.mkdir()
        bundle = str(tmp_path / f"{name}.tar")
        for words in (("token", "create", name, "-o", bundle), ("enroll", "--user", bundle)):
            done = gpu.bitfusion(*words, HOME=str(home))
            assert done.returncode == 0, done.stderr
        found[name] = {"HOME": str(home)}
    return found


class Pair:
    """Ann and Bob on one GPU."""

    def __init__(self, gpu: Any, programs: Path, server: str, clients: Dict[str, Any]) -> None:
        self._gpu = gpu
        self._program = programs / "busy_kernels"
        self._server = server
        self._clients = clients

    def _start(self, name: str, processes: int, pause_ms: int, share: str) -> Any:
        options = ["-p", "0.4", "--server_list", self._server]
        options += ["--share", share] if share else []
        one = f"'{self._program}' {ROUNDS} {pause_ms}"
        return self._gpu.start(
            *("tcp", "sh", "-c", f"{f'{one} & ' * processes} wait"),
            options=["-n", "1", *options],
            **self._clients[name],
        )

    def _booked(self) -> Dict[str, float]:
        done = self._gpu.bitfusion("stats", "--json")
        assert done.returncode == 0, done.stderr
        return {row["client"]: row["busy_s"] for row in json.loads(done.stdout)}

    @contextlib.contextmanager
    def at_work(self, **how: Any) -> Iterator[List[subprocess.Popen[str]]]:
        """how: of each client, its processes, their pauses in milliseconds, and its share."""
        runs = []
        try:
            for name, (processes, pause_ms, share) in how.items():
                runs.append(self._start(name, processes, pause_ms, share))
            for run, (processes, _, _) in zip(runs, how.values()):
                for _ in range(processes):
                    assert run.stdout.readline() == "ready\n", run.communicate()
            yield runs
        finally:
            for run in runs:
                run.send_signal(signal.SIGTERM)
            for run in runs:
                run.communicate(timeout=100)

    def watch(self, settled: Callable[[Busy], bool]) -> Busy:
        """From now on until this holds, at least for WINDOW_S."""
        time.sleep(SETTLE_S)
        started_s = time.monotonic()
        before = self._booked()
        time.sleep(WINDOW_S)
        while True:
            after = self._booked()
            elapsed_s = time.monotonic() - started_s
            used = (after[name] - before.get(name, 0.0) for name in ("ann", "bob"))
            both = Busy(*used, elapsed_s)
            if settled(both) or elapsed_s > PATIENCE_S:
                return both
            time.sleep(SETTLE_S)


@pytest.fixture
def pair(gpu: Any, programs: Path, clients: Dict[str, Any], server: str) -> Pair:
    return Pair(gpu, programs, server, clients)


def held_to(used_s: float, share: float, elapsed_s: float) -> bool:
    return used_s <= share * elapsed_s + AHEAD_S


@pytest.mark.pool
def test_device_time_of_two_sessions(pair: Pair) -> None:
    with pair.at_work(ann=(4, 0, ""), bob=(1, 0, "")):  # 4 to 1 where nobody sees to it
        even = pair.watch(lambda both: 0.7 < both.bob / both.ann < 1.4)
        assert 0.6 < even.bob / even.ann < 1.6, even
    with pair.at_work(ann=(2, 0, ""), bob=(1, 100, "")) as (_, light):
        rest = pair.watch(lambda both: both.ann > 8 * both.bob)
        assert rest.ann > 2 * rest.bob > 0, rest  # whose kernels take longer on a busy machine
        assert all(light.stdout.readline() == "done\n" for _ in range(5))
    with pair.at_work(ann=(2, 0, "0.7"), bob=(2, 0, "0.3")):
        shares = pair.watch(lambda both: 2 < both.ann / both.bob < 2.7)
        assert 1.6 < shares.ann / shares.bob < 3.4, shares
        assert held_to(shares.ann, 0.7, shares.elapsed_s), shares
        assert held_to(shares.bob, 0.3, shares.elapsed_s), shares
    with pair.at_work(ann=(2, 0, ""), bob=(2, 0, "0.3")):
        most = pair.watch(lambda both: both.ann > 2.5 * both.bob)
        assert 2 < most.ann / most.bob < 20, most
        assert held_to(most.bob, 0.3, most.elapsed_s), most
