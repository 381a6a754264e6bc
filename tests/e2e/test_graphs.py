# SPDX-License-Identifier: Apache-2.0
"""Graphs that would need the program's memory in the middle of a launch are refused, not wrong."""

from __future__ import annotations

import sys
from typing import Any

import pytest

PROGRAM = """
import ctypes as c
from bitfusion.api.ctypes_driver import load
d = load("libcuda.so.1")
context, stream, graph, execution = c.c_void_p(), c.c_void_p(), c.c_void_p(), c.c_void_p()
memory, host = c.c_uint64(), c.create_string_buffer(4096)
FUNCTION = c.CFUNCTYPE(None, c.c_void_p)
function = FUNCTION(lambda data: None)

def check(status):
    assert status == 0, status

def begin():
    check(d.cuStreamBeginCapture_v2(stream, 2))

def end():
    status = d.cuStreamEndCapture(stream, c.byref(graph))
    return status

check(d.cuInit(0))
check(d.cuDevicePrimaryCtxRetain(c.byref(context), 0))
check(d.cuCtxSetCurrent(context))
check(d.cuMemAlloc_v2(c.byref(memory), 4096))
check(d.cuStreamCreate(c.byref(stream), 1))
at = c.addressof(host)
up = lambda first=0, size=64: d.cuMemcpyHtoDAsync_v2(memory, at + first, size, stream)
down = lambda first=0, size=64: d.cuMemcpyDtoHAsync_v2(at + first, memory, size, stream)
call = lambda where=stream: d.cuLaunchHostFunc(where, c.cast(function, c.c_void_p), None)
into = lambda: d.cuStreamBeginCaptureToGraph(stream, graph, None, None, 0, 2)
other, event = c.c_void_p(), c.c_void_p()

def fork():
    check(d.cuStreamCreate(c.byref(other), 1))
    check(d.cuEventCreate(c.byref(event), 2))
    check(d.cuEventRecord(event, stream))
    check(d.cuStreamWaitEvent(other, event, 0))
"""

