# SPDX-License-Identifier: Apache-2.0
"""Many threads waiting on one socket, host functions, device output."""

from __future__ import annotations

import time

from fake_peer import LATER


def test_threads_wait_together_and_each_gets_its_own_answer(broker, run):
    out = run(
        broker,
        """
        import threading
        context = start()
        bad = []
        def work(n):
            check(cuda.cuCtxSetCurrent(context))
            memory, target = alloc(8192), ctypes.create_string_buffer(8192)
            for i in range(50):
                data = bytes([n * 16 + i % 16]) * (1 + (n * 1000 + i * 77) % 8192)
                check(cuda.cuMemcpyHtoD_v2(memory, data, len(data)))
                check(cuda.cuMemcpyDtoH_v2(target, memory, len(data)))
                if target.raw[:len(data)] != data:
                    bad.append((n, i))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(bad)
    """,
    )
    assert out == "[]\n"


def test_answers_may_come_out_of_order(broker, run):
    held = []

    def answer(peer, command):
        """Held until all three are there, then answered last first, each with its stream's."""
        held.append(command)
        if len(held) == 3:
            streams = sorted(other.words()[0] for other in held)
            for other in reversed(held):
                peer.reply(other.request, 1 + streams.index(other.words()[0]))
        return LATER

    broker.answers["cuStreamSynchronize"] = answer
    out = run(
        broker,
        """
        import threading
        context = start()
        streams = [made(cuda.cuStreamCreate, 1) for _ in range(3)]
        found = {}
        def work(n):
            check(cuda.cuCtxSetCurrent(context))
            found[n] = cuda.cuStreamSynchronize(streams[n])
        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print([found[n] for n in range(3)])
    """,
    )
    assert out == "[1, 2, 3]\n"


def test_a_waiting_thread_does_not_stop_another_ones_commands(broker, run):
    held = []

    def hold(peer, command):
        held.append(command)
        return LATER

    broker.answers["cuCtxSynchronize"] = hold
    broker.answers["cuMemsetD8_v2"] = lambda peer, command: (
        peer.reply(held.pop().request) if held else None
    )
    run(
        broker,
        """
        import threading, time
        context = start()
        memory = alloc(64)
        def wait():
            check(cuda.cuCtxSetCurrent(context))
            check(cuda.cuCtxSynchronize())
        thread = threading.Thread(target=wait)
        thread.start()
        while thread.is_alive():  # the first may be there before the wait is
            check(cuda.cuMemsetD8_v2(memory, 1, 64))
            thread.join(0.05)
    """,
    )
    assert len(broker.peer().named("cuCtxSynchronize")) == 1


def test_the_tail_of_a_burst_goes_out_by_itself(broker, start):
    process = start(
        broker,
        """
        start()
        memory = alloc(64)
        for _ in range(50):
            check(cuda.cuMemsetD8_v2(memory, 1, 64))
        print("ready", flush=True)
        sys.stdin.readline()
    """,
    )
    process.stdout.readline()
    assert len(broker.peer().wait_for("cuMemsetD8_v2", 50)) == 50
    process.communicate("go\n", timeout=100)


def host_functions(broker):
    """Calls back at once, and holds the answers of waits until the functions have returned."""
    held = []

    def call(peer, command):
        stream, function, data, kind = command.words()
        peer.send_callback(len(peer.named("HOST_FUNCTION")), function, data, kind & 0xFFFFFFFF)

    def pending(peer):
        return len(peer.named("HOST_FUNCTION")) - len(peer.named("CALLBACK_DONE"))

    def done(peer, command):
        while held and not pending(peer):
            peer.reply(held.pop().request)

    def wait(peer, command):
        if not pending(peer):
            return None
        held.append(command)
        return LATER

    broker.answers.update(HOST_FUNCTION=call, CALLBACK_DONE=done)
    broker.answers.update(cuCtxSynchronize=wait, cuStreamSynchronize=wait)


