# SPDX-License-Identifier: Apache-2.0
"""Keeps a session on a server of the network: attaches again when the server was restarted, and
hears what the server has to say about it.

One thread waits for events on a connection of its own. When that fails, or the server says so, it
looks at the connection that is the lease, and renews it for as long as the session may last
without.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Optional

from bitfusion import linux, log
from bitfusion.client.channels import Channel, is_dead, kind_of
from bitfusion.client.control import Session
from bitfusion.errors import BitfusionError, ServerLost
from bitfusion.wire.control import ENDS, Json, Reply

EVENTS_WAIT_S = 25.0
MARGIN_S = 5.0  # for the answer, on top of the wait for it
FIRST_NAP_S, LONGEST_NAP_S = 0.05, 1.0
VERDICT_S = 3.0  # for a server to be reached
SETTLE_S = 2.0  # for it to have seen its workers end
FORGOTTEN = "the server does not know the session any more"

Connect = Callable[[float], Channel]  # with a timeout; raises BitfusionError


class Event(NamedTuple):
    kind: str  # warn, end
    why: str  # one of ENDS
    text: str


class Mark(NamedTuple):
    """What a session's launcher knew at a moment."""

    number: int = 0  # of the last event
    cut: str = ""  # of connections


class Keeper:
    """Where the program's data connections come from, as the broker sees it."""

    def __init__(
        self, session: Session, connect: Connect, lease_s: float, tell: Callable[[Event], None]
    ) -> None:
        """lease_s: how long to try to reach a lost server, no longer than it keeps the session;
        0 for as long as that. tell: called in the keeper's thread; the last event is an end,
        unless stop() comes first.
        """
        self.session = session
        self._connect = connect
        self._most_s = lease_s
        self._tell = tell
        self._renewed = threading.Condition()  # guards the session's connection
        self._over = False
        self._known = 0  # the number of the last event
        self.lost = False  # out of touch with the server now
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        linux.start_thread(self._thread)

    def _patience_s(self) -> float:
        return min(self._most_s or self.session.lease_s, self.session.lease_s)

    def stop(self) -> None:
        """Without waiting for its thread, which may be in the middle of a request."""
        self._over = True
        if self._renewed.acquire(blocking=False):
            self._renewed.notify_all()
            self._renewed.release()

    def mark(self) -> Mark:
        return Mark(self._known, self.session.cut)

    def verdict(self, since: Mark = Mark()) -> Optional[Event]:
        """After a program has failed: what ended its session, or broke since it began. A program
        hears of its dead connection before we hear why.
        """
        until_s, nap_s = time.monotonic() + VERDICT_S, FIRST_NAP_S
        while True:
            try:
                return self._ask_for_verdict(since)
            except BitfusionError as error:
                why = str(error)
            if time.monotonic() > until_s:
                return Event("end", "lost", why) if self.session.used else None
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, LONGEST_NAP_S)

    def _ask_for_verdict(self, since: Mark) -> Optional[Event]:
        channel = self._connect(VERDICT_S)
        try:
            path = f"/v1/sessions/{self.session.name}/events?all=1&wait={SETTLE_S:g}"
            reply = channel.request("GET", path, secret=self.session.secret)
        finally:
            channel.close()
        if reply.status == 401:
            return Event("end", "revoked", kind_of(reply)[1])
        if reply.status == 404:
            return Event("end", "lost", FORGOTTEN)
        if reply.status != 200:
            raise ServerLost(server=channel.name, why=f"status {reply.status}")
        broke: Optional[Event] = None
        for found in list_events(reply):
            event = event_of(found)
            if event.kind == "end":
                return event
            if event.why == "worker" and number_of(found) > since.number:
                broke = Event("end", "lost", event.text)
        if broke is None and self.session.cut != since.cut:
            broke = Event("end", "lost", self.session.cut)
        return broke

    def open_data(self, pid: int, cold: bool = False) -> tuple[socket.socket, int]:
        with self._renewed:
            while True:
                if self._over:
                    raise ServerLost(server=self.session.channel.name, why="the session is over")
                channel = self.session.channel
                try:
                    return self.session.open_data(pid, cold)
                except BitfusionError:
                    if not is_dead(channel):
                        raise
                self._await_renewal(channel)

    def _await_renewal(self, channel: Channel) -> None:
        if not self._renewed.wait_for(
            lambda: self._over or self.session.channel is not channel, self._patience_s()
        ):
            raise ServerLost(server=channel.name, why="no answer in time")

    # ------------------------------------------ the thread

    def _run(self) -> None:
        events: Optional[Channel] = None
        nap_s = FIRST_NAP_S
        while not self._over:
            try:
                if events is None:
                    events = self._connect(EVENTS_WAIT_S + MARGIN_S)
                    linux.keep_descriptor_alive(events.fileno(), self.session.lease_s)
                reply = self._ask(events, self._known)
            except BitfusionError as error:
                log.debug(f"no events: {error}")
                if events is not None:
                    events.close()
                    events, self._known = None, 0
                if not self._renew(nap_s):
                    return
                nap_s = min(2 * nap_s, LONGEST_NAP_S)
                continue
            nap_s = FIRST_NAP_S
            for event in list_events(reply):
                self._known = number_of(event)
                if self._pass_on(event):
                    return
            cut = reply.body.get("cut") is True
            if (cut or is_dead(self.session.channel)) and not self._renew(nap_s, cut):
                return
            time.sleep(FIRST_NAP_S)  # it may be a server that answers before anything happens

    def _ask(self, events: Channel, known: int) -> Reply:
        path = f"/v1/sessions/{self.session.name}/events?after={known}&wait={EVENTS_WAIT_S:g}"
        reply = events.request("GET", path, secret=self.session.secret)
        if reply.status == 404:
            self._finish("lost", FORGOTTEN)
        elif reply.status != 200:
            raise ServerLost(server=events.name, why=f"status {reply.status}")
        return reply

    def _pass_on(self, event: Json) -> bool:
        """Whether it was the last."""
        found = event_of(event)
        if found.kind == "end":
            self._finish(found.why, found.text)
            return True
        if not self._over:
            self._tell(found)
        return False

    def _finish(self, why: str, text: str) -> None:
        with self._renewed:
            over, self._over = self._over, True
            self._renewed.notify_all()
        if not over:
            self._tell(Event("end", why, text))

    def _renew(self, nap_s: float, cut: bool = False) -> bool:
        """Attach again where that is necessary, as the server says or we see; False when it is
        over.
        """
        with self._renewed:
            if not cut and not is_dead(self.session.channel):
                self._renewed.wait_for(lambda: self._over, nap_s)
                return not self._over
            name = self.session.channel.name
            log.warn(f"lost the connection to {name}; trying again for {self._patience_s():g} s")
            self.lost = True
            ended = self._attach_again()
        if ended is None:
            self.lost = False
            log.warn(f"connected to {name} again")
            return True
        self._finish(*ended)
        return False

    def _attach_again(self) -> Optional[tuple[str, str]]:
        """None when that worked, else why it is over."""
        until_s, nap_s = time.monotonic() + self._patience_s(), FIRST_NAP_S
        why = "no answer in time"
        while not self._over and time.monotonic() < until_s:
            self._renewed.wait(nap_s)
            nap_s = min(2 * nap_s, LONGEST_NAP_S)
            channel: Optional[Channel] = None
            try:
                channel = self._connect(MARGIN_S)
                reply = self.session.attach_over(channel)
            except BitfusionError as error:
                why = str(error)
                if channel is not None:
                    channel.close()
                continue
            if reply.status == 200:
                self.session.renew(channel, reply.body)
                self._renewed.notify_all()
                return None
            channel.close()
            kind, text = kind_of(reply)
            if reply.status in (404, 410):
                ended = kind.partition("-")[2]
                if ended in ENDS:
                    return ended, f"the session has ended meanwhile: {text}"
                return "lost", FORGOTTEN
            why = f"{self.session.channel.name}: {text}"
            if reply.status == 503:  # it is there, and keeps its sessions for a lease yet
                until_s = time.monotonic() + self._patience_s()
        return "lost", why


def list_events(reply: Reply) -> list[Json]:
    events = reply.body.get("events")
    return [e for e in events if isinstance(e, dict)] if isinstance(events, list) else []


def event_of(event: Json) -> Event:
    kind, why, text = (str(event.get(key, "")) for key in ("kind", "why", "text"))
    return Event(kind, why if kind != "end" or why in ENDS else "lost", text)


def number_of(event: Json) -> int:
    number = event.get("number")
    return number if isinstance(number, int) else 0
