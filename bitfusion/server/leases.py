# SPDX-License-Identifier: Apache-2.0
"""Who may use a session and for how long: the launcher attached to it, its limits, its end.

The connection that is attached is the lease: when its launcher ends it, which its death does too,
so does the session. A session that nobody is attached to (it was just granted, a restarted server
took it over, or something between cut the connection) waits for a while.
"""

from __future__ import annotations

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from bitfusion import log
from bitfusion.server.caller import Refusal
from bitfusion.server.countdown import Countdown, describe
from bitfusion.server.events import END, WARN, WORKER, Events
from bitfusion.server.fairness import Fairness
from bitfusion.server.loop import Timers
from bitfusion.server.peer import Answer, Peer
from bitfusion.server.record import Record
from bitfusion.server.sessions import Session, Sessions
from bitfusion.wire.control import ENDS

GRACE_S = 12.0  # for a launcher to stop its program, which may take it 10
MAX_ENDED = 512  # remembered, so that their launchers hear why
CONNECTION_ENDED = "its connection ended"
CUT = (errno.ECONNRESET, errno.ECONNABORTED)
IDLE_LOOKS = 20  # at a session's activity, over its idle limit
IDLE_LOOK_S = (0.1, 10.0)  # between them, at least and at most


class Keeper(Protocol):
    """Of workers.py."""

    def keep(self, session: str, record: dict[str, object], ledger: int = -1) -> None: ...
    def drop(self, session: str) -> None: ...


class NoTimer:
    def cancel(self) -> None: ...


NO_TIMER = NoTimer()


class Lease:
    def __init__(self, session: Session, record: Record, events: Events) -> None:
        self.session = session
        self.record = record
        self.events = events
        self.ending = ""  # why, once that is so
        self.end_text = CONNECTION_ENDED
        self.timers: dict[str, Any] = {}  # one of each kind
        self.time = Countdown(record.time_s) if record.time_s else None
        self.idle = Countdown(record.idle_s) if record.idle_s else None
        self.active_s = 0.0
        self.activity = -1

    def cancel(self) -> None:
        for timer in self.timers.values():
            timer.cancel()


