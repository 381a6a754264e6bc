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
nodes = (c.c_uint64 * 64)()
check(d.cuGraphCreate(c.byref(graph), 0))

def found(name):  # as the runtime finds it
    address = c.c_void_p()
    check(d.cuGetProcAddress_v2(name, c.byref(address), 13000, c.c_uint64(0), None))
    return c.CFUNCTYPE(c.c_int, *[c.c_void_p] * 5)(address.value)

for _ in range(2):
    print(found(b"cuGraphAddHostNode")(c.addressof(nodes), graph, None, 0, c.addressof(nodes)))
    print(found(b"cuGraphAddMemAllocNode")(c.addressof(nodes), graph, None, 0, c.addressof(nodes)))
    copy = bytes(32) + c.string_at(c.byref(c.c_int(1)), 4)  # srcMemoryType: host
    print(d.cuGraphAddMemcpyNode(nodes, graph, None, 0, copy + bytes(200), context))
"""


def test_refused_by_hand(gpu: Any) -> None:
    """Nodes that need the program say so once, and what to do instead."""
    code = PROGRAM + BY_HAND
    done = gpu.run("tcp", sys.executable, "-c", code, env={"PYTHONPATH": "."})
    assert (done.returncode, done.stdout) == (0, "801\n" * 6), done.stderr
    told = [line for line in done.stderr.splitlines() if " is not supported on a server" in line]
    assert [line.split()[1] for line in told] == [
        "cuGraphAddHostNode",
        "cuGraphAddMemAllocNode",
        "cuGraphAddMemcpyNode",
    ]
    assert all(" instead" in line for line in told)


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
