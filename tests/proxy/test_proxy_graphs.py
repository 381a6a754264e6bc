# SPDX-License-Identifier: Apache-2.0
"""Graphs made by hand: what a launch costs, and servers that err about a graph's order."""

from __future__ import annotations

import struct
from typing import Any, Callable

import pytest
from fake_peer import COPY_NODE, HOST_NODE, Broker, node_number

BY_HAND = """
    context = start()
    stream = made(cuda.cuStreamCreate, 1)
    graph = made(cuda.cuGraphCreate, 0)
    memory = alloc(4096)
    host = ctypes.create_string_buffer(4096)
    FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    function = FUNCTION(lambda data: None)
    node = u64()

    def copying(to_host):
        at = ctypes.addressof(host) + 2048 * to_host
        sides = [[0, 0, 0, 0, 1, at, 0, 0, 0, 0, 0], [0, 0, 0, 0, 2, 0, memory, 0, 0, 0, 0]]
        return (ctypes.c_uint64 * 25)(*sides[to_host], *sides[1 - to_host], 64, 1, 1)

    def add_copy(to_host):
        check(cuda.cuGraphAddMemcpyNode(byref(node), graph, None, 0, copying(to_host), context))

    def add_function():
        params = (ctypes.c_void_p * 2)(ctypes.cast(function, ctypes.c_void_p), None)
        check(cuda.cuGraphAddHostNode(byref(node), graph, None, 0, params))

    def instantiate():
        program = u64()
        return cuda.cuGraphInstantiateWithFlags(byref(program), graph, 0), program.value
"""


def test_what_a_launch_sends(broker: Broker, run: Callable[..., str]) -> None:
    """Its copies and itself; a graph without any itself, also where there are such graphs."""
    run(
        broker,
        BY_HAND
        + """
    plain = made(cuda.cuGraphInstantiateWithFlags, graph, 0)
    add_copy(False), add_copy(True)
    status, program = instantiate()
    check(status)
    check(cuda.cuStreamSynchronize(stream))
    for which in plain, plain, program, program:
        check(cuda.cuGraphLaunch(which, stream))
    """,
    )
    names = [command.name for command in broker.peer().commands]
    last = len(names) - 1 - names[::-1].index("cuStreamSynchronize")
    each = ["HTOD", "cuGraphLaunch", "DTOH"]
    assert names[last + 1 : -1] == ["cuGraphLaunch"] * 2 + each * 2


HEAD = "<IIII"


def marked(place: int, kind: int, start: int, end: int = 0) -> bytes:
    return struct.pack("<IIQQQ", place, kind, node_number(place), start, end)


SHAPES = {
    "nothing": b"",
    "cut": struct.pack(HEAD, 2, 2, 1, 0) + marked(0, COPY_NODE, 0),
    "more than there are": struct.pack(HEAD, 1, 2, 0, 0) + 2 * marked(0, COPY_NODE, 0),
    "no such place": struct.pack(HEAD, 1, 1, 0, 0) + marked(1, COPY_NODE, 0),
    "an edge to nowhere": struct.pack(HEAD, 1, 0, 1, 0) + struct.pack("<II", 0, 1),
    "a circle": struct.pack(HEAD, 2, 0, 2, 0) + struct.pack("<IIII", 0, 1, 1, 0),
    "a function that nobody gave": struct.pack(HEAD, 1, 1, 0, 0) + marked(0, HOST_NODE, 77),
    "huge": struct.pack(HEAD, 2**32 - 1, 2**31, 2**31, 0),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_order_that_cannot_be(broker: Broker, run: Callable[..., str], name: str) -> None:
    broker.answers["GRAPH_SHAPE"] = lambda peer, command: (0, SHAPES[name])
    out = run(broker, BY_HAND + "    add_function(); print(instantiate()[0])\n")
    assert out == "999\n"
    assert not broker.peer().named("cuGraphInstantiateWithFlags")


def test_a_call_that_fails_leaves_the_graph(broker: Broker, run: Callable[..., str]) -> None:
    """Whichever of the calls that an instance takes: the next attempt has all that there is."""
    failures = {"GRAPH_SHAPE": 1, "cuGraphHostNodeSetParams": 1}

    def once(name: str) -> Any:
        def fail(peer: Any, command: Any) -> Any:
            failures[name] -= 1
            return (2, b"") if failures[name] == 0 else None

        return fail

    broker.answers.update({name: once(name) for name in failures})
    out = run(
        broker,
        BY_HAND
        + """
    add_copy(True), add_function()
    results = [instantiate() for _ in range(4)]
    print([status for status, _ in results])
    check(cuda.cuGraphLaunch(results[-1][1], stream))
    """,
    )
    assert out == "[2, 2, 0, 0]\n"
    assert len(broker.peer().named("cuGraphHostNodeSetParams")) == 2
