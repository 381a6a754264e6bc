# SPDX-License-Identifier: Apache-2.0
"""What travels for a call, what is answered without travelling, and where failures come out."""

from __future__ import annotations

import struct

import pytest
from fake_peer import NUMBERS

LAUNCH = struct.Struct("<QQ3I3IIIII")


def names(peer):
    return [
        command.name for command in peer.commands if command.name not in ("DEVICES", "GOODBYE")
    ]


def test_a_launch_is_one_command_without_an_answer(broker, run):
    run(
        broker,
        """
        start()
        f = kernel()
        values = parameters(u64(0x1122334455667788), i32(-2), ctypes.c_char(b"x"))
        for i in range(2):
            check(cuda.cuLaunchKernel(f, 3, 2, 1, 64, 2, 1, 256, 0, values, None))
    """,
    )
    first, command = broker.peer().named("LAUNCH")
    launch = LAUNCH.unpack_from(command.body)
    assert first.flags != 0 and command.flags == 0
    assert first.body == command.body
    assert launch[2:8] == (3, 2, 1, 64, 2, 1) and launch[8:] == (256, 13, 0, 0)
    assert command.body[LAUNCH.size :] == struct.pack("<Qi", 0x1122334455667788, -2) + b"x\0\0\0"


def waited(broker):
    """Which launches asked for an answer."""
    return "".join("w" if c.flags else "." for c in broker.peer().named("LAUNCH"))


def test_a_block_shape_that_went_well_needs_no_answer(broker, run):
    """Two shapes, and the kernel was not made for one: no other waits."""
    run(
        broker,
        """
        start()
        f = kernel()
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        for block in (32, 32, 64, 32, 96, 128):
            check(cuda.cuLaunchKernel(f, 1, 1, 1, block, 1, 1, 0, 0, values, None))
        check(cuda.cuLaunchKernel(f, 7, 1, 1, 1, 32, 1, 64, 0, values, None))
    """,
    )
    assert waited(broker) == "w.w...."


def test_cooperative_launches_wait_once_for_each_shape(broker, run):
    run(
        broker,
        """
        start()
        f = kernel()
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        def launch(grid):
            check(cuda.cuLaunchCooperativeKernel(f, grid, 1, 1, 32, 1, 1, 0, 0, values))
        for grid in (1, 1, 2, 1, 3, 4, 3, 5, 5, 1):
            launch(grid)
        check(cuda.cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, 0, values, None))
    """,
    )
    assert waited(broker) == "w.w.ww.w.ww"  # four shapes are kept, the oldest goes first


def test_a_refused_launch_says_so_itself(broker, run):
    """Not by the next call that waits; and the same shape is asked for again."""
    broker.answers["LAUNCH"] = lambda peer, command: (1, b"")
    out = run(
        broker,
        """
        start()
        f = kernel()
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        for i in range(2):
            print(cuda.cuLaunchKernel(f, 1, 1, 1, 31, 1, 1, 0, 0, values, None))
        print(cuda.cuCtxSynchronize())
    """,
    )
    assert out.split() == ["1", "1", "0"]
    assert waited(broker) == "ww"


def test_parameters_as_a_buffer(broker, run):
    run(
        broker,
        """
        start()
        f = kernel()
        blob = ctypes.create_string_buffer(b"0123456789abc", 13)
        size = ctypes.c_size_t(13)
        extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(blob), 2, ctypes.addressof(size), 0)
        check(cuda.cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, None, extra))
    """,
    )
    assert broker.peer().named("LAUNCH")[0].body[LAUNCH.size :] == b"0123456789abc\0\0\0"


def test_attributes_of_a_launch_travel_by_value(broker, run):
    run(
        broker,
        """
        import struct
        start()
        f = kernel()
        attribute = struct.pack("<II3I", 4, 0, 2, 1, 1).ljust(72, b"\\0")  # cluster dimension
        held = ctypes.create_string_buffer(attribute, 72)
        config = struct.pack("<7I4xQQI4x", 4, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(held), 1)
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        check(cuda.cuLaunchKernelEx(config, f, values, None))
    """,
    )
    body = broker.peer().named("LAUNCH")[0].body
    assert LAUNCH.unpack_from(body)[10:] == (1, 1)
    assert body[LAUNCH.size : LAUNCH.size + 20] == struct.pack("<II3I", 4, 0, 2, 1, 1)


