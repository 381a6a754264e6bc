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
from pathlib import Path
from typing import Dict, List, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BITFUSION = str(ROOT / "bin" / "bitfusion")
HOW: Dict[str, List[str]] = {
    "direct": [BITFUSION, "softgpu", "--"],
    "tcp": [BITFUSION, "run", "-n", "1", "--transport", "tcp", "--"],
}
SCRIPTS = {"tensorflow": "tensorflow_train.py", "jax": "jax_train.py"}


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str
    seconds: float


def run(how: str, framework: str, limit: float) -> Outcome:
    python = str(ROOT / "build" / "frameworks" / framework / "bin" / "python")
    command = [*HOW[how], python, str(ROOT / "tests" / "frameworks" / SCRIPTS[framework])]
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*", default=list(SCRIPTS), metavar="FRAMEWORK")
    parser.add_argument("--limit", type=float, default=600, help="seconds for each run")
    options = parser.parse_args()
    lines, failed = [], False
    for framework in options.frameworks:
        direct = run("direct", framework, options.limit)
        for how in HOW:
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
