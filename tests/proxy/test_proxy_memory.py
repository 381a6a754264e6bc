# SPDX-License-Identifier: Apache-2.0
"""Memory and copies: what is checked, what is captured, what must wait for what."""

from __future__ import annotations

import struct

from fake_peer import ARENA, LATER


def names(peer):
    return [
        command.name for command in peer.commands if command.name not in ("DEVICES", "GOODBYE")
    ]


def test_a_copy_to_the_device_is_captured_and_not_waited_for(broker, run):
    out = run(
        broker,
        """
        start()
        memory = alloc(1 << 20)
        for size in (4, 7, 4095, 4096, 1 << 20):
            source = ctypes.create_string_buffer(bytes([size % 251]) * size, size)
            check(cuda.cuMemcpyHtoD_v2(memory, source, size))
            ctypes.memset(source, 0, size)
    """,
    )
    assert out == ""
    commands = broker.peer().named("HTOD")
    assert [len(c.bulk) for c in commands] == [4, 7, 4095, 4096, 1 << 20]
    assert all(set(c.bulk) == {len(c.bulk) % 251} for c in commands)
    assert not any(c.flags & 1 for c in commands)


def test_what_was_copied_comes_back(broker, run):
    run(
        broker,
        """
        start()
        for size in (1, 4, 1000, 65536, (1 << 20) + 3):
            memory, data = alloc(size), os.urandom(size)
            target = ctypes.create_string_buffer(size)
            check(cuda.cuMemcpyHtoD_v2(memory, data, size))
            check(cuda.cuMemcpyDtoH_v2(target, memory, size))
            assert target.raw == data
    """,
    )


def test_data_in_pieces_and_out_of_order(broker, run):
    def answer(peer, command):
        peer.send_data(command.request, 3, b"defgh")
        peer.send_data(command.request, 0, b"abc")
        return 0, b""

    broker.answers["DTOH"] = answer
    out = run(
        broker,
        """
        start()
        target = ctypes.create_string_buffer(8)
        check(cuda.cuMemcpyDtoH_v2(target, alloc(8), 8))
        print(target.raw)
    """,
    )
    assert out == "b'abcdefgh'\n"


def test_a_server_cannot_write_past_the_destination(broker, start):
    def answer(peer, command):
        peer.send_data(command.request, 4, b"01234567")
        return 0, b""

    broker.answers["DTOH"] = answer
    out, err = start(
        broker,
        """
        start()
        target = ctypes.create_string_buffer(b"x" * 16, 16)
        print(cuda.cuMemcpyDtoH_v2(target, alloc(8), 8), target.raw)
    """,
    ).communicate(timeout=100)
    assert out == "46 %r\n" % (b"x" * 16)


def test_an_asynchronous_copy_lands_before_the_wait_that_orders_it_returns(broker, run):
    run(
        broker,
        """
        start()
        size = 3 << 20
        memory, stream, target = alloc(size), made(cuda.cuStreamCreate, 1), pinned(size)
        for n in range(20):
            check(cuda.cuMemcpyHtoDAsync_v2(memory, bytes([n]) * size, size, stream))
            check(cuda.cuMemcpyDtoHAsync_v2(target, memory, size, stream))
            check(cuda.cuStreamSynchronize(stream))
            assert target.raw == bytes([n]) * size
    """,
    )
    assert all(c.words()[4] & 1 for c in broker.peer().named("DTOH"))


def test_a_failed_asynchronous_copy_comes_out_of_the_next_wait(broker, run):
    broker.answers["DTOH"] = lambda peer, command: (700, b"")
    out = run(
        broker,
        """
        start()
        memory, target = alloc(64), pinned(64)
        print(cuda.cuMemcpyDtoHAsync_v2(target, memory, 64, 0), cuda.cuCtxSynchronize(),
              cuda.cuStreamSynchronize(0))
    """,
    )
    assert out.split() == ["0", "700", "0"]


def late_sources(broker):
    """Asks for a source that is read late when the stream is waited for, then ends the wait."""
    held = []

    def wait(peer, command):
        for copy in peer.named("HTOD"):
            _, _, size, _, options = copy.words()
            if options >> 32:
                peer.send_fetch(options >> 32, size)
                held.append(command)
                return LATER
        return None

    broker.answers["cuStreamSynchronize"] = wait
    broker.answers["LATE"] = lambda peer, command: peer.reply(held.pop().request)


