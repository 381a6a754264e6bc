# SPDX-License-Identifier: Apache-2.0
"""Tells a service manager how the server is: systemd's protocol of datagrams, a few words each."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from bitfusion import log
from bitfusion.server.loop import Timers


class Manager:
    """Without a manager it tells nobody. To be made before any process is forked: what it finds
    in the environment is meant for this process alone.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        name = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        ours = process in ("", str(os.getpid()))
        self._watch_s = int(period) / 1e6 if period.isdigit() and ours else 0.0
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def tell(self, text: str) -> None:
        if not self._address:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:  # such as one that is busy: the next word says it again
            log.once(f"cannot tell the service manager: {error.strerror}")

    def ready(self, timers: Timers) -> None:
        """From now on the loop says that it turns, and is started again when it does not."""
        self.tell("READY=1")
        if self._watch_s > 0:
            self._turn(timers)

    def _turn(self, timers: Timers) -> None:
        self.tell("WATCHDOG=1")
        timers.after(self._watch_s / 2, lambda: self._turn(timers))

    def stopping(self) -> None:
        self.tell("STOPPING=1")
