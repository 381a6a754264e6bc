# SPDX-License-Identifier: Apache-2.0
"""Running a small program on the proxy against the fake peer."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
LIBRARY = Path(
    os.environ.get(
        "BITFUSION_TEST_LIBRARY", str(ROOT / "build" / "lib" / "client" / "libcuda.so.1")
    )
)

from fake_peer import Broker  # noqa: E402

Start = Callable[..., "subprocess.Popen[str]"]


def environment(broker: Optional[Broker], extra: Dict[str, str]) -> Dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "BITFUSION_"))}
    kept.update(
        BITFUSION_TEST_ROOT=str(ROOT), BITFUSION_TEST_LIBRARY=str(LIBRARY), PYTHONPATH=str(HERE)
    )
    if broker:
        kept["BITFUSION_SOCKET"] = broker.path
    kept.update(extra)
    return kept


@pytest.fixture
def broker() -> Iterator[Broker]:
    assert LIBRARY.exists(), "the proxy is not built: make proxy"
    with Broker() as made:
        yield made


@pytest.fixture
def start() -> Iterator[Start]:
    """start(broker, program, VARIABLE=…) runs one that begins with `from client import *`."""
    running = []

    def begin(broker: Optional[Broker], program: str, **extra: str) -> subprocess.Popen[str]:
        text = "from client import *\n" + textwrap.dedent(program)
        process = subprocess.Popen(
            [sys.executable, "-c", text],
            env=environment(broker, extra),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(start: Start) -> Callable[..., str]:
    """The same, until it ends well; what it printed."""

    def finish(broker: Optional[Broker], program: str, **extra: str) -> str:
        process = start(broker, program, **extra)
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, "exit status %d\n%s%s" % (process.returncode, out, err)
        for peer in broker.peers if broker else []:
            assert peer.ended.wait(100)
        assert err == "" or "BITFUSION_DEBUG" in extra, err
        return out

    return finish