@pytest.mark.parametrize("attribute", [7, 12])
def test_the_server_is_asked_for_an_event_that_a_launch_records(broker, run, attribute):
    run(
        broker,
        """
        import struct
        start()
        f, event = kernel(), made(cuda.cuEventCreate, 0)
        check(cuda.cuEventSynchronize(event))
        held = ctypes.create_string_buffer(struct.pack("<IIQ", %d, 0, event).ljust(72, b"\\0"), 72)
        config = struct.pack("<7I4xQQI4x", 4, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(held), 1)
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        check(cuda.cuLaunchKernelEx(config, f, values, None))
        check(cuda.cuEventSynchronize(event))
    """
        % attribute,
    )
    assert [c.name for c in broker.peer().commands[-3:]] == [
        "LAUNCH",
        "cuEventSynchronize",
        "GOODBYE",
    ]


def test_bad_launches_fail_at_once(broker, run):
    out = run(
        broker,
        """
        context = start()
        f = kernel()
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        def launch(function=f, grid=1, block=1, shared=0, stream=0, v=values):
            return cuda.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, v, None)
        print(launch(), launch(grid=0), launch(block=0), launch(block=1025), launch(block=513),
              launch(block=600), launch(shared=49153), launch(function=0),
              launch(function=f + 16),
              launch(stream=0x1234), launch(v=None))
        check(cuda.cuCtxSetCurrent(None))
        print(launch())
    """,
    )
    assert out.split() == ["0", "1", "1", "1", "1", "701", "1", "400", "400", "400", "1", "201"]
    assert len(broker.peer().named("LAUNCH")) == 1


def test_a_failure_of_a_one_way_call_comes_out_of_the_next_wait(broker, start):
    process = start(
        broker,
        """
        start()
        memory = alloc(64)
        check(cuda.cuMemsetD8_v2(memory, 1, 64))
        print("ready", flush=True)
        sys.stdin.readline()
        print(cuda.cuCtxSynchronize(), cuda.cuCtxSynchronize())
    """,
        BITFUSION_DEBUG="1",
    )
    assert process.stdout.readline() == "ready\n"
    memset = broker.peer().wait_for("cuMemsetD8_v2")[0]
    broker.peer().deferred = (700, NUMBERS[memset.name])
    out, err = process.communicate("go\n", timeout=100)
    assert out == "700 0\n"
    assert "cuMemsetD8_v2 failed earlier with error 700, reported by cuCtxSynchronize" in err


def test_a_wait_after_which_nothing_was_sent_is_answered_here(broker, run):
    run(
        broker,
        """
        start()
        memory = alloc(64)
        for _ in range(3):
            check(cuda.cuCtxSynchronize())
        stream = made(cuda.cuStreamCreate, 0)
        for _ in range(3):
            check(cuda.cuStreamSynchronize(stream))
            check(cuda.cuStreamQuery(stream))
    """,
    )
    assert names(broker.peer()) == [
        "ALLOC",
        "cuCtxSynchronize",
        "cuStreamCreate",
        "cuStreamSynchronize",
    ]


def test_events_known_to_be_complete_are_answered_here(broker, run):
    out = run(
        broker,
        """
        start()
        stream = made(cuda.cuStreamCreate, 1)
        event, other = made(cuda.cuEventCreate, 2), made(cuda.cuEventCreate, 2)
        print(cuda.cuEventQuery(event))                    # never recorded
        check(cuda.cuEventRecord(event, stream))
        print(cuda.cuEventQuery(event), cuda.cuEventQuery(event))  # asks, then knows
        check(cuda.cuEventRecord(event, stream))
        check(cuda.cuEventRecord(other, 0))
        check(cuda.cuStreamSynchronize(stream))
        print(cuda.cuEventQuery(event), cuda.cuEventSynchronize(event))
        print(cuda.cuEventQuery(other))                    # another stream: asks
    """,
    )
    assert out.split() == ["0"] * 6
    assert names(broker.peer()) == [
        "cuStreamCreate",
        "cuEventCreate",
        "cuEventCreate",
        "cuEventRecord",
        "cuEventQuery",
        "cuEventRecord",
        "cuEventRecord",
        "cuStreamSynchronize",
        "cuEventQuery",
    ]


