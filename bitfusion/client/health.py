# SPDX-License-Identifier: Apache-2.0
"""What a client finds out about itself and about its way to a server."""

from __future__ import annotations

import os
import socket
import statistics
import struct
import time
from typing import Optional

from bitfusion.client import channels, control
from bitfusion.errors import BitfusionError, reason
from bitfusion.health import (
    FAIL,
    LEVELS,
    MARGINAL,
    PASS,
    WARNING,
    Check,
    grade,
    locked_memory,
    open_files,
)
from bitfusion.quantity import seconds_of
from bitfusion.wire.control import Json

NEEDED_FILES = 4096
ROUNDS = 20
GOOD_RTT_S, USABLE_RTT_S = 50e-6, 500e-6
GOOD_MTU, GOOD_MBIT = 9000, 10_000
SKEW_S, WRONG_CLOCK_S = 5.0, 60.0
# Places in Linux's struct tcp_info: tcpi_pmtu, tcpi_min_rtt (microseconds; since Linux 4.6).
TCP_INFO_PMTU, TCP_INFO_MIN_RTT, TCP_INFO_BYTES = 60, 148, 152


def own_checks() -> list[Check]:
    return [open_files(NEEDED_FILES), locked_memory()]


class Link:
    """The kernel's knowledge of the connection behind a channel."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=os.dup(fd))
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            self.local = str(self._socket.getsockname()[0])
        except OSError:  # not TCP, or gone
            info, self.local = b"", ""
        finally:
            self._socket.close()
        whole = len(info) >= TCP_INFO_BYTES
        self.mtu = struct.unpack_from("=I", info, TCP_INFO_PMTU)[0] if whole else 0
        self.rtt_s = struct.unpack_from("=I", info, TCP_INFO_MIN_RTT)[0] / 1e6 if whole else 0.0


def interface_of(address: str) -> str:
    """The network interface that has this address; '' where none is found."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _index, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:  # SIOCGIFADDR
                return name
    return ""


def speed_of(interface: str) -> Optional[int]:
    """Megabits a second; None where the kernel does not know."""
    try:
        with open(f"/sys/class/net/{interface}/speed") as file:
            speed = int(file.read())
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None


def round_trip(channel: channels.Channel) -> Check:
    """The kernel's figure for the network, the least: ours would count both ends' Python too, and
    its average how busy they are.
    """
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        channel.request("GET", "/v1/server")
        times.append(time.perf_counter() - started)
    network_s = Link(channel.fileno()).rtt_s
    asked_ms = statistics.median(times) * 1000
    words = f"{network_s * 1e6:.0f} us on the network, {asked_ms:.1f} ms for a request"
    advice = "every call that waits costs a round trip: use a nearer server, or a faster network"
    return grade("round trip", -network_s, -GOOD_RTT_S, -USABLE_RTT_S, words, advice)


def link(channel: channels.Channel) -> list[Check]:
    found = Link(channel.fileno())
    if found.local.startswith("127.") or found.local == "::1" or not found.local:
        return [Check("network", PASS, "the server is on this machine")]
    interface = interface_of(found.local)
    speed = speed_of(interface) if interface else None
    return [mtu(found.mtu), link_speed(speed, interface or found.local)]


def mtu(size: int) -> Check:
    advice = "use jumbo frames (MTU 9000) on both ends and the switches between"
    return grade("MTU", size, GOOD_MTU, 1400, f"{size} bytes", advice)


def link_speed(speed: Optional[int], interface: str) -> Check:
    """In megabits a second."""
    if speed is None:
        advice = "'bitfusion netperf' measures what it carries"
        return Check("link speed", MARGINAL, f"unknown ({interface})", advice)
    words, advice = f"{speed} Mbit/s ({interface})", "use a link of 10 Gbit/s or more"
    return grade("link speed", speed, GOOD_MBIT, 1000, words, advice)


def clock(theirs: object, before_s: float, after_s: float) -> Check:
    """Seconds since the epoch: what the server said, and ours around it."""
    theirs_s = seconds_of(theirs)
    if theirs_s is None:
        advice = "is it a server of this version?"
        return Check("clock", MARGINAL, "the server does not tell its time", advice)
    skew_s = max(theirs_s - after_s, before_s - theirs_s, 0.0)
    words = f"within {skew_s + after_s - before_s:.3f} s of ours"
    if skew_s < SKEW_S:
        return Check("clock", PASS, words)
    words = f"{skew_s:.0f} s away from ours"
    advice = "synchronise both machines' clocks: certificates and tokens expire by them"
    return Check("clock", FAIL if skew_s > WRONG_CLOCK_S else WARNING, words, advice)


def data_port(channel: channels.Channel, theirs: object, timeout_s: float) -> Check:
    port = control.port_of(theirs)
    if not port:
        return Check("data port", FAIL, "the server has none")
    try:
        socket.create_connection((channel.host, port), timeout_s).close()
    except OSError as error:
        advice = f"let the firewall pass TCP port {port} (the setting server.data_ports)"
        return Check("data port", FAIL, f"{port}: {reason(error)}", advice)
    return Check("data port", PASS, f"{port} is open")


def way_to(channel: channels.Channel, health: Json, asked_s: tuple[float, float]) -> list[Check]:
    """Of a server that has answered; asked_s: our time before and after."""
    checks = [clock(health.get("time"), *asked_s), round_trip(channel), *link(channel)]
    secret = isinstance(channel, channels.HttpChannel) and channel.certificate is not None
    if secret:
        checks.append(Check("control connection", PASS, "TLS"))
    else:
        advice = "use a token ('bitfusion enroll'), unless you trust the network"
        checks.append(Check("control connection", MARGINAL, "in clear text", advice))
    return checks


def data_encryption(channel: channels.Channel, theirs: object) -> Check:
    """theirs: what the server's greeting says of `encrypt`."""
    from bitfusion.client.secure import agree

    try:
        encrypted = agree(channel.access.encrypt, str(theirs or ""), channel.name)
    except BitfusionError as error:
        return Check("data encryption", FAIL, str(error), "make 'encrypt' of both agree")
    if encrypted:
        return Check("data encryption", PASS, "calls and data go by TLS")
    advice = 'set encrypt = "always" in [client], unless you trust the network'
    return Check("data encryption", MARGINAL, "calls and data go in clear text", advice)


def server_checks(answer: Json) -> list[Check]:
    """What a server says of itself, as far as it makes sense."""
    found = []
    for item in control.list_of_objects(answer.get("checks")):
        level = str(item.get("level"))
        if level in LEVELS:
            texts = (str(item.get(key, ""))[:200] for key in ("name", "found", "advice"))
            name, words, advice = texts
            found.append(Check(name, level, words, advice))
    return found


def failed(error: BitfusionError) -> Check:
    return Check("server", FAIL, str(error), error.hint)
