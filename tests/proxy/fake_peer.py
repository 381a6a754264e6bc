# SPDX-License-Identifier: Apache-2.0
"""A broker and a server made of threads: the wire as the proxy sees it, under a test's control.

The peer keeps every command it gets and answers as a very small driver would. A test changes an
answer by putting a function into `Broker.answers`; where it returns LATER the test replies itself.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Callable, Dict, List, Optional, Tuple, Type

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "wire"))

from wire_layout import (
    CALLBACK_KIND,
    CALLS,
    COMMAND,
    DATA_KIND,
    FETCH_KIND,
    HAS_BULK,
    HELLO,
    MAGIC,
    OPERATIONS,
    OUTPUT_KIND,
    PROGRESS_KIND,
    PROTOCOL,
    REPLY_KIND,
    SPEC_HASH,
    WANTS_REPLY,
    WELCOME,
)
from wire_layout import REPLY_HEAD as REPLY

NUMBERS = dict(CALLS)
NUMBERS.update({name: number for number, name in enumerate(OPERATIONS)})
NAMES = {number: name for name, number in NUMBERS.items()}
ARENA = 0x2000_0000_0000
ATTRIBUTES = {
    12: 65536,  # registers of a block
    1: 1024,
    2: 1024,
    3: 1024,
    4: 64,
    5: 2**31 - 1,
    6: 65535,
    7: 65535,
    10: 32,
    16: 4,
    19: 1,
    33: 1,
    41: 1,
    75: 12,
    76: 0,
    83: 1,
    97: 101376,
}


@dataclass(frozen=True)
class Command:
    name: str
    flags: int
    request: int
    context: int
    body: bytes
    bulk: bytes

    def words(self) -> Tuple[int, ...]:
        return struct.unpack("<%dQ" % (len(self.body) // 8), self.body)


COPY_NODE, HOST_NODE = 1, 3  # CUgraphNodeType


def node_number(place: int) -> int:
    return 0x5B << 56 | 11 << 48 | 0xFFFFFF - place << 4


PLACES = {node_number(place): place for place in range(64)}

Answer = Tuple[int, bytes]
LATER: Answer = (-1, b"")  # the test sends the reply itself


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket, devices: int, answers: Answers) -> None:
        self.connection = connection
        self.commands: List[Command] = []
        self.environment: Dict[str, str] = {}
        self.answers = answers
        self.deferred: Tuple[int, int] = (0, 0)
        self.ended = threading.Event()
        self.devices = devices
        self.welcome_status, self.welcome_text = 0, ""
        self.welcome_hash = SPEC_HASH
        self.memory: Dict[int, bytes] = {}
        self.next_address = ARENA
        self.graph = 0
        self.nodes: List[Tuple[int, bytes]] = []  # of graphs made by hand: type, parameters
        self.sending = threading.Lock()

    # ------------------------------------------------------------ bytes

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = self.connection.recv(size - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    def send(self, data: bytes) -> None:
        with self.sending:
            self.connection.sendall(data)

    def reply(self, request: int, status: int = 0, body: bytes = b"") -> None:
        body += b"\0" * (-len(body) % 8)
        deferred, self.deferred = self.deferred, (0, 0)
        head = REPLY.pack(REPLY.size + len(body), REPLY_KIND, request, status, *deferred)
        self.send(head + body)

    def send_data(self, request: int, offset: int, data: bytes) -> None:
        head = REPLY.pack(REPLY.size + 16, DATA_KIND, request, 0, 0, 0)
        self.send(head + struct.pack("<QQ", offset, len(data)) + data)

    def send_callback(self, token: int, function: int, data: int, kind: int = 0) -> None:
        head = REPLY.pack(REPLY.size + 40, CALLBACK_KIND, 0, 0, 0, 0)
        self.send(head + struct.pack("<QQQQIi", token, function, data, 0, kind, 0))

    def send_fetch(self, source: int, size: int) -> None:
        """Ask for all of a source that is read late; its number serves as the token."""
        body = struct.pack("<QQQII", source, 0, size, source, 1)
        self.send(REPLY.pack(REPLY.size + len(body), FETCH_KIND, 0, 0, 0, 0) + body)

    def send_output(self, fd: int, text: bytes) -> None:
        padded = text + b"\0" * (-len(text) % 8)
        head = REPLY.pack(REPLY.size + 8 + len(padded), OUTPUT_KIND, 0, 0, 0, 0)
        self.send(head + struct.pack("<II", fd, len(text)) + padded)

    # ------------------------------------------------------------ protocol

    def shake_hands(self) -> None:
        magic, protocol, size, spec_hash, _pid, _flags = HELLO.unpack(self.receive(HELLO.size))
        assert (magic, protocol, spec_hash, size % 8) == (MAGIC, PROTOCOL, SPEC_HASH, 0)
        for item in self.receive(size).split(b"\0"):
            if item:
                name, _, value = item.decode().partition("=")
                self.environment[name] = value
        text = self.welcome_text.encode()
        text += b"\0" * (-len(text) % 8)
        self.send(
            WELCOME.pack(MAGIC, PROTOCOL, self.welcome_status, self.welcome_hash, len(text), 0)
            + text
        )

    def serve(self) -> None:
        try:
            self.shake_hands()
            while True:
                command = self.read_command()
                self.commands.append(command)
                if command.name == "GOODBYE":
                    break
                self.carry_out(command)
        except (EOFError, OSError):
            pass
        finally:
            self.connection.close()
            self.ended.set()

    def read_command(self) -> Command:
        size, call, flags, request, context = COMMAND.unpack(self.receive(COMMAND.size))
        assert size % 8 == 0 and size >= COMMAND.size
        body = self.receive(size - COMMAND.size)
        bulk = self.receive(struct.unpack_from("<Q", body)[0]) if flags & HAS_BULK else b""
        return Command(NAMES[call], flags, request, context, body, bulk)

    def carry_out(self, command: Command) -> None:
        answer = (
            self.answers[command.name](self, command) if command.name in self.answers else None
        )
        if answer is None:
            answer = getattr(self, "on_" + command.name, lambda _: (0, b""))(command)
        if command.flags & WANTS_REPLY and answer != LATER:
            self.reply(command.request, *answer)

    def on_DEVICES(self, command: Command) -> Answer:
        body = struct.pack("<iI", 13020, self.devices)
        for device in range(self.devices):
            body += struct.pack(
                "<256s32s", b"Fake GPU %d" % device, b"0000:%02X:00.0" % (device + 1)
            )
            body += bytes([device + 1] * 16) + struct.pack("<QQii", 1 << 30, 0, 0, -5)
            for attribute in range(160):
                value = device + 1 if attribute == 33 else ATTRIBUTES.get(attribute, 0)
                body += struct.pack("<ii", 0, value)
        return 0, body

    def on_ALLOC(self, command: Command) -> Answer:
        size, height, _element, _rejected = struct.unpack_from("<QQII", command.body)
        pitch = (size + 511) // 512 * 512 if height else 0
        address = self.next_address
        self.next_address += ((pitch * height or size) + 511) // 512 * 512
        return 0, struct.pack("<QQ", address, pitch)

    def on_HTOD(self, command: Command) -> Answer:
        self.memory[command.words()[1]] = command.bulk
        return 0, b""

    def on_DTOH(self, command: Command) -> Answer:
        _, address, size, _stream, _ = command.words()
        self.send_data(command.request, 0, self.memory.get(address, b"\xee" * size)[:size])
        return 0, b""

    def on_COPY3D(self, command: Command) -> Answer:
        if command.flags & WANTS_REPLY:  # to the host
            width, height, depth = struct.unpack_from("<QQQ", command.body, 24 + 176)
            self.send_data(command.request, 0, bytes(width * height * depth))
        return 0, b""

    def on_LOAD(self, command: Command) -> Answer:
        return 0, struct.pack("<QQ", 0, 0)

    def on_GET_FUNCTION(self, command: Command) -> Answer:
        """A kernel of (pointer, int, char): 8 bytes, 4 bytes, 1 byte."""
        layout = [(0, 8), (8, 4), (12, 1)]
        info = struct.pack("<QII", command.words()[1], len(layout), 13)
        attributes = [0] * 16
        attributes[0], attributes[4], attributes[8] = 512, 120, 49152
        info += struct.pack("<16iII", *attributes, 1 | 1 << 4 | 1 << 8, 0)
        return 0, info + b"".join(struct.pack("<II", *item) for item in layout)

    # ------------------------------------------------------------ one graph: its nodes are a chain

    def add_node(self, command: Command, size: int, kind: int) -> Answer:
        self.graph, dependencies = command.words()[
            1:3
        ]  # bytes of them; the highest number for NULL
        at = 24 + (dependencies if dependencies < len(command.body) else 0) + 16
        self.nodes.append((kind, command.body[at : at + size]))
        return 0, struct.pack("<QQ", 8, node_number(len(self.nodes) - 1))

    def on_cuGraphAddHostNode(self, command: Command) -> Answer:
        return self.add_node(command, 16, HOST_NODE)

    def on_cuGraphAddMemcpyNode(self, command: Command) -> Answer:
        return self.add_node(command, 200, COPY_NODE)

    def on_cuGraphHostNodeSetParams(self, command: Command) -> Answer:
        place = PLACES.get(command.words()[0], 0)
        self.nodes[place] = (HOST_NODE, command.body[16:32])
        return 0, b""

    def on_cuGraphExecHostNodeSetParams(self, command: Command) -> Answer:
        place = PLACES.get(command.words()[1], 0)
        self.nodes[place] = (HOST_NODE, command.body[24:40])  # one instance is the graph to us
        return 0, b""

    def on_GRAPH_SHAPE(self, command: Command) -> Answer:
        marked, count = b"", len(self.nodes)
        for place, (kind, given) in enumerate(self.nodes):
            ends = struct.unpack_from("<8xQ", given) + (0,)
            if kind == COPY_NODE:
                ends = struct.unpack_from("<48xQ80xQ", given)
            marked += struct.pack("<IIQQQ", place, kind, node_number(place), *ends)
        edges = b"".join(struct.pack("<II", i, i + 1) for i in range(count - 1))
        return 0, struct.pack("<IIII", count, count, max(count - 1, 0), 0) + marked + edges

    def on_PROGRAM_NODE(self, command: Command) -> Answer:
        place = PLACES.get(command.words()[0], 0)
        if place >= len(self.nodes):
            return 1, b""
        kind, given = self.nodes[place]
        function = struct.unpack_from("<8xQ", given)[0] if kind == HOST_NODE else 0
        copy = given if kind == COPY_NODE else bytes(200)
        return 0, struct.pack("<QQ", self.graph, function) + copy

    def on_cuMemAddressReserve(self, command: Command) -> Answer:
        return 801, b""  # no memory that both sides could share

    def on_PROGRESS(self, command: Command) -> Answer:
        self.send(REPLY.pack(REPLY.size, PROGRESS_KIND, command.request, 0, 0, 0))
        return LATER

    def on_MEMORY_INFO(self, command: Command) -> Answer:
        return 0, struct.pack("<QQ", 1 << 29, 1 << 30)

    def named(self, name: str) -> List[Command]:
        return [command for command in self.commands if command.name == name]

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 60) -> List[Command]:
        """The commands of this name, once there are that many."""
        pause = threading.Event()
        for _ in range(int(timeout_s * 200)):
            found = self.named(name)
            if len(found) >= count:
                return found
            pause.wait(0.005)
        raise AssertionError(
            "got %s, not %d of %s" % ([c.name for c in self.commands], count, name)
        )


Answers = Dict[str, Callable[[Peer, Command], Optional[Answer]]]


class Broker:
    """Stands for the launcher: gives each process that asks a connection to a Peer of its own."""

    def __init__(self, prepare: Optional[Callable[[Peer], None]] = None, devices: int = 1) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bitfusion-test-")
        self.path = os.path.join(self.folder.name, "broker")
        self.prepare = prepare
        self.devices = devices
        self.peers: List[Peer] = []
        self.answers: Answers = {}
        self.refusal: Tuple[int, str] = (0, "")
        self.patience_us = 0  # with a peer's first words
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.arrived = threading.Condition()
        threading.Thread(target=self.serve, daemon=True).start()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        where: Optional[TracebackType],
    ) -> None:
        self.listener.close()
        self.folder.cleanup()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                self.answer(client)

    def answer(self, client: socket.socket) -> None:
        magic, version, operation, _pid, _zero = struct.unpack("<8sIIII", client.recv(24))
        assert (magic, version, operation) == (b"BFBROKR\0", 1, 1)
        status, text = self.refusal
        head = struct.pack("<8sIiII", b"BFBROKR\0", 1, status, 2, len(text)) + text.encode()
        if status:
            client.sendall(head)
            return
        ours, theirs = socket.socketpair()
        limit = struct.pack("ll", 0, self.patience_us)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        peer = Peer(ours, self.devices, self.answers)
        if self.prepare:
            self.prepare(peer)
        with self.arrived:
            self.peers.append(peer)
            self.arrived.notify_all()
        threading.Thread(target=peer.serve, daemon=True).start()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
        client.sendmsg([head], rights)
        theirs.close()

    def peer(self, number: int = 0) -> Peer:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.peers) > number, 60)
            return self.peers[number]
