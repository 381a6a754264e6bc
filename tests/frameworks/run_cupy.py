# SPDX-License-Identifier: Apache-2.0
"""Runs each check of cupy_arrays.py in a process of its own and counts.

Exits with 1 when a check is wrong that is not known to be out of reach that way.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Dict

from how import HERE, HOW

CHECKS = [
    "arithmetic",
    "reductions",
    "sorting",
    "raw_kernel",
    "raw_module",
    "own_kernels",
    "random_numbers",
    "streams_and_memory",
    "managed_memory",
    "graphs",
    "sgemm",
    "dgemm",
    "hgemm",
    "cgemm",
    "blas_vectors",
    "batched_gemm",
    "fft",
    "solver",
    "sparse",
]
THROUGH_US: Dict[str, str] = {}


def run(check: str, how: str, limit: float) -> str:
    """Empty when it is right, else what the program said."""
    command = [*HOW[how], sys.executable, str(HERE / "cupy_arrays.py"), check]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        return f"no end after {limit:.0f} s"
    if done.returncode == 0 and f"{check} right" in done.stdout.splitlines():
        return ""
    said = (done.stdout + done.stderr).strip().splitlines()
    return said[-1] if said else f"status {done.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", choices=sorted(HOW), default="direct")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one check")
    options = parser.parse_args()
    known = {} if options.how == "direct" else THROUGH_US
    right = wrong = 0
    for check in CHECKS:
        said = run(check, options.how, options.timeout)
        right += not said
        wrong += bool(said) and check not in known
        print(f"{check}: {said or 'right'}", flush=True)
        if check in known:
            print(f"  {'expected: ' if said else 'is right, although '}{known[check]}")
    print(f"CuPy, {options.how}: {right} of {len(CHECKS)} right")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
