# SPDX-License-Identifier: Apache-2.0
"""Strangers at the door: how many connections an address may hold before it says who it is, what
becomes of one that fails again and again, and how much of it is logged. Pure: a clock is an
argument.

Only what costs us is limited: connections, handshakes, log lines. Guessing a secret is hopeless
anyway, and who has a valid token is never kept out by the failures of other addresses.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable

WINDOW_S = 60.0
MAX_FAILURES = 30  # of one address in a window; more, and it may not connect until the next
MAX_ADDRESSES = 4096  # remembered; the oldest is forgotten first
MAX_LINES = 20  # logged in a window, one for each address and cause; the rest is counted


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
        self._unsaid: Counter[str] = Counter()  # by cause

    def admits(self, address: str, now_s: float) -> bool:
        """Whether this address may open another connection."""
        self._turn(now_s)
        return self._failures.get(network_of(address), 0) < MAX_FAILURES

    def failed(self, address: str, cause: str, now_s: float) -> None:
        """Somebody at this address broke the rules, or has no valid token."""
        self._turn(now_s)
        network = network_of(address)
        self._failures[network] = self._failures.get(network, 0) + 1
        self._failures.move_to_end(network)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        if (network, cause) not in self._said and len(self._said) < MAX_LINES:
            self._said.add((network, cause))
            self._say(f"refused {address}: {cause}")
        else:
            known = cause in self._unsaid or len(self._unsaid) < MAX_LINES
            self._unsaid[cause if known else "other reasons"] += 1
        if self._failures[network] == MAX_FAILURES:
            self._say(f"no more connections from {network} for a minute: {MAX_FAILURES} failures")

    def _turn(self, now_s: float) -> None:
        if now_s - self._window_s < WINDOW_S:
            return
        for cause, count in self._unsaid.most_common(MAX_LINES):
            self._say(f"refused {count} more in the minute before: {cause}")
        self._window_s = now_s
        self._failures.clear()
        self._said.clear()
        self._unsaid.clear()
