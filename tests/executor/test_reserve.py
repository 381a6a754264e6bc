# SPDX-License-Identifier: Apache-2.0
"""What the driver holds beside the program's allocations counts against the slice."""

from __future__ import annotations

import struct

import pytest
from conversation import Serve, end_well, prepare, release, spin_until
from test_freed import BUSY, IDLE, give, take, taken
from waiting import wait_for
from wire_client import (
    INVALID_VALUE,
    OP_ALLOC,
    OP_MEMORY_INFO,
    OUT_OF_MEMORY,
    STREAM,
    WANTS_REPLY,
    Client,
    handle,
)

from bitfusion.executor import core

MB = 1 << 20
ONE = handle(STREAM, 1)
KEEPS = {"FAKE_POOL_KEEPS": str(2**62)}
STACK, PRINTF, HEAP, SYNC_DEPTH = range(4)
THREADS = 16 * 39  # of the fake device: attributes have their numbers as values
LEDGER = [10 * MB], 2


def free_of(client: Client) -> int:
    return int(struct.unpack("<QQ", client.operation(OP_MEMORY_INFO).body)[0])


def freed_in_a_pool(client: Client, size: int) -> None:
    client.stream(1, 1)
    give(client, taken(client, size, ONE), ONE)
    assert client.synchronize(ONE).status == 0


def test_what_a_pool_keeps_counts(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno(), environment=KEEPS)
    freed_in_a_pool(worker.client, 8 * MB)
    assert ledger.used() == [8 * MB]
    assert free_of(worker.client) == 2 * MB
    end_well(worker)


def test_by_default_a_wait_gives_it_back(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno())
    freed_in_a_pool(worker.client, 8 * MB)
    assert ledger.used() == [0]
    end_well(worker)


def test_what_a_pool_keeps_serves_the_next(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno(), environment=KEEPS)
    freed_in_a_pool(worker.client, 8 * MB)
    for size in (8 * MB, 6 * MB, 10 * MB):
        give(worker.client, taken(worker.client, size, ONE), ONE)
        assert worker.client.synchronize(ONE).status == 0
    assert ledger.used() == [10 * MB]
    end_well(worker)


def test_who_is_short_gets_what_a_pool_keeps(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno(), environment=KEEPS)
    freed_in_a_pool(worker.client, 8 * MB)
    assert worker.client.alloc(9 * MB)[0] == 0
    assert ledger.used() == [9 * MB]
    assert worker.client.alloc(2 * MB)[0] == OUT_OF_MEMORY
    end_well(worker)


def test_what_is_freed_meanwhile_is_trimmed_too(serve: Serve) -> None:
    """The stream gets to the free when the allocation waits for it already."""
    ledger = core.Ledger.create([10 * MB])
    worker = serve(ledger=ledger.fileno(), environment=KEEPS)
    client = worker.client
    flag = prepare(client)
    assert spin_until(client, flag) == IDLE
    give(client, taken(client, 8 * MB, IDLE), BUSY)
    wanted = client.command(OP_ALLOC, struct.pack("<QQII", 9 * MB, 0, 0, 0), WANTS_REPLY)
    assert client.synchronize(IDLE).status == 0
    release(client, flag, IDLE)
    assert client.wait(wanted).status == 0
    end_well(worker)
    ledger.close()


def test_a_pool_that_takes_more_than_the_slice_is_refused(
    serve: Serve, ledger: core.Ledger
) -> None:
    """Pools grow in steps of the driver's own."""
    environment = {"FAKE_POOL_STEP": str(8 * MB)}
    worker = serve(ledger=ledger.fileno(), environment=environment)
    client = worker.client
    client.stream(1, 1)
    first = taken(client, MB, ONE)
    assert ledger.used() == [8 * MB]
    assert client.wait(take(client, 7 * MB + 1, ONE)).status == OUT_OF_MEMORY
    assert client.synchronize(ONE).status == 0
    assert ledger.used() == [8 * MB]
    give(client, taken(client, 7 * MB, ONE), ONE)
    give(client, first, ONE)
    assert client.synchronize(ONE).status == 0
    assert ledger.used() == [0]
    end_well(worker)


def test_without_a_limit_nobody_asks(serve: Serve) -> None:
    ledger = core.Ledger.create([core.UNLIMITED])
    worker = serve(ledger=ledger.fileno(), environment=KEEPS)
    freed_in_a_pool(worker.client, 8 * MB)
    assert ledger.used() == [0]
    end_well(worker)
    ledger.close()


def set_limit(client: Client, limit: int, value: int) -> int:
    return client.sync("cuCtxSetLimit", struct.pack("<QQ", limit, value)).status


@pytest.mark.parametrize("limit", [PRINTF, HEAP])
def test_limits_of_a_context_count(serve: Serve, ledger: core.Ledger, limit: int) -> None:
    worker = serve(ledger=ledger.fileno())
    client, first = worker.client, 1000 + limit
    assert set_limit(client, limit, 8 * MB + first) == 0
    assert ledger.used() == [8 * MB]
    assert set_limit(client, limit, 11 * MB) == OUT_OF_MEMORY
    assert client.alloc(3 * MB)[0] == OUT_OF_MEMORY
    assert set_limit(client, limit, 2 * MB + first) == 0
    assert ledger.used() == [2 * MB]
    assert set_limit(client, limit, 10) == 0
    assert ledger.used() == [0]
    end_well(worker)


def test_every_thread_has_a_stack(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno())
    assert set_limit(worker.client, STACK, 1000 + 4096) == 0
    assert ledger.used() == [4096 * THREADS]
    assert set_limit(worker.client, STACK, 1000 + 64 * 4096) == OUT_OF_MEMORY
    assert set_limit(worker.client, STACK, 2**62) == OUT_OF_MEMORY  # the driver would do it
    assert ledger.used() == [4096 * THREADS]
    assert set_limit(worker.client, SYNC_DEPTH, 24) == 0
    end_well(worker)


def test_a_limit_that_the_driver_refuses_does_not_count(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno(), environment={"FAKE_LIMIT": str(MB)})
    for size in (8 * MB, 100 * MB):  # the device has 64
        assert set_limit(worker.client, HEAP, size) == INVALID_VALUE
        assert ledger.used() == [0]
    end_well(worker)


def test_limits_end_with_their_context(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno())
    assert set_limit(worker.client, HEAP, 8 * MB) == 0
    worker.client.sync("cuDevicePrimaryCtxReset_v2", struct.pack("<Q", 0))
    assert wait_for(lambda: ledger.used() == [0])
    end_well(worker)
