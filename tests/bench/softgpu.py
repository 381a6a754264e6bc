# SPDX-License-Identifier: Apache-2.0
"""`make bench-softgpu`: what the software GPU takes to begin, and to compute on this machine.

Each figure is given as the least and the median of the rounds: a machine that has other things
to do makes them larger, never smaller. `--realtime` (as root) keeps other programs away.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "build" / "bench" / "softgpu_bench"
PTX = ROOT / "build" / "bench" / "kernels.ptx"
# the design's targets, in ms
TARGETS = {
    "first_load_and_launch, cold": 30.0,
    "first_load_and_launch, cold, right after the context": 30.0,
    "first_load_and_launch, cold, no compiled modules": 30.0,
    "first_load_and_launch, from the cache": 3.0,
    "add_1M": 12.0,
    "product_1024": 1200.0,
}
Samples = Dict[str, List[float]]


def run(
    prefix: List[str], cache: str, wait: int, into: Samples, how: str = "", home: Path = ROOT
) -> None:
    """Run the program once; `how` is said behind the figures of its beginning."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("BITFUSION_", "CUDA_"))}
    library = ROOT / "build" / "lib" / "softgpu"
    env.update(
        LD_LIBRARY_PATH=str(library), BITFUSION_CACHE=cache, BITFUSION_PYTHON=sys.executable
    )
    env["BITFUSION_HOME"] = str(home)
    command = [*prefix, str(BENCH), str(PTX), str(wait)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    wait_for_orphans()
    for line in done.stdout.splitlines():
        figure = json.loads(line)
        first = figure["metric"].startswith("first")
        if first or not wait:
            name = f"{figure['metric']}, {how}" if first else figure["metric"]
            into.setdefault(name, []).append(figure["value"])


def adopt_orphans() -> None:
    """Be the parent of the programs' compilers when these are left alone."""
    PR_SET_CHILD_SUBREAPER = 36
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def wait_for_orphans() -> None:
    """A compiler outlives its program: it bounds the cache, and leaves the next its modules."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def bare_package(folder: Path) -> Path:
    """Where Python cannot keep compiled modules beside the sources."""
    skip = shutil.ignore_patterns("__pycache__", "*.c", "*.h")
    shutil.copytree(ROOT / "bitfusion", folder / "bitfusion", ignore=skip)
    for made in (folder / "bitfusion").glob("**/"):
        (made / "__pycache__").write_text("")
    return folder


def forget_images(cache: Path) -> None:
    """Forget what a compiler has compiled, not what it has left for the next one."""
    if not list(cache.glob("helper.*.pyc")):
        raise FileNotFoundError(f"no compiler has left its modules in {cache}")
    for file in (*cache.glob("*.sgi"), *cache.glob("*.hit")):
        file.unlink()


def table(samples: Samples, markdown: bool) -> None:
    head = ("what", "least, ms", "median, ms", "target, ms")
    rows = [
        (name, f"{min(values):.4g}", f"{statistics.median(values):.4g}", f"{TARGETS[name]:g}")
        if name in TARGETS
        else (name, f"{min(values):.4g}", f"{statistics.median(values):.4g}", "-")
        for name, values in samples.items()
    ]
    if markdown:
        print("| %s | %s | %s | %s |\n|---|---:|---:|---:|" % head)
        for row in rows:
            print("| %s | %s | %s | %s |" % row)
        return
    for row in (head, *rows):
        print("%-46s %12s %12s %12s" % row)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--realtime", action="store_true", help="under chrt: needs to be root")
    parser.add_argument("--markdown", action="store_true", help="the table as the docs have it")
    options = parser.parse_args()
    prefix = ["chrt", "-f", "10"] if options.realtime else []
    samples: Samples = {}
    adopt_orphans()
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            # the compiler has had a second to start since the context; then it is there at once
            run(prefix, f"{folder}/a", 1000, samples, "cold")
            run(prefix, f"{folder}/b", 0, samples, "cold, right after the context")
            run(prefix, f"{folder}/b", 0, samples, "from the cache")
            home, cache = bare_package(Path(folder, "home")), Path(folder, "c")
            run(prefix, str(cache), 1, samples, "cold, no compiled modules, ever first", home)
            forget_images(cache)
            run(prefix, str(cache), 1, samples, "cold, no compiled modules", home)
    table(samples, options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
