# SPDX-License-Identifier: Apache-2.0
"""Memory of both sides: when it is fetched, what is waited for, where variables of code lie."""

from __future__ import annotations

import struct
import threading

import pytest
from fake_peer import LATER, PROGRESS_KIND, REPLY

RESERVED = 0x2100_0000_0000
VARIABLE = 0x7E98_7654_3000

MANAGED = """
    context = start()
    function = kernel()
    shared = made(cuda.cuMemAllocManaged, 4096, 1)
    def launch(stream):
        values = parameters(u64(shared), i32(1), ctypes.c_char(1))
        check(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, values, None))
"""


@pytest.fixture(autouse=True)
def there_is_shared_memory(broker):
    """Blocks at ever higher addresses; nothing that a kernel does changes any."""
    given = [RESERVED]

    def reserve(peer, command):
        given[0] += 1 << 30
        return 0, struct.pack("<Q", given[0])

    broker.answers["cuMemAddressReserve"] = reserve
    broker.answers["cuMemCreate"] = lambda peer, command: (0, command.body[8:16])
    broker.answers["REFRESH"] = lambda peer, command: (0, struct.pack("<Q", 0))


def fetches(broker):
    return len(broker.peer().named("REFRESH"))


def sent(broker, *names):
    return [command.name for command in broker.peer().commands if command.name in names]


def test_a_wait_behind_which_nothing_is_under_way_fetches_nothing(broker, run):
    run(
        broker,
        MANAGED
        + """
    launch(None)
    check(cuda.cuCtxSynchronize())
    other = alloc(16)
    check(cuda.cuMemsetD8_v2(other, 0, 16))
    check(cuda.cuCtxSynchronize())
    """,
    )
    assert fetches(broker) == 1


def test_work_in_many_streams_of_two_contexts_is_known_to_be_over(broker, run):
    run(
        broker,
        MANAGED
        + """
    streams = []
    for each in (context, made(cuda.cuCtxCreate_v2, 0, 0)):
        check(cuda.cuCtxSetCurrent(each))
        function = kernel()
        own = [made(cuda.cuStreamCreate, 1) for _ in range(40)]
        for stream in own:
            launch(stream)
        streams += own
    for stream in streams:
        check(cuda.cuStreamSynchronize(stream))
    other = alloc(16)
    for _ in range(10):
        check(cuda.cuMemsetD8Async(other, 0, 16, streams[0]))
        check(cuda.cuStreamSynchronize(streams[0]))
    """,
    )
    assert fetches(broker) == 80


DESTROYED = (
    MANAGED
    + """
    doomed, other = (made(cuda.cuStreamCreate, 1) for _ in range(2))
    memory = alloc(16)
    launch(doomed)
    check(cuda.cuStreamDestroy_v2(doomed))
"""
)


def test_work_of_a_destroyed_stream_is_waited_for_by_itself(broker, run):
    """All of a context must not be: that ends captures on a real driver."""
    run(broker, DESTROYED + "    check(cuda.cuMemFree_v2(memory))\n")
    names = ("cuEventRecord", "cuStreamWaitEvent", "cuStreamDestroy_v2", "cuStreamSynchronize")
    assert sent(broker, *names, "cuCtxSynchronize", "FREE")[-5:] == [*names, "FREE"]
    peer = broker.peer()
    doomed = peer.named("cuStreamDestroy_v2")[0].words()[0]
    waiting = peer.named("cuStreamWaitEvent")[-1].words()
    assert peer.named("cuEventRecord")[-1].words() == (waiting[1], doomed)
    assert peer.named("cuStreamSynchronize")[-1].words()[0] == waiting[0] != doomed


def test_a_stream_that_another_thread_destroys_is_no_failure_of_who_frees(broker, run):
    """The server may hear of the end of the stream before it hears of the wait."""
    answers = iter([0, 400, 400])  # the first is for a stream of the proxy's
    broker.answers["cuStreamSynchronize"] = lambda peer, command: (next(answers), b"")
    program = (
        MANAGED
        + """
    memory, stream = alloc(16), made(cuda.cuStreamCreate, 1)
    launch(stream)
    check(cuda.cuMemFree_v2(memory))
    check(cuda.cuCtxSynchronize())
    """
    )
    run(broker, program)
    assert len(sent(broker, "cuStreamSynchronize")) == 3