def test_a_copy_from_memory_that_is_still_being_written_is_read_late(broker, run):
    late_sources(broker)
    run(
        broker,
        """
        start()
        memory, target, other = alloc(64), pinned(4096), pinned(4096)
        stream = made(cuda.cuStreamCreate, 1)
        check(cuda.cuMemcpyHtoD_v2(memory, b"a" * 64, 64))
        check(cuda.cuMemcpyDtoHAsync_v2(target, memory, 64, stream))
        check(cuda.cuMemcpyHtoDAsync_v2(memory, other, 64, stream))  # elsewhere
        check(cuda.cuMemcpyHtoDAsync_v2(memory, ctypes.addressof(target) + 32, 32, stream))
        check(cuda.cuStreamSynchronize(stream))
    """,
    )
    assert names(broker.peer()) == [
        "ALLOC",
        "cuMemAddressReserve",
        "cuMemAddressReserve",
        "cuStreamCreate",
        "HTOD",
        "DTOH",
        "HTOD",
        "HTOD",
        "cuStreamSynchronize",
        "LATE",
    ]
    assert [len(copy.bulk) for copy in broker.peer().named("HTOD")] == [64, 64, 0]
    assert broker.peer().named("LATE")[0].bulk == b"a" * 32


def test_memory_is_freed_when_it_has_been_read_late(broker, run):
    late_sources(broker)
    out = run(
        broker,
        """
        start()
        memory, target = alloc(64), pinned(4096)
        stream = made(cuda.cuStreamCreate, 1)
        check(cuda.cuMemcpyHtoD_v2(memory, bytes(range(64)), 64))
        check(cuda.cuMemcpyDtoHAsync_v2(target, memory, 64, stream))
        check(cuda.cuMemcpyHtoDAsync_v2(memory, target, 64, stream))
        check(cuda.cuMemFreeHost(ctypes.addressof(target)))  # waits until it has been read
    """,
    )
    assert out == ""
    assert names(broker.peer())[-2:] == ["cuStreamSynchronize", "LATE"]
    assert broker.peer().named("LATE")[0].bulk == bytes(range(64))


def test_pageable_memory_is_whole_when_an_asynchronous_copy_returns(broker, run):
    run(
        broker,
        """
        start()
        memory, target = alloc(64), ctypes.create_string_buffer(64)
        check(cuda.cuMemcpyHtoD_v2(memory, b"q" * 64, 64))
        check(cuda.cuMemcpyDtoHAsync_v2(target, memory, 64, 0))
        assert target.raw == b"q" * 64
    """,
    )


def test_the_direction_of_a_plain_copy_is_known_here(broker, run):
    run(
        broker,
        """
        start()
        a, b, host = alloc(64), alloc(64), ctypes.create_string_buffer(b"z" * 64, 64)
        back = ctypes.create_string_buffer(64)
        check(cuda.cuMemcpy(a, ctypes.addressof(host), 64))
        check(cuda.cuMemcpy(b, a, 64))
        check(cuda.cuMemcpyAsync(ctypes.addressof(back), a, 64, 0))
        check(cuda.cuMemcpy(ctypes.addressof(host), ctypes.addressof(back), 64))
        assert back.raw == b"z" * 64
    """,
    )
    assert names(broker.peer()) == ["ALLOC", "ALLOC", "HTOD", "cuMemcpyDtoD_v2", "DTOH"]


def test_bad_pointers_fail_at_once(broker, run):
    out = run(
        broker,
        """
        start()
        memory, host = alloc(64), ctypes.create_string_buffer(128)
        print(cuda.cuMemcpyHtoD_v2(memory, host, 65), cuda.cuMemcpyHtoD_v2(memory + 60, host, 5),
              cuda.cuMemcpyHtoD_v2(123, host, 5), cuda.cuMemcpyDtoH_v2(host, memory + 64, 1),
              cuda.cuMemsetD32_v2(memory + 2, 1, 1), cuda.cuMemsetD32_v2(memory, 1, 17),
              cuda.cuMemsetD2D8_v2(memory, 32, 1, 33, 2),
              cuda.cuMemsetD2D8_v2(memory, 32, 1, 32, 3),
              cuda.cuMemFree_v2(memory + 1), cuda.cuMemFree_v2(memory),
              cuda.cuMemFree_v2(memory), cuda.cuMemFree_v2(0),
              cuda.cuMemAlloc_v2(byref(u64()), 0), cuda.cuMemFreeHost(host),
              cuda.cuMemHostUnregister(host))
    """,
    )
    assert out.split() == ["1"] * 9 + ["0", "1", "0", "1", "1", "713"]
    assert names(broker.peer()) == ["ALLOC", "FREE"]