def test_an_event_that_is_not_ready_is_asked_again(broker, run):
    asked = []

    def answer(peer, command):
        asked.append(command)
        return (600, b"") if len(asked) < 3 else (0, b"")

    broker.answers["cuEventQuery"] = answer
    out = run(
        broker,
        """
        start()
        event = made(cuda.cuEventCreate, 0)
        check(cuda.cuEventRecord(event, 0))
        print([cuda.cuEventQuery(event) for _ in range(4)])
    """,
    )
    assert out == "[600, 600, 0, 0]\n"


def test_handles_are_checked_here(broker, run):
    out = run(
        broker,
        """
        start()
        stream = made(cuda.cuStreamCreate, 0)
        check(cuda.cuStreamDestroy_v2(stream))
        print(cuda.cuStreamDestroy_v2(stream), cuda.cuStreamSynchronize(stream),
              cuda.cuEventRecord(stream, 0),
              cuda.cuModuleUnload(stream), cuda.cuStreamSynchronize(0xdeadbeef),
              stream % 16, stream >> 63)
    """,
    )
    assert out.split() == ["400", "400", "400", "400", "400", "0", "0"]
    assert names(broker.peer()) == ["cuStreamCreate", "cuStreamDestroy_v2"]


def test_per_thread_streams_are_real_streams_of_their_threads(broker, run):
    out = run(
        broker,
        """
        import threading
        context = start()
        memory = alloc(64)
        def work():
            check(cuda.cuCtxSetCurrent(context))
            check(cuda.cuMemsetD8Async_ptsz(memory, 1, 64, None))
            check(cuda.cuMemsetD8Async(memory, 2, 64, 2))
            check(cuda.cuMemsetD8_v2_ptds(memory, 3, 64))
            check(cuda.cuMemsetD8Async_ptsz(memory, 4, 64, 1))
        for _ in range(2):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            while os.path.exists(f"/proc/self/task/{thread.native_id}"):  # gives back its stream
                pass
    """,
    )
    assert out == ""
    streams = [c.words()[3] for c in broker.peer().named("cuMemsetD8Async")]
    assert len(broker.peer().named("cuStreamCreate")) == 2
    assert streams[0] == streams[1] == streams[2] > 2 and streams[3] == 1
    assert streams[4] == streams[5] == streams[6] not in (streams[0], 0, 1, 2)
    assert [c.words()[0] for c in broker.peer().named("cuStreamDestroy_v2")] == [
        streams[0],
        streams[4],
    ]


def test_contexts_follow_the_rules(broker, run):
    out = run(
        broker,
        """
        check(cuda.cuInit(0))
        flags, active, current, device = ctypes.c_uint(), i32(), u64(), i32()
        print(cuda.cuCtxGetDevice(byref(device)), cuda.cuMemAlloc_v2(byref(current), 64))
        context = made(cuda.cuDevicePrimaryCtxRetain, 0)
        check(cuda.cuDevicePrimaryCtxRelease_v2(0))
        print(cuda.cuDevicePrimaryCtxRelease_v2(0))
        check(cuda.cuDevicePrimaryCtxGetState(0, byref(flags), byref(active)))
        print(active.value)
        check(cuda.cuCtxSetCurrent(context))    # not retained: activates it
        check(cuda.cuDevicePrimaryCtxGetState(0, byref(flags), byref(active)))
        print(active.value, made(cuda.cuDevicePrimaryCtxRetain, 0) == context)
        second = made(cuda.cuCtxCreate_v2, 0, 0)
        check(cuda.cuCtxGetCurrent(byref(current)))
        print(current.value == second)
        check(cuda.cuCtxDestroy_v2(second))
        check(cuda.cuCtxGetCurrent(byref(current)))
        print(current.value == context, cuda.cuCtxSetCurrent(second),
              cuda.cuCtxDestroy_v2(context))
        check(cuda.cuCtxPushCurrent_v2(context))
        check(cuda.cuCtxPopCurrent_v2(byref(current)))
        check(cuda.cuCtxPopCurrent_v2(byref(current)))
        print(cuda.cuCtxPopCurrent_v2(byref(current)))
    """,
    )
    assert out.split() == [
        "201",
        "201",
        "201",
        "0",
        "1",
        "True",
        "True",
        "True",
        "201",
        "201",
        "201",
    ]


