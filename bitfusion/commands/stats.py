# SPDX-License-Identifier: Apache-2.0
"""bitfusion stats: who used how much of the pool, over time."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import time
from calendar import timegm
from collections.abc import Iterable, Sequence
from typing import Union

from bitfusion import config, quantity, values
from bitfusion.client import control
from bitfusion.client.access import access
from bitfusion.client.admin import ask, open_admin
from bitfusion.client.channels import Channel, HttpChannel
from bitfusion.config import Config
from bitfusion.errors import BitfusionError, UsageError
from bitfusion.options import Option, Parsed, refuse_words
from bitfusion.printable import as_lines, printable
from bitfusion.wire.control import Json

USAGE = "[options]"
ABOUT = """\
Show what clients used of all servers of the pool: an operator sees everybody, a client itself.
Times are in UTC, and the hour that one falls into is not divided."""
OPTIONS = (
    config.option("client.server_list"),
    Option(("--from",), "TIME", "a day such as 2026-11-01, or so long ago: 7d (default: 30d)"),
    Option(("--to",), "TIME", "likewise, that day included (default: now)"),
    Option(("--by",), "WHAT,...", "client, server, day or some of them (default: client)"),
    Option(("--csv",), "", "as CSV, with seconds"),
    Option(("--json",), "", "as JSON, with seconds"),
)
EXAMPLES = """\
examples:
  bitfusion stats --from 7d
  bitfusion stats --from 2026-11-01 --to 2026-11-30 --by day,client --csv"""

GROUPS = ("day", "server", "client")  # in the order of their columns
SUMS = ("sessions", "gpu_s", "memory_mib_s", "busy_s", "waits", "waited_s")
DAY_S = 24 * 3600
MAX_SERVERS = 4096  # that each may name: more than a pool has
Cell = Union[str, int, float]
Row = dict[str, Cell]


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    if parsed.has("csv") and parsed.has("json"):
        raise UsageError(verb=parsed.verb, why="--csv or --json, not both")
    by = groups_of(parsed)
    now_s = time.time()
    from_s = moment(parsed, "from", "30d", now_s, False)
    to_s = moment(parsed, "to", "0s", now_s, True)
    asked = ",".join(group for group in by if group != "server")
    if from_s > to_s:
        raise UsageError(verb=parsed.verb, why="--from is later than --to")
    path = f"/v1/stats?from={int(from_s) // 3600 * 3600}&to={int(to_s) + 1}&by={asked}"
    answers, failed = collect(config.load_client(parsed), path)
    rows = merge(answers, by)
    if parsed.has("json"):
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        sys.stdout.write(as_csv(rows, by) if parsed.has("csv") else as_table(rows, by))
    return 1 if failed else 0


def groups_of(parsed: Parsed) -> list[str]:
    words = [word.strip() for word in (parsed.text("by") or "client").split(",")]
    for word in words:
        if word not in GROUPS:
            why = f"--by knows {', '.join(GROUPS)}, not '{word}'"
            raise UsageError(verb=parsed.verb, why=why)
    return [group for group in GROUPS if group in words]


def moment(parsed: Parsed, key: str, default: str, now_s: float, end: bool) -> float:
    """Seconds since the epoch; of a day, its begin or end."""
    text = parsed.text(key) or default
    day = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", text, re.ASCII)
    try:
        if day is None:
            return max(0.0, now_s - quantity.parse_duration(text))
        return timegm(time.strptime(text, "%Y-%m-%d")) + (DAY_S - 1 if end else 0)
    except ValueError:
        why = f"--{key}: '{text}' is neither a day such as 2026-11-01 nor a time such as 7d"
        raise UsageError(verb=parsed.verb, why=why) from None


def collect(settings: Config, path: str) -> tuple[list[Json], bool]:
    """What each server of the pool says, asked once; and whether one did not answer."""
    addresses = [config.format_address(a) for a in settings.addresses("client.server_list")]
    answers: dict[str, Json] = {}
    failed = False
    if not addresses:
        addresses = add(answers, ask(open_admin(config.load_server(None), settings), "GET", path))
    asked: set[str] = set()
    while addresses and len(asked) < MAX_SERVERS:
        address = addresses.pop(0)
        if address in asked:
            continue
        asked.add(address)
        try:
            answer = ask(connect(settings, address), "GET", path)
            addresses += add(answers, {**answer, "asked": address})
        except BitfusionError as error:
            if not addresses and not answers:
                raise
            sys.stderr.write(as_lines([f"bitfusion: stats: {error}"]))
            failed = True
    return list(answers.values()), failed


def connect(settings: Config, address: str) -> Channel:
    where = values.parse_server(address)
    channel = HttpChannel(where, address, settings.seconds("client.timeout"), access(settings))
    control.greet(channel)
    return channel


def add(answers: dict[str, Json], answer: Json) -> list[str]:
    """Returns the addresses of others that it names."""
    server = answer.get("server")
    others = answer.get("others")
    name = str(server.get("id", "")) if isinstance(server, dict) else ""
    answers.setdefault(name, answer)
    return [other for other in others if is_server(other)] if isinstance(others, list) else []


def is_server(address: object) -> bool:
    try:
        return isinstance(address, str) and bool(values.parse_server(address))
    except ValueError:
        return False


def merge(answers: Iterable[Json], by: Sequence[str]) -> list[Row]:
    """Sums over servers, and over whatever is not asked for by itself."""
    sums: dict[tuple[Cell, ...], Row] = {}
    for answer in answers:
        server = answer.get("server")
        name = str(answer.get("asked") or "") or name_of(server)
        for used in control.list_of_objects(answer.get("used")):
            begin_s = quantity.seconds_of(used.get("begin")) or 0.0
            begin = time.strftime("%Y-%m-%d", time.gmtime(begin_s))
            cells: Row = {"day": begin, "server": name, "client": str(used.get("client", ""))}
            key = tuple(cells[group] for group in by)
            row = sums.setdefault(key, {group: cells[group] for group in by})
            for column in SUMS:
                row[column] = round(float(row.get(column, 0)) + number(used, column), 3)
    for row in sums.values():
        row["sessions"], row["waits"] = int(row["sessions"]), int(row["waits"])
    return [sums[key] for key in sorted(sums)]


def name_of(server: object) -> str:
    """The address that a server gives: several may run on one host."""
    if not isinstance(server, dict):
        return ""
    return str(server.get("address") or server.get("name", ""))


def number(used: Json, key: str) -> float:
    found = used.get(key)
    return found if isinstance(found, (int, float)) else 0.0


def as_csv(rows: Sequence[Row], by: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by, *SUMS], lineterminator="\n")
    writer.writeheader()
    for row in rows:  # a name must not be a formula for the spreadsheet that opens this
        writer.writerow({key: guard(cell) for key, cell in row.items()})
    return text.getvalue()


def guard(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    return f"'{printable(cell)}" if cell[:1] in ("=", "+", "-", "@", "\t") else printable(cell)


def as_table(rows: Sequence[Row], by: Sequence[str]) -> str:
    head = [group.upper() for group in by]
    lines = [[*head, "SESSIONS", "GPU-HOURS", "GIB-HOURS", "BUSY-HOURS", "WAITED", "MEAN WAIT"]]
    for row in rows:
        waits = int(row["waits"])
        mean_s = float(row["waited_s"]) / waits if waits else 0.0
        lines.append(
            [
                *(printable(str(row[group])) for group in by),
                str(row["sessions"]),
                f"{float(row['gpu_s']) / 3600:.2f}",
                f"{float(row['memory_mib_s']) / 1024 / 3600:.2f}",
                f"{float(row['busy_s']) / 3600:.2f}",
                str(waits),
                quantity.format_duration(mean_s) if waits else "-",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ""
    for line in lines:
        cells = [
            f"{cell:{width}}" if number < len(by) else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(line, widths))
        ]
        text += "  ".join(cells).rstrip() + "\n"
    return text
