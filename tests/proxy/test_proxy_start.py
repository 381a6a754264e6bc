# SPDX-License-Identifier: Apache-2.0
"""Loading, connecting, being refused, forking, ending."""

from __future__ import annotations

import pytest
from fake_peer import Broker, Peer
from wire_layout import MAGIC, PROTOCOL, SPEC_HASH, WELCOME


def test_nothing_happens_before_init(broker, run):
    out = run(
        broker,
        """
        import threading, os
        pfn = ctypes.c_void_p()
        cuda.cuGetProcAddress_v2(b"cuLaunchKernel", byref(pfn), 12000, 0, None)
        print(bool(pfn.value), len(os.listdir("/proc/self/task")), cuda.cuCtxSynchronize(),
              cuda.cuDeviceGetCount(byref(i32())))
    """,
    )
    assert out.split() == ["True", "1", "3", "3"]
    assert broker.peers == []


def test_closed_standard_streams_stay_closed(broker, run):
    out = run(
        broker,
        """
        import os
        kept = os.dup(1)
        for fd in range(3):
            os.close(fd)
        start()
        alloc(64)
        closed = []
        for fd in range(3):
            try:
                os.fstat(fd)
            except OSError:
                closed.append(fd)
        os.write(kept, repr(closed).encode())
    """,
    )
    assert out == "[0, 1, 2]"


def test_no_launcher_means_no_device(run):
    assert run(None, "print(cuda.cuInit(0))").strip() == "100"


def test_why_there_is_no_device_is_in_the_debug_log(start):
    process = start(None, "print(cuda.cuInit(0))", BITFUSION_DEBUG="1")
    out, err = process.communicate(timeout=100)
    assert out.strip() == "100" and "bitfusion run" in err


def test_refusal_of_the_launcher_is_said_in_one_line(broker, start):
    broker.refusal = (2, "no memory left on 'gpu01'")
    out, err = start(broker, "print(cuda.cuInit(0))").communicate(timeout=100)
    assert out.strip() == "2"
    assert err == "bitfusion: no GPU for this program: no memory left on 'gpu01'\n"


def change(**fields):
    def prepare(peer: Peer) -> None:
        for name, value in fields.items():
            setattr(peer, name, value)

    return prepare


@pytest.mark.parametrize(
    "fields, status, line",
    [
        (
            {"welcome_status": 802, "welcome_text": "too old"},
            "802",
            "refused this program: too old",
        ),
        (
            {"welcome_status": 802, "welcome_text": "too\r\n\x1b]0;x\x07\u202eold" + "x" * 900},
            "802",
            r"refused this program: too\x0d\n\x1b]0;x\x07\xe2\x80\xaeoldxxx",
        ),
        ({"welcome_hash": 1}, "803", "different versions"),
    ],
)
def test_refusal_of_the_server_is_said_in_one_line(start, fields, status, line):
    with Broker(change(**fields)) as broker:
        out, err = start(broker, "print(cuda.cuInit(0))").communicate(timeout=100)
    assert out.strip() == status
    assert line in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "first_words",
    [b"", WELCOME.pack(MAGIC, PROTOCOL, 0, SPEC_HASH, 8, 0)],
    ids=["nothing", "no reason"],
)
def test_a_server_that_says_nothing_is_not_waited_for_for_ever(start, first_words):
    def listen(peer: Peer) -> None:
        peer.send(first_words)
        peer.receive(1 << 30)  # until the program gives up

    with Broker(lambda peer: setattr(peer, "shake_hands", lambda: listen(peer))) as broker:
        broker.patience_us = 200_000
        out, err = start(broker, "print(cuda.cuInit(0))").communicate(timeout=100)
        assert broker.peer().ended.wait(100)
    assert out.strip() == "802"
    assert err == (
        "bitfusion: the GPU server took the connection and said nothing for 0.2 s: its worker "
        "hangs or is stopped; see the server's log, then start the program again\n"
    )


def test_devices_come_in_one_message_and_are_answered_here(broker, run):
    out = run(
        broker,
        """
        start()
        value = i32()
        for attribute in (1, 16, 19, 75, 83):
            check(cuda.cuDeviceGetAttribute(byref(value), attribute, 0))
            print(value.value)
        name = ctypes.create_string_buffer(64)
        check(cuda.cuDeviceGetName(name, 64, 0))
        version = i32()
        check(cuda.cuDriverGetVersion(byref(version)))
        print(name.value.decode(), version.value, cuda.cuDeviceGetAttribute(byref(value), 16, 1))
    """,
    )
    assert out.split("\n")[:6] == ["1024", "4", "0", "12", "0", "Fake GPU 0 13000 101"]
    assert [c.name for c in broker.peer().commands] == ["DEVICES", "GOODBYE"]


