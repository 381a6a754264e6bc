# SPDX-License-Identifier: Apache-2.0
"""A server that breaks the rules: the program gets an error and goes on, whatever the bytes."""

from __future__ import annotations

import random
import struct
from typing import Callable, Dict

import pytest
from fake_peer import REPLY, Answer, Broker, Command, Peer

DEVICE_UNAVAILABLE = 46
PROGRAM = """
start()
data = (ctypes.c_char * 4096)()
device = alloc(4096)
print(cuda.cuMemcpyDtoH_v2(data, device, 4096), cuda.cuCtxSynchronize(), flush=True)
"""


def head(size: int, kind: int, request: int) -> bytes:
    return REPLY.pack(size, kind, request, 0, 0, 0)


def data(request: int, offset: int, size: int, sent: bytes) -> bytes:
    return head(REPLY.size + 16, 1, request) + struct.pack("<QQ", offset, size) + sent


BAD: Dict[str, Callable[[int], bytes]] = {
    "nothing": lambda request: b"",
    "half a head": lambda request: head(REPLY.size, 0, request)[:10],
    "size 0": lambda request: head(0, 0, request),
    "odd size": lambda request: head(REPLY.size + 3, 0, request) + b"abc",
    "huge size": lambda request: head(2**32 - 8, 0, request),
    "unknown kind": lambda request: head(REPLY.size, 77, request),
    "unknown request": lambda request: head(REPLY.size, 0, request + 1000),
    "data of nobody": lambda request: data(request + 1000, 0, 8, bytes(8)),
    "data without its struct": lambda request: head(REPLY.size, 1, request),
    "data past the end": lambda request: data(request, 4090, 8, bytes(8)),
    "offset that wraps": lambda request: data(request, 2**64 - 4, 8, bytes(8)),
    "size that wraps": lambda request: data(request, 8, 2**64 - 8, bytes(8)),
    "data cut off": lambda request: data(request, 0, 4096, bytes(100)),
    "no data": lambda request: head(REPLY.size, 0, request),
    "not all data": lambda request: (
        data(request, 8, 4088, bytes(4088)) + head(REPLY.size, 0, request)
    ),
    "short callback": lambda request: head(REPLY.size + 8, 2, 0) + bytes(8),
    "output longer than its frame": lambda request: (
        head(REPLY.size + 8, 3, 0) + struct.pack("<II", 1, 1 << 30)
    ),
}


def noise(seed: int) -> Callable[[int], bytes]:
    """A sound answer with a few bytes of it changed, then cut somewhere."""

    def make(request: int) -> bytes:
        chance = random.Random(seed)
        sound = bytearray(data(request, 0, 4096, bytes(4096)) + head(REPLY.size, 0, request))
        for _ in range(chance.randrange(1, 5)):
            place = chance.choice((chance.randrange(40), chance.randrange(4136, len(sound))))
            sound[place] = chance.randrange(256)
        return bytes(sound[: chance.randrange(len(sound))])

    return make


BAD.update({"noise %d" % seed: noise(seed) for seed in range(20)})


@pytest.mark.parametrize("name", list(BAD))
def test_bad_reply(broker: Broker, start: Callable[..., object], name: str) -> None:
    def answer(peer: Peer, command: Command) -> Answer:
        peer.send(BAD[name](command.request))
        raise EOFError  # and the connection ends

    broker.answers["DTOH"] = answer
    program = start(broker, PROGRAM)
    out, errors = program.communicate(timeout=100)  # type: ignore[attr-defined]
    assert program.returncode == 0, errors  # type: ignore[attr-defined]
    assert out.split() == [str(DEVICE_UNAVAILABLE)] * 2
    told = "broke the rules of the wire" in errors
    assert told or name.startswith("noise") or name in ("nothing", "half a head", "data cut off")
    assert "connection to the GPU server was lost" in errors


def test_an_answer_without_what_it_gives(broker: Broker, run: Callable[..., str]) -> None:
    broker.answers["cuModuleGetGlobal_v2"] = lambda peer, command: (0, b"")
    broker.answers["cuCtxGetLimit"] = lambda peer, command: (0, b"")
    out = run(
        broker,
        """
        start()
        module = made(cuda.cuModuleLoadData, b".version 7.0\\n")
        address, size = u64(77), u64(78)
        print(cuda.cuModuleGetGlobal_v2(byref(address), byref(size), module, b"x"))
        print(cuda.cuCtxGetLimit(byref(size), 0), address.value, size.value)
        """,
    )
    assert out.split() == ["999", "999", "77", "78"]


def kernel_node(size: int, packed: bytes, handle: int = 0) -> bytes:
    return struct.pack("<Q", size) + struct.pack("<Q", handle).ljust(72, b"\0") + packed


FUNCTION_SIZE = 13  # bytes of parameters of the fake peer's kernel


@pytest.mark.parametrize(
    "body",
    [
        lambda handle: kernel_node(72 + FUNCTION_SIZE, bytes(16), handle),
        lambda handle: b"",
        lambda handle: kernel_node(72 + 16, bytes(16), 0),
        lambda handle: kernel_node(72 + 16, bytes(16), handle + 64),
        lambda handle: kernel_node(72 + 16, bytes(8), handle),
        lambda handle: kernel_node(71, bytes(16), handle),
        lambda handle: kernel_node(2**64 - 8, bytes(16), handle),
        lambda handle: kernel_node(72 + FUNCTION_SIZE - 1, bytes(16), handle),
    ],
    ids=[
        "good",
        "nothing",
        "no function",
        "unknown function",
        "cut",
        "shorter than the struct",
        "huge",
        "less than the layout",
    ],
)
def test_kernel_nodes(
    broker: Broker,
    run: Callable[..., str],
    body: Callable[[int], bytes],
    request: pytest.FixtureRequest,
) -> None:
    """What a server says of a node is believed only as far as the kernel's layout allows."""
    functions = []

    def keep(peer: Peer, command: Command) -> None:
        functions.append(struct.unpack_from("<QQ", command.body)[1])

    broker.answers["GET_FUNCTION"] = keep  # type: ignore[assignment]
    broker.answers["KERNEL_NODE"] = lambda peer, command: (0, body(functions[0]))
    out = run(
        broker,
        """
        start()
        f = kernel()
        node = ctypes.create_string_buffer(72)
        print(cuda.cuGraphKernelNodeGetParams_v2(ctypes.c_void_p(0), node))
        print(cuda.cuCtxSynchronize())
    """,
    )
    good = request.node.callspec.id == "good"
    assert out.split() == ["0" if good else "999", "0"]
