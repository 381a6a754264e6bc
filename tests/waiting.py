# SPDX-License-Identifier: Apache-2.0
"""Waiting for what other processes and threads do, and for the ends of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable


def wait_for(condition: Callable[[], object], patience_s: float = 60.0) -> bool:
    """Whether it became true in that time; it is asked at least once."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop(pid: int) -> None:
    """Stops a process. Until its threads have heard of it they go on, on a busy machine for long;
    and of several signals that wait, it is not the first that a process hears.
    """

    def state(task: Path) -> str:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]

    os.kill(pid, signal.SIGSTOP)
    assert wait_for(
        lambda: all(state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir())
    )


def end(process: subprocess.Popen[Any], patience_s: float = 60) -> None:
    """Asks it to end, and sees to it if it does not."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
