# SPDX-License-Identifier: Apache-2.0
"""Gets GPUs from servers of the network, waiting in the queue where they are in use.

Every cluster among the servers is asked at once, and the first grant is taken. Who waits in a
queue goes on asking when the server is lost, or another server of its cluster.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from bitfusion import config, linux, log
from bitfusion.client.channels import HttpChannel
from bitfusion.client.control import Session, explain, greet
from bitfusion.client.progress import WAITS_FOR, Progress
from bitfusion.client.trust import Seen, ignore
from bitfusion.errors import (
    BitfusionError,
    Busy,
    CannotReach,
    NotAServer,
    NotTrusted,
    ServerLost,
    ServerNotReady,
    ServerRefused,
)
from bitfusion.quantity import plural
from bitfusion.values import Address, parse_server
from bitfusion.wire.control import MAX_ABOUT, Json, Reply, is_name

POLL_S = 10.0  # a request about our place in the queue waits so long
RETRY_S = 0.5
LEAST_S = 0.2  # to wait, as what is free is granted a moment after the place is known
MAX_ADDRESSES = 16  # of one server
JOIN_S = 1.0  # for threads that were hung up on; one that looks up a name cannot be
AWAY = (CannotReach, NotAServer, NotTrusted, ServerLost)  # as a server that restarts looks


class Wanted(NamedTuple):
    """What is to be claimed, and how."""

    request: Json  # gpus, fraction or memory, share, filters
    asked: str  # the same in words
    program: str
    listing: str  # the command that shows this user what there is
    connect: Callable[[Address, float, Seen], HttpChannel]
    transport: str
    timeout_s: float  # of one answer
    patience_s: float  # for the GPUs
    retry_s: float  # for a server that was lost while we waited in its queue

    def body(self, contact: str) -> Json:
        """What this server is asked for."""
        program = self.program[:MAX_ABOUT]  # a command may have more than a request can carry
        about: Json = {"program": program, "host": socket.gethostname(), "user": user_name()}
        servers = self.request.get("servers")
        if isinstance(servers, list):  # the one that was reached may call itself otherwise
            about["servers"] = [*servers, contact]
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
    queued = False
    turns: dict[str, str] = {}
    with Progress(wanted.asked) as progress:
        while True:
            race = Race(wanted, until_s, progress, turns)
            grant = race.run(servers)
            queued = queued or race.queued
            try:
                return use(grant, wanted)
            except (ServerLost, CannotReach) as error:
                now_s = time.monotonic()
                lost_s = lost_s or now_s
                if not queued or now_s > lost_s + wanted.retry_s:
                    raise
                progress.say(f"{error}; asking again")
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
        if len(session.gpus) != wanted.request.get("gpus"):
            why = f"it gave {plural(len(session.gpus), 'GPU')}, not {wanted.asked}"
            raise NotAServer(server=channel.name, why=why)
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
    for text in addresses[:MAX_ADDRESSES] if isinstance(addresses, list) else []:
        try:
            address = parse_server(str(text))
            channel = wanted.connect(address, wanted.timeout_s, ignore)
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
    """All servers are asked at once, by a thread for each. Of servers of one cluster one is asked,
    and the others stand by.
    """

    def __init__(
        self, wanted: Wanted, until_s: float, progress: Progress, turns: dict[str, str]
    ) -> None:
        """turns: by cluster, what it said of our place in its queue; for any of its servers."""
        self.wanted = wanted
        self.until_s = until_s
        self.turns = turns
        self.queued = False  # somewhere
        self.over = False
        self.grant: Optional[Grant] = None
        self._progress = progress
        self._lock = threading.Condition()
        self._asked: set[str] = set()  # clusters
        self._answered: set[str] = set()  # of those: it was not what we want to hear
        self._lines: dict[Address, socket.socket] = {}  # to hang up on
        self._running = 0
        self._failures: list[BitfusionError] = []

    def run(self, servers: Sequence[Address]) -> Grant:
        askers = [Asker(self, address) for address in servers]
        self._running = len(askers)
        try:
            if len(askers) == 1:
                askers[0].run()
            else:
                self._run_all(askers)
        finally:
            self._close_lines()
        if self.grant is not None:
            for error in self._failures:
                log.info(str(error))
            return self.grant
        chosen = next((e for e in self._failures if isinstance(e, Busy)), self._failures[-1])
        for text in dict.fromkeys(str(error) for error in self._failures):
            if text != str(chosen):  # what is wrong on this machine is so for each server
                log.warn(text)
        raise chosen

    def _run_all(self, askers: Sequence[Asker]) -> None:
        threads = [threading.Thread(target=asker.run, daemon=True) for asker in askers]
        started = []
        try:
            for thread in threads:
                linux.start_thread(thread)
                started.append(thread)
            with self._lock:
                self._lock.wait_for(lambda: self.grant is not None or not self._running)
        finally:
            self._hang_up_on_others()
            until_s = time.monotonic() + JOIN_S
            for thread in started:
                thread.join(max(0.0, until_s - time.monotonic()))

    # ------------------------------------------ hanging up

    def see(self, address: Address, sock: socket.socket) -> None:
        """One that is about to be connected."""
        line = sock.dup()
        with self._lock:
            earlier, self._lines[address] = self._lines.get(address), line
            if earlier is not None:
                earlier.close()
            if self.over:
                hang_up(line)

    def _hang_up_on_others(self) -> None:
        """So a queue is left, and a server that does not answer."""
        with self._lock:
            self.over = True
            for address, line in self._lines.items():
                if self.grant is None or address != self.grant.channel.address:
                    hang_up(line)
            self._lock.notify_all()

    def _close_lines(self) -> None:
        with self._lock:
            self.over = True
            for line in self._lines.values():
                line.close()
            self._lines.clear()

    # ------------------------------------------ what askers tell

    def enter(self, cluster: str) -> bool:
        """False where the cluster is asked by another of its servers already."""
        with self._lock:
            if self.over or cluster in self._asked:
                return False
            self._asked.add(cluster)
            return True

    def leave(self, cluster: str, answered: bool) -> None:
        with self._lock:
            self._asked.discard(cluster)
            if answered:
                self._answered.add(cluster)
            self._lock.notify_all()

    def stand_by(self, cluster: str) -> bool:
        """Until the cluster's other server is lost; False where it need not be asked any more."""
        with self._lock:
            known = self._answered
            self._lock.wait_for(
                lambda: self.over or cluster in known or cluster not in self._asked
            )
            return not self.over and cluster not in known

    def win(self, grant: Grant) -> bool:
        with self._lock:
            if self.grant is None and not self.over:
                self.grant = grant
            return self.grant is grant

    def show(self, place: Json, cluster: str) -> None:
        with self._lock:
            self.queued = True
            if isinstance(place.get("turn"), str):
                self.turns[cluster] = str(place["turn"])
            if self.wanted.patience_s:
                self._progress.show(place)

    def say(self, text: str) -> None:
        with self._lock:
            if not self.over:
                self._progress.say(text)

    def pause(self) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self.over, RETRY_S)

    def done(self, failure: Optional[BitfusionError]) -> None:
        with self._lock:
            self._running -= 1
            if failure is not None and not self.over:
                self._failures.append(failure)
            self._lock.notify_all()


