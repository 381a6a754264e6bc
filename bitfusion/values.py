# SPDX-License-Identifier: Apache-2.0
"""What the settings' texts mean: one parser for each kind, ValueError for a wrong text. Pure."""

from __future__ import annotations

import os
import socket

from bitfusion import inventory
from bitfusion.quantity import MIB, parse_duration, parse_size

DEFAULT_PORT = 56001
MAX_SPARE_WORKERS = 64
MAX_NAME = 64
TRANSPORTS = ("auto", "tcp", "unix")
AUTO, ALWAYS, NEVER = ENCRYPT = ("auto", "always", "never")
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
STORES = ("etcd://", "etcds://")

Address = tuple[str, int]


LEAST_SILENCE_S = 0.5
LEAST_HOST_MEMORY = 256 << 20  # what a driver needs for itself, and a little


def parse_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL byte")
    return text


def parse_truth(text: str) -> bool:
    if text not in TRUTH:
        raise ValueError(f"'{text}' is neither true nor false")
    return TRUTH[text]


def parse_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"'{text}' is not a whole number from 0 to 999999999")
    return int(text)


def parse_spare_workers(text: str) -> int:
    count = parse_count(text)
    if count > MAX_SPARE_WORKERS:
        raise ValueError(f"'{text}' is not from 0 to {MAX_SPARE_WORKERS}")
    return count


def parse_software_gpus(text: str) -> int:
    """0 for auto: as many as are asked for."""
    if text == "auto":
        return 0
    count = parse_count(text)
    if not 1 <= count <= inventory.MAX_SOFTWARE_GPUS:
        raise ValueError(f"'{text}' is not from 1 to {inventory.MAX_SOFTWARE_GPUS}")
    return count


def parse_software_memory(text: str) -> int:
    """What the software GPU can be given, in whole MiB as it takes it."""
    size = parse_size(text)
    if not MIB <= size <= inventory.MAX_SOFTWARE_MEMORY:
        raise ValueError(f"'{text}' is not from 1M to {inventory.MAX_SOFTWARE_MEMORY >> 30}G")
    return size // MIB * MIB


def parse_host_memory(text: str) -> int:
    """Bytes, or a part of this machine's; 0 for no limit."""
    digits = text.removesuffix("%")
    if digits != text:
        percent = parse_count(digits)
        if not 1 <= percent <= 100:
            raise ValueError(f"'{text}' is not from 1% to 100%")
        pages: int = os.sysconf("SC_PHYS_PAGES")
        return max(LEAST_HOST_MEMORY, pages * os.sysconf("SC_PAGE_SIZE") * percent // 100)
    size = parse_size(text)
    if 0 < size < LEAST_HOST_MEMORY:
        raise ValueError(f"'{text}' is less than {LEAST_HOST_MEMORY >> 20}M, which a driver needs")
    return size


def parse_patience(text: str) -> float:
    """A time to wait, which 0 is not."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"'{text}' is not a time above 0")
    return seconds


def parse_lease(text: str) -> float:
    """0 for auto: as long as the server keeps a session whose launcher is gone."""
    return 0.0 if text == "auto" else parse_patience(text)


def parse_silence(text: str) -> float:
    """How long something may be silent before it counts as gone: what a busy machine needs."""
    seconds = parse_duration(text)
    if seconds < LEAST_SILENCE_S:
        raise ValueError(f"'{text}' is less than {LEAST_SILENCE_S:g} seconds")
    return seconds


def _one_of(text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ValueError(f"'{text}' is none of {', '.join(known)}")
    return text


def parse_transport(text: str) -> str:
    return _one_of(text, TRANSPORTS)


def parse_encrypt(text: str) -> str:
    return _one_of(text, ENCRYPT)


def parse_store(text: str) -> str:
    """sqlite, or etcd://HOST:PORT,..."""
    if text == "sqlite":
        return text
    scheme = next((known for known in STORES if text.startswith(known)), "")
    if not scheme or not parse_addresses(text[len(scheme) :]):
        raise ValueError(f"'{text}' is neither sqlite nor etcd://HOST:PORT,...")
    return text


def check_name(text: str) -> str:
    """Of a client or a cluster: a file's name, a part of a URL and of a key, as it is."""
    good = text.isascii() and all(c.isalnum() or c in "-_." for c in text)
    if not good or not text[:1].isalnum() or len(text) > MAX_NAME:
        shown = text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."
        raise ValueError(
            f"'{shown}' is not a name: letters, digits, '-', '_' and '.', at most {MAX_NAME}"
        )
    return text


def parse_token(text: str) -> str:
    """NAME:SECRET; the text itself is never repeated in a message."""
    name, colon, secret = text.partition(":")
    if text:
        try:
            check_name(name)
        except ValueError:
            colon = ""
        if not colon or not secret.isascii() or not secret.isalnum():
            raise ValueError("the token is not NAME:SECRET")
    return text


def is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def is_name(host: str) -> bool:
    """Whether its form is one that a host's name may have: else looking it up fails in ways of
    its own.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in host


def parse_address(text: str) -> Address:
    """host, host:port, [v6]:port"""
    host, port = text, str(DEFAULT_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"'{text}' is not an address such as [::1]:{DEFAULT_PORT}")
        port = rest[1:] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if (":" in host or text.startswith("[")) and not is_ipv6(host):
        raise ValueError(f"'{text}' is not an address such as gpu01:{DEFAULT_PORT}")
    if not host or host != host.strip() or any(c in host for c in " /\t\n") or not is_name(host):
        raise ValueError(f"'{text}' is not an address such as gpu01:{DEFAULT_PORT}")
    if host.isdigit():
        raise ValueError(f"'{text}' has no host: write HOST:PORT")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError(f"'{text}' has no port from 1 to 65535")
    return host, int(port)


def parse_server(text: str) -> Address:
    """An address to connect to, which port 0 is not."""
    address = parse_address(text)
    if address[1] == 0:
        raise ValueError(f"'{text}' has no port from 1 to 65535")
    return address


def parse_addresses(text: str) -> tuple[Address, ...]:
    return tuple(parse_server(part.strip()) for part in text.split(",") if part.strip())


def parse_ports(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = parse_count(first), parse_count(last if dash else first)
    if not 0 <= low <= high < 65536:
        raise ValueError(f"'{text}' is not a range of ports such as 55001-55100")
    return low, high


def format_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
