# SPDX-License-Identifier: Apache-2.0
"""The executor under TSan serves real programs, on the null driver or the software GPU under TSan.

The programs' own proxy is as usual. On the null driver kernels do nothing, so what programs print
counts for nothing there; that they come to their end does.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import pytest
from instrumented import BUILD, FLAGS, ROOT, Reports, built, compiler

EXECUTOR_TESTS = ROOT / "tests" / "executor"
INCLUDES = [ROOT / "bitfusion" / name for name in ("executor", "wire", "abi", "wire/generated")]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = built("tsan", "executor") / "lib/server"
    target = tmp_path_factory.mktemp("serve") / "serve"
    command = [*compiler(), "-std=gnu11", "-O1", "-g", "-pthread", *FLAGS["tsan"]]
    command += ["-I%s" % path for path in INCLUDES] + [str(EXECUTOR_TESTS / "serve_main.c")]
    command += ["-L%s" % folder, "-l:libbfexecutor.so", "-Wl,-rpath,%s" % folder]
    subprocess.run([*command, "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="session")
def tsan_gpu() -> Path:
    return built("tsan", "softgpu") / "lib/softgpu/libcuda.so.1"


class Workers:
    """Stands for the launcher: each process that asks gets a connection to a worker of its own."""

    def __init__(self, folder: Path, serve: Path, driver: Path, tcp: bool) -> None:
        self.path = str(folder / "broker")
        self.serve, self.driver, self.tcp = serve, driver, tcp
        self.environment: Dict[str, str] = {}
        self.started: List[subprocess.Popen[bytes]] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                asker, _ = self.listener.accept()
            except OSError:
                return
            with asker:
                assert len(asker.recv(24)) == 24
                theirs = self.start()
                rights = [
                    (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))
                ]
                kind = 1 if self.tcp else 2
                asker.sendmsg([struct.pack("<8sIiII", b"BFBROKR\0", 1, 0, kind, 0)], rights)
                theirs.close()

    def start(self) -> socket.socket:
        if self.tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                theirs = socket.create_connection(listener.getsockname())
                ours, _ = listener.accept()
        else:
            ours, theirs = socket.socketpair()
        words = [str(self.driver), str(ours.fileno()), "0", "-1", "0", "0", "500", "0"]
        self.started.append(
            subprocess.Popen(
                [str(self.serve), *words],
                pass_fds=[ours.fileno()],
                env=self.environment,
                stderr=subprocess.PIPE,
            )
        )
        ours.close()
        return theirs

    def end(self) -> None:
        self.listener.close()
        for worker in self.started:
            _, said = worker.communicate(timeout=100)
            # 1: the program ended without a word, as a child that calls _exit does
            assert worker.returncode in (0, 1), said.decode()


def environment(workers: Workers) -> Dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "BITFUSION_"))}
    return {
        **kept,
        "BITFUSION_SOCKET": workers.path,
        "LD_LIBRARY_PATH": str(BUILD / "lib/client"),
    }


def run(
    program: Path, folder: Path, serve: Path, driver: Path, reports: Reports, tcp: bool, **env: str
) -> str:
    workers = Workers(folder, serve, driver, tcp)
    workers.environment = {**os.environ, **reports.environment(), **env}
    words = [str(program)] + ["20"] * (program.name == "steady")
    done = subprocess.run(
        words, env=environment(workers), capture_output=True, text=True, timeout=100
    )
    workers.end()
    reports.check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout and workers.started
    return done.stdout


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    "name", ["driver_threads", "driver_streams", "driver_copies", "driver_fork", "steady"]
)
def test_on_the_null_driver(
    programs: Path,
    tmp_path: Path,
    serve: Path,
    tsan_build: Path,
    reports: Reports,
    name: str,
    tcp: bool,
) -> None:
    driver = tsan_build / "nulldriver/libcuda.so.1"
    run(programs / name, tmp_path, serve, driver, reports, tcp, BITFUSION_NULL_DRIVER="1")


@pytest.mark.sanitizers
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", ["driver_busy_threads", "driver_threads", "driver_streams", "graph_functions"]
)
def test_on_the_software_gpu(
    gpu: Any,
    programs: Path,
    tmp_path: Path,
    serve: Path,
    tsan_gpu: Path,
    reports: Reports,
    name: str,
) -> None:
    env = {"BITFUSION_PYTHON": sys.executable, "BITFUSION_SOFTGPU_MEMORY": "256M"}
    said = run(programs / name, tmp_path, serve, tsan_gpu, reports, True, **env)
    assert said == gpu.run("direct", str(programs / name)).stdout
