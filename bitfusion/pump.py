# SPDX-License-Identifier: Apache-2.0
"""Carries a stream between a socket in clear text and one of TLS, both ways, in one thread.

Each direction holds at most a chunk: it reads no more until that is written, so whoever is slow
slows the other down, as on one connection. The end of a stream is passed on when all before it
was, and an error ends both. The end that matters is that of the stream inside, which says itself
when it is whole; so TLS's own farewell is not waited for.

OpenSSL reads and writes the socket itself. Through memory (ssl.MemoryBIO) each byte would be
copied four times more, into memory that is new each time, which takes longer than encrypting it.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable

from bitfusion.certificates import forget_errors

RECORD = 16 << 10  # of TLS, at most
CHUNK = 8 * RECORD  # read at once; with its copies it fits the cache of a core
HANDSHAKE_S = 10.0
LINGER_MS = 5000  # for the end of a stream that nobody takes any more
# Of OpenSSL 3, which else would not write any more to who has ended its own stream. Python has its
# name since 3.10.
IGNORE_END = 0x80 if ssl.OPENSSL_VERSION_INFO >= (3,) else 0
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def secure(
    context: ssl.SSLContext,
    sock: socket.socket,
    server_side: bool = False,
    patience_s: float = HANDSHAKE_S,
) -> ssl.SSLSocket:
    """Speak TLS on a socket, which is taken over. Raises OSError, which ssl.SSLError is."""
    context.options |= IGNORE_END
    sock.settimeout(patience_s)
    tls = context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)
    try:
        tls.do_handshake()
    except ssl.SSLEOFError:
        tls.close()
        raise ConnectionError("it ended the connection") from None
    except BaseException:
        tls.close()
        raise
    return tls


class Flow:
    """One direction: what is read and not written yet, and whether its end has come."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting = memoryview(b"")  # a part of the memory
        self.ended = False  # the source gave its end
        self.closed = False  # and the target got it, or is gone
        self.lost = False  # it is gone
        self._memory = memoryview(bytearray(CHUNK))

    def read(self) -> None:
        """What there is, at most a chunk; a socket of TLS gives one record at a time."""
        size = 0
        try:
            while size < CHUNK:
                part = self.source.recv_into(self._memory[size:])
                self.ended = not part
                size += part
                if part < RECORD:
                    break
        except BLOCKED:
            pass
        except ConnectionResetError:
            forget_errors()
            self.ended = True  # all that was there has been read
        self.waiting = self._memory[:size]

    def write(self) -> None:
        try:
            while self.waiting and not self.lost:
                self.waiting = self.waiting[self.target.send(self.waiting) :]
        except BLOCKED:
            return
        except (BrokenPipeError, ConnectionResetError):
            forget_errors()  # or reading on would fail, too
            self.lose()
        if self.lost:
            self.waiting = memoryview(b"")
        if self.ended and not self.closed:
            self.closed = True
            socket.socket.shutdown(self.target, socket.SHUT_WR)  # one of TLS would read no more

    def lose(self) -> None:
        """Nobody takes it any more. The source is read on: were its socket closed with something
        unread, the other end would lose what it has not read yet.
        """
        self.waiting, self.closed, self.lost = memoryview(b""), True, True


class Pump:
    def __init__(
        self, secure: ssl.SSLSocket, plain: socket.socket, cut: Callable[[], None] = lambda: None
    ) -> None:
        """After the handshake. Takes both sockets over. cut: told when TLS ends first."""
        self._cut = cut
        self._secure = secure
        self._out, self._in = Flow(plain, secure), Flow(secure, plain)
        self._poll = select.poll()
        self._asked: dict[int, int] = {}  # events, by descriptor
        self._ends = {
            secure.fileno(): (self._in, self._out),
            plain.fileno(): (self._out, self._in),
        }
        secure.setblocking(False)
        plain.setblocking(False)

    def run(self) -> None:
        """Until both streams have ended, or one of them broke."""
        try:
            while not (self._in.closed and self._out.closed and self._in.ended):
                if self._secure.pending() and not self._in.waiting:
                    self._take(self._in)  # OpenSSL has it already, so the kernel tells of nothing
                else:
                    self._turn()
        except OSError:
            pass  # the other end finds its connection ended, and says what that means
        finally:
            self._in.source.close()
            self._out.source.close()

    def _turn(self) -> None:
        for fd, (source, target) in self._ends.items():
            events = select.POLLOUT if target.waiting else 0
            if not source.waiting:
                events |= 0 if source.ended else select.POLLIN
            # Who has nothing to hear any more is left out, else its end would be told again.
            self._ask(fd, events, bool(events or not (source.waiting or target.closed)))
        lingering = self._in.lost and self._out.closed
        ready = self._poll.poll(LINGER_MS if lingering else None)
        if not ready:
            raise TimeoutError("the other end does not end")
        for fd, events in ready:
            self._act(events, *self._ends[fd])

    def _ask(self, fd: int, events: int, listen: bool) -> None:
        if listen and self._asked.get(fd) != events:
            self._poll.register(fd, events)
            self._asked[fd] = events
        elif not listen and fd in self._asked:
            self._poll.unregister(fd)
            del self._asked[fd]

    def _act(self, events: int, source: Flow, target: Flow) -> None:
        if events & select.POLLERR:
            target.lose()  # what was said before may still be there to read
        elif events & select.POLLOUT:
            target.write()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not source.waiting:
            self._take(source)
        if events & select.POLLHUP and source.ended:
            target.lose()

    def _take(self, flow: Flow) -> None:
        if not flow.ended:
            flow.read()
            if flow is self._in and flow.ended and not self._out.ended:
                self._cut()
            flow.write()
