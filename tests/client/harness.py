# SPDX-License-Identifier: Apache-2.0
"""`bitfusion run` with a worker in Python: everything real but the C libraries.

usage: harness.py [run's words]; environment: HARNESS_WORKER names one of WORKERS.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from bitfusion import cli  # noqa: E402
from bitfusion.server.nursery import Job  # noqa: E402


class Echo:
    """Says which session it serves, then gives back what it gets until the client goes."""

    warmed = "cold"

    def load(self) -> None: ...

    def settle(self, job: Job) -> None: ...

    def warm(self, job: Job) -> None:
        self.warmed = "warm"

    def serve(self, job: Job, data: int, ledger: int) -> int:
        with socket.socket(fileno=data) as sock:
            sock.sendall(f"{job.session} {os.getpid()}\n".encode())
            while True:
                received = sock.recv(65536)
                if not received:
                    return 0
                if received.startswith(b"crash"):
                    os.abort()
                sock.sendall(self.warmed.encode() if received == b"warm?" else received)


class Stubborn(Echo):
    """Ignores its client's end and SIGTERM, as a driver in the middle of a kernel may."""

    def serve(self, job: Job, data: int, ledger: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sock = socket.socket(fileno=data)
        sock.sendall(f"{job.session} {os.getpid()}\n".encode())
        while True:
            time.sleep(60)


class ColdOnly(Echo):
    """Its driver cannot be warmed."""

    def warm(self, job: Job) -> None:
        os.write(2, b"cannot be warmed\n")
        os.abort()


WORKERS: dict[str, type[Echo]] = {"echo": Echo, "stubborn": Stubborn, "coldonly": ColdOnly}


def main() -> None:
    """cli.main, with a worker of ours."""
    from bitfusion.commands import run
    from bitfusion.options import Parsed

    worker = WORKERS[os.environ.get("HARNESS_WORKER", "echo")]()
    plain = run.run

    def run_with_worker(parsed: Parsed) -> int:
        return plain(parsed, worker, ledgers=False)

    run.run = run_with_worker  # type: ignore[assignment]
    sys.argv[1:1] = ["run"]
    cli.main()


if __name__ == "__main__":
    main()
