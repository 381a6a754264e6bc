# SPDX-License-Identifier: Apache-2.0
"""The proxy under ASan and UBSan, with servers that break off at every message or lie at any, and
with memory that runs out at every allocation: calls fail, the program ends in its own time.

The seed is fixed; FUZZ_SEED and FUZZ_STREAMS change it for a longer run.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from fake_peer import Broker, Peer
from hostile_peer import Cutter, Liar, prepared
from instrumented import ROOT, Reports, built, program

SEED = int(os.environ.get("FUZZ_SEED", "1"))
STREAMS = int(os.environ.get("FUZZ_STREAMS", "300"))


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> List[str]:
    folder = tmp_path_factory.mktemp("calls")
    source = folder / "calls_main.c"
    source.symlink_to(Path(__file__).with_name("calls_main.c"))
    built("asan", "proxy")
    return [str(program("asan", source))]


class Caller:
    """Runs the program again and again against one broker's servers."""

    def __init__(self, command: List[str], reports: Reports) -> None:
        self.command, self.reports = command, reports
        self.broker = Broker()

    def ends(
        self, connections: List[Callable[[Peer], None]], times: int, *words: str
    ) -> List[str]:
        prepared(self.broker, connections)
        library = ROOT / "build/asan/lib/client"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "BITFUSION_"))}
        kept.update(BITFUSION_SOCKET=self.broker.path, LD_LIBRARY_PATH=str(library))
        # what is asked for within the limits may still be too much
        kept.update(self.reports.environment(ASAN_OPTIONS="allocator_may_return_null=1"))
        done = subprocess.run(
            [*self.command, str(times), *words], env=kept, capture_output=True, text=True
        )
        self.reports.check()
        assert done.returncode == 0, done.stderr
        found = done.stdout.split("\n")[:-1]
        assert len(found) == times
        return found


@pytest.fixture
def caller(calls: List[str], tmp_path: Path) -> Iterator[Caller]:
    made = Caller(calls, Reports(tmp_path))
    with made.broker:
        yield made


def count_messages(caller: Caller) -> Peer:
    assert caller.ends([], 1) == ["0"]
    peer = caller.broker.peer(0)
    assert peer.ended.wait(60)  # the program may be gone before the last of it is read
    return peer


def wrong(ends: List[str], *fine: str) -> List[str]:
    return ["%d: %s" % (i, end) for i, end in enumerate(ends) if end not in fine]


def test_nothing_goes_wrong(caller: Caller) -> None:
    """The program does what it is meant to when nobody breaks anything."""
    peer = count_messages(caller)
    names = {command.name for command in peer.commands}
    assert names >= {
        "DEVICES",
        "ALLOC",
        "HTOD",
        "DTOH",
        "COPY3D",
        "LOAD",
        "GET_FUNCTION",
        "LAUNCH",
    }
    assert names >= {"HOST_FUNCTION", "CALLBACK_DONE", "GOODBYE", "cuGraphLaunch"}
    assert names >= {"GRAPH_SHAPE", "PROGRAM_NODE", "cuGraphAddHostNode", "cuGraphAddMemcpyNode"}


@pytest.mark.timeout(600)
def test_cut_before_every_command(caller: Caller) -> None:
    count = len(count_messages(caller).commands)
    assert count > 60
    cutters = [Cutter(commands=n + 1) for n in range(count)]
    ends = caller.ends([cutter.prepare for cutter in cutters], count)
    assert not wrong(ends, "0")
    assert sum(cutter.reached for cutter in cutters) > count * 0.9


@pytest.mark.timeout(600)
def test_cut_in_every_reply(caller: Caller) -> None:
    cutters = [Cutter(replies=n + 1, part=part) for n in range(40) for part in (0.0, 0.4, 0.99)]
    ends = caller.ends([cutter.prepare for cutter in cutters], len(cutters))
    assert not wrong(ends, "0")
    assert sum(cutter.reached for cutter in cutters) > 60


@pytest.mark.timeout(600)
def test_lies(caller: Caller) -> None:
    liars = [Liar(SEED * 100000 + n) for n in range(STREAMS)]
    ends = caller.ends([liar.prepare for liar in liars], STREAMS)
    assert not wrong(ends, "0")
    assert sum(liar.lies > 0 for liar in liars) > STREAMS * 0.6


@pytest.mark.timeout(600)
def test_memory_runs_out_at_every_allocation(caller: Caller) -> None:
    """The exit status is 1 where an allocation failed: the last runs had none left to fail."""
    ends = caller.ends([], 150, "malloc")
    assert not wrong(ends, "0", "1")
    assert ends[:20] == ["1"] * 20 and ends[-3:] == ["0"] * 3
