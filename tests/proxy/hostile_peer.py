# SPDX-License-Identifier: Apache-2.0
"""Servers that break off or lie, for calls_main.c: one connection after another, each worse."""

from __future__ import annotations

import random
import socket
import struct
from typing import Callable, List

from fake_peer import HOST_NODE, REPLY, Answer, Answers, Broker, Command, Peer

EDGES = [0, 1, 2, 7, 8, 24, 255, 4096, 1 << 16, 1 << 20, (1 << 20) + 8, 1 << 24, 1 << 31]
EDGES += [(1 << 32) - 1, (1 << 32) - 8, 1 << 40, 1 << 41, 1 << 63, (1 << 64) - 1, (1 << 64) - 8]
PATIENCE_S = 0.05  # how long a liar waits for a program that may be waiting for it


class Sound:
    """What the small fake driver does not know: captures, graphs and host functions."""

    def __init__(self) -> None:
        self.capturing = 0  # the stream
        self.captured: List[Command] = []

    def call(self, peer: Peer, command: Command) -> None:
        _stream, function, data, kind = command.words()[:4]
        peer.send_callback(len(peer.commands), function, data, kind & 0xFFFFFFFF)

    def on_HOST_FUNCTION(self, peer: Peer, command: Command) -> None:
        if self.capturing == command.words()[0]:
            self.captured.append(command)
        else:
            self.call(peer, command)

    def on_cuStreamBeginCapture_v2(self, peer: Peer, command: Command) -> None:
        self.capturing = command.words()[0]

    def on_cuStreamGetCaptureInfo(self, peer: Peer, command: Command) -> Answer:
        return 0, struct.pack("<QQ", self.capturing == command.words()[0], 7)

    def on_cuStreamEndCapture(self, peer: Peer, command: Command) -> Answer:
        self.capturing = 0
        return 0, struct.pack("<Q", command.words()[1])

    def on_cuGraphGetNodes(self, peer: Peer, command: Command) -> Answer:
        return 0, struct.pack("<QQQ", 8, 0x5B0B000000000010, 1)

    def on_cuGraphLaunch(self, peer: Peer, command: Command) -> None:
        for function in self.captured:
            self.call(peer, function)
        for kind, given in peer.nodes:
            if kind == HOST_NODE:
                peer.send_callback(len(peer.commands), struct.unpack_from("<8xQ", given)[0], 0)

    def on_cuGraphDestroy(self, peer: Peer, command: Command) -> None:
        self.captured = []

    def on_cuModuleGetGlobal_v2(self, peer: Peer, command: Command) -> Answer:
        return 0, struct.pack("<QQ", 0x210000000000, 64)

    def on_cuMemAllocAsync(self, peer: Peer, command: Command) -> Answer:
        return 0, struct.pack("<Q", 0x220000000000)

    def answers(self) -> Answers:
        return {name[3:]: getattr(self, name) for name in dir(self) if name.startswith("on_")}


class Cutter:
    """Ends the connection after that many commands, or in the middle of that many replies."""

    def __init__(self, commands: int = -1, replies: int = -1, part: float = 0.5) -> None:
        self.commands, self.replies, self.part = commands, replies, part
        self.reached = False

    def prepare(self, peer: Peer) -> None:
        whole, read = peer.send, peer.read_command
        sent = taken = 0

        def send(data: bytes) -> None:
            nonlocal sent
            sent += 1
            if sent == self.replies:
                self.reached = True
                whole(data[: int(len(data) * self.part)])
                raise EOFError
            whole(data)

        def read_command() -> Command:
            nonlocal taken
            taken += 1
            if taken == self.commands:
                self.reached = True
                raise EOFError
            return read()

        peer.send, peer.read_command = send, read_command  # type: ignore[method-assign]


# What has an answer worth lying about; ROWS are answered with numbers, not by the fake driver.
SUBJECTS = ["DEVICES", "DTOH", "COPY3D", "LOAD", "GET_FUNCTION", "cuGraphGetNodes"] * 4
SUBJECTS += ["GRAPH_SHAPE", "PROGRAM_NODE"] * 4
SUBJECTS += ["ALLOC", "MEMORY_INFO", "HOST_FUNCTION"]
SUBJECTS += ["cuStreamGetCaptureInfo", "cuStreamEndCapture"]
ROWS = ["cuGraphGetNodes", "cuGraphNodeGetType", "cuModuleGetGlobal_v2", "cuCtxGetLimit"]
ROWS += ["cuMemAllocAsync", "cuCtxCreate_v2", "cuDeviceGetP2PAttribute", "cuFuncGetAttribute"]
ROWS += ["cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", "cuEventElapsedTime_v2"]


