# SPDX-License-Identifier: Apache-2.0
"""What tests say to a worker again and again: the fake driver's kernels, beginning and end."""

from __future__ import annotations

import struct
from typing import Callable

from wire_client import FUNCTION, Client, Worker, handle

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


def spin_until(client: Client, flag: int) -> int:
    """A kernel runs until the byte at `flag` is set; returns another stream."""
    client.upload(flag, bytes(8))
    client.launch(SPIN, struct.pack("<Q", flag), client.stream(1, 1))
    return client.stream(2, 1)


def release(client: Client, flag: int, other: int) -> None:
    client.launch(STORE, struct.pack("<QI", flag, 1), other)
