# SPDX-License-Identifier: Apache-2.0
"""The servers, which of them an ask may have, and the best place for it among those. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Optional

from bitfusion.server import filters
from bitfusion.server.capacity import Group, Host, Kind, Need, Rank, kind_of, place
from bitfusion.server.filters import Filter
from bitfusion.server.pool import Slice
from bitfusion.server.views import ServerView, names_of

MANY = 16  # servers: more are not looked at one by one where an index has them
MAX_IDLE = 1024  # selectors that nobody uses now

Gpus = Optional[tuple[int, ...]]  # of a server; None for all
Lack = tuple[int, int, int, int, str]  # the least is the server to keep


class Room(NamedTuple):
    """What some number of GPUs of a server have free at least."""

    memory: int
    part: float  # of a GPU, not less than it is


class Totals(NamedTuple):
    hosts: int  # that are up
    gpus: int  # of those
    largest: int  # memory of a GPU, up or not


class Selector:
    """Which servers and GPUs a set of filters and a list of servers let pass."""

    def __init__(self, conditions: tuple[Filter, ...], servers: tuple[str, ...]) -> None:
        self.conditions = conditions
        self.servers = frozenset(text.lower() for text in servers)
        self.of_host = any(f.key in filters.PER_HOST for f in conditions)
        self.groups: set[Group] = set()  # all of it
        self.parts: dict[Group, dict[str, Host]] = {}  # all GPUs of some servers
        self.others: dict[str, tuple[Host, Gpus]] = {}  # some GPUs, or unlike ones
        self.users = 0  # asks that wait with it

    @property
    def everything(self) -> bool:
        return not self.conditions and not self.servers

    def add_group(self, group: Group) -> None:
        if not self.of_host and not self.servers:
            sample = group.kind.sample
            if filters.match(self.conditions, sample, sample.gpus[0]):
                self.groups.add(group)
                group.selectors.add(self)

    def add(self, host: Host) -> None:
        """Take it in where it passes; one of a group that is in passes with it."""
        if host.group in self.groups or (self.servers and not self.servers & names_of(host.view)):
            return
        passing = tuple(
            gpu.index for gpu in host.view.gpus if filters.match(self.conditions, host.view, gpu)
        )
        if not passing:
            return
        everything = len(passing) == len(host.view.gpus)
        if everything and host.group is not None:
            self.parts.setdefault(host.group, {})[host.id] = host
        else:
            self.others[host.id] = host, None if everything else passing
        host.selectors.add(self)

    def remove(self, host: Host) -> None:
        self.others.pop(host.id, None)
        if host.group in self.parts:
            self.parts[host.group].pop(host.id, None)
            if not self.parts[host.group]:
                del self.parts[host.group]
        host.selectors.discard(self)

    def includes(self, host: Host) -> bool:
        return host.group in self.groups or self in host.selectors

    def gpus(self, host: Host) -> Gpus:
        known = self.others.get(host.id)
        return known[1] if known else None

    def hosts(self) -> Iterable[tuple[Host, Gpus]]:
        for group in self.groups:
            for host in group.hosts.values():
                yield host, None
        yield from self.singles()

    def singles(self) -> Iterable[tuple[Host, Gpus]]:
        """Those that are not in by their group."""
        for part in self.parts.values():
            for host in part.values():
                yield host, None
        yield from self.others.values()

    def room(self, host: Host, count: int) -> Room:
        gpus = self.gpus(host)
        if host.group is not None and gpus is None:
            free = host.top(count) if len(host.sorted) >= count else -1
            return Room(free, (free + 1) / host.group.kind.memory)
        chosen = host.memory if gpus is None else gpus
        if len(chosen) < count:
            return Room(-1, -1.0)
        rooms = sorted(host.open[gpu] for gpu in chosen)
        parts = sorted((host.open[gpu] + 1) / max(1, host.memory[gpu]) for gpu in chosen)
        return Room(rooms[-count], parts[-count])


class Fleet:
    def __init__(self, spread: bool) -> None:
        self.spread = spread
        self.hosts: dict[str, Host] = {}
        self.groups: dict[Kind, Group] = {}
        self.sessions: dict[str, dict[str, tuple[Slice, ...]]] = {}  # by server, known or not
        self._selectors: dict[tuple[tuple[Filter, ...], tuple[str, ...]], Selector] = {}
        self._named: dict[str, set[str]] = {}  # what a server is called -> servers
        self._totals: Optional[Totals] = None
        self.version = 0  # counts changes of the servers

    # ---- servers

    def put(self, view: ServerView) -> Host:
        """A new server, or a known one as it is now."""
        host = self.hosts.get(view.id)
        if host is None:
            host = Host(view, self.sessions.setdefault(view.id, {}))
            self.hosts[view.id] = host
        else:
            self._take_out(host)
            host.present = True
            host.set_view(view)
        for name in names_of(view):
            self._named.setdefault(name, set()).add(view.id)
        kind = kind_of(view)
        if kind is not None:
            if kind not in self.groups:
                group = self.groups[kind] = Group(kind, self.spread)
                for selector in self._selectors.values():
                    selector.add_group(group)
            self.groups[kind].add(host)
        for selector in self._selectors.values():
            selector.add(host)
        self._totals = None
        self.version += 1
        return host

    def _take_out(self, host: Host) -> None:
        for selector in list(host.selectors):
            selector.remove(host)
        if host.group is not None:
            host.group.remove(host)
        for name in names_of(host.view):
            self._named[name].discard(host.id)
            if not self._named[name]:
                del self._named[name]

    def remove(self, host: Host, forget: bool) -> None:
        """It is away; forgotten, it is not even expected to come back."""
        host.present = False
        if forget:
            self._take_out(host)
            del self.hosts[host.id]
        elif host.group is not None:
            host.group.refresh(host)
            host.group.reach.clear()
        self._totals = None
        self.version += 1

    @property
    def totals(self) -> Totals:
        if self._totals is None:
            live = [host for host in self.hosts.values() if host.live]
            sizes = [size for host in self.hosts.values() for size in host.memory.values()]
            gpus = sum(len(host.memory) for host in live)
            self._totals = Totals(len(live), gpus, max(sizes, default=1))
        return self._totals

    def sizes(self, server: str) -> Mapping[int, int]:
        """Memory of each GPU; of none where the server is not known."""
        host = self.hosts.get(server)
        return host.memory if host else {}

    def take(self, server: str, session: str, slices: tuple[Slice, ...]) -> None:
        host = self.hosts.get(server)
        if host is None:
            self.sessions.setdefault(server, {})[session] = slices
        else:
            host.take(session, slices)
            self.changed(host)

    def give_back(self, server: str, session: str) -> Optional[Host]:
        """The server, if it is known."""
        host = self.hosts.get(server)
        if host is None:
            del self.sessions[server][session]
        else:
            host.give_back(session)
            self.changed(host)
        return host

    def changed(self, host: Host) -> None:
        host.recount()
        if host.group is not None:
            host.group.refresh(host)

    # ---- who may have which

    def selector(self, conditions: tuple[Filter, ...], servers: tuple[str, ...]) -> Selector:
        selector = self._selectors.get((conditions, servers))
        if selector is None:
            if len(self._selectors) >= 2 * MAX_IDLE:
                self._drop_idle()
            selector = self._selectors[conditions, servers] = Selector(conditions, servers)
            for group in self.groups.values():
                selector.add_group(group)
            for host in self._candidates(selector):
                selector.add(host)
        return selector

    def _candidates(self, selector: Selector) -> list[Host]:
        if selector.servers:
            ids = {server for name in selector.servers for server in self._named.get(name, ())}
            return [self.hosts[server] for server in sorted(ids)]
        if selector.of_host:
            return list(self.hosts.values())
        return [host for host in self.hosts.values() if host.group is None]

    def _drop_idle(self) -> None:
        for key, selector in list(self._selectors.items()):
            if not selector.users:
                for host, _ in list(selector.singles()):
                    selector.remove(host)
                for group in selector.groups:
                    group.selectors.discard(selector)
                del self._selectors[key]

    def gpus_of(self, selector: Selector) -> int:
        """How many GPUs it may have of servers that are up."""
        if selector.everything:
            return self.totals.gpus
        chosen = ((host, gpus) for host, gpus in selector.hosts() if host.live)
        return sum(len(host.memory if gpus is None else gpus) for host, gpus in chosen)

    # ---- places

    def possible(self, selector: Selector, count: int, need: Need, live: bool) -> bool:
        """Whether it would fit if nobody else had anything (live: on servers that are up)."""
        for group in selector.groups:
            if 0 < need(group.kind.memory) <= group.kind.memory and group.widest(live) >= count:
                return True
        return any(
            host.has(gpus, count, need)
            for host, gpus in selector.singles()
            if host.live or not live
        )

    def best(
        self, selector: Selector, count: int, need: Need
    ) -> Optional[tuple[Host, tuple[Slice, ...]]]:
        """Where there is room for anybody."""
        ranks: list[Rank] = []
        for group in selector.groups:
            self._search(ranks, group, count, need, None)
        for group, part in selector.parts.items():
            if len(part) > MANY:
                self._search(ranks, group, count, need, part)
            else:
                self._look(ranks, ((host, None) for host in part.values()), count, need)
        self._look(ranks, selector.others.values(), count, need)
        if not ranks:
            return None
        host = self.hosts[min(ranks)[-1]]
        found = place(host, host.open, selector.gpus(host), count, need, self.spread)
        assert found is not None
        return host, found[1]

    def _search(
        self,
        ranks: list[Rank],
        group: Group,
        count: int,
        need: Need,
        among: Optional[Mapping[str, object]],
    ) -> None:
        size = need(group.kind.memory)
        if 0 < size <= group.kind.memory:
            rank = group.find(count, size, among)
            if rank is not None:
                ranks.append(rank)

    def _look(
        self, ranks: list[Rank], hosts: Iterable[tuple[Host, Gpus]], count: int, need: Need
    ) -> None:
        for host, gpus in hosts:
            if host.live and len(host.sorted) >= count and host.top(count) > 0:
                found = place(host, host.open, gpus, count, need, self.spread)
                if found is not None:
                    ranks.append(found[0])

    def emptiest(self, selector: Selector, count: int, need: Need) -> Optional[Host]:
        """The server that lacks the least, of those that are kept for nobody."""
        best: Optional[Lack] = None
        for group in selector.groups:
            size, memory = need(group.kind.memory), group.kind.memory
            if 0 < size <= memory:
                for _, least, left, whole, server in group.emptiest(count):
                    if self.hosts[server].fence is None:
                        row = (least + size, left + count * size, memory, whole, server)
                        best = row if best is None else min(best, row)
                        break
        for host, gpus in selector.singles():
            if host.live and host.fence is None and host.has(gpus, count, need):
                single = shortage(host, gpus, count, need, self.spread)
                best = single if best is None else min(best, single)
        return self.hosts[best[-1]] if best else None


def _emptiest_gpus(host: Host, gpus: Gpus, count: int, need: Need) -> list[tuple[int, int]]:
    """(What it lacks, negative if nothing; GPU) of the best `count` that are large enough."""
    rows = []
    for gpu in host.memory if gpus is None else gpus:
        size = need(host.memory[gpu])
        if 0 < size <= host.memory[gpu]:
            rows.append((size - host.open[gpu], gpu))
    return sorted(rows)[:count]


def shortage(host: Host, gpus: Gpus, count: int, need: Need, spread: bool) -> Lack:
    rows = _emptiest_gpus(host, gpus, count, need)
    largest = max(host.memory[gpu] for _, gpu in rows)
    whole = -host.whole if spread else 0
    return rows[-1][0], sum(lack for lack, _ in rows), largest, whole, host.id


def wanted(host: Host, gpus: Gpus, count: int, need: Need) -> dict[int, int]:
    """GPU -> bytes, of those that will be enough the soonest."""
    chosen = _emptiest_gpus(host, gpus, count, need)
    return {gpu: need(host.memory[gpu]) for _, gpu in chosen}
