# SPDX-License-Identifier: Apache-2.0
"""Look-ups, in which a driver may compile or load code: only who asks waits for them."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Dict

import pytest
from conversation import KERNELS, NAP, SPIN, STORE, Serve, end_well, prepare
from wire_client import (
    FUNCTION,
    INVALID_HANDLE,
    MODULE,
    WANTS_REPLY,
    Client,
    handle,
    padded,
)

HELD = handle(FUNCTION, 20)


def start(client: Client, what: str, module: int) -> int:
    """Asks for what the driver finds only when a kernel has stored something."""
    if what == "function":
        return client.start_look_up(module, 20, "held")
    body = struct.pack("<QQQQ", 1, 1, handle(MODULE, module), 5) + padded(b"held\0")
    return client.row("cuModuleGetGlobal_v2", body, WANTS_REPLY)


@pytest.mark.parametrize("what", ["function", "variable"])
def test_a_look_up_does_not_hold_up_the_stream(serve: Serve, what: str) -> None:
    """The driver finds it only after a kernel that is launched behind the look-up."""
    worker = serve()
    client = worker.client
    address = prepare(client)
    asked = start(client, what, 1)
    client.launch(NAP, struct.pack("<Q", 50))
    assert client.synchronize().status == 0
    assert asked not in client.replies
    client.launch(STORE, struct.pack("<QI", address, 5))
    assert client.synchronize().status == 0
    reply = client.wait(asked)
    assert reply.status == 0
    if what == "function":
        assert struct.unpack_from("<Q", reply.body)[0] == HELD
        client.launch(HELD, struct.pack("<Q", 1))
        assert client.synchronize().deferred == 0
    end_well(worker)


@pytest.mark.parametrize("what", ["function", "variable"])
def test_code_is_unloaded_when_look_ups_are_done(serve: Serve, what: str) -> None:
    """The driver never loses a module under a call; what is found too late is gone at once."""
    worker = serve()
    client = worker.client
    address = prepare(client)
    assert client.load_module(2, b"code").status == 0
    asked = start(client, what, 2)
    client.row("cuModuleUnload", struct.pack("<Q", handle(MODULE, 2)))
    client.launch(NAP, struct.pack("<Q", 50))
    assert client.synchronize().status == 0
    assert asked not in client.replies
    client.launch(STORE, struct.pack("<QI", address, 5))
    assert client.wait(asked).status == 0
    assert client.load_module(2, b"code").status == 0  # waits until the number is free
    client.launch(HELD, struct.pack("<Q", 1))
    assert client.synchronize().deferred == INVALID_HANDLE
    end_well(worker)


def test_what_is_being_unloaded_is_not_found(serve: Serve) -> None:
    """The driver waits for the device, and may then give the function's handle to other code."""
    worker = serve()
    client = worker.client
    address = prepare(client)
    gate = client.alloc(64)[1]
    busy = client.stream(1, 1)
    assert client.load_module(2, b"code").status == 0
    client.launch(SPIN, struct.pack("<Q", gate), busy)
    asked = client.start_look_up(2, 20, "held")
    client.row("cuModuleUnload", struct.pack("<Q", handle(MODULE, 2)))
    client.launch(STORE, struct.pack("<QI", address, 5))
    assert client.wait(asked).status == 0
    index, found, until = 20, HELD, time.monotonic() + 30
    while found == HELD and time.monotonic() < until:
        index += 1
        found = struct.unpack_from("<Q", client.get_function(1, index, "held").body)[0]
    assert found == handle(FUNCTION, index)
    client.launch(STORE, struct.pack("<QI", gate, 1))
    assert client.synchronize(busy).status == 0
    end_well(worker)


def test_a_look_up_in_what_is_not_there(serve: Serve) -> None:
    worker = serve()
    client = worker.client
    prepare(client)
    asked = [client.start_look_up(module, 30 + module, "store") for module in (2, 3)]
    assert [client.wait(request).status for request in asked] == [400] * 2
    assert client.get_function(1, 40, "absent").status == 500
    end_well(worker)


def test_look_ups_of_several_threads(serve: Serve, tsan_program: Path, tsan_driver: Path) -> None:
    """Those of the same function get the same handle, whoever is first."""
    worker = serve(program=tsan_program, driver=tsan_driver)
    client = worker.client
    assert client.load_module(1, b"code").status == 0
    asked: Dict[int, str] = {}
    for turn in range(40):
        for i, name in enumerate(KERNELS):
            asked[client.start_look_up(1, 1 + turn * len(KERNELS) + i, name)] = name
        client.load_module(2 + turn, b"code")
    found: Dict[str, int] = {}
    for request, name in asked.items():
        reply = client.wait(request)
        assert reply.status == 0
        function = struct.unpack_from("<Q", reply.body)[0]
        assert found.setdefault(name, function) == function
    assert len(set(found.values())) == len(KERNELS)
    end_well(worker)
