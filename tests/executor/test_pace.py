# SPDX-License-Identifier: Apache-2.0
"""Device time: measured, kept to a share, rationed; on a driver whose kernels nap."""

from __future__ import annotations

import select
import struct
import threading
import time

import pytest
from conversation import Serve
from waiting import wait_for
from wire_client import FUNCTION, STREAM, WANTS_REPLY, Client, Worker, handle

from bitfusion.executor import core

MS = 1_000_000
LEDGER = [0], 4


def ready(worker: Worker) -> Client:
    """A client that can launch nap(ms) as function 1."""
    client = worker.client
    assert client.load_module(1, b"code").status == 0
    assert client.get_function(1, 1, "nap").status == 0
    return client


def nap(client: Client, ms: int, stream: int = 0) -> None:
    client.launch(handle(FUNCTION, 1), struct.pack("<Q", ms), stream)


def timed_naps(client: Client, count: int, ms: int, pause_s: float) -> int:
    """Nanoseconds in which naps can have been under way."""
    total = 0
    for _ in range(count):
        started = time.monotonic_ns()
        nap(client, ms)
        assert client.synchronize().status == 0
        total += time.monotonic_ns() - started
        time.sleep(pause_s)  # the device is idle: this must not count
    return total


def test_busy_is_the_time_of_kernels(serve: Serve, ledger: core.Ledger) -> None:
    ledger.set_share(0.9)  # so that all is measured, not a sample
    with serve(ledger=ledger.fileno()) as worker:
        under_way = timed_naps(ready(worker), 20, 5, 0.01)
        assert wait_for(lambda: ledger.busy()[0] >= 100 * MS)
        assert ledger.busy()[0] <= under_way


def test_streams_at_once_count_once(serve: Serve, ledger: core.Ledger) -> None:
    ledger.set_share(0.9)
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        streams = [client.stream(index) for index in range(1, 4)]
        started = time.monotonic_ns()
        for stream in streams:
            nap(client, 100, stream)
        for stream in streams:
            assert client.synchronize(stream).status == 0
        assert wait_for(lambda: ledger.busy()[0] >= 100 * MS)
        time.sleep(0.05)
        assert ledger.busy()[0] <= time.monotonic_ns() - started


def test_a_sample_stands_for_the_rest(serve: Serve, ledger: core.Ledger) -> None:
    """One that takes long by chance stands for the rest too: not in every round."""
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)

        def is_sampled_well() -> bool:
            before = ledger.busy()[0]
            under_way = timed_naps(client, 400, 1, 0)
            assert wait_for(lambda: ledger.busy()[0] - before > 100 * MS)
            return ledger.busy()[0] - before < 4 * under_way

        assert any(is_sampled_well() for _ in range(5))


@pytest.mark.parametrize("waits", [True, False])
def test_a_share_is_kept(serve: Serve, ledger: core.Ledger, waits: bool) -> None:
    ledger.set_share(0.25)
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        started = time.monotonic()
        for _ in range(50):
            nap(client, 4)
            if waits:
                assert client.synchronize().status == 0
        assert client.synchronize().status == 0
        lasted = time.monotonic() - started
        assert wait_for(lambda: ledger.busy()[0] >= 200 * MS)
        assert lasted >= 0.6  # 200 ms at a quarter, less what it may be ahead


def test_two_workers_share_one_share(serve: Serve, ledger: core.Ledger) -> None:
    ledger.set_share(0.5)
    with serve(ledger=ledger.fileno()) as one, serve(ledger=ledger.fileno(), slot=1) as two:
        clients = [ready(one), ready(two)]
        started = time.monotonic()
        for _ in range(40):
            for client in clients:
                nap(client, 5)
                client.flush()
            for client in clients:
                assert client.synchronize().status == 0
        lasted = time.monotonic() - started
        assert wait_for(lambda: ledger.busy()[0] >= 400 * MS)
        assert lasted >= 0.7


class Server(threading.Thread):
    """Says up to which sum of device time a session may go on, again and again; for 250 ms each
    time, so that a test which the machine stops for longer shows nothing.
    """

    def __init__(self, ledger: core.Ledger, until: int) -> None:
        super().__init__()
        self._ledger, self._until, self._over = ledger, until, threading.Event()
        self._said_s = time.monotonic()
        self.in_time = True
        ledger.ration([until])

    def run(self) -> None:
        while not self._over.wait(0.01):
            now_s = time.monotonic()
            self._ledger.ration([self._until])
            self._look()
            self._said_s = now_s

    def _look(self) -> None:
        self.in_time &= time.monotonic() - self._said_s < 0.2

    def end(self) -> None:
        self._over.set()
        self.join()
        self._look()
        self._ledger.ration(None)


