# SPDX-License-Identifier: Apache-2.0
"""A server for the network whose workers are in Python, from tests/client/harness.py.

usage: serve.py WORKER GPUS MEMORY_MIB STATE_DIR [SETTING=VALUE...]; prints its control port and
its data port.
"""

from __future__ import annotations

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [
    os.path.dirname(os.path.dirname(HERE)),
    os.path.join(os.path.dirname(HERE), "client"),
]

import harness  # noqa: E402

from bitfusion import log  # noqa: E402
from bitfusion.config import Config  # noqa: E402
from bitfusion.inventory import Gpu, Inventory  # noqa: E402
from bitfusion.server import public  # noqa: E402


def main() -> None:
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


if __name__ == "__main__":
    main()
