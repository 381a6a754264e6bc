# SPDX-License-Identifier: Apache-2.0
"""Why an ask can never be met, in words that name the limit, the filter or the size. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitfusion.quantity import format_mib, plural
from bitfusion.server.caller import Limits
from bitfusion.server.capacity import Host
from bitfusion.server.fleet import Fleet, Gpus
from bitfusion.server.waiting import Waiter

MAX_LISTED = 8  # of somebody's words
DRAINED, DOWN = "drained", "down"
LIMIT = "limit"  # of its client, which holds or is next to get as much as that allows


def too_much(fleet: Fleet, waiter: Waiter, limits: Limits) -> str:
    """'' where it can be met, if not now."""
    ask = waiter.ask
    who = f"client '{ask.client}' may hold at most"
    if limits.gpus and ask.gpus > limits.gpus:
        return f"{who} {plural(limits.gpus, 'GPU')} at once, and this is {ask.gpus}"
    if not fleet.possible(waiter.selector, ask.gpus, waiter.need, live=False):
        return _no_place(fleet, waiter)
    if limits.memory and least_memory(fleet, waiter) > limits.memory:
        least = format_mib(least_memory(fleet, waiter))
        return f"{who} {format_mib(limits.memory)} at once, and this is {least}"
    return ""


def away(waiter: Waiter) -> str:
    """Of one that could be met, but by no server that is up: what the servers for it are."""
    passing = [host for host, _ in waiter.selector.hosts()]
    return DRAINED if any(host.present and host.view.drained for host in passing) else DOWN


def _no_place(fleet: Fleet, waiter: Waiter) -> str:
    ask, selector = waiter.ask, waiter.selector
    if not any(host.memory for host in fleet.hosts.values()):
        return "the pool has no GPU"
    passing = list(selector.hosts())
    if not passing:
        return _nothing_passes(fleet, waiter)
    such = "" if not ask.filters and not ask.servers else " that it may have"
    most = max(_count(host, gpus) for host, gpus in passing)
    if most < ask.gpus:
        return f"no server has more than {plural(most, 'GPU')}{such}"
    size = max(size for host, gpus in passing for size in _sizes(host, gpus))
    need = waiter.need(size)
    if need > size:
        return f"the largest GPU{such} has {format_mib(size)}"
    if need <= 0:
        return f"{ask.fraction} of the largest GPU{such} is not a byte"
    asked = f"{format_mib(ask.memory)}" if ask.memory else f"{ask.fraction} of their memory"
    return f"no server has {plural(ask.gpus, 'GPU')}{such} with {asked}"


def _nothing_passes(fleet: Fleet, waiter: Waiter) -> str:
    ask = waiter.ask
    if ask.servers and not list(fleet.selector((), ask.servers).hosts()):
        return f"the pool has no server {listed(ask.servers)}"
    for condition in ask.filters:
        if not list(fleet.selector((condition,), ()).hosts()):
            return f"no GPU of the pool passes '{condition}'"
    shown = listed(ask.filters)
    if ask.servers:
        return f"no GPU of the servers asked for passes {shown}"
    return f"no GPU of the pool passes all of {shown}"


def listed(words: Sequence[object]) -> str:
    """For one line: the first few."""
    shown = ", ".join(f"'{word}'" for word in words[:MAX_LISTED])
    more = len(words) - MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _count(host: Host, gpus: Gpus) -> int:
    return len(host.memory if gpus is None else gpus)


def _sizes(host: Host, gpus: Gpus) -> Iterator[int]:
    for gpu in host.memory if gpus is None else gpus:
        yield host.memory[gpu]


def least_memory(fleet: Fleet, waiter: Waiter) -> int:
    """Bytes on all its GPUs, where that is the least."""
    if waiter.ask.memory:
        return waiter.ask.memory * waiter.ask.gpus
    found = []
    for group in waiter.selector.groups:
        need = waiter.need(group.kind.memory)
        if need and group.widest(live=False) >= waiter.ask.gpus:
            found.append(need * waiter.ask.gpus)
    for host, gpus in waiter.selector.singles():
        needs = sorted(need for size in _sizes(host, gpus) if (need := waiter.need(size)))
        if len(needs) >= waiter.ask.gpus:
            found.append(sum(needs[: waiter.ask.gpus]))
    return min(found, default=0)