CASES = {
    "upload behind a function": "begin(); check(call()); print(up())",
    "function beside a download": "begin(); check(down()); fork(); print(call(other))",
    "function beside one that brings a download": "begin(); check(down()); check(call()); fork();"
    "print(call(other))",
    "function of a stream that leaves its downloads": "begin(); check(down());"
    "check(d.cuStreamUpdateCaptureDependencies(stream, None, 0, 1)); print(call())",
    "function into a graph with downloads": "begin(); check(down()); check(end());"
    "check(into()); print(call())",
    "upload into a graph with functions": "begin(); check(call()); check(end());"
    "check(into()); print(up())",
    "download into a graph that reads it": "begin(); check(up(0, 64)); check(end());"
    "check(into()); print(down(32, 64))",
    "writes what it reads": "begin(); check(up(0, 64)); print(down(32, 64))",
    "callback": "begin(); print(d.cuStreamAddCallback(stream, at, 1, 0))",
    "host to host": "begin(); print(d.cuMemcpyAsync(at, at + 64, 64, stream))",
    "launch with host memory inside a capture": "begin(); check(up()); check(end());"
    "check(d.cuGraphInstantiateWithFlags(c.byref(execution), graph, 0));"
    "begin(); print(d.cuGraphLaunch(execution, stream))",
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_refused(gpu: Any, name: str) -> None:
    """And the capture with it, for its graph would lack a node: a program may not look at 900."""
    code = PROGRAM + CASES[name] + "\nprint(end())\n"
    done = gpu.run("unix", sys.executable, "-c", code, env={"PYTHONPATH": "."})
    ours = name != "callback"  # which CUDA does not capture either
    assert (done.returncode, done.stdout) == (0, f"900\n{901 if ours else 0}\n"), done.stderr
    assert ("a stream capture is broken off: " in done.stderr) == ours


BY_HAND = """
check(d.cuGraphCreate(c.byref(graph), 0))
found = {}
for name in ("cuGraphAddHostNode", "cuGraphAddDependencies", "cuGraphNodeSetEnabled"):
    address = c.c_void_p()
    check(d.cuGetProcAddress_v2(name.encode(), c.byref(address), 12000, c.c_uint64(0), None))
    found[name] = address.value

def call_it(name, *arguments):
    return c.CFUNCTYPE(c.c_int, *[c.c_void_p] * len(arguments))(found[name])(*arguments)

def behind(nodes):
    return (c.c_void_p * len(nodes))(*nodes), c.c_size_t(len(nodes))

def add_function(*nodes):
    node, params = c.c_void_p(), (c.c_void_p * 2)(c.cast(function, c.c_void_p), None)
    array, count = behind(nodes)
    check(call_it("cuGraphAddHostNode", c.addressof(node), graph, c.addressof(array), count.value,
                  c.addressof(params)))
    return node.value

def copying(host, to_host, rows=1, pitch=0):
    side = lambda kind, at: [0, 0, 0, 0, kind, at if kind == 1 else 0, at if kind == 2 else 0,
                             0, 0, pitch if kind == 1 else 0, 0]
    ends = side(1, host), side(2 if to_host < 2 else 1, memory.value if to_host < 2 else at + 64)
    first, second = ends if not to_host else ends[::-1]
    return (c.c_uint64 * 25)(*first, *second, 64, rows, 1)

def add_copy(host, to_host, *nodes, **shape):
    node = c.c_void_p()
    array, count = behind(nodes)
    status = d.cuGraphAddMemcpyNode(c.byref(node), graph, array, count,
                                    copying(host, to_host, **shape), context)
    return node.value if not status else status

def instantiate():
    return d.cuGraphInstantiateWithFlags(c.byref(execution), graph, 0)
"""

BY_HAND_CASES = {
    "a copy of host memory to the device behind a host function": "x = add_function();"
    "add_copy(at, 0, x); print(instantiate())",
    "a copy of host memory to the device behind one": "x = add_copy(at + 32, 1);"
    "add_copy(at, 0, x); print(instantiate())",
    "a graph with two host functions": "x = add_copy(at, 1); add_function(x); add_function(x);"
    "print(instantiate())",
    "cuGraphAddMemcpyNode from host to host": "print(add_copy(at, 2))",
    "cuGraphAddMemcpyNode of rows": "print(add_copy(at, 1, rows=2, pitch=80))",
    "a switch for a copy": "x = add_copy(at, 1); add_function(x); check(instantiate());"
    "print(call_it('cuGraphNodeSetEnabled', execution, x, 0))",
    "a copy of an instance that is made": "x = add_copy(at, 1);"
    "y = c.c_void_p(add_copy(at + 64, 0, x)); check(instantiate());"
    "print(d.cuGraphExecMemcpyNodeSetParams(execution, y, copying(at + 8, 0), context))",
}


@pytest.mark.parametrize("name", sorted(BY_HAND_CASES))
def test_refused_by_hand(gpu: Any, name: str) -> None:
    """Said once, by name, and what to do instead."""
    code = PROGRAM + BY_HAND + BY_HAND_CASES[name] + "\n"
    done = gpu.run("unix", sys.executable, "-c", code, env={"PYTHONPATH": "."})
    assert (done.returncode, done.stdout) == (0, "801\n"), done.stderr
    told = [line for line in done.stderr.splitlines() if " is not supported on a server" in line]
    assert len(told) == 1 and told[0].startswith("bitfusion: " + name), done.stderr
    assert told[0].endswith(" instead")


SIDE_BY_SIDE = """
begin(); fork(); check(up()); check(call(other))
check(d.cuEventRecord(event, other)); check(d.cuStreamWaitEvent(stream, event, 0)); check(end())
"""


@pytest.mark.parametrize("ordered", [False, True])
def test_dependencies_added_to_a_capture(gpu: Any, ordered: bool) -> None:
    """A function that was captured beside the copy is then ahead of it."""
    add = """
nodes, count, types = (c.c_void_p * 2)(), c.c_size_t(2), {}
check(d.cuGraphGetNodes(graph, nodes, c.byref(count)))
for node in nodes:
    kind = c.c_int()
    check(d.cuGraphNodeGetType(c.c_void_p(node), c.byref(kind)))
    types[kind.value] = node
pair = [(c.c_void_p * 1)(types[kind]) for kind in (3, 1)]  # host, memcpy
check(call_it("cuGraphAddDependencies", graph, c.addressof(pair[0]), c.addressof(pair[1]), 1))
"""
    hand = BY_HAND.replace("check(d.cuGraphCreate(c.byref(graph), 0))", SIDE_BY_SIDE)
    code = PROGRAM + hand + (add if ordered else "") + "print(instantiate())\n"
    done = gpu.run("unix", sys.executable, "-c", code, env={"PYTHONPATH": "."})
    assert (done.returncode, done.stdout) == (0, "801\n" if ordered else "0\n"), done.stderr


def test_many_captures_leave_no_memory(gpu: Any) -> None:
    """Each graph with host copies takes device memory of ours; destroying it gives that back."""
    code = PROGRAM + (
        "free, total = c.c_size_t(), c.c_size_t()\n"
        "before = None\n"
        "for i in range(40):\n"
        "    begin(); check(up(0, 2048)); check(down(2048, 2048)); check(end())\n"
        "    check(d.cuGraphInstantiateWithFlags(c.byref(execution), graph, 0))\n"
        "    check(d.cuGraphDestroy(graph))\n"
        "    host[:4] = bytes([i, i, i, i])\n"
        "    check(d.cuGraphLaunch(execution, stream))\n"
        "    check(d.cuStreamSynchronize(stream))\n"
        "    assert host.raw[2048:2052] == bytes([i] * 4), i\n"
        "    check(d.cuGraphExecDestroy(execution))\n"
        "    check(d.cuMemGetInfo_v2(c.byref(free), c.byref(total)))\n"
        "    before = before or free.value\n"
        "    assert free.value == before\n"
        "print('right')\n"
    )
    done = gpu.run("tcp", sys.executable, "-c", code, env={"PYTHONPATH": "."})
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