class Liar:
    """Changes some of what is sent; ends when the program seems to wait for it.

    Two in three lie about one subject only, and keep to the form.
    """

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.rate = self.pick.choice([0.02, 0.1, 0.5])
        self.subject = self.pick.choice(SUBJECTS + ROWS) if seed % 3 else None
        self.sent: List[bytes] = []
        self.lies = 0

    def prepare(self, peer: Peer) -> None:
        whole, carry_out, current = peer.send, peer.carry_out, ""

        def remember(command: Command) -> None:
            nonlocal current
            current = command.name
            carry_out(command)

        def send(data: bytes) -> None:
            self.sent.append(data)
            rate = self.rate if self.subject is None else 0.5 * (current == self.subject)
            told = self.pick.random() < rate
            if told and len(self.sent) > 1:  # the welcome is for others
                self.lies += 1
                data = self.bend(data) if self.subject else self.twist(data)
                peer.connection.settimeout(PATIENCE_S)
            whole(data)

        peer.send, peer.carry_out = send, remember  # type: ignore[method-assign]
        if self.subject in ROWS:
            peer.answers[str(self.subject)] = lambda peer, command: (0, self.numbers(60))

    def number(self) -> int:
        pick = self.pick
        return pick.choice([pick.choice(EDGES), pick.randrange(4), 8 * pick.randrange(70)])

    def numbers(self, most: int) -> bytes:
        count = self.pick.randrange(most)
        return struct.pack("<%dQ" % count, *(self.number() for _ in range(count)))

    def bend(self, good: bytes) -> bytes:
        """A frame of honest size with another body."""
        head, body = bytearray(good[: REPLY.size]), bytearray(good[REPLY.size :])
        for _ in range(self.pick.choice([0, 1, 1, 1, 3])):
            code, size = self.pick.choice([("<I", 4), ("<Q", 8)])
            near = min(len(body), self.pick.choice([16, 64, 4096]))
            place = size * self.pick.randrange(max(1, near // size))
            number = struct.pack(code, self.number() & (2 ** (8 * size) - 1))
            body[place : place + size] = number
        kind = self.pick.randrange(6)
        if kind == 0:
            del body[8 * self.pick.randrange(len(body) // 8 + 1) :]
        elif kind == 1:
            body += self.numbers(40)
        del body[len(body) // 8 * 8 :]
        if struct.unpack_from("<I", head, 4)[0] == 0:  # a reply: nothing but the body counts
            head[:4] = struct.pack("<I", len(head) + len(body))
        return bytes(head + body)

    def twist(self, good: bytes) -> bytes:
        """Bytes changed, lost, cut off or put between, wherever."""
        pick, data = self.pick, bytearray(good)
        for _ in range(pick.choice([1, 1, 2, 4])):
            near = min(len(data), pick.choice([24, 64, 4096]))
            place = 4 * pick.randrange(max(1, near // 4))
            what = pick.randrange(7)
            if what == 0 and place < len(data):
                data[place] ^= 1 << pick.randrange(8)
            elif what == 1:
                data[place : place + 8] = struct.pack("<Q", pick.choice(EDGES))
            elif what == 2:
                data[place : place + 4] = struct.pack("<I", pick.choice(EDGES) & 0xFFFFFFFF)
            elif what == 3:
                del data[place : place + pick.choice([1, 4, 8, 64])]
            elif what == 4:
                data[0:0] = pick.choice(self.sent[1:])
            elif what == 5:
                data[0:0] = self.invention()
            else:
                del data[pick.randrange(len(data) + 1) :]
        return bytes(data)

    def invention(self) -> bytes:
        """A frame that nobody asked for, honest in its size."""
        body = self.numbers(7) + bytes(8 * self.pick.choice([0, 0, 1, 100]))
        kind, request = self.pick.randrange(5), self.pick.choice([0, 1, self.pick.randrange(200)])
        head = (REPLY.size + len(body), kind, request, self.pick.choice([0, 1, 999]), 0, 0)
        return REPLY.pack(*head) + body


def prepared(broker: Broker, connections: List[Callable[[Peer], None]]) -> None:
    """The n-th process that asks gets a server that the n-th function has prepared."""
    waiting = iter(connections)

    def prepare(peer: Peer) -> None:
        peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        peer.answers = Sound().answers()
        next(waiting, lambda _: None)(peer)

    broker.prepare = prepare
