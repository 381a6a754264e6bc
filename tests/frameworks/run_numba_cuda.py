# SPDX-License-Identifier: Apache-2.0
"""Runs numba-cuda's own tests, as its wheel has them, on the software GPU and counts.

Each module of the suite runs in a process of its own, and what comes after a failure in a new one.
A test that crashes its process or does not come to an end has failed. One that gave up on a
process of its own, which some do after 30 seconds, has another try when all others are done: the
machine may have had other things to do. Exits with 1 when a test
fails that numba_cuda_failures.txt does not explain, and when one passes that it lists.
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
from typing import Any, Dict, Iterable, List, Tuple

from how import HERE, HOW

sys.path.insert(0, str(HERE.parent))
from waiting import end

EXPLAINED = HERE / "numba_cuda_failures.txt"
# Timings of kernel launches, and tests of numba's own simulator.
NO_TESTS_OF_GPUS = ("benchmarks", "cudasim")
# How the reasons begin of tests that no single process without hardware can pass.
UNABLE = "needs "
OUT_OF_TIME = "subprocess.TimeoutExpired"

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
            end(process)
            return f"no end after {limit:.0f} s"
    return f"the process ended with status {process.returncode}"


def attempt(
    module: str, how: str, options: argparse.Namespace, results: Path, done: List[str]
) -> str:
    worker = [sys.executable, str(HERE / "unittest_worker.py")]
    command = [*HOW[how], *worker, str(results), module, *done]
    log = results.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        return wait(process, results, options.timeout)


def note_end(results: Path, test: str, why: str) -> Entry:
    """Of a process that could not write it down itself."""
    entry = {"test": test, "outcome": "failed", "seconds": 0, "text": why}
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return entry


def run_module(module: str, how: str, options: argparse.Namespace, folder: Path) -> List[Entry]:
    results = folder / (module + ".jsonl")
    finished: Dict[str, Entry] = {}
    if options.resume and results.exists() and any("end" in entry for entry in read(results)):
        return list({e["test"]: e for e in read(results) if "test" in e}.values())
    results.write_bytes(b"")
    while True:
        before = len(finished)
        why = attempt(module, how, options, results, list(finished))
        entries = read(results)
        started = ""
        for entry in entries:
            started = entry.get("start", started)
            if "test" in entry:
                finished[entry["test"]] = entry
        if any("end" in entry for entry in entries):
            break
        if started and started not in finished:
            finished[started] = note_end(results, started, why)
        if len(finished) == before:
            finished[module] = note_end(results, module, why)
            break
    print(f"{how}: {module}: {summary(finished.values())}", flush=True)
    return list(finished.values())


def try_late_ones_again(
    module: str, how: str, options: argparse.Namespace, folder: Path, entries: List[Entry]
) -> List[Entry]:
    late = [
        entry["test"]
        for entry in entries
        if entry["outcome"] == "failed" and last_line(entry).startswith(OUT_OF_TIME)
    ]
    results = folder / (module + ".jsonl")
    for test in late:
        others = [entry["test"] for entry in entries if entry["test"] != test]
        attempt(module, how, options, results, others)
        print(f"{how}: {test}: ran out of its own time, tried again", flush=True)
    if not late:
        return entries
    return list({entry["test"]: entry for entry in read(results) if "test" in entry}.values())


def last_line(entry: Entry) -> str:
    return (entry["text"].strip().splitlines() or [""])[-1]


def summary(entries: Iterable[Entry]) -> str:
    counts = Counter(entry["outcome"] for entry in entries)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def explained() -> Dict[str, str]:
    """Lines `test: reason`; blank lines and those that begin with # say nothing."""
    found = {}
    for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            test, reason = line.split(": ", 1)
            found[test] = reason
    return found


def share(entries: Iterable[Entry]) -> str:
    outcomes = [entry["outcome"] for entry in entries if entry["outcome"] != "skipped"]
    passed = outcomes.count("passed")
    return f"{passed} of {len(outcomes)} ({100 * passed / max(len(outcomes), 1):.1f} %)"


def compare(entries: List[Entry], how: str, whole: bool) -> Tuple[str, int]:
    """Tells what is not as the list of failures says; gives a summary and their number."""
    reasons = explained()
    outcomes = {entry["test"]: entry["outcome"] for entry in entries}
    failed = [entry for entry in entries if entry["outcome"] == "failed"]
    unexplained = [entry for entry in failed if entry["test"] not in reasons]
    for entry in unexplained:
        print(f"{how}: FAILED, NOT EXPLAINED: {entry['test']}: {last_line(entry)}")
    surprises = [test for test in reasons if outcomes.get(test) == "passed"]
    for test in surprises:
        print(f"{how}: PASSED, although it is called a failure: {test}: {reasons[test]}")
    missing = [test for test in reasons if whole and test not in outcomes]
    for test in missing:
        print(f"{how}: NO SUCH TEST, although it is called a failure: {test}")
    able = [e for e in entries if not reasons.get(e["test"], "").startswith(UNABLE)]
    skipped = sum(entry["outcome"] == "skipped" for entry in entries)
    text = (
        f"{how}: {share(entries)} passed, {len(failed) - len(unexplained)} failed as explained, "
        f"{len(unexplained)} failed otherwise, {skipped} skipped; "
        f"without those that need several processes: {share(able)}"
    )
    return text, len(unexplained) + len(surprises) + len(missing)


def run_all(how: str, options: argparse.Namespace, folder: Path) -> List[Entry]:
    folder.mkdir(parents=True, exist_ok=True)
    names = modules(options.only)
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [*pool.map(lambda name: run_module(name, how, options, folder), names)]
    return [
        entry
        for name, entries in zip(names, runs)
        for entry in try_late_ones_again(name, how, options, folder, entries)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", choices=sorted(HOW), nargs="+", default=["direct", "tcp"])
    parser.add_argument("--only", default="", help="modules whose name contains this")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one test")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", help="keep the results of each test in this folder")
    parser.add_argument("--resume", action="store_true", help="not what that folder has in full")
    options = parser.parse_args()
    wrong, lines = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        for how in options.how:
            entries = run_all(how, options, Path(options.results or scratch) / how)
            line, found = compare(entries, how, not options.only)
            lines.append(line)
            wrong += found
    print("numba-cuda's own tests\n" + "\n".join(lines))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
