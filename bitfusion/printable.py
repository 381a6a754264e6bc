# SPDX-License-Identifier: Apache-2.0
"""What others wrote, as a terminal or a log may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """With escapes for all that would move a cursor, change colours or begin a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same, of text with lines of our own."""
    return "\n".join(map(printable, text.split("\n")))


def without_controls(text: str) -> str:
    """Without all that."""
    return "".join(c for c in text if c.isprintable())
