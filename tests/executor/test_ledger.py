# SPDX-License-Identifier: Apache-2.0
"""Memory of a session: limits over several processes, and slots of workers that died."""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conversation import Serve
from waiting import wait_for
from wire_client import (
    OP_DEVICES,
    OP_MEMORY_INFO,
    OUT_OF_MEMORY,
    ROOT,
    WANTS_REPLY,
)

from bitfusion.executor import core

MB = 1 << 20
LEDGER = [10 * MB, core.UNLIMITED], 8


def test_limits(ledger: core.Ledger) -> None:
    assert ledger.limits() == [10 * MB, 0]
    assert ledger.reserve(0, 0, 6 * MB)
    assert not ledger.reserve(1, 0, 5 * MB)
    assert ledger.reserve(1, 0, 4 * MB)
    assert not ledger.reserve(1, 0, 1)
    assert not ledger.reserve(1, 0, 2**64 - 1)
    assert ledger.reserve(1, 1, 2**40)
    assert ledger.used() == [10 * MB, 2**40]
    assert ledger.used(0) == [6 * MB, 0]
    ledger.release(0, 0, 100 * MB)  # more than it holds: to nothing, and no further
    assert ledger.used() == [4 * MB, 2**40]
    ledger.clear(1)
    assert ledger.used() == [0, 0]


def test_numbers_out_of_range(ledger: core.Ledger) -> None:
    assert not ledger.reserve(8, 0, 1)
    assert not ledger.reserve(0, 2, 1)
    with pytest.raises(core.ExecutorError):
        ledger.clear(8)
    with pytest.raises(core.ExecutorError):
        ledger.used(8)
    with pytest.raises(core.ExecutorError):
        core.Ledger.create([1], slots=0)


def test_no_worker_takes_the_servers_map_away(ledger: core.Ledger) -> None:
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(ledger.fileno(), size)
    assert ledger.used() == [0, 0]


def test_the_server_waits_for_no_worker(ledger: core.Ledger) -> None:
    """Whatever a worker has written over the lock."""
    size = os.fstat(ledger.fileno()).st_size
    with mmap.mmap(ledger.fileno(), size) as memory:
        assert struct.unpack_from("QII", memory)[1:] == (2, 8)
        memory[16:56] = b"\xff" * 40
        assert ledger.used() == [0, 0]
        ledger.clear(0)
        memory[16:56] = bytes(40)


CHURN = """
import sys, random
sys.path.insert(0, sys.argv[1])
from bitfusion.executor import core
fd, slot, turns = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ledger, pick = core.Ledger(fd), random.Random(slot)
held, turn = [], 0
print("ready", flush=True)
while turn < turns or turns < 0:
    turn += 1
    size = pick.randrange(1, 1 << 20)
    if held and pick.random() < 0.5:
        ledger.release(slot, 0, held.pop())
    elif ledger.reserve(slot, 0, size):
        held.append(size)
for size in held:
    ledger.release(slot, 0, size)
"""


def churn(ledger: core.Ledger, slot: int, turns: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHURN, str(ROOT), str(ledger.fileno()), str(slot), str(turns)],
        pass_fds=[ledger.fileno()],
        stdout=subprocess.PIPE,
    )
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


def test_several_processes_at_once(ledger: core.Ledger) -> None:
    processes = [churn(ledger, slot, 20000) for slot in range(3)]
    while any(process.poll() is None for process in processes):
        assert ledger.used()[0] <= 10 * MB
        time.sleep(0.005)
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert ledger.used() == [0, 0]


def test_killed_anywhere_and_cleared(ledger: core.Ledger) -> None:
    pick = random.Random(1)
    steady = churn(ledger, 0, -1)
    for _ in range(12):
        victim = churn(ledger, 1, -1)
        time.sleep(pick.random() * 0.02)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        ledger.clear(1)
        assert ledger.used(1) == [0, 0]
        assert ledger.used()[0] <= 10 * MB
    steady.send_signal(signal.SIGKILL)
    steady.wait()
    ledger.clear(0)
    assert ledger.used() == [0, 0]


