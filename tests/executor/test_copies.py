# SPDX-License-Identifier: Apache-2.0
"""Bytes to the device and back: sizes, refreshes, late sources, pitches."""

from __future__ import annotations

import os
import struct

import pytest
from conversation import NAP, STORE, Serve, end_well, prepare
from wire_client import (
    NULL,
    OP_ALLOC,
    OP_CALLBACK_DONE,
    OP_HOST_FUNCTION,
    OP_LATE,
    OP_MEMORY_INFO,
    OUT_OF_MEMORY,
    WANTS_REPLY,
)

PIECE = 16 << 10


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
