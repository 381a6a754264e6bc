# SPDX-License-Identifier: Apache-2.0
"""What the executor's tests run: drivers of their own, programs on an instrumented executor."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Dict, List

from instrumented import FLAGS, ROOT, building, built, compiler

HERE = Path(__file__).resolve().parent
OUT = ROOT / "build/tests/executor"
INCLUDES = [ROOT / "bitfusion" / name for name in ("wire/generated", "wire", "abi", "executor")]
COMPILE = ["-std=gnu11", "-g", "-O1", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror"]
COMPILE += ["-Wno-unused-parameter", *("-I%s" % folder for folder in INCLUDES)]
HEADERS = [path for folder in [*INCLUDES, HERE] for path in folder.glob("*.h")]
FAKE_DRIVER = [HERE / f"fake_{part}.c" for part in ("driver", "stream", "memory", "pool", "code")]


def build(target: Path, sources: List[Path], *flags: str) -> Path:
    """Compile unless the result is newer than everything it is made from."""
    newest = max(path.stat().st_mtime for path in [*sources, *HEADERS])
    with building():
        if not target.exists() or target.stat().st_mtime < newest:
            target.parent.mkdir(parents=True, exist_ok=True)
            names = [str(path) for path in sources]
            command = [*compiler(), *COMPILE, *names, *flags, "-o", str(target)]
            subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return target


def program(kind: str, name: str) -> Path:
    """name_main.c on the executor, instrumented from its first instruction."""
    folder = built(kind, "executor") / "lib/server"
    library = ["-L%s" % folder, "-l:libbfexecutor.so", "-Wl,-rpath,%s" % folder]
    return build(OUT / (name + "_" + kind), [HERE / (name + "_main.c")], *FLAGS[kind], *library)


# Reports go to files: a worker's standard error belongs to its client.
REPORT = OUT / ("report-%d" % os.getpid())
SANE: Dict[str, str] = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=99:log_path=%s" % REPORT,
    "UBSAN_OPTIONS": "print_stacktrace=1:log_path=%s" % REPORT,
    "FAKE_REPORT": "%s.misuse" % REPORT,
    "TSAN_OPTIONS": "exitcode=98:log_path=%s" % REPORT,
}


def forget_reports() -> None:
    for old in OUT.glob(REPORT.name + ".*"):
        old.unlink()


def check_reports() -> None:
    reports = [path.read_text(errors="replace") for path in OUT.glob(REPORT.name + ".*")]
    assert not reports, reports[0]
