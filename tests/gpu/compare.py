# SPDX-License-Identifier: Apache-2.0
"""Runs programs on a real GPU, directly and through a server on loopback, and compares them.

Each job has a time limit and all together end within nine minutes of --started; the last thing
printed is a table.
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
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from waiting import end

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build"
BITFUSION = [sys.executable, str(ROOT / "bin" / "bitfusion")]
BUDGET_S = 8.5 * 60
SERVER_STARTS_S = 60


class NoGpu(Exception):
    pass


class NoServer(Exception):
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


@contextmanager
def start_server(driver: str, config: str, log: Path) -> Iterator[str]:
    """HOST:PORT of a server on loopback that serves what this driver has."""
    with log.open("wb") as output:
        state = str(log.with_suffix(".state"))
        options = ["--listen", "127.0.0.1:0", "--driver", driver, "--state_dir", state]
        if config:
            options += ["--config", config]
        process = subprocess.Popen(
            [*BITFUSION, "server", *options], stdin=subprocess.DEVNULL, stderr=output
        )
        try:
            until = time.monotonic() + SERVER_STARTS_S
            found = None
            while not found and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
                found = re.search(r"127\.0\.0\.1:\d+", log.read_text(errors="replace"))
            if not found:
                raise NoServer(last_line(log.read_text(errors="replace")))
            yield found.group()
        finally:
            end(process)


@dataclass
class Job:
    name: str
    command: List[str]
    limit_s: float = 60
    needs: str = ""  # a Python module
    unstable: str = ""  # lines with this in them differ from run to run
    partial: str = ""  # two at once, each with this part of the GPU
    left_out: str = ""  # why it cannot run
    missing: str = ""  # why it cannot run, though it should


@dataclass
class Outcome:
    status: str = ""
    seconds: Dict[str, float] = field(default_factory=dict)
    figures: Dict[str, Dict[str, float]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return self.status == "same" or self.status.startswith("left out")


@dataclass
class Ended:
    code: Optional[int]  # None: it ran out of time
    out: str
    err: str
    seconds: float

    @property
    def trouble(self) -> str:
        if self.code == 0:
            return ""
        how = "timed out" if self.code is None else "status %d" % self.code
        return "%s: %s" % (how, last_line(self.err or self.out))


@dataclass
class Runner:
    server: str
    transport: str
    deadline: float  # time.time()
    libraries: str = ""  # where the driver is, unless programs find it by themselves

    def environment(self, through: bool) -> Dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        if not through:
            kept.pop("BITFUSION_LIBDIR", None)
            if self.libraries:
                kept["LD_LIBRARY_PATH"] = self.libraries
        return kept

    def command(self, job: Job, through: bool) -> List[str]:
        if not through:
            return job.command
        options = ["-n", "1", "--server_list", self.server, "--transport", self.transport]
        if job.partial:
            options += ["-p", job.partial]
        return [*BITFUSION, "run", *options, "--", *job.command]

    def run(self, job: Job, through: bool, copies: int = 1) -> List[Ended]:
        """Runs that many at once."""
        start = time.monotonic()
        limit = min(job.limit_s, self.deadline - time.time())
        if limit <= 1:
            return [Ended(None, "", "no time left", 0)] * copies
        processes = [
            subprocess.Popen(
                self.command(job, through),
                env=self.environment(through),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            for _ in range(copies)
        ]
        return [finish(process, start, limit) for process in processes]


def finish(process: subprocess.Popen[str], start: float, limit: float) -> Ended:
    code = None
    try:
        out, err = process.communicate(timeout=max(0.1, start + limit - time.monotonic()))
        code = process.returncode
    except subprocess.TimeoutExpired:
        # the launcher gives its slice back when it is asked to end
        os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
    return Ended(code, out, err, time.monotonic() - start)


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


def compared(job: Job, ended: Ended) -> Tuple[str, Dict[str, float]]:
    lines = [x for x in ended.out.splitlines() if not job.unstable or job.unstable not in x]
    return split_figures("\n".join(lines))


def do(runner: Runner, job: Job) -> Outcome:
    if job.missing:
        return Outcome(job.missing)
    if job.left_out:
        return Outcome("left out: " + job.left_out)
    outcome = Outcome()
    texts = []
    for name, through in (("direct", False), ("through", True)):
        for ended in runner.run(job, through, 2 if through and job.partial else 1):
            text, outcome.figures[name] = compared(job, ended)
            texts.append(text)
            outcome.seconds[name] = max(ended.seconds, outcome.seconds.get(name, 0))
            if ended.trouble:
                outcome.status = outcome.status or "%s %s" % (name, ended.trouble)
                said = (job.name, name, ended.out[-1500:], ended.err[-1500:])
                print("---- %s %s\n%s\n%s" % said, flush=True)
        if outcome.status:
            return outcome
    outcome.status = "same" if all(text == texts[0] for text in texts) else "DIFFERENT"
    if outcome.status != "same":
        for name, text in zip(("direct", "through", "through, the other"), texts):
            print("---- %s %s\n%s" % (job.name, name, text[-1500:]), flush=True)
    return outcome


def cuda_jobs(nvcc: str) -> List[Job]:
    """One for each CUDA C++ program that there is, whether it could be built or not."""
    found = []
    sources = (ROOT / "tests" / "programs").glob("*.cu")
    for name in sorted([*(source.stem for source in sources), "relocatable"]):
        path = BUILD / "gpu" / name
        job = Job("nvcc " + name, [str(path)], 30)
        if not path.exists() and nvcc:
            job.missing = "not built: see build/gpu-test.log"
        elif not path.exists():
            job.left_out = "no nvcc here"
        found.append(job)
    return found


def jobs(nvcc: str) -> List[Job]:
    python = sys.executable
    programs = BUILD / "programs"
    # the demo says how long it took
    demo = Job("demo_mandelbrot", [str(programs / "demo_mandelbrot")], 30, unstable="driver")
    steady = Job("steady", [str(programs / "steady"), "50"], 30)
    training = Job("PyTorch training", [python, str(HERE / "torch_step.py")], 90, "torch")
    found = [demo, steady]
    found += [replace(job, name=job.name + " twice", partial="0.5") for job in (demo, steady)]
    found += cuda_jobs(nvcc)
    found += [training, replace(training, name=training.name + " twice", partial="0.5")]
    found.append(Job("Triton kernel", [python, str(HERE / "triton_kernel.py")], 60, "triton"))
    found.append(Job("CuPy kernel", [python, str(HERE / "cupy_kernel.py")], 60, "cupy"))
    bench = ["--repeats", "3", "--launches", "50000", "--max-copy", "64"]
    found.append(Job("driver_bench", [str(BUILD / "bench" / "driver_bench"), *bench], 90))
    # last, for the time may be up: each shows one side of the driver API
    for pattern in ("driver_*", "graph_*", "copies", "after_host_function"):
        for source in sorted((ROOT / "tests" / "programs").glob(pattern + ".c")):
            found.append(Job(source.stem, [str(programs / source.stem)], 20))
    for job in found:
        if not job.needs and not job.left_out and not Path(job.command[0]).exists():
            job.missing = job.missing or "not built: see build/gpu-test.log"
        if not has_module(job.needs):
            job.left_out = "no %s here" % job.needs
    return found


def has_module(name: str) -> bool:
    import importlib.util

    return not name or importlib.util.find_spec(name) is not None


def print_table(results: List[Tuple[str, Outcome]]) -> None:
    print("\n%-24s %-34s %10s %10s" % ("program", "result", "direct s", "through s"))
    for name, outcome in results:
        seconds = [
            "%.2f" % outcome.seconds[k] if k in outcome.seconds else "-"
            for k in ("direct", "through")
        ]
        print("%-24s %-34s %10s %10s" % (name, outcome.status.split(":")[0][:34], *seconds))
    print("\n%-44s %12s %12s %9s" % ("figure", "direct", "through", "ratio"))
    for name, outcome in results:
        direct, through = outcome.figures.get("direct", {}), outcome.figures.get("through", {})
        for figure in direct:
            if figure in through:
                ratio = through[figure] / direct[figure] if direct[figure] else 0.0
                words = ("%s: %s" % (name, figure), direct[figure], through[figure], ratio)
                print("%-44s %12.5g %12.5g %9.3f" % words)


def run_all(runner: Runner, chosen: Sequence[Job]) -> int:
    results = []
    for job in chosen:
        outcome = do(runner, job)
        print("gpu-test: %s: %s" % (job.name, outcome.status), flush=True)
        results.append((job.name, outcome))
    print_table(results)
    good = sum(o.status == "same" for _, o in results)
    print("\ngpu-test: %d of %d the same" % (good, len(results)))
    return 0 if results and all(o.good for _, o in results) else 1


def main(words: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transport", default="tcp", choices=("tcp", "unix", "auto"))
    parser.add_argument("--only", default="", help="only programs whose name contains this")
    parser.add_argument("--driver", default="", help="this libcuda.so.1, not the machine's")
    parser.add_argument("--config", default="", help="settings of the server")
    parser.add_argument("--nvcc", default="", help="what the CUDA C++ programs were built with")
    parser.add_argument(
        "--started", type=float, default=time.time(), help="when the time began to run"
    )
    options = parser.parse_args(words)
    try:
        driver = options.driver or find_driver()
    except NoGpu as error:
        print("gpu-test: no GPU here: %s" % error, file=sys.stderr)
        return 1
    print("gpu-test: driver %s" % driver, flush=True)
    libraries = str(Path(options.driver).parent) if options.driver else ""
    chosen = [job for job in jobs(options.nvcc) if options.only in job.name]
    try:
        with start_server(driver, options.config, BUILD / "gpu-server.log") as server:
            deadline = options.started + BUDGET_S
            return run_all(Runner(server, options.transport, deadline, libraries), chosen)
    except NoServer as error:
        print("gpu-test: the server did not start: %s" % error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
