# SPDX-License-Identifier: Apache-2.0
"""The executor from the hello to the goodbye, against a driver that really is asynchronous."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Callable, List, Tuple

import pytest
from wire_client import (
    CALLS,
    EVENT,
    FUNCTION,
    ILLEGAL_ADDRESS,
    INVALID_CONTEXT,
    INVALID_HANDLE,
    MODULE,
    NOT_READY,
    NULL,
    OP_ALLOC,
    OP_CALLBACK_DONE,
    OP_DEVICES,
    OP_HOST_FUNCTION,
    OP_LATE,
    OP_LAUNCH,
    OP_LOAD,
    OP_MEMORY_INFO,
    OUT_OF_MEMORY,
    STREAM,
    WANTS_REPLY,
    Client,
    Worker,
    handle,
    joined,
)

Serve = Callable[..., Worker]
KERNELS = ["store", "spin", "fault", "print", "nap"]
STORE, SPIN, FAULT, PRINT, NAP = (handle(FUNCTION, i + 1) for i in range(len(KERNELS)))


def prepare(client: Client) -> int:
    """Load the fake driver's kernels and allocate a page; returns its address."""
    assert client.load_module(1, b"code").status == 0
    for i, name in enumerate(KERNELS):
        assert client.get_function(1, i + 1, name).status == 0
    status, address = client.alloc(4096)
    assert status == 0
    return address


def end_well(worker: Worker) -> None:
    worker.client.goodbye()
    assert worker.end() == (0, "")


def test_hello_and_goodbye(serve: Serve) -> None:
    end_well(serve())


@pytest.mark.parametrize("tcp", [False, True])
def test_copies_of_many_sizes(serve: Serve, tcp: bool) -> None:
    worker = serve(tcp=tcp)
    client = worker.client
    for size in (1, 7, 8, 4096, 65535, 65536, 65537, 1 << 20, (1 << 20) + 3, 9 << 20):
        status, address = client.alloc(size)
        assert status == 0
        data = os.urandom(size)
        client.upload(address, data)
        assert client.download(address, size) == data
        assert client.download(address, size) == data
        client.free(address)
    assert client.sync("cuCtxSynchronize").deferred == 0
    end_well(worker)


PIECE = 16 << 10


def digest(piece: bytes) -> int:
    """As bitfusion/wire/digest.h: eight lanes, then those one after the other."""

    def mix(state: int, word: int) -> int:
        state ^= word
        return ((state << 29 | state >> 35) & NULL) * 0x9FB21C651E98DF25 & NULL

    words = [int.from_bytes(piece[i : i + 8], "little") for i in range(0, len(piece), 8)]
    result = len(piece)
    for i in range(8):
        lane = (i + 1) * 0xD6E8FEB86659FD93 & NULL
        for word in words[i::8]:
            lane = mix(lane, word)
        result = mix(result, lane)
        result ^= result >> 32
    return result


