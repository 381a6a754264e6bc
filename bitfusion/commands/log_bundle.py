# SPDX-License-Identifier: Apache-2.0
"""bitfusion log_bundle: what somebody who helps wants to see, in one file."""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from bitfusion import bundle, config, paths
from bitfusion.errors import reason
from bitfusion.options import Option, Parsed, parse_value, refuse_words
from bitfusion.values import parse_addresses, parse_count

USAGE = "[-o FILE] [--days N]"
ABOUT = """\
Write a .tar.gz with the versions, the settings, the health of this machine and of the servers, the
list of GPUs, and what the service logged. Secrets are left out or masked; look at it before you
send it on all the same."""
OPTIONS = (
    Option(("-o", "--output"), "FILE", "the file (default: bitfusion-HOST-TIME.tar.gz)"),
    Option(("--days",), "N", "of the service's log (default: 7)"),
    config.option("client.server_list"),
)
EXAMPLES = """\
examples:
  bitfusion log_bundle
  bitfusion log_bundle -o /tmp/trouble.tar.gz --days 1"""
UNIT = "bitfusion-server.service"
TIMEOUT_S = 60
MAX_LOG = 32 << 20
SYSTEM_FILES = ("/etc/os-release", "/proc/meminfo", "/proc/cpuinfo", "/proc/self/limits")


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    days = parse_value(parsed, "--days", parse_count, parsed.text("days") or "7")
    parse_value(parsed, "--server_list", parse_addresses, parsed.text("server_list") or "")
    stem = f"bitfusion-{platform.node() or 'host'}-{time.strftime('%Y%m%dT%H%M%S')}"
    path = parsed.text("output") or f"{stem}.tar.gz"
    with bundle.created(path) as file:
        write(file, stem, parsed, days)
    sys.stdout.write(f"{path}\n")
    return 0


def write(file: BinaryIO, folder: str, parsed: Parsed, days: int) -> None:
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in parts(parsed, days):
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
            tar.addfile(info, io.BytesIO(data))


def parts(parsed: Parsed, days: int) -> Iterator[tuple[str, bytes]]:
    """File name and content of each."""
    servers = parsed.text("server_list")
    where = ["--server_list", servers] if servers else []
    yield "version.txt", ours("version")
    yield "config.txt", ours("config", "--show")
    yield "health.txt", ours("health", *where)
    yield "gpus.json", ours("list_gpus", "--json", *where)
    yield "system.txt", system().encode()
    yield (
        "log.txt",
        output(
            ["journalctl", "--no-pager", "-o", "short-iso", "-u", UNIT, "--since", f"-{days}d"]
        )[-MAX_LOG:],
    )


def ours(*words: str) -> bytes:
    """What another of our commands says, whatever becomes of it."""
    return output(paths.command(sys.executable, "from bitfusion.cli import main; main()", *words))


def output(command: list[str]) -> bytes:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"") + f"\nno end within {TIMEOUT_S} s\n".encode()
    except OSError as error:
        return f"cannot run {command[0]}: {reason(error)}\n".encode()
    return done.stdout + (f"exit status {done.returncode}\n".encode() if done.returncode else b"")


def system() -> str:
    lines = [f"{' '.join(platform.uname())}", f"Python {sys.version}", f"at {time.ctime()}"]
    for path in SYSTEM_FILES:
        try:
            with open(path) as file:
                lines.append(f"\n==> {path}\n{file.read(1 << 16)}")
        except OSError as error:
            lines.append(f"\n==> {path}: {reason(error)}")
    return "\n".join(lines) + "\n"
