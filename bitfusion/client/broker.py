# SPDX-License-Identifier: Apache-2.0
"""Serves BITFUSION_SOCKET: each process of the program asks once and gets a connected descriptor.

Runs in a thread of the launcher, because connecting may wait and the main thread must go on
forwarding signals.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Protocol

from bitfusion import linux, log
from bitfusion.errors import BitfusionError
from bitfusion.wire import control

MAX_PENDING = 1024
PAUSE_S = 0.05


class DataSource(Protocol):
    """Of client/control.py's Session."""

    def open_data(self, pid: int, cold: bool) -> tuple[socket.socket, int]: ...


class Broker:
    def __init__(
        self,
        path: str,
        source: DataSource,
        watched: int = -1,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """watched: the control connection; it never speaks unasked, so readable means ended. -1
        where somebody else looks after it.
        """
        self.path = path
        self._source = source
        self._watched = watched
        self._on_lost = on_lost
        self.lost = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(MAX_PENDING)
        self._listener.setblocking(False)
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        linux.start_thread(self._thread)

    def stop(self, patience_s: float = 1.0) -> None:
        os.write(self._wake_writer, b"x")
        self._thread.join(patience_s)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            self._selector = selector
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            if self._watched >= 0:
                selector.register(self._watched, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select():
                    if key.fd == self._wake_reader:
                        return
                    self._act(key)

    def _act(self, key: selectors.SelectorKey) -> None:
        if key.fd == self._watched:
            self._selector.unregister(self._watched)
            self.lost = True
            self._on_lost()
        elif isinstance(key.fileobj, socket.socket) and key.fileobj is not self._listener:
            self._selector.unregister(key.fileobj)
            with key.fileobj:
                self._serve(key.fileobj)
        else:
            self._accept()

    def _accept(self) -> None:
        try:
            proxy, _address = self._listener.accept()
        except OSError as error:
            if error.errno in linux.EXHAUSTED:
                log.once(f"processes wait for their connections: {error.strerror}")
                time.sleep(PAUSE_S)  # of this thread only; it would spin
            return
        _pid, uid, _gid = linux.peer_credentials(proxy)
        if uid not in (0, os.geteuid()) or len(self._selector.get_map()) > MAX_PENDING:
            proxy.close()
            return
        proxy.setblocking(False)
        self._selector.register(proxy, selectors.EVENT_READ)

    def _serve(self, proxy: socket.socket) -> None:
        try:
            data = proxy.recv(control.BROKER_REQUEST.size)
            pid, flags = control.unpack_broker_request(data)
        except OSError:
            return
        except (ValueError, struct.error) as error:
            log.warn(f"refused a connection to the broker: {error}")
            self._answer(proxy, control.CUDA_ERROR_SYSTEM_NOT_READY, 0, str(error), [])
            return
        try:
            if self.lost:
                raise BitfusionError(what="the server is gone")
            sock, transport = self._source.open_data(pid, bool(flags & control.BROKER_COLD))
        except Exception as error:  # whatever it is, the thread must live: the program waits
            log.warn(f"cannot connect process {pid}: {error}")
            self._answer(proxy, control.CUDA_ERROR_SYSTEM_NOT_READY, 0, str(error), [])
            return
        with sock:
            self._answer(proxy, control.CUDA_SUCCESS, transport, "", [sock.fileno()])
        name = {control.TRANSPORT_TCP: "TCP", control.TRANSPORT_UNIX: "a Unix socket"}[transport]
        log.info(f"process {pid} is connected over {name}")

    def _answer(
        self, proxy: socket.socket, status: int, transport: int, text: str, fds: list[int]
    ) -> None:
        try:
            socket.send_fds(proxy, [control.pack_broker_answer(status, transport, text)], fds)
        except OSError:
            pass  # the process ended while it waited
