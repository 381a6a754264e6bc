# SPDX-License-Identifier: Apache-2.0
"""Tells people who wait for GPUs how long that may take: one line that is rewritten on a terminal,
else a line of the log now and then.
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Optional

from bitfusion import log
from bitfusion.quantity import format_duration, seconds_of
from bitfusion.wire.control import Json

REPEAT_S = 60.0  # of log lines that say the same
CLEAR = "\r\x1b[K"
WAITS_FOR = {  # why it waits, where that is not for what others have
    "drained": "for a server that is drained: its operator takes it back by 'server undrain'",
    "down": "for a server that is down",
    "limit": "for the client's own GPUs: it has all that it may ('bitfusion list_gpus' shows it)",
}


class Progress:
    def __init__(self, asked: str, fd: int = 2) -> None:
        self._asked = asked
        self._fd = fd
        self._terminal = os.isatty(fd)
        self._shown = ""
        self._shown_s = 0.0

    def show(self, place: Json) -> None:
        text = describe(self._asked, place)
        now_s = time.monotonic()
        if self._terminal:
            self._write(f"{CLEAR}{text}")
        elif text != self._shown or now_s - self._shown_s > REPEAT_S:
            log.warn(text)
            self._shown_s = now_s
        self._shown = text

    def say(self, text: str) -> None:
        """A line beside the one that is rewritten."""
        if self._terminal and self._shown:
            self._write(CLEAR)
        self._shown = ""  # show it again
        log.warn(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        _kind: Optional[type[BaseException]],
        _error: Optional[BaseException],
        _trace: Optional[TracebackType],
    ) -> None:
        if self._terminal and self._shown:
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        try:
            os.write(self._fd, text.encode())
        except OSError:
            pass  # nobody looks


def describe(asked: str, place: Json) -> str:
    position, of = place.get("position"), place.get("of")
    text = f"waiting for {asked}"
    if isinstance(position, int) and isinstance(of, int):
        text += f": place {position} of {of} in the queue"
    away = WAITS_FOR.get(str(place.get("away")))
    if away:
        text += f", {away}"
    estimate_s = seconds_of(place.get("estimate_s"))
    if estimate_s is not None:
        text += f", about {format_duration(max(1.0, estimate_s))}"
    return text
