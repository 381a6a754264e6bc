# SPDX-License-Identifier: Apache-2.0
"""Filters such as 'device.phy-memory>=16160': which servers and GPUs an ask may have. Pure.

The client parses them to refuse a bad one early, the server to obey them; so this module imports
nothing that a client would not have.
"""

from __future__ import annotations

import fnmatch
import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bitfusion.quantity import MIB, parse_size

if TYPE_CHECKING:
    from bitfusion.server.views import GpuView, ServerView

MAX_FILTERS = 32  # of one ask
MAX_SERVERS = 32
MAX_TEXT = 300  # a host's name reaches 253
MAX_PACKED = 12 << 10  # of an ask's filters together, or its servers: all that may be in ASCII

COMPARE: dict[str, Callable[[object, object], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,  # type: ignore[dict-item]
    "<=": operator.le,  # type: ignore[dict-item]
    ">": operator.gt,  # type: ignore[dict-item]
    ">=": operator.ge,  # type: ignore[dict-item]
}
SHAPE = re.compile(r"\s*([a-z][a-z-]*\.[a-z][a-z-]*)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Filter(NamedTuple):
    key: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"


def _version(text: str) -> tuple[int, ...]:
    """11.2 is 11.2.0, 460.73.01 is 460.73.1, and 9 is less than 10."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}", text, re.ASCII):
        raise ValueError("a version such as 11.2")
    parts = [int(part) for part in text.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _truth(text: str) -> bool:
    try:
        return TRUTH[text.lower()]
    except KeyError:
        raise ValueError("true or false") from None


def _index(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text, re.ASCII):
        raise ValueError("the number of a GPU, from 0")
    return int(text)


def _mib(text: str) -> int:
    """As the original: a number is in MiB; with a unit it is any size."""
    try:
        return parse_size(f"{text}M" if text.isdigit() else text) // MIB
    except ValueError:
        raise ValueError("MiB, or a size such as 16G") from None


def _pattern(text: str) -> str:
    if not text:
        raise ValueError("a name or a pattern")
    return text


def _is_address(address: str, pattern: str) -> bool:
    """With its port or without."""
    host = address.rpartition(":")[0] or address
    return any(_glob(text, pattern) for text in (address, host, host.strip("[]")))


def _is_host(name: str, pattern: str) -> bool:
    return _glob(name, pattern) or _glob(name.partition(".")[0], pattern)


def _is_name(name: str, pattern: str) -> bool:
    """Whole words of the name: 'Tesla' and 'A100' name a model, and 'L4' is neither an L40 nor an
    L40S. With a wildcard it is the whole name.
    """
    if _wild(pattern):
        return _glob(name, pattern)
    words = re.escape(" ".join(pattern.lower().split()))
    found = re.search(f"(?<![a-z0-9]){words}(?![a-z0-9])", " ".join(name.lower().split()))
    return found is not None


def _is_uuid(uuid: str, pattern: str) -> bool:
    """Nobody types all of one: its beginning will do."""
    return _glob(uuid, pattern if _wild(pattern) else f"{pattern}*")


def _wild(pattern: str) -> bool:
    return any(c in pattern for c in "*?")


def _glob(text: str, pattern: str) -> bool:
    """Only * and ? are special: addresses hold brackets."""
    return fnmatch.fnmatchcase(text.lower(), pattern.lower().replace("[", "[[]"))


class Key(NamedTuple):
    parse: Callable[[str], object]
    of_server: Callable[[ServerView], object]
    of_gpu: Callable[[GpuView], object]
    matches: Callable[[str, str], bool] = str.__eq__  # names only
    names: bool = False  # of_... gives texts that a pattern matches, not values to compare


def _no_gpu(gpu: GpuView) -> object:
    raise AssertionError("a key of servers")


def _no_server(view: ServerView) -> object:
    raise AssertionError("a key of GPUs")


KEYS = {
    "server.addr": Key(_pattern, lambda v: v.addresses, _no_gpu, _is_address, True),
    "server.hostname": Key(_pattern, lambda v: (v.name,), _no_gpu, _is_host, True),
    "server.has-rdma": Key(_truth, lambda v: v.rdma, _no_gpu),
    "server.cuda-version": Key(_version, lambda v: v.cuda_version, _no_gpu),
    "server.driver-version": Key(_version, lambda v: v.driver_version, _no_gpu),
    "device.id": Key(_index, _no_server, lambda g: g.index),
    "device.name": Key(_pattern, _no_server, lambda g: (g.name,), _is_name, True),
    "device.phy-memory": Key(_mib, _no_server, lambda g: g.memory // MIB),
    "device.uuid": Key(_pattern, _no_server, lambda g: (g.uuid,), _is_uuid, True),
}
PER_HOST = frozenset(("server.addr", "server.hostname", "device.id", "device.uuid"))


def bound(words: Sequence[str], most: int) -> None:
    """ValueError where an ask may not bring these: the cluster's state and nurseries hold them."""
    if len(words) > most:
        raise ValueError(f"{len(words)} of them, and {most} are the most")
    longest = max(words, key=len, default="")
    if len(longest) > MAX_TEXT:
        raise ValueError(f"'{longest[:40]}...' has more than {MAX_TEXT} characters")
    size = len(json.dumps(words))
    if size > MAX_PACKED:
        raise ValueError(f"as JSON they take {size} bytes together, and {MAX_PACKED} are the most")


def parse(text: str) -> Filter:
    """ValueError with one line that says what is wrong."""
    sane = len(text) <= MAX_TEXT and text.isprintable()
    found = SHAPE.fullmatch(text) if sane else None
    if found is None:
        shown = text if len(text) <= MAX_TEXT else f"{text[:40]}..."
        shown = shown if shown.isprintable() else shown.encode("unicode_escape").decode()
        raise ValueError(f"'{shown}' is not a filter such as device.name=Tesla")
    name, sign, value = found.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]  # quotes that a shell was not given
    sign = "=" if sign == "==" else sign
    key = KEYS.get(name)
    if key is None:
        raise ValueError(f"'{name}' is no key of filters; they are {', '.join(KEYS)}")
    if sign not in ("=", "!=") and (key.names or key.parse is _truth):
        raise ValueError(f"'{name}' knows = and !=, not '{sign}'")
    try:
        key.parse(value)
    except ValueError as error:
        raise ValueError(f"'{text}': '{name}' is compared with {error}, not '{value}'") from None
    return Filter(name, sign, value)


def match_server(condition: Filter, view: ServerView) -> bool:
    """Filters of GPUs let every server pass."""
    if not condition.key.startswith("server."):
        return True
    return _holds(condition, KEYS[condition.key].of_server(view))


def match_gpu(condition: Filter, gpu: GpuView) -> bool:
    """Filters of servers let every GPU pass."""
    if not condition.key.startswith("device."):
        return True
    return _holds(condition, KEYS[condition.key].of_gpu(gpu))


def _holds(condition: Filter, actual: object) -> bool:
    key = KEYS[condition.key]
    if key.names:
        assert isinstance(actual, tuple)
        found = any(key.matches(text, condition.value) for text in actual)
        return found == (condition.operator == "=")
    if isinstance(actual, str):
        try:
            actual = key.parse(actual)
        except ValueError:  # a version that nobody knows differs from every other
            return condition.operator == "!="
    return COMPARE[condition.operator](actual, key.parse(condition.value))


def match(conditions: Iterable[Filter], view: ServerView, gpu: GpuView) -> bool:
    return all(match_server(f, view) and match_gpu(f, gpu) for f in conditions)