class Leases:
    def __init__(
        self,
        sessions: Sessions,
        timers: Timers,
        lease_s: float,
        keeper: Keeper,
        activity: Callable[[Session], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """keeper: where sessions are kept for the next server. activity: a number that changes
        while a session's workers do something.
        """
        self.sessions = sessions
        self._timers = timers
        self.lease_s = lease_s
        self._keeper = keeper
        self._activity = activity
        self._clock = clock
        self._fairness = Fairness(timers)
        self.reachable: Callable[[], bool] = lambda: True  # launchers may come: we know clients
        self.by_name: dict[str, Lease] = {}
        self._ended: OrderedDict[str, Lease] = OrderedDict()
        sessions.on_closing = self._closing

    def begin(self, record: Record, ledger: int = -1) -> Lease:
        """A new session, or one taken over with its ledger's descriptor. Raises the pool's InUse,
        ValueError of a record that cannot be kept, and what opening the ledger may raise.
        """
        opened = self.sessions.open_ledger(ledger) if ledger >= 0 else None
        try:
            record.check()
            session = self.sessions.take(record)
        except Exception:
            if opened is not None:
                opened.close()
            raise
        lease = self.by_name[record.session] = Lease(session, record, Events(self._timers))
        lease.active_s = self._clock()
        self._keeper.keep(record.session, record.pack())
        if opened is not None:
            session.ledger = opened
            self.ledger_made(session)
        self._await_launcher(lease)
        self._watch_time(lease)
        self._watch_idle(lease)
        return lease

    def gone(self, peer: Peer) -> None:
        """A connection ended. Whose was cut hears so by its other one, and comes back; a machine
        that was silent so long that the system gave it up has had its time.
        """
        if not peer.cut and not peer.broke:
            return  # its launcher has ended
        for lease in [one for one in self.by_name.values() if one.session.owner is peer]:
            if lease.session.closing:
                continue
            if peer.cut in CUT:
                why = os.strerror(peer.cut)
                log.info(f"the connection of session {lease.record.session} was cut: {why}")
                lease.session.owner = lease
                self._await_launcher(lease)
                lease.events.cut(True)
            else:
                self.end(lease, "lost", self._why_gone(peer), 0)

    def _why_gone(self, peer: Peer) -> str:
        if peer.cut == errno.ETIMEDOUT:
            return f"its client's machine did not answer for {describe(self.lease_s)}"
        if peer.cut:
            return f"its connection failed: {os.strerror(peer.cut)}"
        return f"the server ended its connection: {peer.broke}"

    def _await_launcher(self, lease: Lease) -> None:
        def give_up() -> None:
            if not self.reachable():
                self._await_launcher(lease)
                return
            self.end(lease, "lost", f"nobody attached to it for {describe(self.lease_s)}", 0)

        lease.timers["attach"] = self._timers.after(self.lease_s, give_up)

    def ledger_made(self, session: Session) -> None:
        lease = self.by_name.get(session.name)
        if lease is None or session.ledger is None:
            return
        self._keeper.keep(session.name, lease.record.pack(), session.ledger.fileno())
        if 0 < lease.record.share < 1:
            session.ledger.set_share(lease.record.share)
        gpus = [part.gpu for part in session.slices]
        self._fairness.add(session.name, gpus, session.ledger, lease.record.share)

    def _closing(self, session: Session) -> None:
        lease = self.by_name.get(session.name)
        if lease is not None:
            self._keep_ending(lease, lease.ending or "lost")

    def _keep_ending(self, lease: Lease, why: str) -> None:
        """So that the next server ends it, should this one not live to see its end."""
        ledger, record = lease.session.ledger, lease.record._replace(ending=why)
        fd = ledger.fileno() if ledger is not None else -1
        self._keeper.keep(record.session, record.pack(), fd)

    def find(self, name: str, client: str, secret: str) -> Lease:
        """Raises Refusal, also to a client whose session it is not."""
        lease = self.by_name.get(name) or self._ended.get(name)
        if lease is None or lease.record.client != client or not lease.record.opens_with(secret):
            raise Refusal(404, "no-session", f"there is no session '{name}'")
        return lease

    def attach(self, lease: Lease, peer: Peer) -> Session:
        """This connection is the lease from now on; an earlier one is dropped."""
        if lease.session.closing:
            raise Refusal(410, f"ended-{lease.ending or 'lost'}", lease.end_text)
        self.sessions.hand_over(lease.session, peer)
        lease.timers.pop("attach", NO_TIMER).cancel()
        lease.events.cut(False)
        return lease.session

    def get_events(self, lease: Lease, after: int, wait_s: float) -> Answer:
        over = lease.record.session not in self.by_name
        return lease.events.get(after, 0 if over else wait_s)

    def get_all_events(self, lease: Lease, wait_s: float) -> Answer:
        """For a launcher whose program has failed: once its workers have ended, or that was told
        which makes the difference.
        """
        over = lease.record.session not in self.by_name or bool(lease.ending)
        return lease.events.get_all(over or not lease.session.workers, wait_s)

    def worker_ended(self, session: Session, broke: str) -> None:
        lease = self.by_name.get(session.name)
        if lease is not None and broke:
            lease.events.add(WARN, WORKER, 0, broke)
        if lease is not None and not session.workers:
            lease.events.release()

    def end(self, lease: Lease, why: str, text: str, grace_s: float = GRACE_S) -> None:
        """Tell the launcher, which stops its program; the GPUs are back after that time."""
        assert why in ENDS
        if not lease.ending:
            lease.ending = why
            lease.end_text = text
            whose = f" ({lease.session.whose})" * bool(lease.session.whose)
            log.info(f"session {lease.record.session} is to end: {text}{whose}")
            lease.events.add(END, why, grace_s, text)
            if grace_s:
                self._keep_ending(lease, why)
                lease.timers["close"] = self._timers.after(
                    grace_s, lambda: self.sessions.end(lease.session)
                )
        if not grace_s:
            self.sessions.end(lease.session)

    def end_all(self, why: str, text: str) -> None:
        for lease in list(self.by_name.values()):
            self.end(lease, why, text, 0)

    def end_client(self, client: str, why: str, text: str) -> None:
        """All that a client has, at once."""
        for lease in [lease for lease in self.by_name.values() if lease.record.client == client]:
            self.end(lease, why, text, 0)

    def closed(self, session: Session) -> None:
        """To be called when the session is over and its GPUs are back."""
        self._fairness.remove(session.name)
        self._keeper.drop(session.name)
        lease = self.by_name.pop(session.name, None)
        if lease is None:
            return
        lease.cancel()
        if not lease.ending:
            lease.ending = "lost"
            lease.events.add(END, "lost", 0, lease.end_text)
        self._ended[session.name] = lease
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    # ------------------------------------------ limits

    def _watch_time(self, lease: Lease) -> None:
        if lease.time is None or lease.ending:
            return
        spent_s = self._clock() - lease.record.started_s
        look = lease.time.look(spent_s)
        if not look.left_s:
            limit = describe(lease.time.limit_s)
            self.end(lease, "time", f"its time limit of {limit} has passed")
            return
        if look.warn:
            left = describe(look.left_s)
            lease.events.add(WARN, "time", look.left_s, f"the time limit ends the run in {left}")
        lease.timers["time"] = self._timers.after(look.again_s, lambda: self._watch_time(lease))

    def _watch_idle(self, lease: Lease) -> None:
        if lease.idle is None or lease.ending:
            return
        now_s, activity = self._clock(), self._activity(lease.session)
        if activity != lease.activity:
            lease.activity, lease.active_s = activity, now_s
        look = lease.idle.look(now_s - lease.active_s)
        if not look.left_s:
            limit = describe(lease.idle.limit_s)
            self.end(lease, "idle", f"its GPUs were idle for {limit}")
            return
        if look.warn:
            left = describe(look.left_s)
            text = f"the GPUs are idle; unless that changes, the run ends in {left}"
            lease.events.add(WARN, "idle", look.left_s, text)
        least, most = IDLE_LOOK_S
        period_s = min(most, max(least, lease.idle.limit_s / IDLE_LOOKS))
        lease.timers["idle"] = self._timers.after(
            min(period_s, look.left_s), lambda: self._watch_idle(lease)
        )
