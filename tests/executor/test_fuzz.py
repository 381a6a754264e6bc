# SPDX-License-Identifier: Apache-2.0
"""Streams that no proxy sends: mutations of good ones, rows with wild bodies, plain noise.

The seed is fixed; FUZZ_SEED and FUZZ_STREAMS change it for a longer run.
"""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest
from executor_builds import (
    FAKE_DRIVER,
    HERE,
    OUT,
    ROOT,
    SANE,
    build,
    check_reports,
    forget_reports,
    program,
)
from instrumented import building
from test_worker_failures import program as worker_program
from wire_client import CALLS, COMMAND, PROTOCOL, SPEC_HASH, Client, Reply, handle

SEED = int(os.environ.get("FUZZ_SEED", "1"))
STREAMS = int(os.environ.get("FUZZ_STREAMS", "150"))
HELLO = struct.pack("<8sIIQII", b"BFWIRE\r\n", PROTOCOL, 0, SPEC_HASH, 1, 0)
EDGES = [0, 1, 2, 7, 8, 15, 16, 24, 255, 4096, 1 << 16, 1 << 20, (1 << 20) + 8, 1 << 24, 1 << 31]
EDGES += [(1 << 32) - 1, (1 << 32) - 8, 1 << 40, 1 << 63, (1 << 64) - 1, (1 << 64) - 8]
FINE = {"0", "1", "2"}


class Recorder(Client):
    """Takes the place of a connection and believes that everything succeeded."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours)
        self.sent = bytearray()

    def flush(self) -> None:
        self.sent += self.out
        self.out.clear()

    def wait(self, request: int) -> Reply:
        self.flush()
        return Reply(0, request, 0, 0, 0, bytes(4096), b"")

    def receive(self) -> Reply:
        for request in range(1, self.requests + 1):
            self.replies[request] = self.wait(request)
        return self.replies[1]


def recorded() -> bytes:
    class Fake:
        client = Recorder()

    worker_program(Fake())  # type: ignore[arg-type]
    return bytes(Fake.client.sent)


def any_driver() -> Path:
    """The fake driver plus a function for every row that it lacks."""
    rows = re.findall(
        r'^\t\{"(cu\w+)"', (ROOT / "bitfusion/wire/generated/rows.c").read_text(), re.M
    )
    fake = "".join(path.read_text() for path in FAKE_DRIVER)
    have = set(re.findall(r"^CUresult (cu\w+)\(", fake, re.M))
    assert len(rows) == len(CALLS)
    folder = OUT / "any"
    folder.mkdir(parents=True, exist_ok=True)
    text = "#define ANY_ROWS(X) " + " ".join(f"X({name})" for name in rows if name not in have)
    with building():
        (folder / "any_rows.inc").write_text(text + "\n")
    sources = [
        HERE / "any_driver.c",
        *FAKE_DRIVER,
        ROOT / "bitfusion/wire/generated/rows.c",
    ]
    return build(folder / "libcuda.so.1", sources, "-shared", f"-I{folder}", "-fsanitize=address")


@pytest.fixture(scope="session")
def fuzz_program() -> List[str]:
    return [str(program("asan", "fuzz")), str(any_driver())]


def run(fuzz_program: List[str], streams: List[bytes]) -> List[str]:
    forget_reports()
    data = b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)
    found = subprocess.run(
        fuzz_program,
        input=data,
        stdout=subprocess.PIPE,
        env={**os.environ, **SANE},
        check=True,
        timeout=100,
    )
    check_reports()
    # a kernel that outlives its session prints here
    return [line for line in found.stdout.decode().splitlines() if "printed" not in line]


def commands(stream: bytes) -> List[int]:
    """Where commands start, bulk data not counted."""
    at, found = 0, []
    while at + 16 <= len(stream):
        size, _, flags, _, _ = COMMAND.unpack_from(stream, at)
        found.append(at)
        bulk = struct.unpack_from("<Q", stream, at + 16)[0] if flags & 2 else 0
        at += size + bulk
    assert at == len(stream)
    return found


def mutate(pick: random.Random, good: bytes, starts: List[int]) -> bytes:
    data = bytearray(good)
    for _ in range(pick.choice([1, 1, 1, 2, 5])):
        start = pick.choice(starts)
        where = start + 4 * pick.randrange(30)
        what = pick.randrange(5)
        if what == 0 and where < len(data):
            data[where] ^= 1 << pick.randrange(8)
        elif what == 1:
            data[where : where + 8] = struct.pack("<Q", pick.choice(EDGES))
        elif what == 2:
            data[where : where + 4] = struct.pack("<I", pick.choice(EDGES) & 0xFFFFFFFF)
        elif what == 3:
            del data[where : where + pick.choice([1, 4, 8, 64])]
        else:
            other = pick.choice(starts)
            data[start:start] = good[other : other + pick.choice([16, 64, 200])]
    return bytes(data)


def wild_rows(pick: random.Random) -> bytes:
    """Commands with honest headers and bodies of numbers that mean something to a decoder."""
    out = bytearray()
    for _ in range(60):
        call = pick.choice(list(CALLS.values()) + list(range(15)))
        words = []
        for _ in range(pick.randrange(24)):
            words.append(
                pick.choice(
                    [
                        pick.choice(EDGES),
                        pick.randrange(64),
                        handle(pick.randrange(18), pick.randrange(6)),
                        1,
                        8,
                    ]
                )
            )
        body = struct.pack(f"<{len(words)}Q", *words)
        flags = pick.choice([0, 1, 1, 5])
        out += COMMAND.pack(16 + len(body), call, flags, 1, pick.choice([0, 1, 1, 1, 2, 9])) + body
    return bytes(out)


def test_the_recorded_stream_is_good(fuzz_program: List[str]) -> None:
    assert run(fuzz_program, [HELLO + recorded() + COMMAND.pack(16, 13, 0, 0, 0)]) in (
        ["0"],
        ["1"],
    )


def test_mutated_streams(fuzz_program: List[str]) -> None:
    pick, good = random.Random(SEED), recorded()
    starts = commands(good)
    streams = [HELLO + mutate(pick, good, starts) for _ in range(STREAMS)]
    ends = run(fuzz_program, streams)
    assert len(ends) == len(streams)
    assert set(ends) <= FINE, [i for i, end in enumerate(ends) if end not in FINE]
    assert "2" in ends


def test_wild_rows(fuzz_program: List[str]) -> None:
    pick = random.Random(SEED)
    ends = run(fuzz_program, [HELLO + wild_rows(pick) for _ in range(STREAMS)])
    assert len(ends) == STREAMS and set(ends) <= FINE


def test_noise(fuzz_program: List[str]) -> None:
    pick = random.Random(SEED)
    streams = [pick.randbytes(pick.randrange(300)) for _ in range(20)]
    streams += [HELLO + pick.randbytes(pick.randrange(3000)) for _ in range(30)]
    streams += [HELLO[:i] for i in range(0, len(HELLO), 5)]
    ends = run(fuzz_program, streams)
    assert len(ends) == len(streams) and set(ends) <= FINE


def test_every_row_is_reached(fuzz_program: List[str]) -> None:
    """Fuzzing rows that the driver lacks would test nothing."""
    import ctypes

    driver = Path(fuzz_program[1])
    symbols = subprocess.run(["nm", "-D", str(driver)], capture_output=True, text=True, check=True)
    defined: Dict[str, bool] = {line.split()[-1]: True for line in symbols.stdout.splitlines()}
    assert [name for name in CALLS if name not in defined] == []
    assert ctypes.sizeof(ctypes.c_void_p) == 8