def test_an_address_that_the_program_uses_is_refused(broker, run):
    run(
        broker,
        """
        import mmap
        start()
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, i32, i32, i32, ctypes.c_long]
        assert libc.mmap(%d, 4096, 3, 0x100022, -1, 0) == %d
        assert alloc(8192) == %d
        # and what the device has, the program cannot get any more
        got = libc.mmap(%d, 4096, 3, 0x100022, -1, 0)
        assert got in (None, 2**64 - 1), got
    """
        % (ARENA, ARENA, ARENA + 8192, ARENA + 12288),
    )
    asked = broker.peer().named("ALLOC")
    assert [struct.unpack_from("<QQII", c.body)[3] for c in asked] == [0, 1]
    assert asked[1].words()[3] == ARENA


def test_numbers_are_free_again_after_the_memory(broker, run):
    run(
        broker,
        """
        start()
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, i32, i32, i32, ctypes.c_long]
        a, b, c = alloc(512), alloc(512), alloc(8192)   # a and b share a page, and so do b and c
        page = lambda address: libc.mmap(address, 4096, 3, 0x100022, -1, 0) == address
        check(cuda.cuMemFree_v2(a))
        assert not page(a)
        check(cuda.cuMemFree_v2(c))
        assert not page(a) and page(a + 8192)
        check(cuda.cuMemFree_v2(b))
        assert page(a)
    """,
    )


def test_pointer_attributes_are_answered_here(broker, run):
    out = run(
        broker,
        """
        context = start()
        memory, host, plain = alloc(4096), pinned(4096), ctypes.create_string_buffer(64)
        def one(attribute, pointer):
            value = u64(0)
            status = cuda.cuPointerGetAttribute(byref(value), attribute, pointer)
            return status or value.value
        assert one(1, memory + 5) == context and one(2, memory) == 2
        assert one(3, memory + 5) == memory + 5
        assert one(4, memory) == 1 and one(11, memory + 9) == memory and one(12, memory) == 4096
        address = ctypes.addressof(host)
        assert one(2, address) == 1 and one(4, address + 1) == address + 1
        assert one(3, address) == address
        assert one(2, ctypes.addressof(plain)) == 1 and one(7, memory) != one(7, address)
        values = [u64(77) for _ in range(6)]
        pointers = (ctypes.c_void_p * 6)(*[ctypes.addressof(v) for v in values])
        kinds = (i32 * 6)(1, 2, 3, 4, 8, 9)
        check(cuda.cuPointerGetAttributes(6, kinds, pointers, memory))
        print(values[1].value & 0xffffffff, values[0].value == context, values[3].value)
        check(cuda.cuPointerGetAttributes(6, kinds, pointers, ctypes.addressof(plain)))
        print([values[i].value for i in (0, 2, 3)])
        base, size = u64(), ctypes.c_size_t()
        check(cuda.cuMemGetAddressRange_v2(byref(base), byref(size), memory + 100))
        print(base.value == memory, size.value)
    """,
    )
    assert out.split("\n")[:3] == ["2 True 0", "[0, 0, 0]", "True 4096"]
    assert names(broker.peer()) == ["ALLOC", "cuMemAddressReserve"]


def test_boxes_are_packed_and_spread_here(broker, run):
    run(
        broker,
        """
        import struct
        start()
        memory, pitch = u64(), ctypes.c_size_t()
        check(cuda.cuMemAllocPitch_v2(byref(memory), byref(pitch), 4, 3, 4))
        host = ctypes.create_string_buffer(bytes(range(64)), 64)
        def copy(x, y, to_host=0, asynchronous=False):
            def side(is_host):
                if is_host:
                    return struct.pack("<QQI4xQQQQ", x, y, 1, ctypes.addressof(host), 0, 0, 8)
                return struct.pack("<QQI4xQQQQ", 0, 0, 2, 0, memory.value, 0, pitch.value)
            box = side(not to_host) + side(to_host) + struct.pack("<QQ", 4, 3)
            check(cuda.cuMemcpy2DAsync_v2(box, 0) if asynchronous else cuda.cuMemcpy2D_v2(box))
        copy(2, 1)
        copy(0, 4, to_host=1)
        print(list(host.raw[32:52]))
    """,
    )
    send, receive = broker.peer().named("COPY3D")
    assert send.bulk == bytes([10, 11, 12, 13, 18, 19, 20, 21, 26, 27, 28, 29])
    assert receive.flags & 1


