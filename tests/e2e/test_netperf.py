# SPDX-License-Identifier: Apache-2.0
"""bitfusion netperf measures with real calls, and says what went wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def netperf(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bin/bitfusion"), "netperf", *words],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "BITFUSION_SERVER_LIST": ""},
    )


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_figures(transport: str) -> None:
    done = netperf("--transport", transport, "--time", "0.05s", "--json")
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    assert 0 < found["sync_us"] <= found["sync_p99_us"] < 1e8
    rates = [value for name, value in found.items() if name.endswith("_bytes_per_s")]
    assert len(rates) == 4 and all(1e6 < value < 1e12 for value in rates)


def test_for_people() -> None:
    done = netperf("-t", "0.05")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 6


def test_bad_time_and_no_server() -> None:
    done = netperf("-t", "soon")
    assert done.returncode == 2 and done.stderr.startswith("bitfusion: netperf: -t: 'soon'")
    done = netperf("--server_list", "127.0.0.1:1")
    assert done.returncode == 1 and "cannot reach '127.0.0.1:1'" in done.stderr
    assert done.stdout == ""
