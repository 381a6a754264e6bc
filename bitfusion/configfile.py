# SPDX-License-Identifier: Apache-2.0
"""Reads a TOML file into (setting, text, file:line). Apart from config.py, so that a run without a
file stays fast.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Container, Iterator

from bitfusion.errors import ConfigError, MissingPackage

if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ImportError:
        raise MissingPackage(what="read the configuration", package="tomli") from None

MAX_FILE = 1 << 20
MAX_PARTS = 256  # of a key
TOKEN = re.compile(
    r"""(?P<dot>\.)|(?P<part>"[^"\n]*"|'[^'\n]*'|[\w-]+|[ \t]+)|(?P<other>\#[^\n]*|.)""", re.DOTALL
)
CLIENT_FILE, SERVER_FILE = "client.toml", "server.toml"


def find_line(text: str, section: str, key: str) -> int:
    """The line where a key of a section stands; the section's own where the key is not found; else
    1.
    """
    current, section_line = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
        if header:
            current = header.group(1)
            section_line = number if current == section else section_line
        elif (
            current == section and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)
        ):
            return number
    return section_line


def as_text(value: object, place: str) -> str:
    if isinstance(value, list):
        return ",".join(word(item, place) for item in value)
    return word(value, place)


def word(value: object, place: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    shown = "this" if isinstance(value, (dict, list)) else f"'{value}'"  # those may be endless
    raise ConfigError(place=place, why=f"{shown} is not a text, a number or a list of them")


def check_keys(text: str, path: str) -> None:
    """The parser takes the square of their parts in time, and bundles come from elsewhere."""
    parts = 0
    for token in TOKEN.finditer(text) if text.count(".") > MAX_PARTS else ():
        if token.lastgroup == "dot":
            parts += 1
        elif token.lastgroup == "other":
            parts = 0
        if parts > MAX_PARTS:
            line = text.count("\n", 0, token.start()) + 1
            raise ConfigError(place=f"{path}:{line}", why=f"a key of more than {MAX_PARTS} parts")


def parse_toml(text: str, path: str) -> dict[str, object]:
    check_keys(text, path)
    try:
        loaded: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = found.group(1) if found else str(len(text.splitlines()))
        why = re.sub(r" \(at .*\)$", "", str(error))
        raise ConfigError(place=f"{path}:{line}", why=why) from None
    except RecursionError:
        raise ConfigError(place=path, why="it is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(place=path, why=str(error).partition(";")[0]) from None
    return loaded


def read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE)
    except PermissionError:
        from bitfusion import membership

        raise membership.refused(path) from None
    except OSError as error:
        raise ConfigError(place=path, why=(error.strerror or str(error)).lower()) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        why = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise ConfigError(place=f"{path}:{line}", why=why) from None


def read(
    path: str, known: Container[str], sections: Container[str]
) -> Iterator[tuple[str, str, str]]:
    return parse(read_text(path), path, known, sections)


def parse(
    text: str, path: str, known: Container[str], sections: Container[str]
) -> Iterator[tuple[str, str, str]]:
    """sections: those that this file is for; others would be read by nobody."""
    for section, table in parse_toml(text, path).items():
        if not isinstance(table, dict):
            raise ConfigError(
                place=f"{path}:{find_line(text, '', section)}",
                why=f"unknown key '{section}' outside any section",
            )
        if not table and section not in sections:
            place = f"{path}:{find_line(text, section, '')}"
            raise ConfigError(place=place, why=f"[{section}] is no section of this file")
        for key, value in table.items():
            place = f"{path}:{find_line(text, section, key)}"
            name = f"{section}.{key}"
            if name not in known:
                raise ConfigError(place=place, why=f"unknown key '{key}' in [{section}]")
            if section not in sections:
                other = SERVER_FILE if "client" in sections else CLIENT_FILE
                why = f"[{section}] is not for this file"
                raise ConfigError(place=place, why=why, hint=f"it belongs in {other}")
            yield name, as_text(value, place), place
