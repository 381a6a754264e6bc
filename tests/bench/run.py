# SPDX-License-Identifier: Apache-2.0
"""`make bench`: driver_bench on the null driver, directly and through Bitfusion, beside the raw
limits of the machine.

All columns are measured in every round, one after the other, so that a change of the machine's
mood meets all of them; a figure is the median of the rounds. Prints a table and writes
build/bench.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
NULL_DRIVER = BUILD / "nulldriver" / "libcuda.so.1"
COLUMNS = ("direct", "unix", "tcp")

# metric -> the limit of the machine that it is read against, and whether more is better
AGAINST: Dict[str, Tuple[str, bool]] = {
    "memset_sync": ("tcp_rtt_64B_spinning", False),
    "launch_sync": ("tcp_rtt_64B_spinning", False),
    "event_query": ("tcp_rtt_64B_spinning", False),
    "alloc_free": ("tcp_rtt_64B_spinning", False),
    "htod_4B": ("tcp_rtt_64B_spinning", False),
    "dtoh_4B": ("tcp_rtt_64B_spinning", False),
    "launch_caller": ("tcp_one_way_128B", False),
    "launch_burst300_caller": ("tcp_one_way_128B", False),
    "htod_1MiB": ("tcp_bandwidth_in_cache", True),
    "dtoh_1MiB": ("tcp_bandwidth_in_cache", True),
    "htod_64MiB": ("tcp_bandwidth_in_memory", True),
    "dtoh_64MiB": ("tcp_bandwidth_in_memory", True),
    "htod_512MiB": ("tcp_bandwidth_in_memory", True),
    "dtoh_512MiB": ("tcp_bandwidth_in_memory", True),
    "htod_64MiB_pinned_async": ("tcp_bandwidth_in_memory", True),
    "dtoh_64MiB_pinned_async": ("tcp_bandwidth_in_memory", True),
}

Samples = Dict[str, Tuple[str, List[float]]]


def environment() -> Dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BITFUSION_", "CUDA_"))}
    null = "BITFUSION_NULL_DRIVER"
    return {**kept, null: "1", "BITFUSION_WORKER_ENVIRONMENT": null}


def run(command: List[str], env: Dict[str, str]) -> List[Dict[str, object]]:
    """The JSON lines that one program prints."""
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        sys.stderr.write(done.stderr[-2000:])
        raise SystemExit("bench: '%s' ended with status %d" % (" ".join(command), done.returncode))
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def command_for(
    column: str, pin: List[str], options: List[str]
) -> Tuple[List[str], Dict[str, str]]:
    bench = [str(BUILD / "bench" / "driver_bench"), *options]
    env = environment()
    if column == "direct":
        env["LD_LIBRARY_PATH"] = str(NULL_DRIVER.parent)
        return [*pin, *bench], env
    through = [str(ROOT / "bin" / "bitfusion"), "run", "-n", "1", "--driver", str(NULL_DRIVER)]
    return [*pin, *through, "--transport", column, "--", *bench], env


def collect(into: Samples, lines: List[Dict[str, object]]) -> None:
    for line in lines:
        name, unit, median = str(line["metric"]), str(line["unit"]), float(str(line["median"]))
        into.setdefault(name, (unit, []))[1].append(median)


def median(values: Samples, name: str) -> Optional[float]:
    return statistics.median(values[name][1]) if name in values else None


def show(value: Optional[float]) -> str:
    return "-" if value is None else "%.4g" % value


def ratio(name: str, value: Optional[float], limit: Optional[float]) -> str:
    if value is None or not limit:
        return "-"
    return "%.2f" % (value / limit)


def print_table(
    limits: Samples,
    columns: Dict[str, Samples],
) -> None:
    print("%-28s %12s  %s" % ("limit of this machine", "median", "unit"))
    for name, (unit, _) in limits.items():
        print("%-28s %12s  %s" % (name, show(median(limits, name)), unit))
    print()
    head = ("metric", *COLUMNS, "unit", "limit", "unix/limit", "tcp/limit")
    print("%-26s %11s %11s %11s  %-11s %-26s %10s %10s" % head)
    units = {n: unit for c in COLUMNS for n, (unit, _) in columns.get(c, {}).items()}
    for name, unit in units.items():
        limit_name, _ = AGAINST.get(name, ("", False))
        limit = median(limits, limit_name)
        values = {c: median(columns.get(c, {}), name) for c in COLUMNS}
        ratios = [ratio(name, values[c], limit) for c in ("unix", "tcp")]
        cells = [show(values[c]) for c in COLUMNS]
        print(
            "%-26s %11s %11s %11s  %-11s %-26s %10s %10s"
            % (name, *cells, unit, limit_name or "-", *ratios)
        )


def print_markdown(limits: Samples, columns: Dict[str, Samples]) -> None:
    """The same two tables as they stand in docs/performance.md."""
    print("\n| limit of the machine | median | unit |\n|---|---:|---|")
    for name, (unit, _) in limits.items():
        print("| %s | %s | %s |" % (name, show(median(limits, name)), unit))
    print("\n| metric | direct | unix | tcp | unit | limit | unix/limit | tcp/limit |")
    print("|---|---:|---:|---:|---|---|---:|---:|")
    units = {n: unit for c in COLUMNS for n, (unit, _) in columns.get(c, {}).items()}
    for name, unit in units.items():
        limit_name, _ = AGAINST.get(name, ("", False))
        limit = median(limits, limit_name)
        values = {c: median(columns.get(c, {}), name) for c in COLUMNS}
        cells = [name, *(show(values[c]) for c in COLUMNS), unit, limit_name or "-"]
        cells += [ratio(name, values[c], limit) for c in ("unix", "tcp")]
        print("| %s |" % " | ".join(cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="one round, fewer repeats, no copy over 64 MiB"
    )
    parser.add_argument("--only", help="only metrics whose name contains this")
    parser.add_argument("--one-cpu", action="store_true", help="everything on CPU 0 (taskset)")
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--no-limits", action="store_true")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables for the docs too"
    )
    options = parser.parse_args()
    pin = ["taskset", "-c", "0"] if options.one_cpu else []
    words: List[str] = []
    if options.quick:
        options.rounds = 1
        words += ["--repeats", "3", "--launches", "50000", "--max-copy", "64"]
    if options.only:
        words += ["--only", options.only]
    limits: Samples = {}
    columns: Dict[str, Samples] = {}
    for number in range(options.rounds):
        start = time.monotonic()
        if not options.no_limits:
            collect(limits, run([*pin, str(BUILD / "bench" / "limits")], environment()))
        for column in options.columns.split(","):
            command, env = command_for(column, pin, words)
            collect(columns.setdefault(column, {}), run(command, env))
        spent = time.monotonic() - start
        print("round %d of %d: %.0f s" % (number + 1, options.rounds, spent), file=sys.stderr)
    print_table(limits, columns)
    if options.markdown:
        print_markdown(limits, columns)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "machine": platform.machine()}
    result = {"machine": machine, "rounds": options.rounds, "limits": limits, "columns": columns}
    (BUILD / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\nwritten: build/bench.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
