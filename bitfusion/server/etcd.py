# SPDX-License-Identifier: Apache-2.0
"""A client of etcd's version 3 through its JSON gateway, on our loop: h11 does HTTP, nothing
blocks.

It keeps to one endpoint while that one answers, and goes on to the next when it does not. It never
repeats a request that may have arrived: who made it decides.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

import h11

from bitfusion import linux
from bitfusion.config import format_address
from bitfusion.server.loop import READ, WRITE, Loop
from bitfusion.wire.control import Json, unpack_object

TIMEOUT_S = 5.0
MAX_CONNECTIONS = 8  # for calls; a watch has one of its own
MAX_WAITING = 2000
MAX_ANSWER = 32 << 20
RECEIVE = 256 << 10
CLOSED = "it closed the connection"
NOT_FOUND = 5  # a code of gRPC
NOT_SERVING = (0, 1, 2, 4, 14)  # nothing heard, cancelled, unknown, too late, unavailable


class Answer(NamedTuple):
    body: Json
    error: str = ""
    code: int = 0  # of gRPC; 0 where nothing came


Answered = Callable[[Answer], None]


class Endpoint(NamedTuple):
    name: str  # host:port
    host: str
    family: int
    address: tuple[object, ...]


class Request(NamedTuple):
    path: str
    body: bytes
    heard: Callable[[bytes], None]  # each piece of the answer
    ended: Callable[[int, str], None]  # HTTP status, or 0 and why


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(text: object) -> bytes:
    return base64.b64decode(str(text))


def resolve(addresses: Sequence[tuple[str, int]]) -> list[Endpoint]:
    """Once, before the loop runs, because asking for a name blocks. OSError where no name is
    known.
    """
    found: list[Endpoint] = []
    problem: Optional[OSError] = None
    for host, port in addresses:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            problem = error
            continue
        found += [Endpoint(format_address((host, port)), host, i[0], i[4]) for i in infos]
    if not found:
        raise problem or OSError("no address")
    return found


class Connection:
    """One HTTP connection, one request at a time."""

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint,
        tls: Optional[ssl.SSLContext],
        idle: Callable[[Connection], None],
    ) -> None:
        self.endpoint = endpoint
        self.closed = False
        self.used = False  # a request is on its way
        self._loop = loop
        self._idle = idle
        self._http = h11.Connection(h11.CLIENT)
        self._request: Optional[Request] = None
        self._status = 0
        self._output = bytearray()
        self._open = self._shaken = self._ended = self._spoke = False
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        linux.keep_alive(sock)
        error = sock.connect_ex(endpoint.address)
        if error not in (0, errno.EINPROGRESS):
            loop.after(0, lambda: self.close(os.strerror(error).lower()))
        if tls is not None:
            sock = tls.wrap_socket(
                sock, server_hostname=endpoint.host, do_handshake_on_connect=False
            )
        self._socket = sock
        loop.watch(sock.fileno(), READ | WRITE, self._ready)

    def send(self, request: Request) -> None:
        self._request, self._status, self.used = request, 0, True
        headers = [
            ("Host", self.endpoint.name),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(request.body))),
        ]
        head = h11.Request(method="POST", target=request.path, headers=headers)
        for event in (head, h11.Data(data=request.body), h11.EndOfMessage()):
            self._output += self._http.send(event) or b""
        if self._shaken:
            self._loop.watch(self._socket.fileno(), READ | WRITE, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if not self._open and not self._connected():
                return
            if not self._shaken and not self._shake():
                return
            self._write()
            self._read()
        except ssl.SSLError as error:
            self.close(error.reason or str(error))
        except OSError as error:
            self.close((error.strerror or str(error)).lower())
        except h11.RemoteProtocolError as error:
            broken_off = self._ended or self._spoke
            self.close(CLOSED if broken_off else f"it does not speak HTTP: {error}")

    def _connected(self) -> bool:
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        try:
            self._socket.getpeername()
        except OSError:
            return False  # woken too early
        self._open = True
        return True

    def _shake(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                self._loop.watch(self._socket.fileno(), READ, self._ready)
                return False
            except ssl.SSLWantWriteError:
                self._loop.watch(self._socket.fileno(), WRITE, self._ready)
                return False
        self._shaken = True
        return True

    def _write(self) -> None:
        try:
            while self._output:
                sent = self._socket.send(self._output)
                del self._output[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        events = READ | WRITE if self._output else READ
        self._loop.watch(self._socket.fileno(), events, self._ready)

    def _read(self) -> None:
        """One piece for a turn; what TLS has decrypted already would not wake us again."""
        while not self.closed:
            try:
                data = self._socket.recv(RECEIVE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self._ended = not data
            self._http.receive_data(data)
            self._hear()
            if not data:
                self.close(CLOSED)
            if not isinstance(self._socket, ssl.SSLSocket) or not self._socket.pending():
                return

    def _hear(self) -> None:
        while not self.closed:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self._status, self._spoke = event.status_code, True
            elif isinstance(event, h11.Data) and self._request:
                self._request.heard(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._finish()
            elif not isinstance(event, h11.InformationalResponse):
                return

    def _finish(self) -> None:
        request, self._request, self.used = self._request, None, False
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._idle(self)
        else:
            self.close("")
        if request:
            request.ended(self._status, "")

    def close(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        request, self._request = self._request, None
        if request:
            request.ended(0, why)


class Watch:
    """Messages of an answer that does not end, one JSON object a line."""

    def __init__(self, message: Callable[[Json], None], ended: Callable[[str], None]) -> None:
        self._message = message
        self._ended = ended
        self._input = bytearray()
        self.connection: Optional[Connection] = None

    def heard(self, data: bytes) -> None:
        if self.connection is None:
            return
        self._input += data
        while b"\n" in self._input and self.connection is not None:
            line, _, self._input = self._input.partition(b"\n")
            try:
                message = unpack_object(bytes(line))
            except ValueError:
                self.connection.close("it sent no JSON")
                return
            self._message(message)
        if len(self._input) > MAX_ANSWER and self.connection is not None:
            self.connection.close("it sent too much")

    def ended(self, status: int, why: str) -> None:
        if self.connection is not None:
            self.connection = None
            self._ended(why or f"it ended the watch (status {status})")

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection:
            connection.close("")


class Etcd:
    def __init__(
        self, loop: Loop, endpoints: Sequence[Endpoint], tls: Optional[ssl.SSLContext] = None
    ) -> None:
        self._loop = loop
        self._endpoints = endpoints
        self._tls = tls
        self._current = 0
        self._connections: list[Connection] = []
        self._waiting: deque[Request] = deque()

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoints[self._current]

    def call(
        self, path: str, body: Json, answered: Answered, timeout_s: float = TIMEOUT_S
    ) -> None:
        """answered is called once, and never from here."""
        pieces = bytearray()
        open_ = True

        def end(answer: Answer) -> None:
            nonlocal open_
            if open_:
                open_ = False
                timer.cancel()
                answered(answer)

        def heard(data: bytes) -> None:
            pieces.extend(data)
            if len(pieces) > MAX_ANSWER:
                self._drop(request, "it sent too much")

        def ended(status: int, why: str) -> None:
            end(Answer({}, why) if why else unpack_answer(status, bytes(pieces)))

        request = Request(path, json.dumps(body).encode(), heard, ended)
        timer = self._loop.after(timeout_s, lambda: self._drop(request, "it does not answer"))
        if len(self._waiting) >= MAX_WAITING:
            self._loop.after(0, lambda: end(Answer({}, "too many requests wait for it")))
            return
        self._waiting.append(request)
        self._loop.after(0, self._send)

    def watch(
        self, body: Json, message: Callable[[Json], None], ended: Callable[[str], None]
    ) -> Watch:
        watch = Watch(message, ended)
        connection = Connection(self._loop, self.endpoint, self._tls, lambda _connection: None)
        watch.connection = connection
        connection.send(Request("/v3/watch", json.dumps(body).encode(), watch.heard, watch.ended))
        return watch

    def _send(self) -> None:
        self._connections = [c for c in self._connections if not c.closed]
        while self._waiting:
            connection = next((c for c in self._connections if not c.used), None)
            if connection is None:
                if len(self._connections) >= MAX_CONNECTIONS:
                    return
                connection = Connection(self._loop, self.endpoint, self._tls, self._is_idle)
                self._connections.append(connection)
            connection.send(self._waiting.popleft())

    def _is_idle(self, _connection: Connection) -> None:
        if self._waiting:
            self._loop.after(0, self._send)

    def _drop(self, request: Request, why: str) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
            request.ended(0, why)
        for connection in self._connections:
            if connection._request is request:
                connection.close(why)

    def leave(self, why: str) -> None:
        """This endpoint is no good: end what waits for it, and take the next."""
        self._current = (self._current + 1) % len(self._endpoints)
        self.close(why)

    def close(self, why: str = "closed") -> None:
        connections, self._connections = self._connections, []
        waiting, self._waiting = self._waiting, deque()
        for connection in connections:
            connection.close(why)
        for request in waiting:
            request.ended(0, why)


def unpack_answer(status: int, data: bytes) -> Answer:
    """Streams of one answer (keep-alive of a lease) wrap it in a result."""
    try:
        body = unpack_object(data)
    except ValueError:
        return Answer({}, f"it answered with status {status} and no JSON")
    inner = body.get("result", body.get("error", body))
    if isinstance(inner, dict) and inner is not body:
        body = {"error": inner.get("message", "failed"), **inner} if "error" in body else inner
    error = body.get("error") or body.get("message")
    if error or status != 200:
        code = body.get("code", body.get("grpc_code"))
        return Answer({}, str(error or f"status {status}"), code if isinstance(code, int) else 2)
    return Answer(body)


def number(body: Json, *path: str) -> int:
    """etcd writes numbers as texts, and leaves zeros out."""
    value: object = body
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return int(str(value)) if value is not None else 0
