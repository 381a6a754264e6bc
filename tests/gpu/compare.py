# SPDX-License-Identifier: Apache-2.0
"""Runs programs on a real GPU, directly and through `bitfusion run --driver`, and compares them.

Each job has a time limit and all together end within nine minutes; the last thing printed is a
table.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build"
BUDGET_S = 8.5 * 60


class NoGpu(Exception):
    pass


def find_driver() -> str:
    """The path of the real libcuda.so.1, once it has said that there is a GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NoGpu("libcuda.so.1 cannot be loaded: %s" % error) from None
    status = library.cuInit(0)
    if status != 0:
        raise NoGpu("cuInit says error %d" % status)
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    if count.value < 1:
        raise NoGpu("the driver sees no device")
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "libcuda.so" in path:
            return path
    raise NoGpu("libcuda.so.1 is loaded from nowhere")


@dataclass
class Job:
    name: str
    command: List[str]
    limit_s: float = 60
    needs: str = ""  # a Python module


@dataclass
class Outcome:
    status: str = ""
    seconds: Dict[str, float] = field(default_factory=dict)
    figures: Dict[str, Dict[str, float]] = field(default_factory=dict)


@dataclass
class Runner:
    driver: str
    transport: str
    deadline: float
    lines: List[str] = field(default_factory=list)

    def environment(self, through: bool) -> Dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if not through:
            kept.pop("BITFUSION_LIBDIR", None)
        return kept

    def run(self, job: Job, through: bool) -> Tuple[Optional[int], str, str, float]:
        command = job.command
        if through:
            ours = [
                sys.executable,
                str(ROOT / "bin" / "bitfusion"),
                "run",
                "-n",
                "1",
                "--driver",
                self.driver,
            ]
            command = [*ours, "--transport", self.transport, "--", *command]
        limit = min(job.limit_s, self.deadline - time.monotonic())
        if limit <= 1:
            return None, "", "no time left", 0
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            env=self.environment(through),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return None, out, err, time.monotonic() - start
        return process.returncode, out, err, time.monotonic() - start


def split_figures(out: str) -> Tuple[str, Dict[str, float]]:
    """What must be equal, and the lines `FIGURE name value` and driver_bench's JSON, which need
    not.
    """
    figures: Dict[str, float] = {}
    rest = []
    for line in out.splitlines():
        match = re.match(r"^FIGURE (\S+) (\S+)$", line)
        if match:
            figures[match.group(1)] = float(match.group(2))
        elif line.startswith('{"metric"'):
            record = json.loads(line)
            figures["%s %s" % (record["metric"], record["unit"])] = record["median"]
        else:
            rest.append(line)
    return "\n".join(rest), figures


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:140] if lines else "(no output)"


def do(runner: Runner, job: Job) -> Outcome:
    outcome = Outcome()
    texts = {}
    for name, through in (("direct", False), ("through", True)):
        code, out, err, seconds = runner.run(job, through)
        texts[name], outcome.figures[name] = split_figures(out)
        outcome.seconds[name] = seconds
        if code != 0:
            how = "timed out" if code is None else "status %d" % code
            outcome.status = "%s %s: %s" % (name, how, last_line(err or out))
            print("---- %s %s\n%s\n%s" % (job.name, name, out[-1500:], err[-1500:]), flush=True)
            return outcome
    outcome.status = "same" if texts["direct"] == texts["through"] else "DIFFERENT"
    if outcome.status != "same":
        for name, text in texts.items():
            print("---- %s %s\n%s" % (job.name, name, text[-1500:]), flush=True)
    return outcome


def jobs() -> List[Job]:
    found = []
    for name in ("demo_mandelbrot", "steady"):
        path = BUILD / "programs" / name
        if path.exists():
            words = [str(path), "50"] if name == "steady" else [str(path)]
            found.append(Job(name, words, 30))
    for path in sorted((BUILD / "gpu").glob("*")):
        if os.access(path, os.X_OK) and path.is_file():
            found.append(Job("nvcc " + path.name, [str(path)], 30))
    python = sys.executable
    found.append(Job("PyTorch training", [python, str(HERE / "torch_step.py")], 90, "torch"))
    found.append(Job("Triton kernel", [python, str(HERE / "triton_kernel.py")], 60, "triton"))
    found.append(Job("CuPy kernel", [python, str(HERE / "cupy_kernel.py")], 60, "cupy"))
    bench = BUILD / "bench" / "driver_bench"
    if bench.exists():
        words = ["--repeats", "3", "--launches", "50000", "--max-copy", "64"]
        found.append(Job("driver_bench", [str(bench), *words], 90))
    # last, for the time may be up: each shows one side of the driver API
    for pattern in ("driver_*", "graph_*", "copies", "after_host_function"):
        for path in sorted((BUILD / "programs").glob(pattern)):
            if os.access(path, os.X_OK) and not path.suffix:
                found.append(Job(path.name, [str(path)], 20))
    return found


def has_module(name: str) -> bool:
    import importlib.util

    return not name or importlib.util.find_spec(name) is not None


# The demo prints how long it took; only its verdict can be compared.
def stable(job: Job) -> Job:
    if job.name == "demo_mandelbrot":
        script = "'%s' | grep -v driver" % job.command[0]
        return Job(job.name, ["sh", "-c", script], job.limit_s)
    return job


def print_table(results: List[Tuple[str, Outcome]]) -> None:
    print("\n%-22s %-10s %10s %10s" % ("program", "result", "direct s", "through s"))
    for name, outcome in results:
        seconds = [
            "%.2f" % outcome.seconds[k] if k in outcome.seconds else "-"
            for k in ("direct", "through")
        ]
        print("%-22s %-10s %10s %10s" % (name, outcome.status.split(":")[0][:34], *seconds))
    print("\n%-44s %12s %12s %9s" % ("figure", "direct", "through", "ratio"))
    for name, outcome in results:
        direct, through = outcome.figures.get("direct", {}), outcome.figures.get("through", {})
        for figure in direct:
            if figure in through:
                ratio = through[figure] / direct[figure] if direct[figure] else 0.0
                words = ("%s: %s" % (name, figure), direct[figure], through[figure], ratio)
                print("%-44s %12.5g %12.5g %9.3f" % words)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transport", default="tcp", choices=("tcp", "unix", "auto"))
    parser.add_argument("--only", default="", help="only programs whose name contains this")
    options = parser.parse_args()
    try:
        driver = find_driver()
    except NoGpu as error:
        print("gpu-test: no GPU here: %s" % error, file=sys.stderr)
        return 1
    print("gpu-test: driver %s" % driver, flush=True)
    runner = Runner(driver, options.transport, time.monotonic() + BUDGET_S)
    results = []
    for job in jobs():
        if options.only not in job.name:
            continue
        if not has_module(job.needs):
            results.append((job.name, Outcome("left out")))
            continue
        outcome = do(runner, stable(job))
        print("gpu-test: %s: %s" % (job.name, outcome.status), flush=True)
        results.append((job.name, outcome))
    print_table(results)
    good = sum(o.status == "same" for _, o in results)
    print("\ngpu-test: %d of %d the same" % (good, len(results)))
    return 0 if all(o.status in ("same", "left out") for _, o in results) else 1


if __name__ == "__main__":
    sys.exit(main())
