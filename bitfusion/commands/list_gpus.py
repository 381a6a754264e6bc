# SPDX-License-Identifier: Apache-2.0
"""bitfusion list_gpus: every GPU of the pool, and what is free."""

from __future__ import annotations

from bitfusion.client.pool import Listed, Overview
from bitfusion.commands import listing
from bitfusion.options import Parsed
from bitfusion.printable import as_lines
from bitfusion.quantity import MIB, format_duration, plural
from bitfusion.wire.control import Json

USAGE = listing.USAGE
ABOUT = """\
List the GPUs of the servers, with free and total memory, how many wait for some, and what the
client may have. Where no server is configured: those of the server on this machine for who rules
it, else the GPUs that a private server would have."""
OPTIONS = listing.OPTIONS
EXAMPLES = """\
examples:
  bitfusion list_gpus
  bitfusion list_gpus --server_list gpu01:56001,gpu02:56001 --json"""


def run(parsed: Parsed) -> int:
    return listing.run(parsed, show)


def show(overview: Overview) -> str:
    lines = []
    for number, server in enumerate(overview.servers):
        lines += show_server(number, server)
    if overview.queue:
        lines.append(f"queue: {plural(len(overview.queue), 'run')} waiting")
    lines += show_client(overview.you)
    return as_lines(lines)


def show_server(number: int, server: Listed) -> list[str]:
    title = f"- server {number} [{server.name}]"
    if server.error:
        return [f"{title}: {server.error}"]
    drained = ", drained: it takes nobody new" if server.state == "drained" else ""
    lines = [f"{title}: running {plural(server.tasks, 'task')}{drained}"]
    for gpu in server.gpus:
        lines.append(
            f"   |- GPU {gpu.number}: free memory {gpu.free // MIB} MiB / {gpu.memory // MIB} MiB"
            f"  {gpu.name}"
        )
    return lines


def show_client(you: Json) -> list[str]:
    """What this client has and may have, where it has a name and a limit."""
    limits, held = you.get("limits"), you.get("held")
    if not isinstance(limits, dict) or not isinstance(held, dict):
        return []
    parts = []
    if limits.get("gpus"):
        parts.append(f"{held.get('gpus')} of {plural(int(limits['gpus']), 'GPU')}")
    if limits.get("memory"):
        used, most = int(held.get("memory", 0)) // MIB, int(limits["memory"]) // MIB
        parts.append(f"{used} of {most} MiB")
    if limits.get("time_s"):
        parts.append(f"runs of {format_duration(float(limits['time_s']))} at most")
    if limits.get("idle_s"):
        parts.append(f"idle for {format_duration(float(limits['idle_s']))} at most")
    return [f"client {you.get('client')}: {', '.join(parts)}"] if parts else []
