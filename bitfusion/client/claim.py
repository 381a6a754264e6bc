# SPDX-License-Identifier: Apache-2.0
"""Gets GPUs from servers of the network, waiting in the queue where they are in use.

Every cluster among the servers is asked at once, and the first grant is taken. A server that is
lost meanwhile is asked again, or another one, until the time is over.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from bitfusion import config, log
from bitfusion.client.control import Channel, HttpChannel, Session, explain, greet
from bitfusion.client.progress import Progress
from bitfusion.errors import (
    BitfusionError,
    Busy,
    CannotReach,
    NotTrusted,
    ServerLost,
    ServerNotReady,
    ServerRefused,
)
from bitfusion.values import Address, parse_server
from bitfusion.wire.control import Json, Reply

POLL_S = 10.0  # a request about our place in the queue waits so long
RETRY_S = 0.5
JOIN_S = 2.0


class Wanted(NamedTuple):
    """What is to be claimed, and how."""

    request: Json  # gpus, fraction or memory, share, filters
    asked: str  # the same in words
    program: str
    listing: str  # the command that shows this user what there is
    connect: Callable[[Address, float], HttpChannel]
    transport: str
    timeout_s: float  # of one answer
    patience_s: float  # for the GPUs
    retry_s: float  # for servers that were lost

    def body(self) -> Json:
        about: Json = {"program": self.program, "host": socket.gethostname(), "user": user_name()}
        return {**self.request, **about}


class Grant(NamedTuple):
    channel: HttpChannel  # to the server that was asked
    contact: str  # its ID
    answer: Json


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def claim(servers: Sequence[Address], wanted: Wanted) -> Session:
    """Attached. Raises what the last server said, or Busy when the time is over."""
    until_s = time.monotonic() + wanted.patience_s
    lost_s: Optional[float] = None
    with Progress(wanted.asked) as progress:
        while True:
            race = Race(wanted, until_s, progress)
            try:
                return use(race.run(servers), wanted)
            except (ServerLost, CannotReach) as error:
                now_s = time.monotonic()
                lost_s = lost_s or now_s
                if not race.queued or now_s > lost_s + wanted.retry_s:
                    raise
                log.warn(f"{error}; asking again")
            except ServerNotReady as error:
                if time.monotonic() + RETRY_S > until_s:
                    raise
                log.once(f"{error}; asking again until then")
            time.sleep(RETRY_S)


def use(grant: Grant, wanted: Wanted) -> Session:
    """Attach to the session on the server that has it."""
    answer = grant.answer
    server = answer.get("server")
    where: Json = server if isinstance(server, dict) else {}
    channel = grant.channel
    try:
        if where.get("id") != grant.contact:
            channel = connect_to(where, wanted, grant.channel)
        session = Session(
            channel, answer, wanted.transport, wanted.timeout_s, str(answer.get("secret", ""))
        )
        reply = session.attach_over(channel)
        if reply.status in (404, 410):
            raise ServerLost(server=channel.name, why="the session was gone before it was used")
        if reply.status != 200:
            raise explain(channel, reply, wanted.asked)
        session.renew(channel, reply.body)
    except BaseException:
        channel.close()
        grant.channel.close()
        raise
    if channel is not grant.channel:
        grant.channel.close()
    return session


def connect_to(where: Json, wanted: Wanted, contact: HttpChannel) -> HttpChannel:
    """Another server of the contact's cluster; TLS proves that it is the one that was named."""
    failure: BitfusionError = ServerRefused(
        server=contact.name, why="it does not say where the GPUs are"
    )
    addresses = where.get("addresses")
    for text in addresses if isinstance(addresses, list) else []:
        try:
            address = parse_server(str(text))
            channel = wanted.connect(address, wanted.timeout_s)
        except ValueError:
            continue
        except BitfusionError as error:
            failure = error
            continue
        if channel.certificate is None or channel.certificate.server == where.get("id"):
            return channel
        channel.close()
        failure = NotTrusted(server=channel.name, why="it is another server than was named")
    raise failure


