# SPDX-License-Identifier: Apache-2.0
"""What the driver prints reaches the client before whatever tells it that the kernel has run."""

from __future__ import annotations

import struct

import pytest
from conversation import FAULT, NAP, PRINT, Serve, end_well, prepare
from wire_client import ILLEGAL_ADDRESS, OP_DEVICES


def test_printed_text_comes_before_the_reply(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    for i in range(20):
        client.launch(PRINT, b"")
        assert client.synchronize().status == 0
        assert client.output[1] == b"printed by a kernel\n" * (i + 1)
    end_well(worker)


@pytest.mark.parametrize("turn", range(3))
def test_what_a_driver_says_of_a_fault_comes_before_the_deferred_failure(
    serve: Serve, turn: int
) -> None:
    """Which a reply brings that is itself a success."""
    worker = serve()
    client = worker.client
    prepare(client)
    client.launch(FAULT, b"")
    deferred = 0
    while not deferred:
        client.launch(NAP, struct.pack("<QI", 0, 0))
        reply = client.operation(OP_DEVICES)
        assert reply.status == 0
        deferred = reply.deferred
    assert deferred == ILLEGAL_ADDRESS
    assert client.output[2] == b"the kernel is at fault\n"
    end_well(worker)
