# SPDX-License-Identifier: Apache-2.0
"""No turn of a server's loop does much at once, however many clients there are: counted in calls
of functions, because a turn's time says more about the machine than about us.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from servers import Server
from waiting import wait_for

CLIENTS = 300
# Of Python functions in a turn: 16 requests of some 600 each, and as much for timers. All clients
# at once would be ten times as many. A modest machine makes some 5 million a second.
MOST_CALLS = 20_000


class Client:
    """One that asks and does not wait for the answer before others ask, too."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 60)
        self.input = b""

    def send(self, method: str, path: str, body: Any = None) -> None:
        text = json.dumps(body).encode() if body is not None else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        self.socket.sendall(head.encode() + text)

    def answer(self) -> Any:
        while b"\r\n\r\n" not in self.input:
            self._read()
        head, _, self.input = self.input.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(self.input) < length:
            self._read()
        text, self.input = self.input[:length], self.input[length:]
        return int(head.split()[1]), json.loads(text)

    def _read(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "the server hung up"
        self.input += data


def test_many_clients_at_once() -> None:
    server = Server("echo", 8, 1000, counting=True)
    try:
        clients = []
        for _ in range(CLIENTS):
            clients.append(Client(server))
            wanted = {"gpus": 1, "fraction": "0.9", "wait": 10}
            clients[-1].send("POST", "/v1/sessions", wanted)
        answers = [client.answer() for client in clients]
        granted = [c for c, (status, _) in zip(clients, answers) if status == 201]
        queued = [c for c, (status, _) in zip(clients, answers) if status == 202]
        assert len(granted) == 8 and len(queued) == CLIENTS - 8
        for client, (status, answer) in zip(clients, answers):
            if status == 202:
                client.send("GET", f"/v1/queue/{answer['entry']}?wait=30&position=1000000")
        looker = Client(server)
        for _ in range(10):
            looker.send("GET", "/v1/pool")
            assert len(looker.answer()[1]["queue"]) == len(queued)
        for client in granted:
            client.socket.close()
        served = [client.answer() for client in queued]
        assert [status for status, _ in served].count(201) <= 8
        for client in queued:  # all of them at once
            client.socket.close()
        assert wait_for(lambda: server.free() == [1000] * 8)
    finally:
        assert server.stop() == 0
    assert "Traceback" not in server.log
    counted = server.log.partition("most calls in one turn: ")[2].split()
    print(server.log[-600:])
    assert int(counted[0]) <= MOST_CALLS, " ".join(counted[1:])
