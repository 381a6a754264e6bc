# SPDX-License-Identifier: Apache-2.0
"""The commands in a document: blocks that are indented or fenced, each with a mark before it.

<!-- test: KIND -->           says where a test runs the block below: see test_docs.py, debian.py
<!-- test: none: why -->      that no test does

    python3 tests/install/blocks.py FILE KIND    prints those of a kind
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import List, NamedTuple

MARK = re.compile(r"<!-- test: (\w+)(?:: (.+))? -->$")


class Block(NamedTuple):
    line: int
    kind: str  # "" where the document says nothing
    why: str
    text: str


def read(path: Path) -> List[Block]:
    found: List[Block] = []
    kind = why = ""
    body: List[str] = []
    fence, start = "", 0

    def end() -> None:
        nonlocal kind, why
        if body:
            found.append(Block(start, kind, why, "\n".join(body).rstrip() + "\n"))
            body.clear()
            kind = why = ""

    for number, line in enumerate([*path.read_text().splitlines(), "the end"], 1):
        mark = MARK.match(line)
        if fence:
            if line.startswith(fence):
                end()
                fence = ""
            else:
                body.append(line)
        elif line.startswith("```"):
            end()
            fence, start = "```", number
        elif line.startswith("    ") or (body and not line):
            start = start if body else number
            body.append(line[4:])
        else:
            end()
            if mark:
                kind, why = mark[1], mark[2] or ""
            elif line:
                kind = why = ""
    return found


def commands(path: Path, kind: str) -> List[str]:
    """One each line, without the remarks for readers."""
    lines = [line for block in read(path) if block.kind == kind for line in block.text.split("\n")]
    return [bare for bare in (re.sub(r"\s+#\s.*", "", line) for line in lines) if bare]


if __name__ == "__main__":
    print("\n".join(commands(Path(sys.argv[1]), sys.argv[2])))
