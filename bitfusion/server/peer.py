# SPDX-License-Identifier: Apache-2.0
"""A client's control connection: bytes in, calls answered, bytes out; bounded both ways, and in
what it may have done in one turn of the loop.

Which language the bytes speak is the codec's business: lines.py for a private server, http.py for
a real one.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Optional, Protocol, Union

from bitfusion import log
from bitfusion.server.loop import READ, WRITE, Loop
from bitfusion.wire.control import Call, Reply

RECEIVE = 64 << 10
MAX_OUTPUT = 4 << 20  # of a client that does not read its answers
MAX_AHEAD = 64 << 10  # of a client that asks on while its last answer is to come
MAX_CALLS = 16  # answered before others have their turn
STEP_S = 0.005  # the same, where calls are costly


class BrokenRules(Exception):
    """The other end does not speak our language; its connection is dropped."""


class Later:
    """An answer that a handler does not have yet; its peer takes no further call until then."""

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] = lambda: None  # nobody waits any more
        self.owed = False  # also to who is hung up on: it tells of what led to that
        self.reply: Optional[Reply] = None
        self._deliver: Optional[Callable[[Reply], None]] = None

    def complete(self, reply: Reply) -> None:
        """Once; it does nothing where nobody waits any more."""
        self.reply = reply
        if self._deliver is not None:
            self._deliver(reply)

    def send_to(self, deliver: Optional[Callable[[Reply], None]]) -> None:
        self._deliver = deliver


Answer = Union[Reply, Later]


class Codec(Protocol):
    def feed(self, data: bytes) -> None: ...
    def take(self) -> bytes:
        """What the protocol itself has to say after that."""

    def next_call(self) -> Optional[Call]: ...
    def has_more(self) -> bool:
        """Whether to ask for the next call again, without more bytes, though there was none."""

    def reply(self, reply: Reply) -> bytes: ...
    def complain(self, text: str) -> bytes: ...
    def finished(self) -> bool: ...


class Peer:
    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        codec: Codec,
        handle: Callable[[Call, Peer], Answer],
        on_close: Callable[[Peer], None],
        name: str,
    ) -> None:
        self.name = name
        self._loop = loop
        self._socket = sock
        self._codec = codec
        self._handle = handle
        self._on_close = on_close
        self._output = bytearray()
        self._ahead = bytearray()
        self._later: Optional[Later] = None
        self._undone = False  # there may be calls that came and were not answered yet
        self._queued = False  # for its turn
        self._ending = False
        self._last = False  # it takes no call after the one that it works on
        self.closed = False
        self.heard = False  # anything at all
        self.cut = 0  # the system's error that ended it; 0 where the other end did, or we
        self.broke = ""  # the rule, for which we end it
        self.soon: Callable[[Callable[[], None]], None] = loop.soon
        self.calls = 0
        self.doing = ""  # the last call, for whoever asks what takes so long
        # Told why; may say it in other words to the other end.
        self.on_broken: Callable[[str], object] = lambda why: log.warn(f"dropping {name}: {why}")
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._ready)

    @property
    def waits(self) -> bool:
        """For an answer of ours."""
        return self._later is not None

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and not self.closed and not self._ending:
            self._queue_up()

    def _queue_up(self) -> None:
        if not self._queued:
            self._queued = True
            self.soon(self._step)

    def _step(self) -> None:
        """What is done for this connection before others have their turn."""
        self._queued = False
        if self.closed or self._ending:
            return
        if self._later is None and self._undone:
            self._take(b"")
        elif self._later is None and self._ahead:
            ahead, self._ahead = bytes(self._ahead), bytearray()
            self._take(ahead)
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError as error:
            self.cut, data = error.errno or 0, b""
        if not data:
            self.close()
        else:
            self.heard = True
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            if self._later is not None:
                self._keep_ahead(data)
            else:
                if data:  # nothing would mean to HTTP that the other end hung up
                    self._codec.feed(data)
                self._output += self._codec.take()
                self._answer_some()
                self._output += self._codec.take()
        except BrokenRules as error:
            self._break(str(error))
        except Exception:
            self.close()
            raise
        if self._later is None and not self._undone:
            self._ending = self._ending or self._codec.finished()
        if self._later is None and (self._undone or self._ahead):
            self._queue_up()
        self._flush()

    def _break(self, why: str) -> None:
        self.broke = why
        text = str(self.on_broken(why) or why)
        self._output += self._codec.take() + self._codec.complain(text)
        self._ending = True

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > MAX_AHEAD:
            raise BrokenRules("it asks on and on without waiting for an answer")

    def _answer_some(self) -> None:
        until_s = self._loop.clock() + STEP_S
        self._undone = True
        for _ in range(MAX_CALLS):
            if self._ending or self.closed:
                return
            call = self._codec.next_call()
            if call is None:
                self._undone = self._codec.has_more()
                return
            self.calls += 1
            self.doing = f"{call.method} {call.path}"
            answer = self._handle(call, self)
            if isinstance(answer, Later):
                if answer.reply is None:
                    self._later = answer
                    answer.send_to(self._completed)
                    return
                answer = answer.reply
            self._output += self._codec.reply(answer)
            if self._loop.clock() >= until_s:
                return

    def _completed(self, reply: Reply) -> None:
        """The answer has come, from some other turn of the loop."""
        assert self._later is not None
        self._later.send_to(None)
        self._later = None
        self._output += self._codec.reply(reply)
        self._ending = self._ending or self._last
        self._queue_up()
        self._flush()

    def end(self) -> None:
        """Close when what is to be said has been said."""
        self._ending = True

    def hang_up(self) -> None:
        """At once, or when it has the answer that it is owed."""
        if self._later is not None and self._later.owed:
            self._last = True
        else:
            self.close()

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            while self._output:
                sent = self._socket.send(self._output)
                del self._output[:sent]
        except BlockingIOError:
            pass
        except OSError as error:
            self.cut = 0 if error.errno == errno.EPIPE else error.errno or 0
            self.close()
            return
        if len(self._output) > MAX_OUTPUT:
            self.broke = "it does not read its answers"
            self.close()
        elif self._ending and not self._output:
            self.close()
        else:
            events = (0 if self._ending else READ) | (WRITE if self._output else 0)
            self._loop.watch(self._socket.fileno(), events, self._ready)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        later, self._later = self._later, None
        if later is not None:
            later.send_to(None)
            later.on_gone()
        self._on_close(self)
