# SPDX-License-Identifier: Apache-2.0
"""Strangers at the door: which addresses failed so often that connections of theirs which fail are
slowed, and how much of all that is logged. Pure: a clock is an argument.

Only what costs us is limited: connections, handshakes, log lines. Guessing a secret is hopeless
anyway, and who has a valid token is never kept out by others' failures, from the same address or
not.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable

from bitfusion.printable import printable

WINDOW_S = 60.0
MAX_FAILURES = 30  # of one address in a window; then it is punished until the next
MAX_ADDRESSES = 4096  # remembered; the oldest is forgotten first
MAX_LINES = 40  # logged in a window, one for each address and cause; the rest is counted
MAX_LINES_OF = 10  # of them of one address
TOO_MANY = "too many failures from this address, so those that fail are slowed"


def network_of(address: str) -> str:
    """What counts as one address: of IPv6, the network that a household is given."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Guard:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._window_s = 0.0  # when this one began
        self._failures: OrderedDict[str, int] = OrderedDict()  # by address, in this window
        self._said: set[tuple[str, str]] = set()
        self._lines: Counter[str] = Counter()  # said in this window, by address
        self._unsaid: Counter[str] = Counter()  # by cause

    def punishes(self, address: str, now_s: float) -> bool:
        """Whether this address failed too often lately."""
        self._turn(now_s)
        return self._failures.get(network_of(address), 0) >= MAX_FAILURES

    def failed(self, address: str, cause: str, now_s: float) -> None:
        """Somebody at this address broke the rules, or has no valid token."""
        self.note(address, cause, now_s)
        network = network_of(address)
        self._failures[network] = self._failures.get(network, 0) + 1
        self._failures.move_to_end(network)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        if self._failures[network] == MAX_FAILURES:
            self._say(f"{MAX_FAILURES} failures from {network}: those that fail are slowed")

    def note(self, address: str, cause: str, now_s: float) -> None:
        """Log it, once in a window; the rest is counted."""
        self._turn(now_s)
        network, cause = network_of(address), printable(cause)
        new = (network, cause) not in self._said
        if new and sum(self._lines.values()) < MAX_LINES and self._lines[network] < MAX_LINES_OF:
            self._said.add((network, cause))
            self._lines[network] += 1
            self._say(f"refused {address or 'a program of this machine'}: {cause}")
        else:
            known = cause in self._unsaid or len(self._unsaid) < MAX_LINES
            self._unsaid[cause if known else "other reasons"] += 1

    def _turn(self, now_s: float) -> None:
        if now_s - self._window_s < WINDOW_S:
            return
        for cause, count in self._unsaid.most_common(MAX_LINES):
            self._say(f"refused {count} more in the minute before: {cause}")
        self._window_s = now_s
        self._failures.clear()
        self._said.clear()
        self._lines.clear()
        self._unsaid.clear()