def test_what_dies_with_a_context(broker, run):
    out = run(
        broker,
        """
        context = start()
        stream, f, memory = made(cuda.cuStreamCreate, 0), kernel(), alloc(64)
        library = made(cuda.cuLibraryLoadData, b".version 7.0\\n", None, None, 0, None, None, 0)
        check(cuda.cuDevicePrimaryCtxReset_v2(0))
        value = i32()
        print(cuda.cuStreamSynchronize(stream), cuda.cuFuncGetAttribute(byref(value), 0, f),
              cuda.cuMemFree_v2(memory))
        print(made(cuda.cuLibraryGetKernel, library, b"f") > 0)
    """,
    )
    assert out.split() == ["400", "400", "1", "True"]


def test_functions_are_answered_from_what_came_with_them(broker, run):
    out = run(
        broker,
        """
        start()
        f, value, offset, size = kernel(), i32(), ctypes.c_size_t(), ctypes.c_size_t()
        check(cuda.cuFuncGetAttribute(byref(value), 0, f))
        check(cuda.cuFuncGetParamInfo(f, 1, byref(offset), byref(size)))
        name = ctypes.c_char_p()
        check(cuda.cuFuncGetName(byref(name), f))
        past = cuda.cuFuncGetParamInfo(f, 3, byref(offset), None)
        print(value.value, offset.value, size.value, past, name.value)
    """,
    )
    assert out == "512 8 4 1 b'f'\n"
    assert names(broker.peer()) == ["LOAD", "GET_FUNCTION"]


def test_a_kernel_works_as_a_function(broker, run):
    run(
        broker,
        """
        start()
        library = made(cuda.cuLibraryLoadData, b".version 7.0\\n", None, None, 0, None, None, 0)
        f = made(cuda.cuLibraryGetKernel, library, b"f")
        values = parameters(u64(1), i32(2), ctypes.c_char(b"x"))
        check(cuda.cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, values, None))
        check(cuda.cuLibraryUnload(library))
    """,
    )
    assert names(broker.peer()) == ["LOAD", "GET_FUNCTION", "LAUNCH", "cuLibraryUnload"]


def test_the_compilers_log_comes_back(broker, run):
    log = struct.pack("<Q8sQ16s", 3, b"ok", 12, b"line 1: bad")
    broker.answers["LOAD"] = lambda peer, command: (218, log)
    out = run(
        broker,
        """
        start()
        info, error = ctypes.create_string_buffer(16), ctypes.create_string_buffer(8)
        options = (i32 * 4)(3, 4, 5, 6)
        values = (ctypes.c_void_p * 4)(ctypes.addressof(info), 16, ctypes.addressof(error), 8)
        print(cuda.cuModuleLoadDataEx(byref(u64()), b".version 7.0\\n", 4, options, values))
        print(info.value, values[1], error.value, values[3])
    """,
    )
    assert out == "218\nb'ok' 3 b'line 1:' 8\n"
    command = broker.peer().named("LOAD")[0]
    assert command.bulk == b".version 7.0\n\0"
    assert struct.unpack_from("<4I4Q", command.body, 40) == (3, 4, 5, 6, 16, 16, 8, 8)


def test_an_image_is_as_long_as_it_says(broker, run, tmp_path):
    fatbin = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 24) + b"0123456789abcdefghijklmn"
    (tmp_path / "code.fatbin").write_bytes(fatbin)
    (tmp_path / "code.ptx").write_bytes(b".version 7.0")
    run(
        broker,
        """
        import struct
        start()
        image = ctypes.create_string_buffer(open(%r, "rb").read() + b"and more")
        head = struct.pack("<IIQQ", 0x466243B1, 1, ctypes.addressof(image), 0)
        wrapper = ctypes.create_string_buffer(head)
        made(cuda.cuModuleLoadData, image)
        made(cuda.cuModuleLoadData, wrapper)
        made(cuda.cuModuleLoad, %r)
        made(cuda.cuModuleLoad, %r)
        print(cuda.cuModuleLoad(byref(u64()), b"/nonexistent"))
    """
        % (
            str(tmp_path / "code.fatbin"),
            str(tmp_path / "code.fatbin").encode(),
            str(tmp_path / "code.ptx").encode(),
        ),
    )
    assert [c.bulk for c in broker.peer().named("LOAD")] == [fatbin] * 3 + [b".version 7.0\0"]


