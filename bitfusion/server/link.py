# SPDX-License-Identifier: Apache-2.0
"""The server's end of one nursery's socket: orders out, events in; never blocks the loop."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from bitfusion import log
from bitfusion.errors import reason
from bitfusion.server import nursery
from bitfusion.server.loop import READ, WRITE, Loop

FLUSH_PATIENCE_S = 2.0
# What the system says of one order that it does not take, while it would take others.
NOT_TAKEN = (errno.EMSGSIZE, errno.ETOOMANYREFS, errno.ENOMEM)

Failed = Callable[[str], None]  # told why


def complain(why: str) -> None:
    log.error(f"the nursery of workers cannot be told what it should know: {why}")


class Order(NamedTuple):
    text: bytes
    data: Optional[socket.socket] = None  # ours until it is sent
    ledger: int = -1  # its session's, which outlives the order
    failed: Failed = complain  # where the nursery will never hear it

    def descriptors(self) -> list[int]:
        fds = [self.data.fileno()] if self.data else []
        return fds + ([self.ledger] if self.ledger >= 0 else [])

    def close(self) -> None:
        if self.data:
            self.data.close()


class Link:
    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        hear: Callable[[dict[str, Any]], None],
        lost: Callable[[Link], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._hear = hear
        self._lost = lost
        self._orders: deque[Order] = deque()
        self.closed = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._ready)

    @property
    def pending(self) -> bool:
        """Whether there are orders that are not on their way yet."""
        return bool(self._orders)

    def order(
        self,
        order: dict[str, object],
        data: Optional[socket.socket] = None,
        ledger: int = -1,
        failed: Failed = complain,
    ) -> None:
        """Takes the data connection over, and the ledger not."""
        self._orders.append(Order(json.dumps(order).encode(), data, ledger, failed))
        self._send()

    def _send(self) -> None:
        if self.closed:
            self._drop_orders()
            return
        while self._orders:
            order = self._orders[0]
            try:
                if len(order.text) > nursery.MAX_MESSAGE:
                    raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
                socket.send_fds(self._socket, [order.text], order.descriptors())
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in NOT_TAKEN:
                    self._drop_orders()  # the nursery is dead; the read side tells everybody
                    break
                order.failed(reason(error))
            self._orders.popleft().close()
        self._loop.watch(
            self._socket.fileno(), READ | WRITE if self._orders else READ, self._ready
        )

    def _drop_orders(self) -> None:
        while self._orders:
            self._orders.popleft().close()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._send()
        if events & READ:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(nursery.MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._hear(json.loads(data))
        else:
            self.close()
            self._lost(self)

    def flush(self) -> None:
        """At the server's end: what is ordered must still get there; this blocks. The nursery may
        itself be waiting for us to read.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        while self._orders and not self.closed:
            ready = poll.poll(FLUSH_PATIENCE_S * 1000)
            if not ready:
                return
            if ready[0][1] & select.POLLIN:
                self._read()
            if not self.closed:
                self._send()

    def wait_for_end(self, patience_s: float) -> None:
        """At the server's end, of a nursery that was told to end; this blocks."""
        self._socket.settimeout(patience_s)
        try:
            while self._socket.recv(nursery.MAX_MESSAGE):
                pass
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._drop_orders()
