# SPDX-License-Identifier: Apache-2.0
"""Memory that loaded code takes: the session's own, whatever its neighbours do meanwhile."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable, Dict, Tuple

import pytest
from conversation import end_well, prepare, release, spin_until
from executor_builds import HERE, OUT, build
from test_freed import BUSY, IDLE, give, taken
from waiting import wait_for
from wire_client import MODULE, Worker, handle

from bitfusion.executor import core

MB = 1 << 20
LEDGER = [1000 * MB], 2


def used_by_a_module(
    serve: Callable[..., Worker], ledger: core.Ledger, environment: Dict[str, str]
) -> Tuple[int, int]:
    """While it is loaded, and after that."""
    environment["FAKE_NEIGHBOUR"] = "1"
    client = serve(ledger=ledger.fileno(), slot=1, environment=environment).client
    assert client.load_module(1, b"code").status == 0
    loaded = ledger.used()[0]
    client.row("cuModuleUnload", struct.pack("<Q", handle(MODULE, 1)))

    def is_unloaded() -> bool:
        """That happens beside the stream."""
        client.synchronize()
        return not ledger.used()[0]

    wait_for(is_unloaded)
    return loaded, ledger.used()[0]


def test_a_neighbours_memory_is_not_charged(
    serve: Callable[..., Worker], ledger: core.Ledger, tmp_path: Path
) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    assert used_by_a_module(serve, ledger, environment) == (0, 0)


@pytest.mark.parametrize(("how", "size"), [("own", 64 * MB), ("stranger", 0), ("unknown", 0)])
def test_the_management_library_knows_the_process(
    serve: Callable[..., Worker], ledger: core.Ledger, how: str, size: int
) -> None:
    library = build(OUT / "nvml/libnvidia-ml.so.1", [HERE / "fake_nvml.c"], "-shared")
    environment = {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML": how}
    assert used_by_a_module(serve, ledger, environment) == (size, 0)


def test_code_counts_while_a_stream_has_something_to_free(
    serve: Callable[..., Worker], ledger: core.Ledger
) -> None:
    library = build(OUT / "nvml/libnvidia-ml.so.1", [HERE / "fake_nvml.c"], "-shared")
    environment = {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML": "own"}
    worker = serve(ledger=ledger.fileno(), environment=environment)
    client = worker.client
    flag = prepare(client)
    before = ledger.used()[0]
    assert spin_until(client, flag) == IDLE
    give(client, taken(client, 8 * MB, IDLE), BUSY)
    assert client.load_module(2, b"code").status == 0
    assert ledger.used()[0] == before + 8 * MB + 64 * MB
    release(client, flag, IDLE)
    assert client.synchronize(BUSY).status == 0
    assert ledger.used()[0] == before + 64 * MB
    end_well(worker)
