# SPDX-License-Identifier: Apache-2.0
"""Large frameworks, unmodified, on software GPUs: directly and through Bitfusion over TCP.

A script compares what the GPU computes with what the CPU computes and fails by itself, and both
ways of running it must print the same. A suite counts by itself what is right and knows what is
not. Ends with one table; status 1 when anything failed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Dict, List, NamedTuple, Tuple

from how import HERE, HOW

ROOT = HERE.parents[1]
WAYS = ("direct", "tcp")


class Framework(NamedTuple):
    environment: str  # below build/frameworks, with tests/requirements/NAME.txt
    script: str
    packages: Tuple[str, ...]  # whose versions the table says
    is_suite: bool = False


FRAMEWORKS: Dict[str, Framework] = {
    "tensorflow": Framework(
        "tensorflow",
        "tensorflow_train.py",
        ("tensorflow", "nvidia-cublas-cu12", "nvidia-cudnn-cu12"),
    ),
    "jax": Framework("jax", "jax_train.py", ("jax", "nvidia-cublas-cu12", "nvidia-cudnn-cu12")),
    "cublas": Framework("cupy", "cublas_gemm.py", ("nvidia-cublas", "numpy")),
    "cupy": Framework("cupy", "run_cupy.py", ("cupy-cuda13x", "nvidia-cublas"), True),
    "numba": Framework("numba", "run_numba_cuda.py", ("numba-cuda", "numba"), True),
}


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Row(NamedTuple):
    framework: str
    way: str
    seconds: float
    cpu_seconds: float  # of all its processes: what neighbours on the machine do not change
    verdict: str
    is_good: bool

    def __str__(self) -> str:
        times = f"{self.seconds:7.0f} s {self.cpu_seconds:7.0f} s CPU"
        return f"{self.framework:12} {self.way:8} {times}  {self.verdict}"


class Clock:
    def __init__(self) -> None:
        self.began, self.cpu = time.monotonic(), self.spent()

    @staticmethod
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def read(self) -> Tuple[float, float]:
        return time.monotonic() - self.began, self.spent() - self.cpu


def python_of(framework: Framework) -> str:
    return str(ROOT / "build" / "frameworks" / framework.environment / "bin" / "python")


def versions(framework: Framework) -> str:
    code = "import sys, importlib.metadata as m; print(*[m.version(n) for n in sys.argv[1:]])"
    command = [python_of(framework), "-c", code, *framework.packages]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return ", ".join(f"{name} {version}" for name, version in zip(framework.packages, found))


def run_script(framework: Framework, way: str, limit: float) -> Outcome:
    command = [*HOW[way], python_of(framework), str(HERE / framework.script)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(-1, "", f"no end after {limit:.0f} s")
    return Outcome(done.returncode, done.stdout, done.stderr)


def judge(outcome: Outcome, direct: Outcome) -> Tuple[str, bool]:
    if outcome.status != 0:
        return f"FAILED with status {outcome.status}", False
    if outcome.stdout != direct.stdout:
        return "PRINTS other things than directly", False
    return "agrees with the CPU", True


def compare(name: str, limit: float) -> List[Row]:
    rows, direct = [], None
    for way in WAYS:
        clock = Clock()
        outcome = run_script(FRAMEWORKS[name], way, limit)
        direct = direct or outcome
        rows.append(Row(name, way, *clock.read(), *judge(outcome, direct)))
        print(rows[-1], flush=True)
        if not rows[-1].is_good:
            print(outcome.stdout + outcome.stderr[-4000:], file=sys.stderr)
    return rows


def run_suite(name: str) -> List[Row]:
    framework, rows = FRAMEWORKS[name], []
    for way in WAYS:
        clock = Clock()
        command = [python_of(framework), str(HERE / framework.script), "--how", way]
        is_good = subprocess.run(command, check=False).returncode == 0
        verdict = "as expected" if is_good else "NOT as expected"
        rows.append(Row(name, way, *clock.read(), verdict, is_good))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*", metavar="FRAMEWORK")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for each script")
    options = parser.parse_args()
    names = options.frameworks or [*FRAMEWORKS]
    for name in names:
        if name not in FRAMEWORKS:
            parser.error(f"no framework is called '{name}': {', '.join(FRAMEWORKS)}")
    rows: List[Row] = []
    for name in names:
        rows += run_suite(name) if FRAMEWORKS[name].is_suite else compare(name, options.limit)
    print()
    for name in names:
        print(f"{name:12} {versions(FRAMEWORKS[name])}")
    print(*rows, sep="\n")
    return int(not all(row.is_good for row in rows))


if __name__ == "__main__":
    sys.exit(main())
