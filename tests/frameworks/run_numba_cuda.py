# SPDX-License-Identifier: Apache-2.0
"""Runs numba-cuda's own tests, as its wheel has them, on the software GPU and counts.

Each module of the suite runs in a process of its own, and what comes after a failure in a new one.
A test that crashes its process or does not come to an end has failed. Exits with 1 when a test
fails that numba_cuda_failures.txt does not explain.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

from how import HERE, HOW

EXPLAINED = HERE / "numba_cuda_failures.txt"
# Timings of kernel launches, and tests of numba's own simulator.
NO_TESTS_OF_GPUS = ("benchmarks", "cudasim")

Entry = Dict[str, Any]


def modules(pattern: str) -> List[str]:
    spec = importlib.util.find_spec("numba_cuda")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("numba-cuda is not installed")
    root = Path(spec.submodule_search_locations[0]) / "numba" / "cuda" / "tests"
    found = []
    for path in sorted(root.rglob("test_*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] not in NO_TESTS_OF_GPUS:
            found.append("numba.cuda.tests." + ".".join(parts))
    return [name for name in found if pattern in name]


def read(results: Path) -> List[Entry]:
    with results.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def wait(process: subprocess.Popen[bytes], results: Path, limit: float) -> str:
    """Until the process ends, or writes nothing for too long."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        now = results.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > limit:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return f"no end after {limit:.0f} s"
    return f"the process ended with status {process.returncode}"


def attempt(module: str, options: argparse.Namespace, results: Path, done: List[str]) -> str:
    worker = [sys.executable, str(HERE / "unittest_worker.py")]
    command = [*HOW[options.how], *worker, str(results), module, *done]
    log = results.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        return wait(process, results, options.timeout)


def run_module(module: str, options: argparse.Namespace, folder: Path) -> List[Entry]:
    results = folder / (module + ".jsonl")
    results.touch()
    finished: Dict[str, Entry] = {}
    while True:
        before = len(finished)
        why = attempt(module, options, results, list(finished))
        entries = read(results)
        started = ""
        for entry in entries:
            started = entry.get("start", started)
            if "test" in entry:
                finished[entry["test"]] = entry
        if any("end" in entry for entry in entries):
            break
        if started and started not in finished:
            finished[started] = {"test": started, "outcome": "failed", "seconds": 0, "text": why}
        if len(finished) == before:
            finished[module] = {"test": module, "outcome": "failed", "seconds": 0, "text": why}
            break
    print(f"{module}: {summary(list(finished.values()))}", flush=True)
    return list(finished.values())


def summary(entries: List[Entry]) -> str:
    counts = Counter(entry["outcome"] for entry in entries)
    ran = counts["passed"] + counts["failed"]
    share = f" ({100 * counts['passed'] / ran:.1f} % of {ran})" if ran else ""
    return (
        f"{counts['passed']} passed{share}, {counts['failed']} failed, {counts['skipped']} skipped"
    )


def explained() -> Dict[str, str]:
    """Lines `test: reason`; blank lines and those that begin with # say nothing."""
    found = {}
    if EXPLAINED.exists():
        for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                test, reason = line.split(": ", 1)
                found[test] = reason
    return found


def compare(entries: List[Entry], how: str) -> int:
    reasons = explained()
    wrong = 0
    for entry in sorted(entries, key=lambda entry: str(entry["test"])):
        reason = reasons.get(entry["test"])
        if entry["outcome"] == "failed":
            last = entry["text"].strip().splitlines()[-1:] or [""]
            wrong += reason is None
            print(f"FAILED {entry['test']}: {reason or 'NOT EXPLAINED: ' + last[0]}")
        elif entry["outcome"] == "passed" and reason:
            print(f"PASSED {entry['test']}, although it is called a failure: {reason}")
    print(f"numba-cuda's own tests, {how}: {summary(entries)}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", choices=sorted(HOW), default="direct")
    parser.add_argument("--only", default="", help="modules whose name contains this")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one test")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", help="keep the results of each test in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.results or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jsonl"):
            old.unlink()
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = pool.map(lambda m: run_module(m, options, folder), modules(options.only))
            entries = [entry for run in runs for entry in run]
        with (folder / "all.json").open("w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)
    sys.exit(1 if compare(entries, options.how) else 0)


if __name__ == "__main__":
    main()
