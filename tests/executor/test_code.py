# SPDX-License-Identifier: Apache-2.0
"""Modules, functions and linked code."""

from __future__ import annotations

import struct
from typing import List, Tuple

import pytest
from conversation import STORE, Serve, end_well, prepare
from wire_client import FUNCTION, INVALID_HANDLE, MODULE, OP_LAUNCH, OP_LOAD, handle, joined


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
