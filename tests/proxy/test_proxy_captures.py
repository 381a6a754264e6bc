# SPDX-License-Identifier: Apache-2.0
"""Which streams are in a capture is known here: a server that errs must not reach host memory."""

from __future__ import annotations

import struct

import pytest

CAPTURED = """
    context = start()
    origin, other = (made(cuda.cuStreamCreate, 1) for _ in range(2))
    event = made(cuda.cuEventCreate, 0)
    memory = alloc(8192)
    host = ctypes.create_string_buffer(b"x" * 8192, 8192)
    def launch():
        graph, program = u64(), u64()
        check(cuda.cuStreamEndCapture(origin, byref(graph)))
        check(cuda.cuGraphInstantiateWithFlags(byref(program), graph.value, 0))
        ctypes.memset(host, 0, 8192)
        check(cuda.cuGraphLaunch(program.value, origin))
        check(cuda.cuCtxSynchronize())
    check(cuda.cuStreamBeginCapture_v2(origin, 2))
"""


@pytest.fixture(autouse=True)
def everything_is_captured(broker):
    """To this server all streams are in one capture as long as there is any."""
    state = [0]

    def begin(peer, command):
        state[0] = 1

    def end(peer, command):
        state[0] = 0
        return 0, struct.pack("<Q", command.words()[1])

    broker.answers["cuStreamBeginCapture_v2"] = begin
    broker.answers["cuStreamEndCapture"] = end
    broker.answers["cuStreamGetCaptureInfo"] = lambda peer, c: (0, struct.pack("<QQ", state[0], 7))


def uploads(broker):
    return [copy.bulk[:1] for copy in broker.peer().named("HTOD")]


def test_a_copy_in_another_stream_is_not_captured(broker, run):
    run(
        broker,
        CAPTURED
        + """
    check(cuda.cuMemcpyHtoDAsync_v2(memory, host, 8192, other))
    launch()
    """,
    )
    assert uploads(broker) == [b"x"]


@pytest.mark.parametrize("flavour", ["", "_ptsz"])
def test_a_stream_joins_a_capture_by_an_event(broker, run, flavour):
    """Its copies are then made by the launch, with what the memory holds at that time."""
    run(
        broker,
        CAPTURED
        + """
    check(cuda.cuEventRecord(event, origin))
    check(cuda.cuStreamWaitEvent%s(other, event, 0))
    check(cuda.cuMemcpyHtoDAsync_v2(memory, host, 8192, other))
    launch()
    check(cuda.cuMemcpyHtoDAsync_v2(memory, host, 8192, other))
    """
        % flavour,
    )
    assert uploads(broker) == [b"\0", b"\0"]


def test_an_event_that_is_recorded_again_leaves_the_capture(broker, run):
    run(
        broker,
        CAPTURED
        + """
    check(cuda.cuEventRecord(event, origin))
    check(cuda.cuEventRecord(event, other))
    check(cuda.cuStreamWaitEvent(other, event, 0))
    check(cuda.cuMemcpyHtoDAsync_v2(memory, host, 8192, other))
    launch()
    """,
    )
    assert uploads(broker) == [b"x"]


def test_the_legacy_stream_is_in_no_capture(broker, run):
    out = run(
        broker,
        CAPTURED
        + """
    print(cuda.cuMemcpyHtoDAsync_v2(memory, host, 8192, None))
    launch()
    """,
    )
    assert out == "900\n" and uploads(broker) == []
