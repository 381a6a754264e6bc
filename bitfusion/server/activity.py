# SPDX-License-Identifier: Apache-2.0
"""Whether a session does anything: calls, device time; without a ledger, processor time."""

from __future__ import annotations

import time
from collections.abc import Callable

from bitfusion.server.sessions import Session

USER_TIME, SYSTEM_TIME = 11, 12  # fields of /proc/PID/stat behind the name and its parenthesis


def cpu_ticks(pid: int) -> int:
    """0 of a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[USER_TIME]) + int(fields[SYSTEM_TIME])


def measure(session: Session, pid_of: Callable[[int], int]) -> int:
    """A number that changes while they work, and when one comes or goes."""
    changes = 2 * session.started - len(session.workers)
    if session.ledger is None:
        return changes + sum(cpu_ticks(pid_of(number)) for number in session.workers)
    last_s, waiting = session.ledger.last_call()
    if waiting:
        last_s = time.monotonic()
    return changes + int(last_s * 1000) + sum(session.ledger.busy()) // 1_000_000