def is_held_up(client: Client, ledger: core.Ledger) -> bool:
    """False where the server was late."""
    until = ledger.busy()[0] + 20 * MS
    server = Server(ledger, until)
    server.start()
    try:
        assert client.synchronize().status == 0  # it has looked since
        for _ in range(30):
            nap(client, 10)
        request = client.row("cuStreamSynchronize", struct.pack("<Q", 0), WANTS_REPLY)
        client.flush()
        assert wait_for(lambda: ledger.busy()[0] >= until)
        answered = select.select([client.socket], [], [], 0.4)[0]
    finally:
        server.end()
    assert not answered or not server.in_time
    assert client.wait(request).status == 0
    return server.in_time


def test_the_server_rations(serve: Serve, ledger: core.Ledger) -> None:
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        assert client.synchronize().status == 0
        assert any(is_held_up(client, ledger) for _ in range(20))


def test_a_server_that_is_gone_holds_nobody_up(serve: Serve, ledger: core.Ledger) -> None:
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        ledger.ration([0])
        for _ in range(5):
            nap(client, 10)
            assert client.synchronize().status == 0


def test_work_that_waits_for_later_work(serve: Serve, ledger: core.Ledger) -> None:
    """Batches under way may need what comes behind them: then the next ones must not wait."""
    ledger.set_share(0.9)
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        assert client.get_function(1, 2, "spin").status == 0
        assert client.get_function(1, 3, "store").status == 0
        status, flag = client.alloc(8)
        assert status == 0
        client.upload(flag, bytes(8))
        first, second = client.stream(1), client.stream(2)
        for _ in range(40):
            client.launch(handle(FUNCTION, 2), struct.pack("<Q", flag), first)
            client.flush()
            time.sleep(0.001)
        client.launch(handle(FUNCTION, 3), struct.pack("<QI", flag, 1), second)
        assert client.synchronize(first).status == 0


def test_streams_and_contexts_may_end(serve: Serve, ledger: core.Ledger) -> None:
    ledger.set_share(0.9)
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        for index in range(1, 30):
            stream = client.stream(index)
            nap(client, 1, stream)
            client.row("cuStreamDestroy_v2", struct.pack("<Q", handle(STREAM, index)))
        assert client.synchronize().status == 0
        reset = client.sync("cuDevicePrimaryCtxReset_v2", struct.pack("<Q", 0))
        assert reset.status == 0
        assert client.load_module(2, b"code").status == 0
        assert client.get_function(2, 9, "nap").status == 0
        client.launch(handle(FUNCTION, 9), struct.pack("<Q", 1))
        assert client.synchronize().status == 0


def test_activity(serve: Serve, ledger: core.Ledger) -> None:
    assert ledger.last_call() == (0.0, 0)
    ledger.set_share(0.9)  # so that all is measured, not a sample
    with serve(ledger=ledger.fileno()) as worker:
        client = ready(worker)
        assert client.get_function(1, 2, "spin").status == 0
        assert client.get_function(1, 3, "store").status == 0
        flag, busy, other = client.alloc(8)[1], client.stream(1), client.stream(2)

        def spin() -> None:
            client.upload(flag, bytes(8))
            assert client.synchronize().status == 0  # of another stream than the one that looks
            client.launch(handle(FUNCTION, 2), struct.pack("<Q", flag), busy)

        def release() -> None:
            client.launch(handle(FUNCTION, 3), struct.pack("<QI", flag, 1), other)
            client.flush()

        before = time.monotonic()
        spin()
        request = client.row("cuStreamSynchronize", struct.pack("<Q", busy), WANTS_REPLY)
        client.flush()
        assert wait_for(lambda: ledger.last_call()[1] > 0)
        assert ledger.last_call()[0] >= before - 0.1
        release()
        client.wait(request)
        assert wait_for(lambda: ledger.last_call()[1] == 0)
        spin()  # nobody waits in a call, but for an event perhaps
        client.flush()
        assert wait_for(lambda: ledger.last_call()[1] > 0)
        release()
        assert wait_for(lambda: ledger.last_call()[1] == 0)
        ledger.clear(0)
        assert ledger.last_call()[0] == 0


def test_bad_shares(ledger: core.Ledger) -> None:
    for share in (0, -1, 1.5):
        with pytest.raises(core.ExecutorError):
            ledger.set_share(share)
    with pytest.raises(core.ExecutorError):
        ledger.ration([1, 2])
    assert ledger.busy() == [0]


@pytest.mark.parametrize("ms", [20, 60])
def test_a_few_long_ones_are_all_measured(serve: Serve, ledger: core.Ledger, ms: int) -> None:
    """A sample of a handful could be none of them."""
    with serve(ledger=ledger.fileno()) as worker:
        under_way = timed_naps(ready(worker), 240 // ms, ms, 0)
        assert wait_for(lambda: ledger.busy()[0] >= 240 * MS), ledger.busy()
        assert ledger.busy()[0] <= under_way
