# SPDX-License-Identifier: Apache-2.0
"""A server that stays, for several runs."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(gpu: Any, tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a `bitfusion server` with one software GPU."""
    config = tmp_path / "server.toml"
    config.write_text('[server]\nlisten = "127.0.0.1:0"\n')
    process = subprocess.Popen(
        [str(ROOT / "bin" / "bitfusion"), "server", "--config", str(config)],
        env=gpu.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = ""
    assert process.stderr is not None
    for line in process.stderr:
        match = re.search(r"(127\.0\.0\.1:\d+)", line)
        if match:
            address = match.group(1)
            break
    assert address, "the server did not start"
    yield address
    process.send_signal(signal.SIGINT)  # SIGTERM lets sessions live on
    assert process.wait(100) is not None
    process.stderr.close()
