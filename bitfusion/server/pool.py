# SPDX-License-Identifier: Apache-2.0
"""Which memory of which GPU belongs to which session. Pure: no sockets, clocks, processes.

A slice is never given twice and a GPU never more than it has: `allocate` either finds room or
raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitfusion.inventory import Gpu
from bitfusion.quantity import format_mib, part_of


class Request(NamedTuple):
    gpus: int
    fraction: str = "1"  # of each GPU's memory; ignored when memory is given
    memory: int = 0  # bytes on each GPU

    def describe(self) -> str:
        count = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}"
        return f"{count} with {format_mib(self.memory)} each" if self.memory else count


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
        """Best fit: the GPUs that are left with the least free memory, so that whole GPUs stay
        whole.
        """
        if session in self._sessions:
            raise ValueError(f"session {session} has its GPUs already")
        fitting = self._possible(request)
        free = {s.gpu: self.free(s.gpu) for s in fitting}
        room = [s for s in fitting if s.memory <= free[s.gpu]]
        if len(room) < request.gpus:
            raise InUse(f"{len(room)} of the {len(fitting)} GPUs that could have room now")
        room.sort(key=lambda s: (free[s.gpu] - s.memory, s.gpu))
        chosen = tuple(sorted(room[: request.gpus]))
        self._sessions[session] = chosen
        return chosen

    def _possible(self, request: Request) -> list[Slice]:
        """Each GPU's slice for this request, where the GPU is large enough at all."""
        if request.gpus < 1:
            raise ValueError("a session needs a GPU")
        if request.gpus > len(self.gpus):
            raise NotEnough(f"there {'is' if len(self.gpus) == 1 else 'are'} {len(self.gpus)}")
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