def test_linked_code_brings_what_it_was_linked_from(broker, run):
    parts = [
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(text)) + text for text in (b"ab", b"cdefghij")
    ]
    text = b".version 7.0"
    out = run(
        broker,
        """
        import struct
        start()
        parts = [ctypes.create_string_buffer(part) for part in %r]
        address = ctypes.addressof
        head = struct.pack("<IIQQ", 0x466243B1, 1, address(parts[2]), 0)
        one = ctypes.create_string_buffer(head)
        inputs = (ctypes.c_void_p * 3)(address(parts[1]), address(one), None)
        def linked(version, inputs):
            return struct.pack("<IIQQ", 0x466243B1, version, address(parts[0]), inputs)
        made(cuda.cuModuleLoadData, linked(2, address(inputs)))
        library = linked(2, address(inputs))
        made(cuda.cuLibraryLoadData, library, None, None, 0, None, None, 0)
        made(cuda.cuModuleLoadData, linked(1, address(inputs)))
        made(cuda.cuModuleLoadData, linked(2, 0))
        made(cuda.cuModuleLoadData, linked(2, address(inputs) + 16))
        many = (ctypes.c_void_p * 5000)(*[address(one)] * 4999)
        log = ctypes.create_string_buffer(64)
        values = (ctypes.c_void_p * 2)(address(log), 64)
        code = linked(2, address(many))
        print(cuda.cuModuleLoadDataEx(byref(u64()), code, 2, (i32 * 2)(5, 6), values))
        print(log.value.decode())
    """
        % ([*parts, text],),
    )
    assert out == "200\nthe code is of too many parts\n"
    whole = struct.pack("<QQQ", 18, 24, 13)
    whole += b"".join(part + bytes(-len(part) % 8) for part in (*parts, text + b"\0"))
    loads = broker.peer().named("LOAD")
    assert [c.bulk for c in loads] == [whole] * 2 + [parts[0]] * 3
    inputs = [struct.unpack_from("<I", c.body, 36)[0] for c in loads]
    assert inputs == [2, 2, 0, 0, 0]


def test_absent_functions_are_named_once(broker, start):
    process = start(
        broker,
        """
        start()
        print([cuda.cuDestroyExternalMemory(0) for _ in range(3)])
    """,
        BITFUSION_DEBUG="1",
    )
    out, err = process.communicate(timeout=100)
    assert out == "[801, 801, 801]\n"
    assert err.count("cuDestroyExternalMemory") == 1


def test_an_earlier_failure_does_not_cost_what_a_call_makes(broker, start):
    process = start(
        broker,
        """
        start()
        print("ready", flush=True)
        sys.stdin.readline()
        graph = made(cuda.cuGraphCreate, 0)
        print(cuda.cuCtxSynchronize(), cuda.cuCtxSynchronize(), cuda.cuGraphDestroy(graph))
    """,
    )
    assert process.stdout.readline() == "ready\n"
    broker.peer().deferred = (700, NUMBERS["cuMemsetD8_v2"])
    out, err = process.communicate("go\n", timeout=100)
    assert (out, err) == ("700 0 0\n", "")


def test_a_handle_ends_once_when_two_threads_destroy_it(broker, run):
    out = run(
        broker,
        """
        import threading
        context = start()
        def destroy(event):
            check(cuda.cuCtxSetCurrent(context))
            barrier.wait()
            cuda.cuEventDestroy_v2(event)
        for _ in range(200):
            event, barrier = made(cuda.cuEventCreate, 0), threading.Barrier(2)
            threads = [threading.Thread(target=destroy, args=(event,)) for _ in range(2)]
            [t.start() for t in threads]
            [t.join() for t in threads]
        events = [made(cuda.cuEventCreate, 0) for _ in range(3000)]
        print(len(set(events)))
    """,
    )
    assert out == "3000\n"
