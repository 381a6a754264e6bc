# SPDX-License-Identifier: Apache-2.0
"""How much of the log one client can fill."""

from __future__ import annotations

from typing import List

from bitfusion.server.chatter import MAX_LINES_OF, MAX_SOURCES, OTHERS, WINDOW_S, Chatter


def test_a_source_has_its_lines_and_the_rest_is_counted() -> None:
    now, lines = [5.0], []  # type: ignore[var-annotated]
    chatter = Chatter(lines.append, lambda: now[0])
    for number in range(MAX_LINES_OF + 7):
        chatter.say("client 'loud'", f"line {number}")
    assert not chatter.may("client 'loud'") and chatter.may("client 'calm'")
    chatter.say("client 'calm'", "once")
    assert len(lines) == MAX_LINES_OF + 1 and lines[-1] == "once"
    now[0] += WINDOW_S
    chatter.say("client 'loud'", "again")
    assert lines[-2:] == ["7 more lines in a minute about sessions of client 'loud'", "again"]


def test_many_sources_share_what_is_left() -> None:
    lines: List[str] = []
    chatter = Chatter(lines.append, lambda: 5.0)
    for number in range(MAX_SOURCES + 2 * MAX_LINES_OF):
        chatter.say(f"client 'c{number}'", "hello")
    assert len(lines) == MAX_SOURCES + MAX_LINES_OF
    assert not chatter.may(OTHERS)
