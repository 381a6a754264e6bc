# SPDX-License-Identifier: Apache-2.0
"""A server for the network whose workers are in Python, from tests/client/harness.py.

usage: serve.py WORKER GPUS MEMORY_MIB STATE_DIR [SETTING=VALUE...]; prints its control port and
its data port.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Optional

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [
    os.path.dirname(os.path.dirname(HERE)),
    os.path.join(os.path.dirname(HERE), "client"),
]

if "WALL_CLOCK" in os.environ:  # a file with the seconds that somebody put the clock forward

    def wall_clock(real: Callable[[], float] = time.time) -> float:
        with open(os.environ["WALL_CLOCK"]) as file:
            return real() + float(file.read() or 0)

    time.time = wall_clock  # before anything of ours takes it for a default

import harness  # noqa: E402

from bitfusion import log  # noqa: E402
from bitfusion.config import Config  # noqa: E402
from bitfusion.inventory import Gpu, Inventory  # noqa: E402
from bitfusion.server import public  # noqa: E402
from bitfusion.server.loop import Loop  # noqa: E402


class Turns:
    """Counts the functions that each turn of a loop calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.most: tuple[int, str] = (0, "")
        self._names: Counter[str] = Counter()

    def install(self) -> None:
        turn = Loop.turn

        def counted(loop: Loop, timeout_s: Optional[float]) -> None:
            self.calls = 0
            self._names.clear()
            turn(loop, timeout_s)
            if self.calls > self.most[0]:
                self.most = self.calls, str(Counter(dict(self._names)).most_common(8))

        Loop.turn = counted  # type: ignore[method-assign]
        sys.setprofile(self._count)

    def _count(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            self.calls += 1
            code = frame.f_code
            self._names[f"{os.path.basename(code.co_filename)}:{code.co_name}"] += 1


def main() -> None:
    turns = Turns()
    if os.environ.get("COUNT_TURNS"):
        turns.install()
    worker = harness.WORKERS[sys.argv[1]]()
    gpus = tuple(
        Gpu("Test GPU", int(sys.argv[3]) << 20, f"gpu-{i}") for i in range(int(sys.argv[2]))
    )
    settings = Config()
    settings.set("server.listen", "127.0.0.1:0", "test")
    settings.set("server.data_ports", "0", "test")
    settings.set("server.state_dir", sys.argv[4], "test")
    for word in sys.argv[5:]:
        name, _, value = word.partition("=")
        settings.set(name, value, "test")
    log.set_level(log.INFO)
    public.serve(
        Inventory(gpus, "none", "test GPUs", {}, "", True), settings, worker, ledgers=False
    )
    sys.setprofile(None)
    if turns.most[0]:
        log.info(f"most calls in one turn: {turns.most[0]} {turns.most[1]}")


if __name__ == "__main__":
    main()
