# SPDX-License-Identifier: Apache-2.0
"""Builds what the executor's tests run: the fake driver, and workers under sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
OUT = ROOT / "build/tests/executor"
sys.path.insert(0, str(HERE))

from wire_client import Worker  # noqa: E402

INCLUDES = ["bitfusion/wire/generated", "bitfusion/wire", "bitfusion/abi", "bitfusion/executor"]
FLAGS = ["-std=gnu11", "-g", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror"]
FLAGS += ["-Wno-unused-parameter", *(f"-I{ROOT / folder}" for folder in INCLUDES)]
SOURCES = sorted(ROOT.glob("bitfusion/executor/*.c")) + sorted(ROOT.glob("bitfusion/wire/*.c"))
SOURCES += sorted(ROOT.glob("bitfusion/wire/generated/*.c"))
HEADERS = [path for folder in INCLUDES for path in ROOT.glob(folder + "/*.h")]


def compiler() -> List[str]:
    return [shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or "cc"]


def build(target: Path, sources: List[Path], *flags: str) -> Path:
    """Compile unless the result is newer than everything it is made from."""
    newest = max(path.stat().st_mtime for path in [*sources, *HEADERS])
    if not target.exists() or target.stat().st_mtime < newest:
        target.parent.mkdir(parents=True, exist_ok=True)
        names = [str(path) for path in sources]
        fresh = f"{target}.{os.getpid()}"
        subprocess.run(
            [*compiler(), *FLAGS, *flags, *names, "-o", fresh, "-ldl", "-lpthread"], check=True
        )
        os.replace(fresh, target)
    return target


@pytest.fixture(scope="session")
def fake_driver() -> Path:
    return build(OUT / "fake/libcuda.so.1", [HERE / "fake_driver.c"], "-shared", "-O1")


def _program(name: str, *flags: str) -> Path:
    return build(OUT / name, [HERE / "serve_main.c", *SOURCES], "-O1", *flags)


@pytest.fixture(scope="session")
def asan_program() -> Path:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    return _program("serve_asan", *flags, "-fno-omit-frame-pointer")


@pytest.fixture(scope="session")
def tsan_driver() -> Path:
    flags = ["-shared", "-O1", "-fsanitize=thread"]
    return build(OUT / "fake_tsan/libcuda.so.1", [HERE / "fake_driver.c"], *flags)


@pytest.fixture(scope="session")
def tsan_program() -> Path:
    return _program("serve_tsan", "-fsanitize=thread")


# Reports go to files: a worker's standard error belongs to its client.
REPORT = OUT / "report"
SANE = {
    "ASAN_OPTIONS": f"detect_leaks=0:exitcode=99:log_path={REPORT}",
    "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={REPORT}",
    "FAKE_REPORT": f"{REPORT}.misuse",
    "TSAN_OPTIONS": f"exitcode=98:log_path={REPORT}",
}


@pytest.fixture
def serve(asan_program: Path, fake_driver: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker under ASan and UBSan on the fake driver; every one is ended with the test."""
    workers: List[Worker] = []

    def start(hello: bool = True, program: Path = asan_program, **options: Any) -> Worker:
        environment: Dict[str, str] = {**SANE, **options.pop("environment", {})}
        driver = options.pop("driver", fake_driver)
        worker = Worker(driver, program=program, environment=environment, **options)
        workers.append(worker)
        if hello:
            assert worker.client.hello() == (0, "")
        return worker

    for old in OUT.glob("report.*"):
        old.unlink()
    yield start
    for worker in workers:
        worker.__exit__()
    reports = [path.read_text(errors="replace") for path in OUT.glob("report.*")]
    assert not reports, reports[0]
