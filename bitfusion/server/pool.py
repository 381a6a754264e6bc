# SPDX-License-Identifier: Apache-2.0
"""Which memory of which GPU belongs to which session. Pure: no sockets, clocks, processes.

A slice is never given twice and a GPU never more than it has: `allocate` either finds room or
raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitfusion.inventory import Gpu
from bitfusion.quantity import format_mib, parse_fraction, part_of


class Request(NamedTuple):
    gpus: int
    fraction: str = "1"  # of each GPU's memory; ignored when memory is given
    memory: int = 0  # bytes on each GPU

    def describe_free(self) -> str:
        """What a GPU must have, to have room."""
        if self.memory:
            return f"has {format_mib(self.memory)} free"
        numerator, denominator = parse_fraction(self.fraction)
        return "is all free" if numerator == denominator else f"is {self.fraction} free"


class Slice(NamedTuple):
    gpu: int  # index in the server's inventory
    memory: int  # bytes


class NotEnough(Exception):
    """More than the pool has, whoever is using it."""


class InUse(Exception):
    """The pool has it, but not free now."""


class Pool:
    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self.gpus = tuple(gpus)
        self._sessions: dict[str, tuple[Slice, ...]] = {}

    @property
    def sessions(self) -> Mapping[str, tuple[Slice, ...]]:
        return self._sessions

    def free(self, index: int) -> int:
        return self.gpus[index].memory - self.used(index)

    def used(self, index: int) -> int:
        return sum(s.memory for held in self._sessions.values() for s in held if s.gpu == index)

    def allocate(self, session: str, request: Request) -> tuple[Slice, ...]:
        chosen = self.choose(request)
        self.hold(session, chosen)
        return chosen

    def choose(self, request: Request) -> tuple[Slice, ...]:
        """Best fit: the GPUs that are left with the least free memory, so that whole GPUs stay
        whole.
        """
        fitting = self._possible(request)
        free = {s.gpu: self.free(s.gpu) for s in fitting}
        room = [s for s in fitting if s.memory <= free[s.gpu]]
        if len(room) < request.gpus:
            some = f"only {len(room)} of {len(self.gpus)} GPUs" if room else "no GPU"
            raise InUse(f"{some} {request.describe_free()} now")
        room.sort(key=lambda s: (free[s.gpu] - s.memory, s.gpu))
        return tuple(sorted(room[: request.gpus]))

    def hold(self, session: str, slices: Sequence[Slice]) -> None:
        """Give it exactly these; raises InUse where they are not all free."""
        if session in self._sessions:
            raise ValueError(f"session {session} has its GPUs already")
        indexes = {s.gpu for s in slices}
        if not slices or len(indexes) < len(slices):
            raise ValueError("a session's slices are of different GPUs")
        for s in slices:
            if not 0 <= s.gpu < len(self.gpus):
                raise InUse(f"there is no GPU {s.gpu}")
            if not 0 < s.memory <= self.free(s.gpu):
                raise InUse(f"GPU {s.gpu} has only {format_mib(self.free(s.gpu))} free")
        self._sessions[session] = tuple(slices)

    def _possible(self, request: Request) -> list[Slice]:
        """Each GPU's slice for this request, where the GPU is large enough at all."""
        if request.gpus < 1:
            raise ValueError("a session needs a GPU")
        if request.gpus > len(self.gpus):
            only_one = len(self.gpus) == 1
            raise NotEnough("there is 1 GPU" if only_one else f"there are {len(self.gpus)} GPUs")
        slices = [
            Slice(index, request.memory or part_of(gpu.memory, request.fraction))
            for index, gpu in enumerate(self.gpus)
        ]
        possible = [s for s in slices if 0 < s.memory <= self.gpus[s.gpu].memory]
        if len(possible) < request.gpus:
            largest = max(gpu.memory for gpu in self.gpus)
            raise NotEnough(f"the largest GPU has {format_mib(largest)}")
        return possible

    def release(self, session: str) -> None:
        self._sessions.pop(session, None)
