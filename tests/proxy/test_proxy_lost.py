# SPDX-License-Identifier: Apache-2.0
"""A lost connection: who gets an error may do with its memory what it likes."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time

from fake_peer import LATER, OUTPUT_KIND, REPLY

SLOW = """
    import threading, time
    context, streams = start(), [made(cuda.cuStreamCreate, 1) for _ in range(2)]
    device, memory = alloc(4096), ctypes.create_string_buffer(4096)
    check(cuda.cuMemHostRegister_v2(memory, 4096, 0))
    def given_back():
        # whatever fails tells that the connection is lost
        while not cuda.cuMemsetD8Async(device, 1, 16, streams[1]):
            time.sleep(0.001)
        cuda.cuMemHostUnregister(memory)
        ctypes.memset(memory, 1, 4096)
        time.sleep(0.5)
"""


def lost(process):
    """Waits until the program has lost the connection, and a little longer."""
    assert "lost" in process.stderr.readline()
    time.sleep(0.3)


def test_nothing_comes_in_after_an_error(broker, start):
    """A full pipe holds up the thread that reads the socket; the copy comes behind that."""

    def synchronize(peer, command):
        copy = peer.named("DTOH")[0]
        peer.send_output(1, b"y" * 30000)
        peer.send_data(copy.request, 0, b"d" * 4096)
        peer.connection.shutdown(socket.SHUT_RD)
        return LATER

    broker.answers["DTOH"] = lambda peer, command: LATER
    broker.answers["cuStreamSynchronize"] = synchronize
    process = start(
        broker,
        SLOW
        + """
    os.write(1, b"x" * 60000)
    def read():
        check(cuda.cuCtxSetCurrent(context))
        check(cuda.cuMemcpyDtoHAsync_v2(memory, device, 4096, streams[0]))
        cuda.cuStreamSynchronize(streams[0])
    reader = threading.Thread(target=read)
    reader.start()
    given_back()
    reader.join()
    print(set(memory.raw), file=sys.stderr)
    """,
    )
    lost(process)
    _, errors = process.communicate(timeout=100)
    assert errors == "{1}\n"


def test_pinned_memory_is_freed_after_its_copy_also_when_the_wait_fails(broker, run):
    def synchronize(peer, command):
        copy = peer.named("DTOH")[0]
        peer.reply(command.request, 1)
        time.sleep(0.3)
        peer.send_data(copy.request, 0, b"d" * 300000)
        peer.reply(copy.request)
        return LATER

    broker.answers["DTOH"] = lambda peer, command: LATER
    broker.answers["cuStreamSynchronize"] = synchronize
    out = run(
        broker,
        """
        start()
        device, memory = alloc(300000), made(cuda.cuMemHostAlloc, 300000, 0)
        stream = made(cuda.cuStreamCreate, 1)
        check(cuda.cuMemcpyDtoHAsync_v2(memory, device, 300000, stream))
        print(cuda.cuMemFreeHost(memory), cuda.cuMemGetInfo_v2(None, None))
    """,
    )
    assert out == "0 0\n"


def test_what_follows_a_broken_rule_is_not_believed(broker, start):
    """The thread that sends finds the rule broken, and is held up by a full pipe when it says so;
    meanwhile the thread that runs host functions could read on.
    """
    broken = REPLY.pack(REPLY.size, 99, 0, 0, 0, 0)  # of a kind that there is not
    output = REPLY.pack(REPLY.size + 16, OUTPUT_KIND, 0, 0, 0, 0) + struct.pack("<II", 1, 8)

    def upload(peer, command):
        time.sleep(0.3)  # until the program can send no more
        peer.send(broken + output + b"believed")
        ended.wait(60)
        raise EOFError

    ended = threading.Event()
    broker.answers["HTOD"] = upload
    process = start(
        broker,
        """
    import fcntl, threading
    start()
    host = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda unused: None)
    check(cuda.cuLaunchHostFunc(0, host, 0))
    check(cuda.cuCtxSynchronize())
    device, piece = alloc(32 << 20), bytes(1 << 20)
    fcntl.fcntl(2, 1031, 4096)  # F_SETPIPE_SZ
    os.write(2, b"x" * (4096 - 140) + b"\\n")
    for offset in range(0, 32 << 20, 1 << 20):
        if cuda.cuMemcpyHtoD_v2(device + offset, piece, len(piece)):
            break
    """,
    )
    select.select([process.stdout], [], [], 0.5)  # it is not to come
    ended.set()
    out, errors = process.communicate(timeout=100)
    assert "broke the rules" in errors and "lost" in errors
    assert out == ""
