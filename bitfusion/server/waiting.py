# SPDX-License-Identifier: Apache-2.0
"""The queue: asks in the order in which they are to be served, and which of them could use what
has become free. Pure.

Start-time fair queueing, over clients: an ask starts, in virtual time, when its client's ask
before it ends, or now, and ends its cost later. Those that start first come first. Virtual time
goes on as each of those who wait is served, and never is behind the first of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Optional

from bitfusion.quantity import parse_fraction, part_of
from bitfusion.server.capacity import Host, Key
from bitfusion.server.fleet import Room, Selector
from bitfusion.server.views import Ask

MOST_LEFT = 10_000  # asks that are remembered
BLOCK = 128  # asks that are passed over at once
LEAST_COST = 1 / 16  # of a GPU: a crowd of tiny sessions is not free
CAUTION = 1 - 1e-9  # a binary fraction times this is not above the exact one


class Waiter:
    """An ask that waits."""

    def __init__(self, ask: Ask, client: Client, selector: Selector, largest: int) -> None:
        """largest: the memory of a whole GPU, to tell the cost of bytes."""
        self.ask = ask
        self.client = client
        self.selector = selector
        self.turn = (ask.at_s, ask.id)  # among its client's
        self.key: Key = (0.0, *self.turn)  # in the queue
        self.queued = False
        self.host: Optional[Host] = None  # that is kept for it
        self.tried = -1  # the state of the fences when there was none to keep
        self.least = (-1, 0)  # version of the fleet, bytes on all its GPUs, at least
        self.end_before = 0.0  # its client's, when it was granted
        self._needs: dict[int, int] = {}
        self.part = 0.0
        if not ask.memory:
            numerator, denominator = parse_fraction(ask.fraction)
            self.part = numerator / denominator
        self.cost = ask.gpus * max(self.part or min(1.0, ask.memory / largest), LEAST_COST)

    @property
    def end(self) -> float:
        return self.key[0] + self.cost

    def need(self, memory: int) -> int:
        """Bytes of a GPU that has `memory`; 0 where that would be less than one."""
        if self.ask.memory:
            return self.ask.memory
        need = self._needs.get(memory)
        if need is None:
            need = self._needs[memory] = part_of(memory, self.ask.fraction)
        return need

    def need_ever(self, memory: int) -> int:
        """The same, but 0 where its client may never hold as much."""
        need, limit = self.need(memory), self.client.memory_limit
        return need if limit is None or need * self.ask.gpus <= limit else 0

    def need_now(self, memory: int) -> int:
        """The same, but 0 where its client may not hold as much beside what it holds."""
        need, limit = self.need(memory), self.client.memory_limit
        held = self.client.memory
        return need if limit is None or need * self.ask.gpus + held <= limit else 0

    def fits(self, host: Host) -> bool:
        if not host.live:
            return False
        free, gpus, count = host.seen_by(self.key), self.selector.gpus(host), self.ask.gpus
        if gpus is None and host.group is not None:
            need = self.need_now(host.group.kind.memory)
            if free is host.open:
                return need > 0 and len(host.sorted) >= count and need <= host.top(count)
            return need > 0 and sum(need <= room for room in free.values()) >= count
        fitting = 0
        for gpu in host.memory if gpus is None else gpus:
            fitting += 0 < self.need_now(host.memory[gpu]) <= free[gpu]
        return fitting >= count


class Client:
    """What one holds, may hold and waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gpus = 0  # held
        self.memory = 0
        self.memory_limit: Optional[int] = None
        self.waiting = 0  # asks, wherever they wait
        self.ready = Line()  # those in the queue
        self.back: list[Waiter] = []  # held back by its limits, in the order of their turns
        self.served = 0.0  # virtual end of what it was granted

    @property
    def end(self) -> float:
        """Where its next ask starts at the earliest."""
        return max(self.served, self.ready.waiters[-1].end) if self.ready else self.served


class Line:
    """Waiters by their keys."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.waiters: list[Waiter] = []

    def __len__(self) -> int:
        return len(self.keys)

    def after(self, turn: tuple[float, str]) -> int:
        """Where those with a later turn begin, where all are of one client."""
        low, high = 0, len(self.waiters)
        while low < high:
            middle = (low + high) // 2
            if self.waiters[middle].turn < turn:
                low = middle + 1
            else:
                high = middle
        return low

    def add(self, waiter: Waiter) -> None:
        at = bisect_left(self.keys, waiter.key)
        self.keys.insert(at, waiter.key)
        self.waiters.insert(at, waiter)

    def remove(self, waiter: Waiter) -> None:
        at = bisect_left(self.keys, waiter.key)
        assert self.waiters[at] is waiter
        del self.keys[at], self.waiters[at]


class Block(Line):
    """Neighbours in a lane, and the least that any of them needs."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = 1 << 62
        self.part = 2.0

    def add(self, waiter: Waiter) -> None:
        super().add(waiter)
        if waiter.ask.memory:
            self.memory = min(self.memory, waiter.ask.memory)
        else:
            self.part = min(self.part, waiter.part * CAUTION)

    def split(self) -> Block:
        """Its second half, which it loses."""
        half, rest = len(self.keys) // 2, Block()
        rest.keys, rest.waiters = self.keys[half:], self.waiters[half:]
        del self.keys[half:], self.waiters[half:]
        self.measure()
        rest.measure()
        return rest

    def measure(self) -> None:
        asks = [waiter.ask for waiter in self.waiters]
        self.memory = min((ask.memory for ask in asks if ask.memory), default=1 << 62)
        self.part = min((w.part * CAUTION for w in self.waiters if w.part), default=2.0)


