# SPDX-License-Identifier: Apache-2.0
"""Settings: one table gives file keys, options, environment variables, defaults and validation.

An option beats the environment, which beats the user's file, which beats the machine's, which
beats the default.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from bitfusion import inventory, paths
from bitfusion.errors import ConfigError
from bitfusion.options import Option, Parsed, canonical
from bitfusion.quantity import MIB, parse_size

DEFAULT_PORT = 56001
MAX_SPARE_WORKERS = 64
TRANSPORTS = ("auto", "tcp", "unix")


def parse_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL byte")
    return text


def parse_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"'{text}' is not a whole number")
    return int(text)


def parse_spare_workers(text: str) -> int:
    count = parse_count(text)
    if count > MAX_SPARE_WORKERS:
        raise ValueError(f"'{text}' is not from 0 to {MAX_SPARE_WORKERS}")
    return count


def parse_software_gpus(text: str) -> int:
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


def parse_seconds(text: str) -> float:
    number = text.removesuffix("s")
    try:
        seconds = float(number)
    except ValueError:
        raise ValueError(f"'{text}' is not a time in seconds") from None
    if not 0 < seconds < 1e6:
        raise ValueError(f"'{text}' is not a time above 0")
    return seconds


def parse_transport(text: str) -> str:
    if text not in TRANSPORTS:
        raise ValueError(f"'{text}' is none of {', '.join(TRANSPORTS)}")
    return text


def is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def parse_address(text: str) -> tuple[str, int]:
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
    if not host or host != host.strip() or any(c in host for c in " /\t\n"):
        raise ValueError(f"'{text}' is not an address such as gpu01:{DEFAULT_PORT}")
    if host.isdigit():
        raise ValueError(f"'{text}' has no host: write HOST:PORT")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError(f"'{text}' has no port from 1 to 65535")
    return host, int(port)


def parse_server(text: str) -> tuple[str, int]:
    """An address to connect to, which port 0 is not."""
    address = parse_address(text)
    if address[1] == 0:
        raise ValueError(f"'{text}' has no port from 1 to 65535")
    return address


def parse_addresses(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(parse_server(part.strip()) for part in text.split(",") if part.strip())


def parse_ports(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low, high = parse_count(first), parse_count(last if dash else first)
    if not 0 <= low <= high < 65536:
        raise ValueError(f"'{text}' is not a range of ports such as 55001-55100")
    return low, high


def format_address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Setting(NamedTuple):
    name: str  # section.key of the file
    parse: Callable[[str], object]
    default: object
    option: str  # "" where there is none
    value: str
    environment: str
    help: str


SETTINGS = (
    Setting(
        "client.server_list",
        parse_addresses,
        (),
        "--server_list",
        "HOST:PORT,...",
        "BITFUSION_SERVER_LIST",
        "use these servers (default: a private one)",
    ),
    Setting(
        "client.transport",
        parse_transport,
        "auto",
        "--transport",
        "auto|tcp|unix",
        "BITFUSION_TRANSPORT",
        "how calls travel (default: auto, the best)",
    ),
    Setting(
        "client.driver",
        parse_text,
        "",
        "--driver",
        "PATH",
        "BITFUSION_DRIVER",
        "let the private server load this libcuda.so.1",
    ),
    Setting(
        "client.timeout",
        parse_seconds,
        3.0,
        "",
        "SECONDS",
        "",
        "how long to wait for a server's answer",
    ),
    Setting(
        "server.listen",
        parse_address,
        ("127.0.0.1", DEFAULT_PORT),
        "--listen",
        "HOST:PORT",
        "",
        "control plane's address (default: 127.0.0.1:56001)",
    ),
    Setting(
        "server.data_ports",
        parse_ports,
        (55001, 55100),
        "--data_ports",
        "FIRST-LAST",
        "",
        "first free one carries calls (default: 55001-55100)",
    ),
    Setting(
        "server.driver",
        parse_text,
        "",
        "--driver",
        "PATH",
        "BITFUSION_DRIVER",
        "load this libcuda.so.1 (default: what the machine has)",
    ),
    Setting(
        "server.spare_workers",
        parse_spare_workers,
        1,
        "--spare_workers",
        "N",
        "",
        "workers kept ready (default: 1)",
    ),
    Setting(
        "server.state_dir",
        parse_text,
        "",
        "--state_dir",
        "FOLDER",
        "BITFUSION_STATE_DIR",
        "what outlives the server (default: /var/lib/bitfusion, ~/.local/state/bitfusion)",
    ),
    Setting(
        "server.worker_user",
        parse_text,
        "",
        "",
        "USER",
        "",
        "whom workers run as when the server is root (default: bitfusion, else nobody)",
    ),
    Setting(
        "softgpu.gpus",
        parse_software_gpus,
        0,
        "--gpus",
        "N",
        "BITFUSION_SOFTGPU_GPUS",
        "number of software GPUs (default: 1)",
    ),
    Setting(
        "softgpu.memory",
        parse_software_memory,
        4 << 30,
        "--memory",
        "SIZE",
        "BITFUSION_SOFTGPU_MEMORY",
        "memory of each, such as 512M (default: 4G)",
    ),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def option(name: str) -> Option:
    setting = BY_NAME[name]
    return Option((setting.option,), setting.value, setting.help)


class Config:
    """Values by setting name, and where each came from."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {s.name: s.default for s in SETTINGS}
        self.origins: dict[str, str] = {s.name: "default" for s in SETTINGS}

    def set(self, name: str, text: str, origin: str) -> None:
        try:
            self.values[name] = BY_NAME[name].parse(text)
        except ValueError as error:
            raise ConfigError(place=origin, why=str(error)) from None
        self.origins[name] = origin

    def text(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str)
        return value

    def number(self, name: str) -> int:
        value = self.values[name]
        assert isinstance(value, int)
        return value

    def seconds(self, name: str) -> float:
        value = self.values[name]
        assert isinstance(value, float)
        return value

    def address(self, name: str) -> tuple[str, int]:
        value = self.values[name]
        assert isinstance(value, tuple)
        return value

    def ports(self, name: str) -> tuple[int, int]:
        value = self.values[name]
        assert isinstance(value, tuple)
        return value

    def addresses(self, name: str) -> tuple[tuple[str, int], ...]:
        value = self.values[name]
        assert isinstance(value, tuple)
        return value


def load(files: Sequence[str], parsed: Optional[Parsed], sections: Sequence[str]) -> Config:
    """Read these files (missing ones are skipped), the environment, then the options."""
    config = Config()
    for path in files:
        if os.path.exists(path):
            from bitfusion import configfile

            for name, text, origin in configfile.read(path, BY_NAME):
                config.set(name, text, origin)
    for setting in SETTINGS:
        if setting.name.partition(".")[0] not in sections:
            continue
        given = os.environ.get(setting.environment) if setting.environment else None
        if given:
            config.set(setting.name, given, setting.environment)
        if parsed is not None and setting.option and option(setting.name) in parsed.table:
            key = canonical(setting.option)
            if parsed.has(key):
                config.set(
                    setting.name, parsed.text(key) or "", f"{parsed.verb}: {setting.option}"
                )
    return config


def client_files() -> tuple[str, ...]:
    given = os.environ.get("BITFUSION_CONFIG")
    if given:
        if not os.path.exists(given):
            raise ConfigError(place="BITFUSION_CONFIG", why=f"no such file '{given}'")
        return (given,)
    return (paths.system_file("client.toml"), paths.user_file("client.toml"))