@pytest.mark.parametrize("size", [1, 100, PIECE, 3 * PIECE + 5, 64 * PIECE])
def test_a_refresh_brings_what_differs(serve: Serve, size: int) -> None:
    worker = serve()
    client = worker.client
    status, address = client.alloc(size)
    assert status == 0
    data = bytearray(os.urandom(size))
    client.upload(address, bytes(data))
    pieces = range(0, size, PIECE)
    known = [digest(data[at : at + PIECE]) for at in pieces]
    reply = client.refresh(address, size, known)
    assert (reply.status, reply.body, reply.bulk) == (0, bytes(8), b"")
    changed = {0, len(pieces) // 2, len(pieces) - 1}
    for i in changed:
        data[min(size, (i + 1) * PIECE) - 1] ^= 0x10
    client.upload(address, bytes(data))
    reply = client.refresh(address, size, known)
    assert (reply.status, int.from_bytes(reply.body, "little")) == (
        0,
        sum(1 << i for i in changed),
    )
    assert reply.bulk == b"".join(data[i * PIECE : (i + 1) * PIECE] for i in sorted(changed))
    end_well(worker)


@pytest.mark.parametrize("size, known", [(0, 0), (PIECE + 1, 1), (PIECE, 2), (64 * PIECE + 1, 65)])
def test_a_refresh_of_a_bad_size(serve: Serve, size: int, known: int) -> None:
    worker = serve()
    with pytest.raises((EOFError, ConnectionError)):
        worker.client.refresh(prepare(worker.client), size, [0] * known)
    status, said = worker.end()
    assert "bad refresh" in said, status


def test_many_small_uploads_of_odd_sizes_in_one_flush(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    status, address = client.alloc(100000)
    expected = bytearray(100000)
    for i in range(400):
        data = os.urandom(1 + i % 37)
        client.upload(address + i * 97, data)
        expected[i * 97 : i * 97 + len(data)] = data
    assert client.download(address, 100000) == bytes(expected)
    end_well(worker)


def test_devices(serve: Serve) -> None:
    worker = serve(devices="1,0")
    reply = worker.client.operation(OP_DEVICES)
    version, count = struct.unpack_from("<iI", reply.body)
    assert (version, count) == (13000, 2)
    size = (len(reply.body) - 8) // 2
    names = [reply.body[8 + i * size :][:256].rstrip(b"\0") for i in range(2)]
    assert names == [b'Fake "device" 1', b'Fake "device" 0']
    end_well(worker)


def test_function_layout_comes_with_the_look_up(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    assert client.load_module(1, b"code").status == 0
    reply = client.get_function(1, 7, "store")
    number, count, size = struct.unpack_from("<QII", reply.body)
    attributes = struct.unpack_from("<16i", reply.body, 16)
    (valid,) = struct.unpack_from("<I", reply.body, 80)
    layout = struct.unpack_from("<4I", reply.body, 88)
    assert (number, count, size) == (handle(FUNCTION, 7), 2, 12)
    assert layout == (0, 8, 8, 4)
    assert valid == 0x3FF and attributes[3] == 103
    again = client.get_function(1, 8, "store")
    assert struct.unpack_from("<Q", again.body)[0] == handle(FUNCTION, 7)
    assert client.get_function(1, 9, "absent").status == 500
    end_well(worker)


def test_functions_end_with_their_module(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    client.row("cuModuleUnload", struct.pack("<Q", handle(MODULE, 1)))
    client.launch(STORE, struct.pack("<QI", address, 1))
    reply = client.synchronize()
    assert reply.deferred == INVALID_HANDLE and reply.deferred_call == OP_LAUNCH
    end_well(worker)


def spin_until(client: Client, flag: int) -> int:
    """A kernel runs until the byte at `flag` is set; returns another stream."""
    client.upload(flag, bytes(8))
    client.launch(SPIN, struct.pack("<Q", flag), client.stream(1, 1))
    return client.stream(2, 1)


def release(client: Client, flag: int, other: int) -> None:
    client.launch(STORE, struct.pack("<QI", flag, 1), other)


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


def test_load_brings_logs(serve: Serve) -> None:
    worker = serve()
    options = struct.pack("<II", 5, 6) + struct.pack("<QQ", 64, 64)
    head = struct.pack("<QQIIIIII", 4, handle(MODULE, 1), 0, 0, 2, 0, 0, 0)
    reply = worker.client.operation(OP_LOAD, head + options, 0, b"what")
    assert reply.status == 200
    info, error = struct.unpack_from("<QQ", reply.body)
    assert info == 0 and reply.body[16 : 16 + error] == b"what the compiler said\0"
    end_well(worker)


def linked(parts: List[bytes], sizes: List[int]) -> Tuple[bytes, bytes]:
    """The command and the bulk that load code linked from all parts but the first."""
    bulk = joined(parts, sizes)
    head = struct.pack("<QQ6I", len(bulk), handle(MODULE, 1), 0, 0, 2, 0, 0, len(parts) - 1)
    return head + struct.pack("<IIQQ", 5, 6, 64, 64), bulk


def test_linked_code_comes_with_what_it_was_linked_from(serve: Serve) -> None:
    worker = serve()
    parts = [b"code", b"one part", b"two"]
    body, bulk = linked(parts, [len(part) for part in parts])
    reply = worker.client.operation(OP_LOAD, body, 0, bulk)
    size = struct.unpack_from("<Q", reply.body, 8)[0]
    assert (reply.status, reply.body[16 : 16 + size]) == (0, b"code of one part two\0")
    assert worker.client.get_function(1, 1, "store").status == 0
    end_well(worker)


@pytest.mark.parametrize(
    "sizes",
    [(4, 13, 0), (4, 13, 9), (4, 0, 3), (4, 13, -1), (4, -8, 3), (20, 13, 3), (4, 8, 3)],
)
def test_linked_code_whose_sizes_are_wrong(serve: Serve, sizes: Tuple[int, ...]) -> None:
    worker = serve()
    parts = [b"code", b"one part more", b"two"]
    body, bulk = linked(parts, [size % (1 << 64) for size in sizes])
    with pytest.raises((EOFError, ConnectionError)):
        worker.client.operation(OP_LOAD, body, 0, bulk)
    status, said = worker.end()
    assert "bad sizes of code to be linked" in said, status


# ---------------------------------------------------------------- waiting


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


def test_asynchronous_downloads_come_before_the_reply_that_orders_them(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    streams = [client.stream(i + 1, 1) for i in range(3)]
    for turn in range(30):
        downloads = []
        for i, stream in enumerate(streams):
            client.launch(STORE, struct.pack("<QI", address + i, turn), stream)
            downloads.append(client.start_download(address + i, 1, stream, 1))
        last = [
            client.row("cuStreamSynchronize", struct.pack("<Q", stream), WANTS_REPLY)
            for stream in streams
        ]
        client.order.clear()
        for request in last:
            client.wait(request)
        for download, wait in zip(downloads, last):
            assert client.order.index(download) < client.order.index(wait)
            assert client.replies.pop(download).bulk == bytes([turn])
    end_well(worker)


def test_synchronous_upload_is_seen_by_non_blocking_streams(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    one = client.stream(1, 1)
    client.launch(NAP, struct.pack("<Q", 100))
    client.upload(address, b"\x07")
    client.launch(STORE, struct.pack("<QI", address, 9), one)
    assert client.synchronize(one).status == 0
    assert client.download(address, 1) == b"\x09"
    end_well(worker)


def test_a_pitch_too_large_to_count_leaves_no_memory(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    before = client.operation(OP_MEMORY_INFO).body
    # so many rows of 4096 bytes that their number wraps around to one of them
    body = struct.pack("<QQII", 4096, (1 << 52) + 1, 4, 0)
    assert client.operation(OP_ALLOC, body).status == OUT_OF_MEMORY
    assert client.operation(OP_MEMORY_INFO).body == before
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


@pytest.mark.parametrize("size", [4, 70000, (2 << 20) + 5])
@pytest.mark.parametrize("full", [False, True])
def test_a_late_source_is_asked_for_when_the_stream_is_there(
    serve: Serve, size: int, full: bool
) -> None:
    worker = serve(environment={"FAKE_QUEUE": "6"} if full else {})
    client = worker.client
    prepare(client)
    address = client.alloc(4 << 20)[1]
    one, two = client.stream(1, 1), client.stream(2, 1)
    client.command(OP_HOST_FUNCTION, struct.pack("<QQQII", one, 1, 2, 0, 0))
    client.upload_late(address, size, one, 77)
    for i in range(30 if full else 1):
        client.row("cuMemsetD8Async", struct.pack("<QQQQ", address + size, i, 1, one))
    if not full:
        client.download(address, 4, two)  # another stream goes on
        assert not client.fetches
    wait = client.row("cuStreamSynchronize", struct.pack("<Q", one), WANTS_REPLY)
    client.flush()
    while not client.callbacks:
        client.receive()
    client.command(OP_CALLBACK_DONE, struct.pack("<Q", client.callbacks[0][0]))
    data = os.urandom(size)
    for offset in range(0, size, 1 << 20):
        client.flush()
        while not client.fetches:
            client.receive()
        assert wait not in client.replies
        token, source, at, length = client.fetches.pop()
        assert (source, at) == (77, offset) and length == min(1 << 20, size - offset)
        client.command(OP_LATE, struct.pack("<QQ", length, token), 0, data[at : at + length])
    reply = client.wait(wait)
    assert (reply.status, reply.deferred) == (0, 0)
    assert client.download(address, size) == data
    end_well(worker)


def test_a_late_source_that_the_client_does_not_have_is_an_error(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    address = client.alloc(4096)[1]
    client.upload_late(address, 100, 0, 5)
    client.flush()
    while not client.fetches:
        client.receive()
    client.command(OP_LATE, struct.pack("<QQ", 0, client.fetches[0][0]))
    client.command(OP_LATE, struct.pack("<QQ", 3, 12345), 0, b"abc")  # nobody asked for it
    reply = client.synchronize()
    assert (reply.status, reply.deferred) == (0, 999)
    end_well(worker)


# ---------------------------------------------------------------- errors


def test_one_way_failure_is_reported_once_and_first_come(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    client.row("cuMemsetD8Async", struct.pack("<QQQQ", 0x123456, 1, 8, 0))
    client.launch(handle(FUNCTION, 99), b"")
    reply = client.synchronize()
    assert (reply.status, reply.deferred) == (0, 1)
    assert reply.deferred_call == CALLS["cuMemsetD8Async"]
    assert client.synchronize().deferred == 0
    assert client.download(address, 1) == b"\0"
    end_well(worker)


def test_sticky_error_comes_back_from_everything(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    client.launch(FAULT, b"")
    assert client.synchronize().status == ILLEGAL_ADDRESS
    assert client.alloc(64)[0] == ILLEGAL_ADDRESS
    end_well(worker)


def test_handles_that_are_not_there(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    for number in (handle(STREAM, 5), handle(EVENT, 1), 12345, 3, handle(STREAM, 0xFFFFFF)):
        assert client.synchronize(number).status == INVALID_HANDLE
    one = client.stream(1)
    client.row("cuStreamDestroy_v2", struct.pack("<Q", one))
    assert client.synchronize(one).status == INVALID_HANDLE
    end_well(worker)


def test_contexts(serve: Serve) -> None:
    worker = serve(devices="0,1")
    client = worker.client
    client.context = 0
    assert client.alloc(64)[0] == INVALID_CONTEXT
    client.context = 2
    assert client.alloc(64)[0] == 0
    assert client.sync("cuDevicePrimaryCtxRelease_v2", struct.pack("<Q", 1)).status == 0
    assert client.sync("cuDevicePrimaryCtxRelease_v2", struct.pack("<Q", 1)).status == 0
    assert client.alloc(64)[0] == 0
    client.stream(1)
    assert client.sync("cuDevicePrimaryCtxReset_v2", struct.pack("<Q", 1)).status == 0
    assert client.synchronize(handle(STREAM, 1)).status == INVALID_HANDLE
    client.context = 77
    made = handle(1, 77)
    assert client.alloc(64)[0] == INVALID_CONTEXT
    assert client.sync("cuCtxCreate_v2", struct.pack("<QQQ", made, 0, 0)).status == 0
    assert client.alloc(64)[0] == 0
    client.context = 1
    assert client.alloc(64)[0] == 0
    assert client.sync("cuCtxDestroy_v2", struct.pack("<Q", made)).status == 0
    client.context = 77
    assert client.alloc(64)[0] == INVALID_CONTEXT
    end_well(worker)


def test_answer_of_a_row(serve: Serve) -> None:
    worker = serve()
    reply = worker.client.sync("cuCtxGetLimit", struct.pack("<QQ", 1, 3))
    assert (reply.status, reply.body) == (0, struct.pack("<Q", 1003))
    missing = worker.client.sync("cuLibraryGetKernelCount", struct.pack("<QQ", 1, 0))
    assert (missing.status, missing.body) == (801, b"")
    end_well(worker)


def test_rejected_addresses(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    first = client.alloc(40 << 20)[1]
    status, second = client.alloc(20 << 20, [first])
    assert status == 0 and second != first
    status, third = client.alloc(40 << 20)
    assert status == 0
    info = client.operation(OP_MEMORY_INFO)
    assert struct.unpack("<QQ", info.body) == (4 << 20, 64 << 20)
    assert client.alloc(5 << 20)[0] == OUT_OF_MEMORY
    client.free(second)
    assert client.alloc(5 << 20)[0] == 0
    end_well(worker)


# ---------------------------------------------------------------- handshake and end


def test_other_version_gets_one_line(serve: Serve) -> None:
    worker = serve(hello=False)
    status, text = worker.client.hello(spec_hash=1)
    assert status != 0 and "different versions" in text
    code, log = worker.end()
    assert code == 2 and log.count("\n") == 1


def test_no_driver(serve: Serve) -> None:
    worker = serve(hello=False, driver=Path("/nonexistent/libcuda.so.1"))
    status, text = worker.client.hello()
    assert status == 100 and "/nonexistent/libcuda.so.1" in text
    assert worker.end()[0] == 3


def test_driver_without_devices(serve: Serve) -> None:
    worker = serve(hello=False, environment={"FAKE_NO_DEVICE": "1"})
    assert worker.client.hello()[0] == 100
    assert worker.end()[0] == 3


def test_environment_is_applied_before_the_driver_starts(serve: Serve) -> None:
    worker = serve(hello=False, warm=True)
    text = {"CUDA_LAUNCH_BLOCKING": "1", "LD_PRELOAD": "x", "CUDA_VISIBLE_DEVICES": "1"}
    assert worker.client.hello(text)[0] == 0
    worker.client.goodbye()
    code, log = worker.end()
    assert code == 0 and log.endswith("ignoring CUDA_LAUNCH_BLOCKING\n") and log.count("\n") == 1


def test_a_client_writes_no_lines_of_the_log(serve: Serve) -> None:
    """Nor as many of ours as it likes."""
    worker = serve(hello=False, warm=True)
    text = "\n[ERROR] client bob was disabled by root \x1b[31m\x07"
    entry = f"CUDA_MODULE_LOADING=x{text}"
    more = {f"{entry}\0{entry}\0CUDA_DISABLE_JIT": "1", "CUDA_MODULE_LOADING": text}
    assert worker.client.hello(more)[0] == 0
    worker.client.goodbye()
    code, log = worker.end()
    assert code == 0 and log.endswith("ignoring CUDA_DISABLE_JIT, CUDA_MODULE_LOADING\n")
    assert log.count("\n") == 1


def test_client_that_goes_without_a_word(serve: Serve) -> None:
    worker = serve()
    worker.client.socket.close()
    assert worker.end()[0] == 1


def test_client_gone_while_the_device_is_busy(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    client.launch(SPIN, struct.pack("<Q", address))
    client.free(address)  # which waits for the kernel
    client.flush()
    time.sleep(0.1)
    client.socket.close()
    assert worker.end()[0] == 1


def test_client_that_does_not_read(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    big = client.alloc(4 << 20)[1]
    downloads = [client.start_download(big, 4 << 20, 0, 1) for _ in range(10)]
    client.launch(STORE, struct.pack("<QI", address, 3))
    client.flush()
    # forty megabytes wait for a reader, and still commands are carried out
    other, event = client.stream(1, 1), handle(EVENT, 1)
    client.upload(address + 1, b"\x05", other, 1)
    client.row("cuEventCreate", struct.pack("<QQ", event, 0))
    client.row("cuEventRecord", struct.pack("<QQ", event, other))
    client.row("cuStreamWaitEvent", struct.pack("<QQQ", 0, event, 0))
    last = client.start_download(address, 2, 0, 1)
    client.flush()
    time.sleep(0.3)
    for download in downloads:
        assert client.wait(download).status == 0
    assert client.wait(last).bulk == b"\x03\x05"
    end_well(worker)


def test_python_shell(fake_driver: Path) -> None:
    with Worker(fake_driver, tcp=True, warm=True) as worker:
        assert worker.client.hello() == (0, "")
        assert worker.client.alloc(64)[0] == 0
        worker.client.goodbye()
        assert worker.end() == (0, "")
