# SPDX-License-Identifier: Apache-2.0
"""What others wrote, as a terminal or a log may show it. All that we print goes through here: a
line of ours is one line, whatever the texts in it are.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_LINE = 4000  # characters: more than any line of ours, less than what a pipe takes in one piece


def printable(text: str) -> str:
    """With escapes for all that would move a cursor, change colours or begin a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """The same, and never longer than a line may be; without its end."""
    shown = printable(text[: MAX_LINE + 1])
    return shown if len(shown) <= MAX_LINE else f"{shown[: MAX_LINE - 3]}..."


def as_lines(lines: Iterable[str]) -> str:
    """The text of these lines."""
    return "".join(f"{printable(line)}\n" for line in lines)


def without_controls(text: str) -> str:
    """Without all that."""
    return "".join(c for c in text if c.isprintable())
