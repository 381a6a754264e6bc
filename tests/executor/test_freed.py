# SPDX-License-Identifier: Apache-2.0
"""What cuMemFreeAsync frees counts against the slice until its stream gets there."""

from __future__ import annotations

import struct
from pathlib import Path

from conversation import NAP, Serve, end_well, prepare, release, spin_until
from waiting import wait_for
from wire_client import (
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
PAGE = 4096
BUSY, IDLE = handle(STREAM, 1), handle(STREAM, 2)
LEDGER = [10 * MB + PAGE], 2


def take(client: Client, size: int, stream: int) -> int:
    """Start an allocation in a stream's order; returns its request."""
    return client.row("cuMemAllocAsync", struct.pack("<QQQ", 1, size, stream), WANTS_REPLY)


def taken(client: Client, size: int, stream: int) -> int:
    reply = client.wait(take(client, size, stream))
    assert reply.status == 0
    return int(struct.unpack("<Q", reply.body)[0])


def give(client: Client, address: int, stream: int) -> None:
    client.row("cuMemFreeAsync", struct.pack("<QQ", address, stream))


def used(ledger: core.Ledger) -> int:
    return int(ledger.used()[0]) - PAGE


def test_a_slice_holds_what_streams_have_yet_to_free(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno())
    client = worker.client
    flag = prepare(client)
    assert spin_until(client, flag) == IDLE
    give(client, taken(client, 8 * MB, IDLE), BUSY)
    wanted = take(client, 8 * MB, IDLE)
    plain = client.command(OP_ALLOC, struct.pack("<QQII", 2 * MB + 1, 0, 0, 0), WANTS_REPLY)
    assert client.synchronize(IDLE).status == 0
    assert used(ledger) == 8 * MB
    free, _ = struct.unpack("<QQ", client.operation(OP_MEMORY_INFO).body)
    assert free == 2 * MB and not {wanted, plain} & set(client.replies)
    assert client.alloc(2 * MB)[0] == 0  # what there is can be had meanwhile
    release(client, flag, IDLE)
    assert sorted([client.wait(wanted).status, client.wait(plain).status])[0] == 0
    assert used(ledger) <= 10 * MB
    end_well(worker)


def test_a_loop_of_frees_runs_in_its_slice(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno())
    client = worker.client
    prepare(client)
    client.stream(1, 1)
    for _ in range(50):
        first, second = taken(client, 6 * MB, BUSY), taken(client, 4 * MB, BUSY)
        client.launch(NAP, struct.pack("<QI", 0, 2), BUSY)
        give(client, first, BUSY)
        give(client, second, BUSY)
    assert client.synchronize(BUSY).status == 0
    assert used(ledger) == 0
    end_well(worker)


def test_what_was_freed_is_given_back_unasked(serve: Serve, ledger: core.Ledger) -> None:
    one = serve(ledger=ledger.fileno(), slot=0)
    two = serve(ledger=ledger.fileno(), slot=1)
    prepare(one.client)
    one.client.stream(1, 1)
    address = taken(one.client, 8 * MB, BUSY)
    one.client.launch(NAP, struct.pack("<QI", 0, 50), BUSY)
    give(one.client, address, BUSY)
    one.client.flush()
    assert wait_for(lambda: used(ledger) == 0)
    assert two.client.alloc(8 * MB)[0] == 0


def test_what_does_not_fit_at_all_is_refused(serve: Serve, ledger: core.Ledger) -> None:
    worker = serve(ledger=ledger.fileno())
    client = worker.client
    prepare(client)
    client.stream(1, 1)
    give(client, taken(client, 4 * MB, BUSY), BUSY)
    assert client.wait(take(client, 11 * MB, BUSY)).status == OUT_OF_MEMORY
    assert client.alloc(11 * MB)[0] == OUT_OF_MEMORY
    end_well(worker)


def test_streams_end_with_frees_under_way(
    serve: Serve, ledger: core.Ledger, tsan_program: Path, tsan_driver: Path
) -> None:
    worker = serve(ledger=ledger.fileno(), program=tsan_program, driver=tsan_driver)
    client = worker.client
    flag = prepare(client)
    spin_until(client, flag)
    client.stream(3, 1)
    third = handle(STREAM, 3)
    give(client, taken(client, 3 * MB, third), third)
    client.row("cuStreamDestroy_v2", struct.pack("<Q", third))
    give(client, taken(client, 3 * MB, IDLE), BUSY)
    release(client, flag, IDLE)
    assert client.synchronize(BUSY).status == 0
    assert wait_for(lambda: used(ledger) == 0)
    end_well(worker)
