# SPDX-License-Identifier: Apache-2.0
"""Large frameworks, unmodified, on software GPUs: directly and through Bitfusion over TCP.

Each script compares what the GPU computes with what the CPU computes and fails by itself; here
both ways of running it must print the same. Ends with a table; status 1 when anything failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import List, NamedTuple, Tuple

from how import HERE, HOW

ROOT = HERE.parents[1]
WAYS = ("direct", "tcp")
SCRIPTS = {"tensorflow": "tensorflow_train.py", "jax": "jax_train.py"}
# These count by themselves what is right, and know what is not; numba-cuda's takes half an hour.
SUITES = {"cupy": ("run_cupy.py", WAYS), "numba": ("run_numba_cuda.py", ("direct",))}


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str
    seconds: float


def python_of(framework: str) -> str:
    return str(ROOT / "build" / "frameworks" / framework / "bin" / "python")


def run(how: str, framework: str, limit: float) -> Outcome:
    command = [*HOW[how], python_of(framework), str(HERE / SCRIPTS[framework])]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(-1, "", f"no end after {limit:.0f} s", limit)
    return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def judge(outcome: Outcome, direct: Outcome) -> str:
    if outcome.status != 0:
        return f"failed with status {outcome.status}"
    if outcome.stdout != direct.stdout:
        return "prints other things than directly"
    return "agrees with the CPU"


def run_suite(framework: str) -> Tuple[List[str], bool]:
    script, ways = SUITES[framework]
    lines, failed = [], False
    for how in ways:
        began = time.monotonic()
        command = [python_of(framework), str(HERE / script), "--how", how]
        status = subprocess.run(command, check=False).returncode
        verdict = "as expected" if status == 0 else "not as expected"
        lines.append(f"{framework:12} {how:8} {time.monotonic() - began:6.1f} s  {verdict}")
        failed = failed or status != 0
    return lines, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*", default=[*SCRIPTS, *SUITES], metavar="FRAMEWORK")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each run")
    options = parser.parse_args()
    lines, failed = [], False
    for framework in options.frameworks:
        if framework in SUITES:
            told, wrong = run_suite(framework)
            lines += told
            failed = failed or wrong
            continue
        direct = run("direct", framework, options.limit)
        for how in WAYS:
            outcome = direct if how == "direct" else run(how, framework, options.limit)
            verdict = judge(outcome, direct)
            lines.append(f"{framework:12} {how:8} {outcome.seconds:6.1f} s  {verdict}")
            print(lines[-1], flush=True)
            if not verdict.startswith("agrees"):
                failed = True
                print(outcome.stdout + outcome.stderr[-4000:], file=sys.stderr)
    print("\n" + "\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
