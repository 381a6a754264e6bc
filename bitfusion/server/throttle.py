# SPDX-License-Identifier: Apache-2.0
"""How often a costly thing may be done for strangers: a few at once, then so many a second, of one
network and of all. What was done for somebody known is given back. Pure: a clock is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MAX_NETWORKS = 4096  # remembered; who comes back after that begins anew


class Bucket(NamedTuple):
    left: float
    at_s: float


class Throttle:
    def __init__(self, burst_of: int, rate_of: float, burst: int, rate: float) -> None:
        """At once and a second; _of: of one network."""
        self._burst_of, self._rate_of = burst_of, rate_of
        self._burst, self._rate = burst, rate
        self._all = Bucket(burst, 0.0)
        self._of: OrderedDict[str, Bucket] = OrderedDict()  # the one used last is the last

    def take(self, network: str, now_s: float) -> bool:
        """Whether it may be done now; then it counts."""
        own = fill(self._of.get(network, Bucket(self._burst_of, now_s)), self._rate_of, now_s)
        own = own._replace(left=min(self._burst_of, own.left))
        every = fill(self._all, self._rate, now_s)
        self._all = every._replace(left=min(self._burst, every.left))
        may = own.left >= 1 and self._all.left >= 1
        if may:
            own = own._replace(left=own.left - 1)
            self._all = self._all._replace(left=self._all.left - 1)
        self._of[network] = own
        self._of.move_to_end(network)
        if len(self._of) > MAX_NETWORKS:
            self._of.popitem(last=False)
        return may

    def give_back(self, network: str) -> None:
        self._all = self._all._replace(left=self._all.left + 1)
        own = self._of.get(network)
        if own is not None:
            self._of[network] = own._replace(left=own.left + 1)


def fill(bucket: Bucket, rate: float, now_s: float) -> Bucket:
    return Bucket(bucket.left + max(0.0, now_s - bucket.at_s) * rate, now_s)
