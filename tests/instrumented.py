# SPDX-License-Identifier: Apache-2.0
"""Libraries and programs built under sanitizers, and the reports that they leave.

`asan` is AddressSanitizer with UBSan, `tsan` ThreadSanitizer: build/asan and build/tsan. Several
processes run tests at once: who builds something that others use holds a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Union

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
FLAGS = {
    "asan": ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"],
    "tsan": ["-fsanitize=thread", "-fno-omit-frame-pointer"],
}
RUNTIMES = {"asan": "libasan.so", "tsan": "libtsan.so"}
# What lives as long as its process is not given back at the end; a library of ours is preloaded.
# TSan takes what is sent for read after the sending, when the peer's answer orders it no more.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=98:atexit_sleep_ms=100:intercept_send=0",
}


def compiler() -> List[str]:
    """The C compiler that CC names, or cc; skips the test where there is none."""
    words = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(words[0]) is None:
        pytest.skip("no C compiler: %s" % words[0])
    return words


@contextlib.contextmanager
def building() -> Iterator[None]:
    """What is built inside is built by one process at a time."""
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / ".tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def _works(kind: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [*compiler(), *FLAGS[kind], "-x", "c", "-", "-o", folder + "/empty"]
        try:
            made = subprocess.run(command, input=b"int main(void){return 0;}", capture_output=True)
            return made.returncode == 0 and subprocess.run([folder + "/empty"]).returncode == 0
        except OSError:
            return False


@functools.cache
def built(kind: str, *targets: str) -> Path:
    """The folder with these targets of the Makefile in it, up to date; paths may begin with it.

    For fixtures: a build takes minutes, and the time that a test may take begins after them.
    """
    if not _works(kind):
        pytest.skip("%s makes no programs with %s" % (" ".join(compiler()), " ".join(FLAGS[kind])))
    folder = BUILD / kind
    with building():
        done = subprocess.run(
            ["make", "KIND=" + kind, *targets],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=3000,
            env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def program(kind: str, source: Union[str, Path]) -> Path:
    """One of tests/programs by its name, or a source file, compiled beside the libraries."""
    if isinstance(source, str):
        return built(kind, "build/%s/programs/%s" % (kind, source)) / "programs" / source
    folder = built(kind, "nulldriver") / "nulldriver"
    target = source.with_name(source.stem + "." + kind)
    includes = ["-I" + str(ROOT / "bitfusion/wire/generated")]
    command = [*compiler(), "-std=gnu11", "-O1", "-g", "-pthread", *FLAGS[kind], *includes]
    command += [str(source), "-o", str(target), "-L" + str(folder), "-lcuda", "-ldl"]
    subprocess.run(command, check=True)
    return target


def runtime(kind: str) -> str:
    """The sanitizer's own library, for LD_PRELOAD into a process that is not instrumented."""
    command = [*compiler(), "-print-file-name=" + RUNTIMES[kind]]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip("no %s: the compiler links it statically" % RUNTIMES[kind])
    return found


class Reports:
    """Sanitizers write into files here: a worker's standard error belongs to its client."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "report"

    def environment(self, **extra: str) -> Dict[str, str]:
        """What a process needs to report here; `extra` adds to a sanitizer's options."""
        found = {}
        for name, options in OPTIONS.items():
            more = extra.pop(name, "")
            found[name] = "%s:log_path=%s%s" % (options, self.path, more and ":" + more)
        return {**found, **extra}

    def texts(self) -> List[str]:
        return [
            path.read_text(errors="replace")
            for path in sorted(self.path.parent.glob(self.path.name + ".*"))
        ]

    def check(self) -> None:
        found = self.texts()
        assert not found, found[0][:20000]


def library_folder(folder: Path, kind: str, parts: Sequence[str]) -> Path:
    """Our libraries, with these parts from the instrumented build."""
    where = folder / "lib"
    where.mkdir()
    for part in ("client", "server", "softgpu"):
        source = BUILD / kind if part in parts else BUILD
        (where / part).symlink_to(source / "lib" / part)
    return where


def proxy_environment(folder: Path, kind: str, reports: Reports) -> Dict[str, str]:
    """`bitfusion run` gives the program an instrumented proxy; everything else is as usual."""
    built(kind, "proxy")
    return reports.environment(BITFUSION_LIBDIR=str(library_folder(folder, kind, ["client"])))


def worker_environment(folder: Path, kind: str, reports: Reports) -> Dict[str, str]:
    """The workers' executor is instrumented too, so all of our processes load the runtime."""
    built(kind, "proxy", "executor")
    where = library_folder(folder, kind, ["client", "server"])
    return reports.environment(BITFUSION_LIBDIR=str(where), LD_PRELOAD=runtime(kind))
