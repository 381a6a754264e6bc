# SPDX-License-Identifier: Apache-2.0
"""How fast bytes go one way through the relays of encrypted data, beside plain sockets of TLS.

Every step is a process, as it is between two machines. Processor time says more than wall time
where other work keeps the processors.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bitfusion import certificates
from bitfusion.pump import Pump, secure
from bitfusion.server.keys import Keys
from bitfusion.server.state import StateFolder

PIECE = 1 << 20  # of one write, and of one read at most
TOTAL = 256 << 20
GB = 1e9

Sockets = Sequence[socket.socket]
Step = tuple[str, Sockets, Callable[[], None]]  # its name, the sockets it has, what it does


def run_steps(steps: Sequence[Step]) -> tuple[float, dict[str, float]]:
    """Seconds for each GB: of the clock, and of a processor for each step."""
    sockets = {sock for _name, has, _work in steps for sock in has}
    began_s, pipes = time.monotonic(), {}
    for name, has, work in steps:
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                for sock in sockets.difference(has):
                    sock.close()
                work()
                used = resource.getrusage(resource.RUSAGE_SELF)
                os.write(writer, str(used.ru_utime + used.ru_stime).encode())
            finally:
                os._exit(0)
        os.close(writer)
        pipes[name] = reader
    for sock in sockets:
        sock.close()
    busy_s = {}
    for name, reader in pipes.items():
        with open(reader, "rb") as pipe:
            busy_s[name] = float(pipe.read()) * GB / TOTAL
        os.wait()
    return (time.monotonic() - began_s) * GB / TOTAL, busy_s


def send(sock: socket.socket) -> None:
    data = memoryview(bytes(PIECE))
    for _ in range(TOTAL // PIECE):
        sock.sendall(data)


def receive(sock: socket.socket) -> None:
    memory, size = memoryview(bytearray(PIECE)), 0
    while size < TOTAL:
        got = sock.recv_into(memory)
        if not got:
            raise SystemExit("bench: bytes were lost")
        size += got


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


class Ways:
    def __init__(self, folder: Path) -> None:
        """folder: a server's state folder."""
        keys = Keys(StateFolder(str(folder)))
        self._client = certificates.client_context(keys.path("ca.crt"))
        self._server = keys.context()

    def sockets(self) -> tuple[float, dict[str, float]]:
        """Plain sockets of TLS, the most that one could hope for."""
        near, far = tcp()
        wrap = self._server.wrap_socket
        return run_steps([
            ("encrypt", (near,), lambda: send(self._client.wrap_socket(near))),
            ("decrypt", (far,), lambda: receive(wrap(far, server_side=True))),
        ])  # fmt: skip

    def relays(self) -> tuple[float, dict[str, float]]:
        near, far = tcp()
        program, launcher = socket.socketpair()
        relay, worker = socket.socketpair()

        def carry(sock: socket.socket, plain: socket.socket, server_side: bool) -> None:
            context = self._server if server_side else self._client
            Pump(secure(context, sock, server_side), plain).run()

        return run_steps([
            ("send", (program,), lambda: send(program)),
            ("encrypt", (launcher, near), lambda: carry(near, launcher, False)),
            ("decrypt", (far, relay), lambda: carry(far, relay, True)),
            ("receive", (worker,), lambda: receive(worker)),
        ])  # fmt: skip


def compare(folder: Path, rounds: int) -> None:
    """Print a table: medians, and what the relays reach of the plain sockets in the same round."""
    ways = Ways(folder)
    print("| bytes one way | GB/s | processor ms/GB | of which encrypting, decrypting |")
    print("|---|---:|---:|---:|")
    results = [(ways.sockets(), ways.relays()) for _ in range(rounds)]
    for name, found in zip(("plain sockets of TLS", "relays"), zip(*results)):
        speed = statistics.median(1 / wall_s for wall_s, _busy in found)
        total = statistics.median(sum(busy_s.values()) for _wall, busy_s in found)
        parts = [statistics.median(b[step] for _, b in found) for step in ("encrypt", "decrypt")]
        each = ", ".join(f"{1000 * part:.0f}" for part in parts)
        print(f"| {name} | {speed:.2f} | {1000 * total:.0f} | {each} |")
    by_clock = statistics.median(plain[0] / relayed[0] for plain, relayed in results)
    by_processor = statistics.median(
        sum(plain[1].values()) / sum(relayed[1].values()) for plain, relayed in results
    )
    print(f"\nrelays/sockets: {by_clock:.2f} by the clock, {by_processor:.2f} by processor time\n")
