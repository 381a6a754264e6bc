# SPDX-License-Identifier: Apache-2.0
"""TOML with line numbers: the parser of the standard library, and where each key stands."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any, Dict, Tuple

_TABLE = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+|\"[^\"]*\")\s*=")


class TomlError(Exception):
    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


def _parser() -> Any:
    """The standard library has one since 3.11."""
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TomlError(1, f"reading TOML needs {name}: python3 -m pip install {name}") from error


def parse(text: str) -> Dict[str, Any]:
    parser = _parser()
    try:
        found: Dict[str, Any] = parser.loads(text)
        return found
    except parser.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = int(place.group(1)) if place else text.count("\n")
        why = str(error)[: place.start()] if place else str(error)
        raise TomlError(line, why) from error


def find_lines(text: str) -> Dict[Tuple[str, ...], int]:
    """The line of each table and of each key that starts a line."""
    lines: Dict[Tuple[str, ...], int] = {}
    table: Tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        heading = _TABLE.match(line)
        if heading:
            table = tuple(part.strip().strip('"') for part in heading.group(1).split("."))
            for depth in range(1, len(table) + 1):
                lines.setdefault(table[:depth], number)
            continue
        key = _KEY.match(line)
        if key:
            lines.setdefault((*table, key.group(1).strip('"')), number)
    return lines


def line_of_string(text: str, value: str) -> int:
    """The last line that holds "value"."""
    quoted = f'"{value}"'
    found = [n for n, line in enumerate(text.splitlines(), 1) if quoted in line]
    return found[-1] if found else 1