class Race:
    """One attempt, at all servers."""

    def __init__(self, wanted: Wanted, until_s: float, progress: Progress) -> None:
        self.wanted = wanted
        self.queued = False  # somewhere
        self._until_s = until_s
        self._progress = progress
        self._lock = threading.Condition()
        self._clusters: dict[str, Address] = {}
        self._channels: list[HttpChannel] = []
        self._grant: Optional[Grant] = None
        self._failures: list[BitfusionError] = []
        self._over = False

    def run(self, servers: Sequence[Address]) -> Grant:
        if len(servers) == 1:
            self._try(servers[0])
        else:
            self._try_all(servers)
        if self._grant is not None:
            for error in self._failures:
                log.info(str(error))
            return self._grant
        for error in self._failures[:-1]:
            log.warn(str(error))
        raise next((e for e in self._failures if isinstance(e, Busy)), self._failures[-1])

    def _try_all(self, servers: Sequence[Address]) -> None:
        threads = [
            threading.Thread(target=self._try, args=(address,), daemon=True) for address in servers
        ]
        try:
            for thread in threads:
                thread.start()
            with self._lock:
                while self._grant is None and any(thread.is_alive() for thread in threads):
                    self._lock.wait(0.05 if not self.queued else 0.5)
        finally:
            self._leave_others()
            for thread in threads:
                thread.join(JOIN_S)  # none may be left when the program is forked

    def _leave_others(self) -> None:
        """A queue is left by hanging up."""
        with self._lock:
            self._over = True
            for channel in self._channels:
                if self._grant is None or channel is not self._grant.channel:
                    hang_up(channel)

    def _try(self, address: Address) -> None:
        channel: Optional[HttpChannel] = None
        try:
            channel = self._ask(address)
        except BitfusionError as error:
            with self._lock:
                if not self._over:
                    self._failures.append(error)
        with self._lock:
            if channel is not None and (self._grant is None or self._grant.channel is not channel):
                channel.close()
            self._lock.notify_all()

    def _ask(self, address: Address) -> HttpChannel:
        wanted = self.wanted
        log.info(f"Query server {config.format_address(address)} gpu availability")
        channel = wanted.connect(address, wanted.timeout_s)
        try:
            about = greet(channel)
            contact = str(about.get("id") or channel.name)
            if not self._enter(channel, str(about.get("cluster") or contact), address):
                return channel
            channel.be_patient(POLL_S + wanted.timeout_s)
            reply = channel.request("POST", "/v1/sessions", wanted.body())
            while reply.status == 202 and not self._over:
                reply = self._wait(channel, reply)
            if self._over:
                return channel
            if reply.status != 201:
                raise explain(channel, reply, wanted.asked, wanted.listing)
        except BaseException:
            channel.close()
            raise
        channel.be_patient(wanted.timeout_s)
        with self._lock:
            if self._grant is None and not self._over:
                self._grant = Grant(channel, contact, reply.body)
        return channel

    def _enter(self, channel: HttpChannel, cluster: str, address: Address) -> bool:
        """False where the cluster is asked by another of its servers already."""
        with self._lock:
            if self._over or cluster in self._clusters:
                return False
            self._clusters[cluster] = address
            self._channels.append(channel)
            return True

    def _wait(self, channel: Channel, reply: Reply) -> Reply:
        left_s = self._until_s - time.monotonic()
        entry = str(reply.body.get("entry", ""))
        if left_s <= 0:
            channel.request("DELETE", f"/v1/queue/{entry}")
            waited = f" after {self.wanted.patience_s:g} s" if self.wanted.patience_s else ""
            why = f"others have them{waited}"
            raise Busy(asked=self.wanted.asked, why=why, listing=self.wanted.listing)
        position = reply.body.get("position")
        with self._lock:
            self.queued = True
            self._progress.show(reply.body)
        known = position if isinstance(position, int) else 0
        wait_s = max(0.1, min(POLL_S, left_s))
        path = f"/v1/queue/{entry}?wait={wait_s:.1f}&position={known}"
        return channel.request("GET", path)


def hang_up(channel: HttpChannel) -> None:
    """From another thread than the one that waits for an answer."""
    fd = channel.fileno()
    if fd >= 0:
        with socket.socket(fileno=os.dup(fd)) as sock:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended
