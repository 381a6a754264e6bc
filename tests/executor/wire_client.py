# SPDX-License-Identifier: Apache-2.0
"""A client of the executor for tests: bytes out of wire.h and calls.h, no proxy."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "wire"))

from wire_layout import CALLS, COMMAND, HAS_BULK, PROTOCOL, SPEC_HASH, WANTS_REPLY  # noqa: E402
from wire_layout import REPLY_HEAD as HEAD  # noqa: E402

REPLY, DATA, CALLBACK, OUTPUT, FETCH, PROGRESS = range(6)
NULL = 2**64 - 1

(
    OP_NONE,
    OP_DEVICES,
    OP_LAUNCH,
    OP_HTOD,
    OP_DTOH,
    OP_COPY3D,
    OP_ALLOC,
    OP_FREE,
    OP_LOAD,
    OP_GET_FUNCTION,
    OP_HOST_FUNCTION,
    OP_CALLBACK_DONE,
    OP_MEMORY_INFO,
    OP_GOODBYE,
    OP_LATE,
    OP_PROGRESS,
    OP_REFRESH,
    OP_KERNEL_NODE,
) = range(18)

(_, CONTEXT, MODULE, FUNCTION, LIBRARY, KERNEL, STREAM, EVENT, MEMPOOL, GRAPH) = range(10)

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY = 0, 1, 2
INVALID_CONTEXT, INVALID_HANDLE, NOT_READY, ILLEGAL_ADDRESS = 201, 400, 600, 700


def handle(kind: int, index: int) -> int:
    return 0x5B << 56 | kind << 48 | index << 4


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def joined(parts: Sequence[bytes], sizes: Sequence[int]) -> bytes:
    """The bulk of linked code: it first, then what it was linked from."""
    return struct.pack(f"<{len(sizes)}Q", *sizes) + b"".join(padded(part) for part in parts)


class Reply(NamedTuple):
    kind: int
    request: int
    status: int
    deferred: int
    deferred_call: int
    body: bytes
    bulk: bytes


class Client:
    """One connection; `commands` collects until `flush`."""

    def __init__(self, peer: socket.socket, timeout: float = 60) -> None:
        self.socket = peer
        self.socket.settimeout(timeout)
        self.out = bytearray()
        self.requests = 0
        self.context = 1
        self.output = {1: b"", 2: b""}
        self.callbacks: List[Tuple[int, int, int]] = []
        self.fetches: List[Tuple[int, int, int, int]] = []
        self.data: Dict[int, Dict[int, bytes]] = {}
        self.replies: Dict[int, Reply] = {}
        self.order: List[int] = []

    def hello(
        self,
        environment: Optional[Dict[str, str]] = None,
        protocol: int = PROTOCOL,
        spec_hash: int = SPEC_HASH,
    ) -> Tuple[int, str]:
        text = b"".join(
            f"{name}={value}".encode() + b"\0" for name, value in (environment or {}).items()
        )
        text = padded(text)
        self.socket.sendall(
            struct.pack("<8sIIQII", b"BFWIRE\r\n", protocol, len(text), spec_hash, os.getpid(), 0)
            + text
        )
        answer = self._exactly(32)
        magic, _, status, _, size, _ = struct.unpack("<8sIiQII", answer)
        assert magic == b"BFWIRE\r\n"
        return status, self._exactly(size).rstrip(b"\0").decode()

    def command(self, call: int, body: bytes = b"", flags: int = 0, bulk: bytes = b"") -> int:
        """Append a command; returns its request number, 0 for a one-way one."""
        request = 0
        if flags & WANTS_REPLY:
            self.requests += 1
            request = self.requests
        if call in (OP_COPY3D, OP_LOAD) or (call in (OP_HTOD, OP_LATE) and bulk):
            flags |= HAS_BULK
        self.out += COMMAND.pack(16 + len(body), call, flags, request, self.context)
        self.out += body + bulk
        return request

    def row(self, name: str, body: bytes = b"", flags: int = 0) -> int:
        return self.command(CALLS[name], body, flags)

    def flush(self) -> None:
        self.socket.sendall(self.out)
        self.out.clear()

    def wait(self, request: int) -> Reply:
        self.flush()
        while request not in self.replies:
            self.receive()
        return self.replies.pop(request)

    def sync(self, name: str, body: bytes = b"", flags: int = 0) -> Reply:
        return self.wait(self.row(name, body, flags | WANTS_REPLY))

    def operation(self, call: int, body: bytes = b"", flags: int = 0, bulk: bytes = b"") -> Reply:
        return self.wait(self.command(call, body, flags | WANTS_REPLY, bulk))

    # ---- what driver functions look like

    def alloc(self, size: int, rejected: Sequence[int] = ()) -> Tuple[int, int]:
        body = struct.pack("<QQII", size, 0, 0, len(rejected))
        body += b"".join(struct.pack("<Q", address) for address in rejected)
        reply = self.operation(OP_ALLOC, body)
        address = struct.unpack_from("<Q", reply.body)[0] if reply.body else 0
        return reply.status, address

    def free(self, address: int) -> None:
        self.command(OP_FREE, struct.pack("<Q", address))

    def upload(self, address: int, data: bytes, stream: int = 0, asynchronous: int = 0) -> None:
        size = len(data)
        body = struct.pack("<QQQQII", size, address, size, stream, asynchronous, 0)
        self.command(OP_HTOD, body, 0, data)

    def upload_late(self, address: int, size: int, stream: int, source: int) -> None:
        body = struct.pack("<QQQQII", 0, address, size, stream, 1, source)
        self.command(OP_HTOD, body, 0)

    def start_download(
        self, address: int, size: int, stream: int = 0, asynchronous: int = 0, flags: int = 0
    ) -> int:
        body = struct.pack("<QQQQII", 0, address, size, stream, asynchronous, 0)
        return self.command(OP_DTOH, body, WANTS_REPLY | flags)

    def download(self, address: int, size: int, stream: int = 0, flags: int = 0) -> bytes:
        reply = self.wait(self.start_download(address, size, stream, 0, flags))
        assert reply.status == 0, reply.status
        return reply.bulk

    def refresh(self, address: int, size: int, known: Sequence[int], stream: int = 0) -> Reply:
        body = struct.pack("<QQQ%dQ" % len(known), address, size, stream, *known)
        return self.operation(OP_REFRESH, body)

    def launch(self, function: int, parameters: bytes, stream: int = 0, flags: int = 0) -> int:
        body = struct.pack(
            "<QQ6IIIII", function, stream, 1, 1, 1, 32, 1, 1, 0, len(parameters), 0, 0
        )
        return self.command(OP_LAUNCH, body + padded(parameters), flags)

    def load_module(self, index: int, image: bytes, *inputs: bytes) -> Reply:
        if inputs:
            image = joined((image, *inputs), [len(part) for part in (image, *inputs)])
        head = (len(image), handle(MODULE, index), 0, 0, 0, 0, 0, len(inputs))
        return self.operation(OP_LOAD, struct.pack("<QQIIIIII", *head), 0, image)

    def start_look_up(self, module: int, index: int, name: str) -> int:
        text = padded(name.encode() + b"\0")
        body = struct.pack("<QQII", handle(MODULE, module), handle(FUNCTION, index), len(text), 0)
        return self.command(OP_GET_FUNCTION, body + text, WANTS_REPLY)

    def get_function(self, module: int, index: int, name: str) -> Reply:
        return self.wait(self.start_look_up(module, index, name))

    def stream(self, index: int, flags: int = 0) -> int:
        self.row("cuStreamCreate", struct.pack("<QQ", handle(STREAM, index), flags))
        return handle(STREAM, index)

    def synchronize(self, stream: int = 0, flags: int = 0) -> Reply:
        return self.sync("cuStreamSynchronize", struct.pack("<Q", stream), flags)

    def goodbye(self) -> None:
        self.command(OP_GOODBYE)
        self.flush()

    # ---- receiving

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def receive(self) -> Reply:
        size, kind, request, status, deferred, call = HEAD.unpack(self._exactly(HEAD.size))
        body = self._exactly(size - HEAD.size)
        bulk = b""
        if kind == DATA:
            offset, length = struct.unpack("<QQ", body)
            self.data.setdefault(request, {})[offset] = self._exactly(length)
        elif kind == OUTPUT:
            fd, length = struct.unpack_from("<II", body)
            self.output[fd] += body[8 : 8 + length]
        elif kind == CALLBACK:
            token, function, data, _, _, _ = struct.unpack("<QQQQIi", body)
            self.callbacks.append((token, function, data))
        elif kind == FETCH:
            token, offset, length, source, _ = struct.unpack("<QQQII", body)
            self.fetches.append((token, source, offset, length))
        else:
            parts = self.data.pop(request, {})
            bulk = b"".join(parts[offset] for offset in sorted(parts))
        reply = Reply(kind, request, status, deferred, call, body, bulk)
        if kind == REPLY:
            self.replies[request] = reply
            self.order.append(request)
        return reply


SERVE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from bitfusion.executor import core
driver, fd, devices, ledger, slot, warm, grace, memory = sys.argv[2:]
if int(warm):
    core.warm(driver)
os._exit(core.serve(int(fd), driver=driver, devices=[int(d) for d in devices.split(",")],
                    ledger_fd=int(ledger), slot=int(slot), verbose=False, grace_ms=int(grace),
                    host_memory=int(memory)))
"""