def test_a_box_that_comes_back(broker, run):
    def answer(peer, command):
        if not command.flags & 1:
            return None
        peer.send_data(command.request, 0, b"abcdefghijkl")
        return 0, b""

    broker.answers["COPY3D"] = answer
    out = run(
        broker,
        """
        import struct
        start()
        memory, pitch = u64(), ctypes.c_size_t()
        check(cuda.cuMemAllocPitch_v2(byref(memory), byref(pitch), 4, 3, 4))
        for host in (ctypes.create_string_buffer(b"." * 32, 32), pinned(32)):
            ctypes.memset(host, ord("."), 32)
            source = struct.pack("<QQI4xQQQQ", 0, 0, 2, 0, memory.value, 0, pitch.value)
            target = struct.pack("<QQI4xQQQQ", 1, 1, 1, ctypes.addressof(host), 0, 0, 8)
            check(cuda.cuMemcpy2DAsync_v2(source + target + struct.pack("<QQ", 4, 3), 0))
            check(cuda.cuCtxSynchronize())
            print(host.raw)
    """,
    )
    assert out.split() == ["b'.........abcd....efgh....ijkl...'"] * 2


def test_memory_of_the_slice(broker, run):
    out = run(
        broker,
        """
        start()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        check(cuda.cuMemGetInfo_v2(byref(free), byref(total)))
        print(free.value >> 20, total.value >> 20)
    """,
    )
    assert out.split() == ["512", "1024"]


def test_memory_of_a_pool_has_its_addresses_reserved(broker, run):
    """The first address that the pool gives is the program's own; it goes back at the end."""
    places = [ARENA, ARENA + 0x10000, ARENA + 0x20000]
    broker.answers["cuMemAllocAsync"] = lambda peer, command: (
        0,
        struct.pack("<Q", places.pop(0)),
    )
    out = run(
        broker,
        """
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, i32, i32, i32, ctypes.c_long]
        page = lambda address: libc.mmap(address, 4096, 3, 0x100022, -1, 0) == address
        start()
        base = %d
        print(page(base))
        memory, other = made(cuda.cuMemAllocAsync, 100, 0), made(cuda.cuMemAllocAsync, 100, 0)
        print(memory - base, other - base, page(memory))
        check(cuda.cuMemFreeAsync(memory, 0))
        print(page(memory), page(other))
    """
        % ARENA,
    )
    assert out.split() == ["True", "65536", "131072", "False", "True", "False"]
    freed = [command.words()[0] - ARENA for command in broker.peer().named("cuMemFreeAsync")]
    assert freed == [0, 0x10000]


def test_addresses_that_the_program_uses_are_not_reserved(broker, run):
    """The server reserves what it is asked for; the program's own memory is there already."""
    broker.answers["cuMemAddressReserve"] = lambda peer, command: (
        0,
        struct.pack("<Q", command.words()[3]),
    )
    out = run(
        broker,
        """
        import mmap
        start()
        own = mmap.mmap(-1, 8 << 20)
        taken = ctypes.addressof(ctypes.c_char.from_buffer(own)) + 4095 & ~4095
        got = made(cuda.cuMemAddressReserve, 2 << 20, 0, taken, 0)
        print(taken != got, got % (2 << 20))
        print([line.split()[1] for line in open("/proc/self/maps")
               if int(line.split("-")[0], 16) <= got < int(line.split()[0].split("-")[1], 16)])
        print(cuda.cuMemcpy(taken, got, 64), cuda.cuMemcpy(got, taken, 64))
        check(cuda.cuMemAddressFree(got, 2 << 20))
    """,
    )
    assert out.splitlines() == ["True 0", "['---p']", "1 1"]
    asked = [command.words()[3] for command in broker.peer().named("cuMemAddressReserve")]
    freed = [command.words()[0] for command in broker.peer().named("cuMemAddressFree")]
    assert len(asked) == 2 and freed == asked