def wait_until_free(ledger: core.Ledger) -> None:
    """What is given back is made beside the stream: a wait for the device may come first."""
    assert wait_for(lambda: not any(ledger.used()))


def test_workers_share_a_slice(serve: Serve, ledger: core.Ledger) -> None:
    one = serve(ledger=ledger.fileno(), slot=0)
    two = serve(ledger=ledger.fileno(), slot=1)
    status, address = one.client.alloc(6 * MB)
    assert status == 0
    assert two.client.alloc(6 * MB)[0] == OUT_OF_MEMORY
    info = two.client.operation(OP_MEMORY_INFO)
    assert struct.unpack("<QQ", info.body) == (4 * MB, 10 * MB)
    devices = two.client.operation(OP_DEVICES)
    assert struct.unpack_from("<Q", devices.body, 8 + 256 + 32 + 16) == (10 * MB,)
    one.client.free(address)
    one.client.sync("cuCtxSynchronize")
    wait_until_free(ledger)
    status, address = two.client.alloc(6 * MB)
    assert status == 0 and ledger.used() == [6 * MB, 0]
    two.process.kill()
    two.process.wait()
    ledger.clear(1)
    assert ledger.used() == [0, 0]
    assert one.client.alloc(10 * MB)[0] == 0


def test_stream_ordered_allocations_count(serve: Serve, ledger: core.Ledger) -> None:
    client = serve(ledger=ledger.fileno(), slot=3).client
    body = struct.pack("<QQQ", 1, 6 * MB, 0)
    reply = client.sync("cuMemAllocAsync", body)
    assert reply.status == 0 and ledger.used(3) == [6 * MB, 0]
    assert client.sync("cuMemAllocAsync", body).status == OUT_OF_MEMORY
    client.row("cuMemFreeAsync", reply.body + struct.pack("<Q", 0))
    client.sync("cuCtxSynchronize")
    assert ledger.used(3) == [0, 0]


def test_failed_allocation_gives_its_reservation_back(serve: Serve) -> None:
    ledger = core.Ledger.create([100 * MB])
    client = serve(ledger=ledger.fileno(), slot=0).client
    assert client.alloc(80 * MB)[0] == OUT_OF_MEMORY  # the fake device has 64 MiB
    assert ledger.used() == [0]
    ledger.close()


def test_pitched_allocation_counts_with_its_pitch(serve: Serve, ledger: core.Ledger) -> None:
    client = serve(ledger=ledger.fileno(), slot=0).client
    reply = client.operation(6, struct.pack("<QQII", 100, 1000, 4, 0), WANTS_REPLY)
    address, pitch = struct.unpack("<QQ", reply.body)
    assert pitch == 256 and ledger.used() == [256000, 0]
    client.free(address)
    client.sync("cuCtxSynchronize")
    wait_until_free(ledger)
    assert ledger.used() == [0, 0]
    assert client.operation(6, struct.pack("<QQII", MB, 11, 4, 0)).status == OUT_OF_MEMORY


def test_probe(fake_driver: Path) -> None:
    code = f"from bitfusion.executor import core; print(core.probe({str(fake_driver)!r}))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    devices = eval(found.stdout)
    assert [device["index"] for device in devices] == [0, 1]
    assert devices[1]["name"] == 'Fake "device" 1'
    assert devices[1]["uuid"] == "11" * 16
    assert devices[0]["total_memory"] == 64 * MB
    assert devices[0]["compute_capability"].startswith("12.")
    assert devices[0]["driver_version"] == 13000


def test_probe_of_what_is_no_driver(tmp_path: Path) -> None:
    code = (
        "from bitfusion.executor import core\n"
        "try: core.probe('/nonexistent.so')\n"
        "except core.ExecutorError as error: print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "/nonexistent.so" in found.stdout
    assert os.path.exists(tmp_path)