class Lane:
    """Asks for the same number of GPUs out of the same servers, in order.

    Who looks for one that fits somewhere passes over whole blocks.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._last: list[Key] = []  # of each block
        self.cost = 0.0  # of all

    def add(self, waiter: Waiter) -> None:
        self.cost += waiter.cost
        at = min(bisect_left(self._last, waiter.key), len(self.blocks) - 1)
        if at < 0:
            at = 0
            self.blocks.append(Block())
            self._last.append(waiter.key)
        block = self.blocks[at]
        block.add(waiter)
        self._last[at] = block.keys[-1]
        if len(block) > 2 * BLOCK:
            self.blocks.insert(at + 1, block.split())
            self._last.insert(at, block.keys[-1])

    def remove(self, waiter: Waiter) -> None:
        self.cost -= waiter.cost
        at = bisect_left(self._last, waiter.key)
        block = self.blocks[at]
        block.remove(waiter)
        if block.keys:
            self._last[at] = block.keys[-1]
        else:
            del self.blocks[at], self._last[at]

    def first(self, after: Key, room: Room, host: Host) -> Optional[Waiter]:
        """The first after this place that fits on this server."""
        for block in self.blocks[bisect_right(self._last, after) :]:
            if block.memory > room.memory and block.part > room.part:
                continue
            start = bisect_right(block.keys, after)
            for waiter in block.waiters[start:]:
                if waiter.fits(host):
                    return waiter
            block.measure()  # the one that needed least may have left
        return None

    def waiters(self) -> Iterator[Waiter]:
        for block in self.blocks:
            yield from block.waiters

    def before(self, key: Key) -> int:
        """How many come before this place."""
        at = bisect_left(self._last, key)
        whole = sum(len(block) for block in self.blocks[:at])
        return whole + (bisect_left(self.blocks[at].keys, key) if at < len(self.blocks) else 0)

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)


class Queue:
    """All that wait for GPUs, and virtual time."""

    def __init__(self) -> None:
        self.order = Line()
        self.lanes: dict[Selector, dict[int, Lane]] = {}
        self.virtual = 0.0
        self._latest = 0.0  # virtual end of all that was served
        self._clients = 0  # that have asks here
        self._left: dict[str, float] = {}  # asks that may come back -> their virtual start

    def schedule(self, waiter: Waiter) -> list[tuple[Waiter, Key]]:
        """Give it a turn: when its client's ask before it ends, or now. Returns which of its
        client's later asks have to make way for it, to which places.
        """
        now = self.order.keys[0][0] if self.order else self._latest
        self.virtual = max(self.virtual, now)
        ready = waiter.client.ready.waiters
        at = waiter.client.ready.after(waiter.turn)
        before = ready[at - 1].end if at else 0.0
        start = max(self.virtual, waiter.client.served, before)
        if at < len(ready):  # it was here before that one
            start = min(start, ready[at].key[0])
        start = min(start, max(before, self._left.pop(waiter.ask.id, start)))
        waiter.key = (start, *waiter.turn)
        moved, end = [], waiter.end
        for later in ready[at:]:
            if later.key[0] >= end:
                break
            moved.append((later, (end, *later.turn)))
            end += later.cost
        return moved

    def enter(self, waiter: Waiter) -> None:
        waiter.queued = True
        self._clients += not waiter.client.ready
        waiter.client.ready.add(waiter)
        self.order.add(waiter)
        lanes = self.lanes.setdefault(waiter.selector, {})
        if waiter.ask.gpus not in lanes:
            lanes[waiter.ask.gpus] = Lane()
        lanes[waiter.ask.gpus].add(waiter)

    def leave(self, waiter: Waiter) -> None:
        waiter.queued = False
        waiter.client.ready.remove(waiter)
        self._clients -= not waiter.client.ready
        self.order.remove(waiter)
        lanes = self.lanes[waiter.selector]
        lanes[waiter.ask.gpus].remove(waiter)
        if not lanes[waiter.ask.gpus].blocks:
            del lanes[waiter.ask.gpus]
            if not lanes:
                del self.lanes[waiter.selector]

    def remember(self, waiter: Waiter) -> None:
        """It leaves unserved. Should it come back, as when its contact ended, it starts then."""
        self._left[waiter.ask.id] = waiter.key[0]
        if len(self._left) > MOST_LEFT:
            del self._left[next(iter(self._left))]

    def charge(self, waiter: Waiter) -> None:
        """It is served: time goes on, by so much as everybody gets of it."""
        self.virtual += waiter.cost / max(1, self._clients)
        self._latest = max(self._latest, waiter.end)
        waiter.end_before = waiter.client.served
        waiter.client.served = max(waiter.client.served, waiter.end)

    def refund(self, waiter: Waiter) -> None:
        if waiter.client.served == waiter.end:
            waiter.client.served = waiter.end_before

    def position(self, waiter: Waiter) -> int:
        """From 1; for one that is not in the queue, where it would come now."""
        if waiter.queued:
            return bisect_left(self.order.keys, waiter.key) + 1
        client = waiter.client
        start = max(self.virtual, client.end)
        before = client.back.index(waiter) if waiter in client.back else 0
        return bisect_left(self.order.keys, (start, *waiter.turn)) + before + 1

    def work(self, waiter: Waiter) -> tuple[int, float]:
        """How many are before it that want the same servers, and what one of them costs."""
        lanes = self.lanes[waiter.selector].values()
        ahead = sum(lane.before(waiter.key) for lane in lanes)
        return ahead, sum(lane.cost for lane in lanes) / sum(map(len, lanes))