class Worker:
    """A process that serves one end of a connection with the executor."""

    def __init__(
        self,
        driver: Path,
        *,
        program: Optional[Path] = None,
        devices: str = "0",
        ledger: int = -1,
        slot: int = 0,
        warm: bool = False,
        tcp: bool = False,
        grace_ms: int = 300,
        host_memory: int = 0,
        environment: Optional[Dict[str, str]] = None,
        timeout: float = 60,
    ) -> None:
        ours, theirs = _tcp_pair() if tcp else socket.socketpair()
        passed = [theirs.fileno()] + ([ledger] if ledger >= 0 else [])
        start = [str(program)] if program else [sys.executable, "-c", SERVE, str(ROOT)]
        arguments = [str(driver), str(theirs.fileno()), devices, str(ledger), str(slot)]
        self.process = subprocess.Popen(
            [*start, *arguments, str(int(warm)), str(grace_ms), str(host_memory)],
            pass_fds=passed,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.client = Client(ours, timeout)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.socket.close()
        if self.process.poll() is None:
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.communicate()

    def end(self, timeout: float = 60) -> Tuple[int, str]:
        """Wait for the process; returns its status and log."""
        _, log = self.process.communicate(timeout=timeout)
        return self.process.returncode, log.decode("utf-8", "replace")


def _tcp_pair() -> Tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs
