# SPDX-License-Identifier: Apache-2.0
"""All threads of the executor under ThreadSanitizer: waits, copies, host functions, frees."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Dict, List

import pytest
from conversation import NAP, PRINT, STORE, Serve, end_well, prepare
from wire_client import (
    CALLS,
    EVENT,
    OP_CALLBACK_DONE,
    OP_HOST_FUNCTION,
    WANTS_REPLY,
    handle,
)

from bitfusion.executor import core


@pytest.mark.parametrize("tcp,share", [(False, 0.0), (True, 0.0), (True, 0.7)])
def test_everything_at_once(
    serve: Serve, tsan_program: Path, tsan_driver: Path, tcp: bool, share: float
) -> None:
    options: Dict[str, int] = {}
    if share:
        ledger = core.Ledger.create([0, 0])
        ledger.set_share(share)
        options["ledger"] = ledger.fileno()
    worker = serve(program=tsan_program, driver=tsan_driver, tcp=tcp, timeout=60, **options)
    client = worker.client
    pick = random.Random(int(os.environ.get("THREADS_SEED", "7")))
    address = prepare(client)
    streams = [client.stream(i + 1, i % 2) for i in range(4)] + [0]
    memory = {stream: client.alloc(4 << 20)[1] for stream in streams}
    events = [handle(EVENT, i + 1) for i in range(3)]
    for event in events:
        client.row("cuEventCreate", struct.pack("<QQ", event, 0))
    requests: List[int] = []
    sizes: Dict[int, int] = {}
    freed = []
    for turn in range(400):
        stream = pick.choice(streams)
        big = memory[stream]
        what = pick.randrange(10)
        if what == 0:
            client.launch(NAP, struct.pack("<Q", 1), stream)
        elif what == 1:
            client.upload(big, bytes(pick.choice([8, 3000, 200000])), stream, pick.randrange(2))
        elif what in (2, 3):
            size = pick.choice([8, 3000, 70000, 3 << 20])
            requests.append(client.start_download(big, size, stream, pick.randrange(2)))
            sizes[requests[-1]] = size
        elif what == 4:
            body = struct.pack("<Q", stream)
            requests.append(client.row("cuStreamSynchronize", body, WANTS_REPLY))
        elif what == 5:
            event = pick.choice(events)
            client.row("cuEventRecord", struct.pack("<QQ", event, stream))
            body = struct.pack("<Q", event)
            requests.append(client.row("cuEventSynchronize", body, WANTS_REPLY))
        elif what == 6:
            client.command(OP_HOST_FUNCTION, struct.pack("<QQQII", stream, 1, 2, turn % 2, 0))
        elif what == 7:
            client.launch(PRINT, b"", stream)
        elif what == 8:
            requests.append(client.row("cuCtxSynchronize", b"", WANTS_REPLY))
        else:
            client.launch(STORE, struct.pack("<QI", address + streams.index(stream), turn), stream)
            freed.append(client.row("cuMemAllocAsync", struct.pack("<QQQ", 1, 64, 0), WANTS_REPLY))
        if turn % 8 == 0:
            client.flush()
    requests.append(client.row("cuCtxSynchronize", b"", WANTS_REPLY))
    client.flush()
    for request in requests + freed:
        while request not in client.replies:
            client.receive()
            for token, _, _ in client.callbacks:
                client.command(OP_CALLBACK_DONE, struct.pack("<Q", token))
            client.callbacks.clear()
            client.flush()
        reply = client.replies.pop(request)
        assert (reply.status, reply.deferred) == (0, 0)
        assert len(reply.bulk) == sizes.get(request, 0)
        if request in freed:
            client.free(struct.unpack("<Q", reply.body)[0])
    assert client.synchronize().deferred == 0
    assert CALLS["cuMemAllocAsync"]
    end_well(worker)


def test_the_session_ends_under_a_wait(
    serve: Serve, tsan_program: Path, tsan_driver: Path
) -> None:
    """The thread that waits looks for output when the output is no longer ours."""
    worker = serve(program=tsan_program, driver=tsan_driver)
    client = worker.client
    address = prepare(client)
    stream = client.stream(1, 1)
    client.launch(NAP, struct.pack("<Q", 300), stream)
    client.start_download(address, 8, stream)
    end_well(worker)
