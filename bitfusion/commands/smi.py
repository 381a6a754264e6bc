# SPDX-License-Identifier: Apache-2.0
"""bitfusion smi: a table like nvidia-smi's, of the pool; inside a run, of its slice."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Optional

from bitfusion import __version__
from bitfusion.client import slice_view
from bitfusion.client.pool import Listed, Overview, Row
from bitfusion.commands import listing
from bitfusion.options import Option, Parsed, parse_value
from bitfusion.printable import as_lines, printable
from bitfusion.quantity import MIB, format_duration, plural, seconds_of
from bitfusion.values import parse_patience

USAGE = listing.USAGE
ABOUT = """\
Show the GPUs of the servers: memory that sessions hold, how busy they are, and the sessions; of
others' sessions only the memory. Inside a run, show the run's own slice. Where no server is
configured: those of the server on this machine for who rules it, else the GPUs that a private
server would have."""
OPTIONS = (*listing.OPTIONS, Option(("-l", "--loop"), "TIME", "again and again, every TIME"))
EXAMPLES = """\
examples:
  bitfusion smi
  bitfusion smi -l 2
  bitfusion smi --server_list gpu01:56001 --json"""

WIDTH = 77
RULE = "+" + "-" * WIDTH + "+"
HEAVY = "|" + "=" * WIDTH + "|"


def run(parsed: Parsed) -> int:
    every_s = period(parsed)
    status = once(parsed)
    while every_s is not None:
        sys.stdout.flush()
        time.sleep(every_s)
        status = once(parsed)
    return status


def period(parsed: Parsed) -> Optional[float]:
    text = parsed.text("loop")
    return None if text is None else parse_value(parsed, "-l", parse_patience, text)


def once(parsed: Parsed) -> int:
    if slice_view.inside() and not parsed.has("server_list"):
        return slice_view.run(parsed.has("json"), show_slice)
    return listing.run(parsed, show, live=True)


def cell(text: str) -> str:
    text = printable(text)  # before its width is known
    text = text if len(text) <= WIDTH - 2 else text[: WIDTH - 5] + "..."
    return f"| {text:{WIDTH - 2}} |"


def show(overview: Overview) -> str:
    lines = [line for server in overview.servers for line in show_server(server)]
    return as_lines(lines)


def show_slice(overview: Overview) -> str:
    """Without sessions: a run is one."""
    (server,) = overview.servers
    lines = [
        RULE,
        cell(f"Bitfusion {__version__}   {server.name}"),
        RULE,
        *show_gpus(server),
        RULE,
    ]
    return as_lines(lines)


def show_gpus(server: Listed) -> list[str]:
    return [
        cell(f"{'GPU':>3}  {'Name':30} {'Memory held':>21} {'Busy':>5} {'Sessions':>9}"),
        HEAVY,
        *(show_gpu(gpu) for gpu in server.gpus),
    ]


def show_server(server: Listed) -> list[str]:
    version = server.driver_version or server.version or "-"
    what = "driver" if server.driver_version else "version"
    lines = [
        RULE,
        cell(f"Bitfusion {__version__}   {server.name}   {what} {version}   {mood(server)}"),
        RULE,
    ]
    if server.error:
        return [*lines, cell(server.error), RULE]
    lines += [
        cell(f"{'GPU':>3}  {'Name':30} {'Memory held':>21} {'Busy':>5} {'Sessions':>9}"),
        HEAVY,
        *(show_gpu(gpu) for gpu in server.gpus),
        RULE,
        cell(
            f"{'GPU':>3}  {'Session':16} {'Client':12} {'Used / slice':>19} {'Busy':>5}"
            "  Program (age)"
        ),
        HEAVY,
    ]
    return [*lines, *show_sessions(server.gpus), RULE]


def mood(server: Listed) -> str:
    return "" if server.state == "up" else server.state


def percent(busy: object) -> str:
    return f"{float(busy) * 100:.0f}%" if isinstance(busy, (int, float)) else "-"


def show_gpu(gpu: Row) -> str:
    memory = f"{(gpu.memory - gpu.free) // MIB}MiB / {gpu.memory // MIB}MiB"
    busy = percent(gpu.busy)
    return cell(
        f"{gpu.number:>3}  {gpu.name[:30]:30} {memory:>21} {busy:>5} {len(gpu.sessions):>9}"
    )


def show_sessions(gpus: Sequence[Row]) -> list[str]:
    rows = [show_session(gpu, held) for gpu in gpus for held in gpu.sessions if held["session"]]
    others = sum(not held["session"] for gpu in gpus for held in gpu.sessions)
    if others:
        memory = sum(
            int(held["memory"]) for gpu in gpus for held in gpu.sessions if not held["session"]
        )
        rows.append(cell(f"     {plural(others, 'slice')} of other clients, {memory // MIB}MiB"))
    return rows or [cell("no running sessions")]


def show_session(gpu: Row, held: dict[str, Any]) -> str:
    used = f"{int(held['used']) // MIB}MiB" if "used" in held else "-"
    memory = f"{used} / {int(held['memory']) // MIB}MiB"
    client = str(held.get("client", ""))[:12]
    program = os.path.basename(str(held.get("program", "")).partition(" ")[0])
    age_s = seconds_of(held.get("since_s"))
    lasts = "" if age_s is None else f"({format_duration(age_s)})"
    return cell(
        f"{gpu.number:>3}  {held['session']:16} {client:12} {memory:>19} "
        f"{percent(held.get('busy')):>5}  {program} {lasts}".rstrip()
    )
