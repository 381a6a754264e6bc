# SPDX-License-Identifier: Apache-2.0
"""Lines of the log that a client decides how many there are of: of each source so many a minute,
the rest is counted. Pure: a clock is an argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

WINDOW_S = 60.0
MAX_LINES_OF = 60  # of one source in a window: those of a dozen sessions
MAX_SOURCES = 4096  # that have lines of their own in a window
OTHERS = "others"


class Chatter:
    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._window_s = clock()  # when this one began
        self._said: Counter[str] = Counter()  # in this window, by source
        self._unsaid: Counter[str] = Counter()

    def may(self, source: str) -> bool:
        """Whether there is room for another line."""
        self._turn()
        return self._said[self._known(source)] < MAX_LINES_OF

    def say(self, source: str, text: str) -> None:
        if self.may(source):
            self._said[self._known(source)] += 1
            self._say(text)
        else:
            self._unsaid[self._known(source)] += 1

    def _known(self, source: str) -> str:
        known = source in self._said or len(self._said) < MAX_SOURCES
        return source if known else OTHERS

    def _turn(self) -> None:
        if self._clock() - self._window_s < WINDOW_S:
            return
        for source, count in self._unsaid.items():
            self._say(f"{count} more lines in a minute about sessions of {source}")
        self._window_s = self._clock()
        self._said.clear()
        self._unsaid.clear()