def test_an_earlier_failure_is_told_although_such_a_wait_hears_of_it(broker, run):
    answers = iter([0, 400, 0])
    broker.answers["cuStreamSynchronize"] = lambda peer, command: (next(answers), b"")
    program = (
        MANAGED
        + """
    memory, stream = alloc(16), made(cuda.cuStreamCreate, 1)
    launch(stream)
    print(cuda.cuMemFree_v2(memory), cuda.cuCtxSynchronize())
    """
    )
    assert run(broker, program) == "0 400\n"


def test_work_of_a_destroyed_stream_is_known_to_be_over_in_the_end(broker, run):
    answers = iter([600, 0])  # not ready, then ready
    broker.answers["cuStreamQuery"] = lambda peer, command: (next(answers), b"")
    run(
        broker,
        DESTROYED
        + """
    for _ in range(5):
        check(cuda.cuMemsetD8Async(memory, 0, 16, other))
        check(cuda.cuStreamSynchronize(other))
    """,
    )
    assert fetches(broker) == 2


def test_an_event_recorded_again_while_it_is_waited_for(broker, run):
    """The wait was for the first stream's record, and says nothing of the second stream's work."""
    held = []

    def hold(peer, command):
        held.append(command.request)
        return LATER

    def count_or_end(peer, command):
        count, ends = len(held), command.words()[1] == 1
        while ends and held:
            peer.reply(held.pop())
        return 0, struct.pack("<Q", count)

    broker.answers["cuEventSynchronize"] = hold
    broker.answers["cuCtxGetLimit"] = count_or_end
    run(
        broker,
        MANAGED
        + """
    import threading
    one, two = (made(cuda.cuStreamCreate, 1) for _ in range(2))
    event = made(cuda.cuEventCreate, 2)
    launch(two)
    check(cuda.cuEventRecord(event, one))
    def wait():
        check(cuda.cuCtxSetCurrent(context))
        check(cuda.cuEventSynchronize(event))
    waiting = threading.Thread(target=wait)
    waiting.start()
    while not made(cuda.cuCtxGetLimit, 0):
        pass
    check(cuda.cuEventRecord(event, two))
    made(cuda.cuCtxGetLimit, 1)
    waiting.join()
    check(cuda.cuStreamSynchronize(two))
    """,
    )
    assert fetches(broker) == 2


def test_a_download_into_memory_that_is_getting_a_twin_comes_before_the_kernel(broker, run):
    """Of two threads one launches with pinned memory while the other starts a copy into it."""
    held, downloads, early = [], [], []

    def hold(peer, command):
        held.append(command.request)
        return LATER

    def go_on(peer, command):
        if command.words()[1] == 1:
            peer.reply(held[0], 0, struct.pack("<Q", 77))
        return 0, struct.pack("<Q", len(held))

    def download(peer, command):
        downloads.append(command)
        return LATER

    def deliver(peer, command):
        if downloads and command.words()[0] == downloads[0].words()[3]:
            peer.send_data(downloads[0].request, 0, b"new")
            peer.reply(downloads.pop().request)

    def launched(peer, command):
        early.extend(downloads)

    broker.answers["cuMemCreate"] = hold
    broker.answers["DTOH"] = download
    broker.answers["cuCtxGetLimit"] = go_on
    broker.answers["cuStreamSynchronize"] = deliver
    broker.answers["LAUNCH"] = launched
    run(
        broker,
        """
    import threading
    context = start()
    function, memory = kernel(), alloc(16)
    shared = made(cuda.cuMemHostAlloc, 4096, 2)
    stream = made(cuda.cuStreamCreate, 1)
    def launch():
        check(cuda.cuCtxSetCurrent(context))
        values = parameters(u64(shared), i32(1), ctypes.c_char(1))
        check(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, values, None))
    launching = threading.Thread(target=launch)
    launching.start()
    while not made(cuda.cuCtxGetLimit, 0):
        pass
    check(cuda.cuMemcpyDtoHAsync_v2(shared + 100, memory, 3, stream))
    made(cuda.cuCtxGetLimit, 1)
    launching.join()
    check(cuda.cuStreamSynchronize(stream))
    """,
    )
    assert not early
    assert sent(broker, "HTOD", "LAUNCH") == ["HTOD", "LAUNCH"]
    assert broker.peer().named("HTOD")[0].bulk.startswith(b"new")


def variable(address, size):
    return lambda peer, command: (0, struct.pack("<QQ", address, size))


