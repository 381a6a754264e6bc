# SPDX-License-Identifier: Apache-2.0
"""`make bench-encryption`: what encrypted data connections cost, beside clear ones.

Bytes through the relays alone, beside plain sockets of TLS; then calls and copies, of a server
with keys on the null driver. Each round measures both ways, one after the other.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import relays
import run as bench

COLUMNS = ("auto", "always")  # what `encrypt` says
METRICS = (
    "memset_sync",
    "launch_sync",
    "launch_caller",
    "launch_rate",
    "inference_step",
    "htod_4KiB",
    "dtoh_4KiB",
    "htod_1MiB",
    "dtoh_1MiB",
    "htod_64MiB",
    "dtoh_64MiB",
)
BITFUSION = [sys.executable, str(bench.ROOT / "bin" / "bitfusion")]


class Lab:
    """A server with keys and one client, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.env = dict(bench.environment(), HOME=str(folder))
        self.env["BITFUSION_STATE_DIR"] = str(folder / "state")
        self._do("server", "init")
        listen = ["--listen", "127.0.0.1:0", "--data_ports", "0"]
        self.log = open(folder / "log", "w+")  # noqa: SIM115
        self.server = subprocess.Popen(
            [*BITFUSION, "server", *listen, "--driver", str(bench.NULL_DRIVER)],
            env=self.env,
            stderr=self.log,
        )
        port = self._port()
        bundle = str(folder / "bench.tar")
        servers = ["--server_list", f"127.0.0.1:{port}"]
        self._do("token", "create", "bench", *servers, "-o", bundle)
        self._do("enroll", "--user", bundle)

    def _do(self, *words: str) -> None:
        subprocess.run([*BITFUSION, *words], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def _port(self) -> str:
        for _ in range(200):
            text = os.pread(self.log.fileno(), 1 << 16, 0).decode()
            if " on 127.0.0.1:" in text:
                return text.partition(" on 127.0.0.1:")[2].partition(",")[0]
            time.sleep(0.05)
        raise SystemExit(f"bench: the server did not start: {text}")

    def measure(self, encrypt: str, words: list[str], into: bench.Samples) -> None:
        env = dict(self.env, BITFUSION_ENCRYPT=encrypt, BITFUSION_TRANSPORT="tcp")
        program = [str(bench.BUILD / "bench" / "driver_bench"), *words]
        bench.collect(into, bench.run([*BITFUSION, "run", "-n", "1", "--", *program], env))

    def stop(self) -> None:
        self.server.send_signal(signal.SIGINT)
        self.server.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    columns: dict[str, bench.Samples] = {column: {} for column in COLUMNS}
    words = ["--repeats", "3", "--launches", "50000", "--max-copy", "64"]
    with tempfile.TemporaryDirectory(prefix="bf-") as folder:
        lab = Lab(Path(folder))
        relays.compare(Path(folder) / "state", options.rounds)
        try:
            for _ in range(options.rounds):
                for column in COLUMNS:
                    for metric in METRICS:
                        lab.measure(column, [*words, "--only", metric], columns[column])
        finally:
            lab.stop()
    show(columns)
    return 0


def show(columns: dict[str, bench.Samples]) -> None:
    print("| metric | clear | encrypted | unit | encrypted/clear |\n|---|---:|---:|---|---:|")
    for name, (unit, clear) in columns["auto"].items():
        if name not in METRICS:
            continue
        encrypted = columns["always"][name][1]
        ratio = statistics.median(b / a for a, b in zip(clear, encrypted))
        cells = (bench.show(statistics.median(values)) for values in (clear, encrypted))
        print(f"| {name} | {' | '.join(cells)} | {unit} | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
