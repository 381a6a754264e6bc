# SPDX-License-Identifier: Apache-2.0
"""Carries a stream between a socket in clear text and one of TLS, both ways, in one thread.

Each direction holds at most a chunk: it reads no more until that is written, so whoever is slow
slows the other down, as on one connection. The end of a stream is passed on when all before it
was, and an error ends both. The end that matters is that of the stream inside, which says itself
when it is whole; so TLS's own farewell is not waited for.
"""

from __future__ import annotations

import select
import socket
import ssl
import time

CHUNK = 256 << 10
RECORD = 16 << 10  # of TLS
HANDSHAKE_S = 10.0
LINGER_MS = 5000  # for the end of a stream that nobody takes any more


class Secured:
    """One end of TLS, whose bytes its owner carries."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self._input, self._output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._input, self._output, server_side=server_side)

    def shake_hands(self, sock: socket.socket, patience_s: float = HANDSHAKE_S) -> None:
        """Raises OSError, which ssl.SSLError is."""
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                self.tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                self._say_why(sock)
                raise
            if self._output.pending:
                sock.sendall(self._output.read())
            if done:
                return
            sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = sock.recv(CHUNK)
            if not data:
                raise ConnectionError("it ended the connection")
            self._input.write(data)

    def _say_why(self, sock: socket.socket) -> None:
        """TLS has an alert for the other end."""
        try:
            sock.sendall(self._output.read())
        except OSError:
            pass  # the first error tells more

    def encrypt(self, data: memoryview) -> bytes:
        while data:
            data = data[self.tls.write(data) :]
        return self._output.read()

    def decrypt(self, data: bytes) -> bytes:
        """What is whole of it by now."""
        self._input.write(data)
        parts = []
        try:
            while True:
                part = self.tls.read(RECORD)
                if not part:
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        return b"".join(parts)

    def answers(self) -> bytes:
        return self._output.read()


class Flow:
    """One direction: what is read and not written yet, and whether its end has come."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting = memoryview(b"")
        self.ended = False  # the source gave its end
        self.closed = False  # and the target got it, or is gone
        self.lost = False  # it is gone

    def read(self) -> bytes:
        data = self.source.recv(CHUNK)
        self.ended = not data
        return data

    def write(self) -> None:
        try:
            while self.waiting and not self.lost:
                self.waiting = self.waiting[self.target.send(self.waiting) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self.lose()
        if self.lost:
            self.waiting = memoryview(b"")
        if self.ended and not self.closed:
            self.closed = True
            self.target.shutdown(socket.SHUT_WR)

    def lose(self) -> None:
        """Nobody takes it any more. The source is read on: were its socket closed with something
        unread, the other end would lose what it has not read yet.
        """
        self.waiting, self.closed, self.lost = memoryview(b""), True, True


class Pump:
    def __init__(self, secured: Secured, secure: socket.socket, plain: socket.socket) -> None:
        """After the handshake. Takes both sockets over."""
        self._secured = secured
        self._out, self._in = Flow(plain, secure), Flow(secure, plain)
        secure.setblocking(False)
        plain.setblocking(False)

    def run(self) -> None:
        """Until both streams have ended, or one of them broke."""
        try:
            self._in.waiting = memoryview(self._secured.decrypt(b""))  # came with the handshake
            self._in.write()
            while not (self._in.closed and self._out.closed and self._in.ended):
                self._turn()
        except OSError:
            pass  # the other end finds its connection ended, and says what that means
        finally:
            self._in.source.close()
            self._out.source.close()

    def _turn(self) -> None:
        poll = select.poll()
        ends = {
            self._in.source.fileno(): (self._in, self._out),
            self._out.source.fileno(): (self._out, self._in),
        }
        for fd, (source, target) in ends.items():
            events = select.POLLOUT if target.waiting else 0
            if not source.waiting:
                events |= 0 if source.ended else select.POLLIN
            if events or not (source.waiting or target.closed):  # else its end would be told again
                poll.register(fd, events)
        lingering = self._in.lost and self._out.closed
        ready = poll.poll(LINGER_MS if lingering else None)
        if not ready:
            raise TimeoutError("the other end does not end")
        for fd, events in ready:
            self._act(events, *ends[fd])

    def _act(self, events: int, source: Flow, target: Flow) -> None:
        if events & (select.POLLERR | select.POLLNVAL):
            raise ConnectionError("a connection broke")
        if events & select.POLLOUT:
            target.write()
        if events & (select.POLLIN | select.POLLHUP) and not source.waiting:
            self._take(source)
        if events & select.POLLHUP and source.ended:
            target.lose()

    def _take(self, flow: Flow) -> None:
        if flow.ended:
            return
        try:
            data = flow.read()
        except BlockingIOError:
            return
        if flow is self._out:
            flow.waiting = memoryview(self._secured.encrypt(memoryview(data)))
        else:
            flow.waiting = memoryview(self._secured.decrypt(data))
            self._answer()
        flow.write()

    def _answer(self) -> None:
        """What TLS itself has to say, such as new keys."""
        answers = self._secured.answers()
        if answers:
            self._out.waiting = memoryview(bytes(self._out.waiting) + answers)
            self._out.write()
