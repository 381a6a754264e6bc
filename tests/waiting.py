# SPDX-License-Identifier: Apache-2.0
"""Waiting for what other processes and threads do, and for the ends of processes."""

from __future__ import annotations

import subprocess
import time
from typing import Any, Callable


def wait_for(condition: Callable[[], object], patience_s: float = 5.0) -> bool:
    """Whether it became true in that time; it is asked at least once."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def end(process: subprocess.Popen[Any], patience_s: float = 10) -> None:
    """Asks it to end, and sees to it if it does not."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
