# SPDX-License-Identifier: Apache-2.0
"""Log lines, `[LEVEL] time text`, on stderr. Warnings and errors, unless a command sets a
level. Each is one line, whatever its text has in it: much of that, others wrote.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from bitfusion.outlet import Outlet

DEBUG, INFO, WARN, ERROR, SILENT = range(5)
NAMES = ("DEBUG", "INFO", "WARN", "ERROR")
MAX_PLAIN = 1000  # characters that need no closer look, where all are printable

_level = WARN
_said: set[str] = set()
_outlet: Optional[Outlet] = None


def set_level(level: int) -> None:
    global _level
    _level = level


def level() -> int:
    return _level


def never_wait() -> None:
    """For whoever has more to do than to log: lines are kept, and lost at last, where nobody reads
    stderr. To be flushed now and then.
    """
    from bitfusion.outlet import Outlet

    global _outlet
    _outlet = Outlet(2)


def flush() -> None:
    if _outlet is not None:
        _outlet.flush()


def format_line(level: int, text: str, now_s: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if not text.isprintable() or len(text) > MAX_PLAIN:
        from bitfusion.printable import one_line

        text = one_line(text)
    return f"[{NAMES[level]}] {stamp} {text}\n"


def _write(level: int, text: str) -> None:
    if level < _level:
        return
    line = format_line(level, text, time.time())
    _emit(line.encode("utf-8", "backslashreplace"))


def _emit(data: bytes) -> None:
    if _outlet is not None:
        _outlet.write(data)
        return
    try:
        os.write(2, data)
    except OSError:
        pass  # nobody reads our stderr any more; that must not end a session


def debug(text: str) -> None:
    _write(DEBUG, text)


def info(text: str) -> None:
    _write(INFO, text)


def warn(text: str) -> None:
    _write(WARN, text)


def error(text: str) -> None:
    _write(ERROR, text)


def bug(where: str) -> None:
    """The exception that is being handled; lines of its trace begin with a bar, no other does."""
    import traceback  # not needed otherwise, and slow to load

    from bitfusion.printable import one_line

    error(f"a bug, {where}: {sys.exc_info()[1]!r}")
    if _level <= ERROR:
        lines = traceback.format_exc().splitlines()
        trace = "".join(f"  | {one_line(line)}\n" for line in lines)
        _emit(trace.encode("utf-8", "backslashreplace"))


def once(text: str) -> None:
    """Warn about it the first time only."""
    if text not in _said and len(_said) < 1000:
        _said.add(text)
        warn(text)
