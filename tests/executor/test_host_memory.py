# SPDX-License-Identifier: Apache-2.0
"""A client that makes its session hold ever more of the server's own memory."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from waiting import wait_for
from wire_client import (
    FUNCTION,
    OP_CALLBACK_DONE,
    OP_HOST_FUNCTION,
    OUT_OF_MEMORY,
    SUCCESS,
    WANTS_REPLY,
    Client,
    Worker,
    handle,
)

from bitfusion.executor import core

LIMIT = 64 << 20
MARGIN = 32 << 20  # an eighth of it, what grows between two looks, and the libraries
WAITERS = 256  # a worker has no more of them
Start = Callable[..., Worker]


@pytest.fixture
def start(fake_driver: Path) -> Iterator[Start]:
    """Workers without sanitizers, which hold more memory than what they look at."""
    workers: List[Worker] = []

    def begin(**options: int) -> Worker:
        workers.append(Worker(fake_driver, host_memory=LIMIT, **options))
        assert workers[-1].client.hello() == (0, "")
        return workers[-1]

    yield begin
    for worker in workers:
        worker.__exit__()


def peak(worker: Worker) -> int:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


def host_functions(client: Client, stream: int, count: int = 1) -> None:
    """That nobody has answered yet."""
    client.flush()
    client.command(OP_HOST_FUNCTION, struct.pack("<QQQII", stream, 1, 2, 0, 0))
    client.out += bytes(client.out) * (count - 1)
    client.flush()
    while not client.callbacks:
        client.receive()


def is_ended(worker: Worker) -> None:
    status, log = worker.end()
    assert status == core.ENDED_MEMORY
    assert re.fullmatch(
        r"(.*more commands than are kept\n)?.* and 64 are allowed: ending it .*\n", log
    )


def test_calls_that_wait_are_not_read_without_end(start: Start) -> None:
    """One of 40 bytes held 6 KiB; what frees it may lie behind them."""
    worker = start()
    client = worker.client
    assert client.load_module(1, b"code").status == SUCCESS
    assert client.get_function(1, 1, "store").status == SUCCESS
    stream = client.stream(1, 1)
    host_functions(client, stream)
    waits = [
        client.row("cuStreamSynchronize", struct.pack("<Q", stream), WANTS_REPLY)
        for _ in range(WAITERS)
    ]
    body = struct.pack("<QQQ", 1, 0, handle(FUNCTION, 1))
    asked = [client.row("cuFuncGetAttribute", body, WANTS_REPLY) for _ in range(24_000)]
    client.flush()
    assert not wait_for(lambda: peak(worker) > LIMIT + MARGIN, 1)  # which it may take a while
    client.command(OP_CALLBACK_DONE, struct.pack("<Q", client.callbacks[0][0]))
    for request in [*waits, asked[-1]]:
        assert client.wait(request).status == SUCCESS
    assert peak(worker) < LIMIT + MARGIN
    client.goodbye()
    assert worker.end() == (0, "")


def test_copies_behind_a_host_function_end_a_session_at_last(start: Start) -> None:
    worker = start()
    client = worker.client
    status, address = client.alloc(1 << 20)
    assert status == SUCCESS
    stream = client.stream(1, 1)
    host_functions(client, stream)
    with pytest.raises(ConnectionError):
        for _ in range(4 * LIMIT >> 20):
            client.upload(address, bytes(1 << 20), stream, 1)
            client.flush()
    is_ended(worker)


def test_what_cannot_wait_ends_a_session(start: Start) -> None:
    worker = start()
    client = worker.client
    with pytest.raises((ConnectionError, EOFError)):
        host_functions(client, client.stream(1, 1), 2_000_000)
    is_ended(worker)


def test_code_beyond_the_limit_is_not_loaded(start: Start) -> None:
    worker = start()
    client = worker.client
    assert client.load_module(1, b"code" + bytes(LIMIT)).status == OUT_OF_MEMORY
    assert client.load_module(1, b"code").status == SUCCESS
    assert peak(worker) < LIMIT
    client.goodbye()
    assert worker.end() == (0, "")


def test_workers_of_a_session_share_the_limit(start: Start) -> None:
    ledger = core.Ledger.create([0])
    first, second = (start(ledger=ledger.fileno(), slot=slot) for slot in range(2))
    image = b"code" + bytes(30 << 20)
    assert second.client.load_module(1, image).status == SUCCESS
    stream = first.client.stream(1, 1)
    host_functions(first.client, stream, 160_000)
    assert first.client.sync("cuStreamQuery", struct.pack("<Q", stream)).deferred == 0
    assert second.client.load_module(2, image).status == OUT_OF_MEMORY
    ledger.close()