@pytest.mark.parametrize(
    "visible, buses",
    [
        ("1,0", [2, 1]),
        ("2", [3]),
        ("0,7,1", [1]),
        ("GPU-02020202-0202", [2]),
        ("GPU-01,GPU-03", [1, 3]),
        ("1,1", []),
        ("0x1", []),
        ("GPU-0", []),
        (" 0 , 2", [1, 3]),
        ("", []),
        ("-1", []),
        ("nonsense", []),
    ],
)
def test_visible_devices(run, visible, buses):
    with Broker(devices=3) as broker:
        out = run(
            broker,
            """
            status = cuda.cuInit(0)
            count, bus = i32(), i32()
            if status:
                print(status)
            else:
                check(cuda.cuDeviceGetCount(byref(count)))
                for device in range(count.value):
                    check(cuda.cuDeviceGetAttribute(byref(bus), 33, device))
                    print(bus.value)
        """,
            CUDA_VISIBLE_DEVICES=visible,
        )
        assert [int(word) for word in out.split()] == (buses or [100])
        assert "CUDA_VISIBLE_DEVICES" not in broker.peer().environment


def test_the_context_of_a_command_is_the_servers_number(run):
    with Broker(devices=3) as broker:
        run(broker, "start(); alloc(64)", CUDA_VISIBLE_DEVICES="2", CUDA_CACHE_DISABLE="1")
        assert broker.peer().named("ALLOC")[0].context == 3
        assert broker.peer().environment == {"CUDA_CACHE_DISABLE": "1"}


def test_the_end_sends_what_was_one_way(broker, run):
    run(
        broker,
        """
        start()
        memory = alloc(64)
        check(cuda.cuMemsetD8_v2(memory, 1, 64))
        check(cuda.cuMemFree_v2(memory))
    """,
    )
    names = [c.name for c in broker.peer().commands]
    assert names == ["DEVICES", "ALLOC", "cuMemsetD8_v2", "FREE", "GOODBYE"]


def test_child_of_an_initialised_parent_is_not_initialised(broker, run):
    out = run(
        broker,
        """
        start()
        memory = alloc(64)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            print(cuda.cuInit(0), cuda.cuMemFree_v2(memory), cuda.cuCtxSynchronize())
            sys.exit(0)
        print(os.waitpid(child, 0)[1])
        check(cuda.cuMemsetD8_v2(memory, 1, 64))
        check(cuda.cuCtxSynchronize())
    """,
    )
    assert out.split() == ["3", "3", "3", "0"]
    assert len(broker.peers) == 1
    names = [c.name for c in broker.peer().commands]
    assert names == ["DEVICES", "ALLOC", "cuMemsetD8_v2", "cuCtxSynchronize", "GOODBYE"]


def test_child_of_a_parent_without_init_connects_by_itself(broker, run):
    out = run(
        broker,
        """
        pfn = ctypes.c_void_p()
        cuda.cuGetProcAddress_v2(b"cuInit", byref(pfn), 12000, 0, None)
        child = os.fork()
        start()
        os.write(1, b"%r\\n" % (alloc(64) > 0))  # in one piece: two processes write here
        if child:
            sys.exit(os.waitpid(child, 0)[1])
    """,
    )
    assert out.split() == ["True", "True"]
    assert len(broker.peers) == 2


def test_a_lost_connection_is_said_once_and_every_call_fails(broker, start):
    process = start(
        broker,
        """
        start()
        memory = alloc(64)
        print("ready", flush=True)
        sys.stdin.readline()
        print([cuda.cuCtxSynchronize() for _ in range(3)], cuda.cuMemFree_v2(memory),
              cuda.cuInit(0),
              cuda.cuMemsetD8_v2(memory, 0, 1), cuda.cuDeviceGetCount(byref(i32())))
    """,
    )
    assert process.stdout.readline() == "ready\n"
    broker.peer().connection.shutdown(2)
    broker.peer().ended.wait(100)
    out, err = process.communicate("go\n", timeout=100)
    assert process.returncode == 0
    assert out == "[46, 46, 46] 46 46 46 46\n"
    assert err == "bitfusion: connection to the GPU server was lost\n"


def test_a_server_that_breaks_the_rules_loses_the_connection(broker, start):
    broker.answers["cuCtxSynchronize"] = lambda peer, command: peer.send(b"\xff" * 24)
    process = start(
        broker,
        """
        start()
        print("ready", flush=True)
        sys.stdin.readline()
        print(cuda.cuCtxSynchronize())
    """,
    )
    process.stdout.readline()
    out, err = process.communicate("go\n", timeout=100)
    assert out == "46\n" and "was lost" in err


def test_what_is_not_there_is_named_once(start):
    program = """
        pfn = ctypes.c_void_p()
        for _ in range(5):
            for name in (b"cuNoSuchThing", b"cuMulticastCreate"):
                cuda.cuGetProcAddress_v2(name, byref(pfn), 12000, 0, None)
                cuda.cuGetProcAddress(name, byref(pfn), 12000, 0)
    """
    _, err = start(None, program, BITFUSION_DEBUG="1").communicate(timeout=100)
    assert [err.count(name) for name in ("cuNoSuchThing", "cuMulticastCreate")] == [1, 1]