def test_a_managed_variable_gets_pages_and_its_first_value(broker, run):
    def refresh(peer, command):
        peer.send_data(command.request, 0, b"first")
        return 0, struct.pack("<Q", 1)

    broker.answers["cuLibraryGetManaged"] = variable(VARIABLE + 16, 5)
    broker.answers["REFRESH"] = refresh
    out = run(
        broker,
        """
    check(cuda.cuInit(0))
    library = made(cuda.cuLibraryLoadData, b".version 7.0\\n", None, None, 0, None, None, 0)
    address = made(cuda.cuLibraryGetManaged, None, library, b"v")
    print((ctypes.c_char * 5).from_address(address).raw)
    (ctypes.c_char * 5).from_address(address).value = b"other"
    """,
    )
    assert out == "b'first'\n"
    assert fetches(broker) == 1


def test_changes_that_do_not_come_are_an_error(broker, run):
    broker.answers["REFRESH"] = lambda peer, command: (0, struct.pack("<Q", 1))
    out = run(broker, MANAGED + "    launch(0)\n    print(cuda.cuCtxSynchronize())")
    assert out == "999\n"
    assert fetches(broker) == 1


TAKEN = f"""
    context = start()
    libc = ctypes.CDLL(None)
    libc.mmap.restype = u64
    libc.mmap.argtypes = [u64, u64, i32, i32, i32, u64]
    assert libc.mmap({VARIABLE}, 4096, 3, 0x100022, -1, 0) == {VARIABLE}
"""


def test_a_managed_variable_whose_address_is_taken_lies_elsewhere(broker, start):
    """The runtime does not look at the status: the program must have memory, and be told."""
    broker.answers["cuLibraryGetManaged"] = variable(VARIABLE, 4)
    process = start(
        broker,
        TAKEN
        + f"""
    library = made(cuda.cuLibraryLoadData, b".version 7.0\\n", None, None, 0, None, None, 0)
    address = made(cuda.cuLibraryGetManaged, None, library, b"my_variable")
    assert address == made(cuda.cuLibraryGetManaged, None, library, b"my_variable")
    assert address != {VARIABLE}
    (ctypes.c_char * 4).from_address(address).raw = b"mine"
    values = parameters(u64(0), i32(1), ctypes.c_char(1))
    check(cuda.cuLaunchKernel(kernel(), 1, 1, 1, 1, 1, 1, 0, None, values, None))
    print(cuda.cuMemHostUnregister(address), cuda.cuMemFree_v2(address))
    check(cuda.cuLibraryUnload(library))
    print(cuda.cuMemHostUnregister(address))
    """,
    )
    out, err = process.communicate(timeout=100)
    assert out == "713 1\n713\n", err
    assert err.count("my_variable") == 1 and hex(VARIABLE) in err
    upload = broker.peer().wait_for("HTOD")[0]
    assert (upload.words()[1], upload.bulk[:4]) == (VARIABLE, b"mine")


def test_a_managed_variable_whose_address_is_taken_is_refused_by_name(broker, start):
    broker.answers["cuModuleGetGlobal_v2"] = variable(VARIABLE, 4)
    broker.answers["cuPointerGetAttribute"] = lambda peer, command: (0, struct.pack("<Q", 1))
    process = start(
        broker,
        TAKEN
        + """
    module = made(cuda.cuModuleLoadData, b".version 7.0\\n")
    address = u64(7)
    print(cuda.cuModuleGetGlobal_v2(byref(address), None, module, b"another"), address.value)
    """,
    )
    out, err = process.communicate(timeout=100)
    assert out == "208 7\n"
    assert err.count("another") == 1 and "refused" in err and hex(VARIABLE) in err


SHARING = """
    import threading
    context = start()
    library = made(cuda.cuLibraryLoadData, b".version 7.0\\n", None, None, 0, None, None, 0)
    stream, other = (made(cuda.cuStreamCreate, 1) for _ in range(2))
    %s
    def share():
        check(cuda.cuCtxSetCurrent(context))
        made(cuda.cuLibraryGetManaged, None, library, b"v")
    sharing = threading.Thread(target=share)
    sharing.start()
    while sharing.is_alive() and not made(cuda.cuCtxGetLimit, 0):
        pass
    check(cuda.cuStreamDestroy_v2(stream))
    made(cuda.cuCtxGetLimit, 1)
    sharing.join()
    made(cuda.cuCtxGetLimit, 0)
"""


def destroy_meanwhile(broker, run, first):
    """One thread makes the first shared memory, and is held up on its way through all streams;
    there another destroys one. What was sent for that one.
    """
    broker.answers["cuLibraryGetManaged"] = variable(VARIABLE, 4)
    run(broker, SHARING % first)
    doomed = broker.peer().named("cuStreamDestroy_v2")[0].words()[0]
    places = {"cuEventRecord": 1, "cuStreamDestroy_v2": 0}
    told = [c for c in broker.peer().commands if c.name in places]
    return [command.name for command in told if command.words()[places[command.name]] == doomed]