class Asker:
    """Asks one server, again while it is away."""

    def __init__(self, race: Race, address: Address) -> None:
        self._race = race
        self._wanted = race.wanted
        self._address = address
        self._waits = False  # it was asked for GPUs, once
        self._waited = False  # after that
        self._lost_s: Optional[float] = None

    def run(self) -> None:
        failure: Optional[BitfusionError] = None
        try:
            again = True
            while again and not self._race.over:
                failure = None
                try:
                    again = self._ask()
                except BitfusionError as error:
                    failure = error
                    again = self._goes_on(error)
        finally:
            self._race.done(failure)

    def _goes_on(self, error: BitfusionError) -> bool:
        now_s = time.monotonic()
        if isinstance(error, ServerNotReady):
            if now_s + RETRY_S > self._race.until_s:
                return False
            log.once(f"{error}; asking again until then")
        elif self._waits and isinstance(error, AWAY):
            if self._lost_s is None:
                self._lost_s = now_s
                self._race.say(f"{error}; asking again for {self._wanted.retry_s:g} s")
            if now_s > min(self._lost_s + self._wanted.retry_s, self._race.until_s):
                return False
        else:
            return False
        self._race.pause()
        return True

    def _ask(self) -> bool:
        """Whether to ask again."""
        wanted, race = self._wanted, self._race
        log.info(f"Query server {config.format_address(self._address)} gpu availability")
        channel = wanted.connect(
            self._address, wanted.timeout_s, lambda sock: race.see(self._address, sock)
        )
        kept = False
        try:
            about = greet(channel)
            contact = str(about.get("id") or channel.name)
            cluster = str(about.get("cluster") or contact)
            if race.enter(cluster):
                kept = self._ask_for_gpus(channel, contact, cluster)
                return False
        finally:
            if not kept:
                channel.close()
        return race.stand_by(cluster)

    def _ask_for_gpus(self, channel: HttpChannel, contact: str, cluster: str) -> bool:
        """Whether the channel is in use from now on."""
        wanted, race, answered = self._wanted, self._race, True
        try:
            self._waits = True
            channel.be_patient(POLL_S + wanted.timeout_s)
            body = {**wanted.body(contact), "turn": race.turns.get(cluster, "")}
            reply = channel.request("POST", "/v1/sessions", body)
            if self._lost_s is not None and reply.status in (201, 202):
                self._lost_s = None
                race.say(f"connected to {channel.name} again")
            while reply.status == 202 and not race.over:
                race.show(reply.body, cluster)
                reply = self._wait(channel, reply)
            if race.over:
                return False
            if reply.status != 201:
                raise explain(channel, reply, wanted.asked, wanted.listing)
        except (*AWAY, ServerNotReady):
            answered = False
            raise
        finally:
            race.leave(cluster, answered)
        channel.be_patient(wanted.timeout_s)
        return race.win(Grant(channel, contact, reply.body))

    def _wait(self, channel: HttpChannel, reply: Reply) -> Reply:
        entry = str(reply.body.get("entry", ""))
        if not is_name(entry):
            raise NotAServer(server=channel.name, why="its place in the queue makes no sense")
        left_s = self._race.until_s - time.monotonic()
        if left_s <= 0 and self._waited:
            channel.request("DELETE", f"/v1/queue/{entry}")
            patience_s = self._wanted.patience_s
            away = WAITS_FOR.get(str(reply.body.get("away")))
            others = f"others still have them after {patience_s:g} s"
            why = f"it waits {away}" if away else others if patience_s else "others have them"
            raise Busy(asked=self._wanted.asked, why=why, listing=self._wanted.listing)
        position = reply.body.get("position")
        known = position if isinstance(position, int) else 0
        wait_s = max(LEAST_S, min(POLL_S, left_s))
        self._waited = True
        path = f"/v1/queue/{entry}?wait={wait_s:.1f}&position={known}"
        return channel.request("GET", path)


def hang_up(line: socket.socket) -> None:
    """From another thread than the one that waits for it."""
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended, or is not connected yet
