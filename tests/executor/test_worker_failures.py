# SPDX-License-Identifier: Apache-2.0
"""The driver fails at its n-th call, for every n of a small program: no hang, no silence."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import List

from conversation import NAP, PRINT, STORE, Serve, end_well, prepare
from wire_client import (
    EVENT,
    MODULE,
    OP_CALLBACK_DONE,
    OP_COPY3D,
    OP_HOST_FUNCTION,
    WANTS_REPLY,
    Worker,
    handle,
)


def copy3d(client: object, address: int, to_host: bool) -> List[int]:
    """Rows of 24 bytes, 3 of them, from or to a pitch of 32."""
    device = struct.pack("<4QI4xQQQQQQ", 0, 0, 0, 0, 2, 0, address, 0, 0, 32, 3)
    host = struct.pack("<4QI4xQQQQQQ", 0, 0, 0, 0, 1, 0, 0, 0, 0, 24, 3)
    shape = (device + host if to_host else host + device) + struct.pack("<3Q", 24, 3, 1)
    return [len(shape), int.from_bytes(shape, "little")]


def program(worker: Worker) -> List[int]:
    """A bit of everything; returns the statuses and deferred failures that came back."""
    client = worker.client
    seen: List[int] = []

    def note(request: int) -> None:
        while request not in client.replies:
            client.receive()
            for token, _, _ in client.callbacks:
                client.command(OP_CALLBACK_DONE, struct.pack("<Q", token))
            client.callbacks.clear()
            client.flush()
        reply = client.replies.pop(request)
        seen.extend((reply.status, reply.deferred))

    seen.append(client.load_module(1, b"code", b"one part", b"another").status)
    for i, name in enumerate(["store", "spin", "fault", "print", "nap"]):
        reply = client.get_function(1, i + 1, name)
        seen.extend((reply.status, reply.deferred))
    status, address = client.alloc(3 << 20)
    seen.append(status)
    one, two = client.stream(1, 1), client.stream(2)
    event = handle(EVENT, 1)
    client.row("cuEventCreate", struct.pack("<QQ", event, 0))
    client.upload(address, b"x" * 100)
    client.upload(address, b"y" * (2 << 20), one, 1)
    client.launch(STORE, struct.pack("<QI", address, 1), one)
    client.launch(PRINT, b"", two)
    client.row("cuEventRecord", struct.pack("<QQ", event, one))
    client.row("cuStreamWaitEvent", struct.pack("<QQQ", two, event, 0))
    client.command(OP_HOST_FUNCTION, struct.pack("<QQQII", two, 1, 2, 0, 0))
    shape, image = copy3d(client, address, False)
    head = struct.pack("<QQII", 72, one, 1, 0) + image.to_bytes(shape, "little")
    client.command(OP_COPY3D, head, 0, bytes(range(72)))
    shape, image = copy3d(client, address, True)
    head = struct.pack("<QQII", 0, one, 0, 0) + image.to_bytes(shape, "little")
    requests = [client.command(OP_COPY3D, head, WANTS_REPLY)]
    requests.append(client.start_download(address, 2 << 20, one, 1))
    requests.append(client.start_download(address, 100, two))
    client.launch(NAP, struct.pack("<Q", 3), two)
    for name, body in (
        ("cuEventSynchronize", struct.pack("<Q", event)),
        ("cuStreamSynchronize", struct.pack("<Q", two)),
        ("cuCtxSynchronize", b""),
    ):
        requests.append(client.row(name, body, WANTS_REPLY))
    client.free(address)
    client.flush()
    for request in requests:
        note(request)
    client.row("cuEventDestroy_v2", struct.pack("<Q", event))
    client.row("cuStreamDestroy_v2", struct.pack("<Q", one))
    client.row("cuModuleUnload", struct.pack("<Q", handle(MODULE, 1)))
    # what gives something back is made beside the stream: only a reset waits for it
    for name, body in (("cuCtxSynchronize", b""), ("cuDevicePrimaryCtxReset_v2", bytes(8))):
        last = client.row(name, body, WANTS_REPLY)
        client.flush()
        note(last)
    return seen


def test_two_dimensional_copies(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    address = prepare(client)
    shape, image = copy3d(client, address, False)
    head = struct.pack("<QQII", 72, 0, 0, 0) + image.to_bytes(shape, "little")
    client.command(OP_COPY3D, head, 0, bytes(range(72)))
    rows = client.download(address, 96)
    assert [rows[i * 32 : i * 32 + 24] for i in range(3)] == [
        bytes(range(i * 24, i * 24 + 24)) for i in range(3)
    ]
    shape, image = copy3d(client, address, True)
    head = struct.pack("<QQII", 0, 0, 0, 0) + image.to_bytes(shape, "little")
    assert client.wait(client.command(OP_COPY3D, head, WANTS_REPLY)).bulk == bytes(range(72))
    end_well(worker)


# Calls that the executor also makes for itself: pinning, watching copies, ordering uploads.
UNTOLD = {"nothing", "cuMemHostRegister_v2", "cuCtxSetCurrent"}
UNTOLD |= {"cuEventQuery", "cuEventCreate", "cuEventRecord", "cuEventSynchronize"}


def test_failure_at_every_call(serve: Serve, tmp_path: Path) -> None:
    count_file = tmp_path / "calls"
    worker = serve(environment={"FAKE_CALLS": str(count_file)})
    assert not any(program(worker))
    end_well(worker)
    calls = int(count_file.read_text().split()[0])
    assert calls > 60
    silent = set()
    for n in range(1, calls + 1):
        environment = {"FAKE_FAIL": f"{n}:719", "FAKE_CALLS": str(count_file)}
        worker = serve(environment=environment)
        told = 719 in program(worker)
        worker.client.goodbye()
        code, log = worker.end()
        assert code == 0, (n, log)
        if not told:
            silent.add(count_file.read_text().split()[1])
    assert silent <= UNTOLD
