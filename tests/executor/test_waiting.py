# SPDX-License-Identifier: Apache-2.0
"""Waits, events, host functions, and what is given back while kernels run."""

from __future__ import annotations

import struct

import pytest
from conversation import NAP, SPIN, STORE, Serve, end_well, prepare, release, spin_until
from wire_client import (
    EVENT,
    INVALID_HANDLE,
    MODULE,
    NOT_READY,
    OP_ALLOC,
    OP_CALLBACK_DONE,
    OP_HOST_FUNCTION,
    OP_LOAD,
    OP_MEMORY_INFO,
    WANTS_REPLY,
    handle,
)


def test_what_is_given_back_waits_for_kernels_alone(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    flag, large = prepare(client), client.alloc(40 << 20)[1]
    assert client.load_module(2, b"code").status == 0
    other = spin_until(client, flag)
    client.free(large)
    client.row("cuModuleUnload", struct.pack("<Q", handle(MODULE, 2)))
    assert client.synchronize(other).status == 0
    free, _ = struct.unpack("<QQ", client.operation(OP_MEMORY_INFO).body)
    assert free > 60 << 20  # as the program sees it, the large one is free already
    wanted = client.command(OP_ALLOC, struct.pack("<QQII", 50 << 20, 0, 0, 0), WANTS_REPLY)
    load = struct.pack("<QQIIIIII", 4, handle(MODULE, 2), 0, 0, 0, 0, 0, 0)
    again = client.command(OP_LOAD, load, WANTS_REPLY, b"code")  # the number is still being freed
    assert client.synchronize(other).status == 0
    assert wanted not in client.replies and again not in client.replies
    release(client, flag, other)
    assert client.wait(wanted).status == 0 and client.wait(again).status == 0
    reply = client.get_function(2, 9, "store")
    assert reply.status == 0 and reply.deferred == 0
    end_well(worker)


def test_many_frees_are_waited_for_by_who_asks_how_much_is_free(serve: Serve) -> None:
    """All of them may take long on a busy machine, though each does not."""
    client = serve(environment={"FAKE_SLOW_FREE": "10000"}).client
    addresses = [client.alloc(1 << 20)[1] for _ in range(41)]
    for address in addresses[1:]:
        client.free(address)
    free, total = struct.unpack("<QQ", client.operation(OP_MEMORY_INFO).body)
    assert total - free == 1 << 20


def test_what_ends_while_a_call_waits_for_memory_is_not_used(serve: Serve) -> None:
    """The call is made again when there is memory, and its stream is gone by then."""
    worker = serve()
    client = worker.client
    flag, large = prepare(client), client.alloc(40 << 20)[1]
    other = spin_until(client, flag)
    doomed = client.stream(3)
    client.free(large)
    body = struct.pack("<QQQ", 1, 50 << 20, doomed)
    wanted = client.row("cuMemAllocAsync", body, WANTS_REPLY)
    assert client.synchronize(other).status == 0
    client.row("cuStreamDestroy_v2", struct.pack("<Q", doomed))
    assert client.synchronize(other).status == 0
    assert wanted not in client.replies
    release(client, flag, other)
    assert client.wait(wanted).status == INVALID_HANDLE
    assert client.alloc(60 << 20)[0] == 0
    end_well(worker)


def test_a_context_waits_for_what_it_gives_back(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    flag, large = prepare(client), client.alloc(1 << 20)[1]
    other = spin_until(client, flag)
    client.free(large)
    reset = client.row("cuDevicePrimaryCtxReset_v2", struct.pack("<Q", 0), WANTS_REPLY)
    release(client, flag, other)
    reply = client.wait(reset)
    assert reply.status == 0 and reply.deferred == 0
    assert client.alloc(60 << 20)[0] == 0
    end_well(worker)


@pytest.mark.parametrize("spin", ["0", "50"])
def test_a_wait_does_not_hold_up_the_stream(serve: Serve, spin: str) -> None:
    worker = serve(environment={"SPIN_US": spin})
    client = worker.client
    address = prepare(client)
    one, two = client.stream(1, 1), client.stream(2, 1)
    client.launch(SPIN, struct.pack("<Q", address), one)
    waits = client.row("cuStreamSynchronize", struct.pack("<Q", one), WANTS_REPLY)
    download = client.start_download(address, 1, one)
    client.launch(STORE, struct.pack("<QI", address + 8, 5), two)
    assert client.wait(client.row("cuStreamSynchronize", struct.pack("<Q", two), WANTS_REPLY))
    assert not client.replies
    client.upload(address, b"\x01", two, 1)
    assert client.wait(waits).status == 0
    assert client.wait(download).bulk == b"\x01"
    end_well(worker)


def test_a_stream_wait_covers_only_earlier_work(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    one = client.stream(1, 1)
    client.launch(NAP, struct.pack("<Q", 50), one)
    waits = client.row("cuStreamSynchronize", struct.pack("<Q", one), WANTS_REPLY)
    client.launch(SPIN, struct.pack("<Q", address), one)
    assert client.wait(waits).status == 0
    client.upload(address, b"\x01", client.stream(2, 1), 1)
    assert client.synchronize(one).status == 0
    end_well(worker)


def test_event_wait_and_query(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    one, two = client.stream(1, 1), client.stream(2, 1)
    event = handle(EVENT, 1)
    client.row("cuEventCreate", struct.pack("<QQ", event, 0))
    client.launch(SPIN, struct.pack("<Q", address), one)
    client.row("cuEventRecord", struct.pack("<QQ", event, one))
    assert client.sync("cuEventQuery", struct.pack("<Q", event)).status == NOT_READY
    waits = client.row("cuEventSynchronize", struct.pack("<Q", event), WANTS_REPLY)
    client.upload(address, b"\x01", two, 1)
    assert client.wait(waits).status == 0
    assert client.sync("cuEventQuery", struct.pack("<Q", event)).status == 0
    end_well(worker)


def test_host_functions(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    one = client.stream(1, 1)
    client.upload(address, b"abcd", one, 1)
    download = client.start_download(address, 4, one, 1)
    for kind in (0, 1):
        body = struct.pack("<QQQII", one, 0x1111 + kind, 0x2222, kind, 0)
        client.command(OP_HOST_FUNCTION, body)
    wait = client.row("cuStreamSynchronize", struct.pack("<Q", one), WANTS_REPLY)
    # freed while the function runs: must not keep its return from being heard
    client.free(client.alloc(100)[1])
    for kind in (0, 1):
        while not client.callbacks:
            client.receive()
        assert wait not in client.replies
        assert client.replies[download].bulk == b"abcd"
        token, function, data = client.callbacks.pop()
        assert (function, data) == (0x1111 + kind, 0x2222)
        client.command(OP_CALLBACK_DONE, struct.pack("<Q", token))
        client.flush()
    assert client.wait(wait).status == 0
    end_well(worker)


@pytest.mark.parametrize("bulk", [8, 4096, 3 << 20])
def test_a_full_driver_still_hears_that_a_host_function_returned(serve: Serve, bulk: int) -> None:
    """More work than the driver takes, then the return that it waits for."""
    worker = serve(environment={"FAKE_QUEUE": "6"})
    client = worker.client
    prepare(client)
    address = client.alloc(4 << 20)[1]
    one = client.stream(1, 1)
    client.command(OP_HOST_FUNCTION, struct.pack("<QQQII", one, 1, 2, 0, 0))
    client.flush()
    while not client.callbacks:
        client.receive()
    for i in range(30):
        client.row("cuMemsetD8Async", struct.pack("<QQQQ", address, i, 8, one))
        client.upload(address, bytes([i]) * bulk, one, 1)
    client.command(OP_CALLBACK_DONE, struct.pack("<Q", client.callbacks[0][0]))
    assert client.synchronize(one).status == 0
    assert client.download(address, bulk) == bytes([29]) * bulk
    end_well(worker)