def test_a_stream_that_ends_before_all_are_looked_at_leaves_its_work(broker, run):
    none, held = struct.pack("<QQ", 0, 0), []  # it is in no capture

    def hold(peer, command):
        if held or command.words()[0] > 2:  # the legacy stream comes first
            return 0, none
        held.append(command.request)
        return LATER

    def go_on(peer, command):
        if command.words()[1] == 1:
            peer.reply(held[0], 0, none)
        return 0, struct.pack("<Q", len(held))

    broker.answers["cuStreamGetCaptureInfo"] = hold
    broker.answers["cuCtxGetLimit"] = go_on
    told = destroy_meanwhile(broker, run, "check(cuda.cuStreamBeginCapture_v2(other, 2))")
    assert told == ["cuEventRecord", "cuStreamDestroy_v2"]


WINDOW, ROUND = 768, 64  # of credit.c: who sends the first piece of a round may have to wait


def test_a_stream_that_ends_while_it_is_looked_at_is_named_no_more(broker, run):
    """It is so full that what is to be sent for it waits."""
    seen = []

    def record(peer, command):
        if command.words()[1] <= 2:
            seen.append(command)

    def progress(peer, command):
        def tell():
            peer.send(REPLY.pack(REPLY.size, PROGRESS_KIND, command.request, 0, 0, 0))

        def look():
            threading.Timer(0.3, tell).start() if seen else threading.Timer(0.01, look).start()

        look()
        return LATER

    broker.answers["cuEventRecord"] = record
    broker.answers["PROGRESS"] = progress
    broker.answers["cuCtxGetLimit"] = lambda peer, command: (0, struct.pack("<Q", len(seen)))
    first = f"""
    event = made(cuda.cuEventCreate, 2)
    for _ in range({WINDOW + ROUND - 1}):
        check(cuda.cuEventRecord(event, stream))
    """
    assert destroy_meanwhile(broker, run, first)[-1] == "cuStreamDestroy_v2"


def test_a_context_that_another_thread_destroys_carries_nothing(broker, start):
    """Memory that is shared meanwhile travels in another context, and once that one has ended."""
    broker.answers["cuCtxDestroy_v2"] = lambda peer, command: LATER
    process = start(
        broker,
        """
    import threading
    primary = start()
    doomed, memory = made(cuda.cuCtxCreate_v2, 0, 0), u64()
    def share():
        check(cuda.cuCtxSetCurrent(doomed))
        sys.stdin.readline()
        check(cuda.cuMemHostAlloc(byref(memory), 4096, 2))
        check(cuda.cuMemsetD8Async(memory.value, 1, 16, None))
        print("shared", flush=True)
    sharer = threading.Thread(target=share)
    sharer.start()
    check(cuda.cuCtxDestroy_v2(doomed))
    sharer.join()
    check(cuda.cuCtxSetCurrent(primary))
    ctypes.memset(memory.value, 2, 4096)
    check(cuda.cuMemsetD8Async(memory.value, 1, 16, None))
    check(cuda.cuCtxSynchronize())
    """,
    )
    peer = broker.peer()
    (destroy,) = peer.wait_for("cuCtxDestroy_v2")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "shared\n"
    peer.reply(destroy.request)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert peer.ended.wait(60)
    ours = [c for c in peer.commands if c.name in ("cuStreamCreate", "HTOD", "REFRESH")]
    assert {c.name for c in ours} == {"cuStreamCreate", "HTOD", "REFRESH"}
    assert {c.context for c in ours} == {1}


def test_a_context_with_the_number_of_an_ended_one_carries_its_own(broker, run):
    run(
        broker,
        """
    start()
    for _ in range(1030):
        check(cuda.cuCtxDestroy_v2(made(cuda.cuCtxCreate_v2, 0, 0)))
    made(cuda.cuCtxCreate_v2, 0, 0)
    memory = made(cuda.cuMemHostAlloc, 4096, 2)
    check(cuda.cuMemsetD8Async(memory, 1, 16, None))
    """,
    )
    peer = broker.peer()
    ours, (_, set_by_program) = peer.named("cuStreamCreate"), peer.named("cuMemsetD8Async")
    assert [c.context for c in ours] == [set_by_program.context]
    assert set_by_program.context in [c.context for c in peer.named("cuCtxDestroy_v2")]