def test_host_functions_run_here_and_are_waited_for(broker, run):
    host_functions(broker)
    out = run(
        broker,
        """
        import threading
        start()
        ran = []
        HOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        STREAM = ctypes.CFUNCTYPE(None, ctypes.c_void_p, i32, ctypes.c_void_p)
        on_main = lambda: threading.current_thread() is threading.main_thread()
        first = HOST(lambda data: ran.append((data, on_main())))
        second = STREAM(lambda stream, status, data: ran.append((stream, status, data)))
        check(cuda.cuLaunchHostFunc(0, first, 7))
        check(cuda.cuStreamAddCallback(0, second, 8, 0))
        check(cuda.cuCtxSynchronize())
        print(ran)
    """,
    )
    assert out == "[(7, False), (None, 0, 8)]\n"


def test_a_host_function_runs_while_no_thread_waits(broker, run):
    host_functions(broker)
    run(
        broker,
        """
        import threading
        start()
        ran = threading.Event()
        HOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        function = HOST(lambda data: ran.set())
        check(cuda.cuLaunchHostFunc(0, function, None))
        assert ran.wait(100)
    """,
    )


def test_a_copy_reads_pinned_memory_after_the_host_function_that_writes_it(broker, run):
    host_functions(broker)
    broker.answers["LATE"] = broker.answers["CALLBACK_DONE"]  # only then may waits be over

    def fetch(peer, command):
        peer.send_fetch(peer.named("HTOD")[0].words()[4] >> 32, 64)

    broker.answers["CALLBACK_DONE"] = fetch
    broker.answers["cuStreamQuery"] = lambda peer, command: (600, b"")
    run(
        broker,
        """
        import threading
        start()
        memory, source, copied, waited = alloc(64), pinned(64), threading.Event(), []
        HOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def write(data):
            waited.append(copied.wait(60))
            ctypes.memset(source, ord("k"), 64)
        function = HOST(write)
        check(cuda.cuLaunchHostFunc(0, function, None))
        check(cuda.cuMemcpyHtoDAsync_v2(memory, source, 64, 0))
        copied.set()
        check(cuda.cuCtxSynchronize())
        assert waited == [True]
    """,
    )
    assert broker.peer().named("HTOD")[0].bulk == b""
    assert broker.peer().wait_for("LATE")[0].bulk == b"k" * 64


def test_what_the_device_prints_is_printed_here_in_order(broker, run):
    broker.answers["cuCtxSynchronize"] = lambda peer, command: peer.send_output(
        1, b"from the device\n"
    )
    out = run(
        broker,
        """
        start()
        libc = ctypes.CDLL(None)
        libc.puts(b"before")
        alloc(64)
        check(cuda.cuCtxSynchronize())
        libc.puts(b"after")
    """,
    )
    assert out == "before\nfrom the device\nafter\n"


def test_losing_the_connection_wakes_all_threads(broker, start):
    def cut(peer, command):
        time.sleep(0.5)
        raise EOFError

    broker.answers["cuStreamSynchronize"] = cut
    process = start(
        broker,
        """
        import threading
        context = start()
        streams = [made(cuda.cuStreamCreate, 1) for _ in range(5)]
        found = []
        def work(n):
            check(cuda.cuCtxSetCurrent(context))
            found.append(cuda.cuStreamSynchronize(streams[n]))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(found)
    """,
    )
    out, err = process.communicate(timeout=100)
    assert out == "[46, 46, 46, 46, 46]\n"
    assert err.count("\n") == 1


def test_neighbours_allocated_at_once_are_no_conflict(broker, run):
    run(
        broker,
        """
        import threading
        context = start()
        def work():
            check(cuda.cuCtxSetCurrent(context))
            for _ in range(100):
                alloc(256)
        threads = [threading.Thread(target=work) for _ in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    """,
    )
    assert len(broker.peer().named("ALLOC")) == 600


def test_a_full_link_both_ways_goes_on(broker, run):
    """The peer reads no further command until what it sends is taken."""
    out = run(
        broker,
        """
        start()
        size = 32 << 20
        memory, other, target = alloc(size), alloc(size), pinned(size)
        check(cuda.cuMemcpyDtoHAsync_v2(ctypes.addressof(target), memory, size, 0))
        piece = bytes(1 << 20)
        for offset in range(0, size, len(piece)):
            check(cuda.cuMemcpyHtoD_v2(other + offset, piece, len(piece)))
        check(cuda.cuCtxSynchronize())
        print(target[0] + target[size - 1] == b"\\xee\\xee")
    """,
    )
    assert out == "True\n"
