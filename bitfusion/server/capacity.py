# SPDX-License-Identifier: Apache-2.0
"""What is free where, indexed so that the best place for an ask is found without a look at every
server. Pure.

Best fit: of the places that an ask fits in, the one that takes the fewest GPUs that were all free,
then the tightest, then on the smallest GPUs, then on the server with the fewest GPUs all free. So
whole GPUs and whole servers stay whole for those who ask for them. Spreading is the opposite: the
emptiest GPUs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

from bitfusion.server.pool import Slice
from bitfusion.server.views import GpuView, ServerView

if TYPE_CHECKING:
    from bitfusion.server.fleet import Selector

Rank = tuple[int, int, int, int, int, str]  # the least is the best place; ends with the server
Key = tuple[float, float, str]  # an ask's place in the order of the queue
Need = Callable[[int], int]  # memory of a GPU -> what is asked of it, 0 for nothing


class Fence(NamedTuple):
    """GPUs that are kept for an ask which waits: others get no memory there that it will need."""

    owner: Key
    needs: Mapping[int, int]  # GPU -> bytes
    before: frozenset[str]  # the sessions that were there already, whose memory will come to it


class Kind(NamedTuple):
    """What servers have in common that look alike to filters and are packed alike."""

    memory: int
    gpu_name: str
    cuda_version: str
    driver_version: str
    rdma: bool

    @property
    def sample(self) -> ServerView:
        """One of them, as far as filters of kinds can see."""
        gpus = (GpuView(0, self.gpu_name, self.memory),)
        return ServerView("", "", (), gpus, self.cuda_version, self.driver_version, self.rdma)


def kind_of(view: ServerView) -> Optional[Kind]:
    """None where its GPUs differ: such a server is looked at by itself."""
    if len({(gpu.memory, gpu.name) for gpu in view.gpus}) != 1:
        return None
    gpu = view.gpus[0]
    return Kind(gpu.memory, gpu.name, view.cuda_version, view.driver_version, view.rdma)


class Host:
    """A server: what its GPUs have, who holds them and for whom some are kept."""

    def __init__(self, view: ServerView, sessions: dict[str, tuple[Slice, ...]]) -> None:
        self.id = view.id
        self.sessions = sessions
        self.selectors: set[Selector] = set()  # that have it, but not all of its group
        self.fence: Optional[Fence] = None
        self.group: Optional[Group] = None
        self.present = True
        self.set_view(view)

    def set_view(self, view: ServerView) -> None:
        self.view = view
        self.memory = {gpu.index: gpu.memory for gpu in view.gpus}
        self.count()

    @property
    def live(self) -> bool:
        return self.present and not self.view.drained

    def count(self) -> None:
        """What is free, from the beginning."""
        self.free = dict(self.memory)
        for slices in self.sessions.values():
            self._add(slices, -1)
        self.recount()

    def take(self, session: str, slices: tuple[Slice, ...]) -> None:
        self.sessions[session] = slices
        self._add(slices, -1)

    def give_back(self, session: str) -> None:
        self._add(self.sessions.pop(session), 1)

    def _add(self, slices: tuple[Slice, ...], sign: int) -> None:
        for part in slices:
            if part.gpu in self.free:
                self.free[part.gpu] += sign * part.memory

    def recount(self) -> None:
        """What of it is for anybody, after any change."""
        self.open = self._fenced(self.free) if self.fence else self.free
        self.sorted = sorted(self.open.values())
        self.whole = sum(self.free[gpu] == memory for gpu, memory in self.memory.items())

    def _fenced(self, free: Mapping[int, int]) -> dict[int, int]:
        assert self.fence
        rest = {gpu: self.memory[gpu] - need for gpu, need in self.fence.needs.items()}
        for session, slices in self.sessions.items():
            if session not in self.fence.before:
                for part in slices:
                    if part.gpu in rest:
                        rest[part.gpu] -= part.memory
        return {gpu: min(room, rest.get(gpu, room)) for gpu, room in free.items()}

    def top(self, count: int) -> int:
        """What at least `count` of its GPUs have free for anybody."""
        return self.sorted[-count]

    def seen_by(self, key: Key) -> dict[int, int]:
        """GPU -> free. A fence is for those who come after its owner."""
        return self.free if self.fence and key <= self.fence.owner else self.open

    def has(self, gpus: Optional[Sequence[int]], count: int, need: Need) -> bool:
        """Whether it could hold this if nothing else were there."""
        if gpus is None and self.group is not None:
            memory = self.group.kind.memory
            return len(self.memory) >= count and 0 < need(memory) <= memory
        sizes = self.memory.values() if gpus is None else [self.memory[gpu] for gpu in gpus]
        return sum(0 < need(size) <= size for size in sizes) >= count


def place(
    host: Host,
    free: Mapping[int, int],
    gpus: Optional[Sequence[int]],
    count: int,
    need: Need,
    spread: bool,
) -> Optional[tuple[Rank, tuple[Slice, ...]]]:
    """The best `count` of these GPUs (None: of all), or None where it does not fit."""
    rows = []
    for gpu in host.memory if gpus is None else gpus:
        memory, room = host.memory[gpu], free[gpu]
        part = need(memory)
        if 0 < part <= room:
            breaks = room == memory and not spread
            rows.append((breaks, part - room if spread else room - part, gpu, part))
    if len(rows) < count:
        return None
    rows.sort()
    del rows[count:]
    left = sum(row[1] for row in rows)
    first = rows[-1][1] if spread else rows[0][1]
    largest = max(host.memory[row[2]] for row in rows)
    whole = -host.whole if spread else host.whole
    rank = (sum(row[0] for row in rows), first, left, largest, whole, host.id)
    return rank, tuple(sorted(Slice(row[2], row[3]) for row in rows))


Entry = tuple[int, int, int, int, str]


class Group:
    """The servers of one kind, sorted for each number of GPUs that somebody asked for.

    `tables[n]` has, for each server, each row of n GPUs that are neighbours when sorted by what is
    free: (whole ones among them, the least free, free in all, whole ones on the server, server).
    The first that is large enough is the best fit. `tops[n]` has the emptiest n of each server,
    negative to come first; it says where to spread and where to reserve.
    """

    def __init__(self, kind: Kind, spread: bool) -> None:
        self.kind = kind
        self.spread = spread
        self.hosts: dict[str, Host] = {}
        self.tables: dict[int, list[Entry]] = {}
        self.tops: dict[int, list[Entry]] = {}
        self._entries: dict[tuple[str, int], list[Entry]] = {}
        self._top: dict[tuple[str, int], Entry] = {}
        self.selectors: set[Selector] = set()  # that have all of it
        self.reach: dict[bool, int] = {}  # what widest() found; cleared when servers change

    def refresh(self, host: Host) -> None:
        for count in self.tables:
            self._refresh(host, count)

    def _refresh(self, host: Host, count: int) -> None:
        key = host.id, count
        old = self._entries.get(key, [])
        new = self._rows(host, count) if host.live and not self.spread else []
        if old != new:
            table = self.tables[count]
            for entry in set(old).difference(new):
                del table[bisect_left(table, entry)]
            for entry in set(new).difference(old):
                insort(table, entry)
            self._entries[key] = new
        last = self._top.pop(key, None)
        if last is not None:
            del self.tops[count][bisect_left(self.tops[count], last)]
        if host.live and len(host.sorted) >= count:
            left, whole = sum(host.sorted[-count:]), -host.whole if self.spread else 0
            self._top[key] = top = (0, -host.top(count), -left, whole, host.id)
            insort(self.tops[count], top)

    def _rows(self, host: Host, count: int) -> list[Entry]:
        sizes, memory = host.sorted, self.kind.memory
        rows: list[Entry] = []
        for start in range(len(sizes) - count + 1):
            least = sizes[start]
            if least <= 0 or (start and sizes[start - 1] == least):
                continue  # nothing, or no better than the row before
            row = sizes[start : start + count]
            rows.append((row.count(memory), least, sum(row), host.whole, host.id))
        return rows

    def index(self, count: int) -> None:
        if count not in self.tables:
            self.tables[count], self.tops[count] = [], []
            for host in self.hosts.values():
                self._refresh(host, count)

    def find(self, count: int, need: int, among: Optional[Mapping[str, object]]) -> Optional[Rank]:
        """The best of these servers (None: of all) that has room for anybody."""
        self.index(count)
        memory = self.kind.memory
        if self.spread:
            for _, least, left, whole, server in self.tops[count]:
                if -least < need:
                    break
                if among is None or server in among:
                    return (0, least + need, left + count * need, memory, whole, server)
            return None
        table = self.tables[count]
        for whole in range(count if need == memory else 0, count + 1):
            at = bisect_left(table, (whole, need, 0, 0, ""))
            while at < len(table) and table[at][0] == whole:
                _, least, left, left_whole, server = table[at]
                if among is None or server in among:
                    return (whole, least - need, left - count * need, memory, left_whole, server)
                at += 1
        return None

    def widest(self, live: bool) -> int:
        """The most GPUs that one of its servers has."""
        if live not in self.reach:
            hosts = [host for host in self.hosts.values() if host.live or not live]
            self.reach[live] = max((len(host.memory) for host in hosts), default=0)
        return self.reach[live]

    def emptiest(self, count: int) -> Iterator[Entry]:
        """Servers with enough GPUs, the most free ones first."""
        self.index(count)
        return iter(self.tops[count])

    def add(self, host: Host) -> None:
        host.group = self
        self.hosts[host.id] = host
        self.reach.clear()
        self.refresh(host)

    def remove(self, host: Host) -> None:
        for count in self.tables:
            for entry in self._entries.pop((host.id, count), []):
                self.tables[count].remove(entry)
            last = self._top.pop((host.id, count), None)
            if last is not None:
                self.tops[count].remove(last)
        del self.hosts[host.id]
        self.reach.clear()
        host.group = None
