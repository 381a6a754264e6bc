# SPDX-License-Identifier: Apache-2.0
"""What Linux offers and Python 3.9 does not: signalfd, prctl, memfd, credentials of a Unix
socket's peer.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
SIOCGIFADDR = 0x8915
SFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
SIGINFO_SIZE = 128
# Why accept() fails although somebody waits; the listener stays readable, so pause before another.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class SignalInfo(NamedTuple):
    number: int
    code: int
    pid: int

    @property
    def from_kernel(self) -> bool:
        """Made by the kernel (a terminal's key, a hang-up), so for the whole foreground group."""
        return self.code > 0


def die_with_parent(signal_number: int, parent: int) -> None:
    """Ask for a signal when the parent ends; to be repeated after a change of user, which clears
    it.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal_number)


def outlive_parent() -> None:
    """Take `die_with_parent` back."""
    _libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def offer_to_oom_killer(score: int) -> None:
    """When memory runs out, have the kernel take this process rather than one of a lower score."""
    path = "/proc/self/oom_score_adj"
    try:
        with open(path) as file:
            now = int(file.read())
        if now < score:
            with open(path, "w") as file:
                file.write(str(score))
    except OSError:  # no /proc, or a sandbox that has it read-only: as it was
        pass


PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION = (
    0x20080522  # the third: two words of 32 each for effective, permitted, inheritable
)
CAP_SETGID, CAP_SETUID = 6, 7


def set_dumpable(may: bool) -> None:
    """Whether the kernel may write this process's memory to a file, and others of our user may
    look into it. A change of user and the start of a program set it anew.
    """
    _libc.prctl(PR_SET_DUMPABLE, int(may), 0, 0, 0)


def no_new_privileges() -> None:
    """For good, and for all that this process starts: no program makes it another user."""
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def may_change_user() -> bool:
    """Whether we may become any user, as root may, and a service that was given just this."""
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return all(effective >> capability & 1 for capability in (CAP_SETGID, CAP_SETUID))


def drop_capabilities() -> None:
    """For good. A change of user does it only for who was root."""
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    if _libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def set_process_name(name: str) -> None:
    """The name that ps and top show; the kernel keeps 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def open_signals(numbers: Iterable[int], blocking: bool = False) -> int:
    """Block these signals and return a descriptor that tells of them instead."""
    numbers = set(numbers)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    mask = 0
    for number in numbers:
        mask |= 1 << (number - 1)
    sigset = (ctypes.c_ubyte * 128).from_buffer_copy(mask.to_bytes(128, "little"))
    flags = 0o2000000 if blocking else SFD_NONBLOCK_CLOEXEC
    fd: int = _libc.signalfd(-1, ctypes.byref(sigset), flags)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def read_signals(fd: int) -> list[SignalInfo]:
    """The signals that have come; empty when there are none on a non-blocking descriptor."""
    try:
        data = os.read(fd, 16 * SIGINFO_SIZE)
    except BlockingIOError:
        return []
    found = []
    for start in range(0, len(data), SIGINFO_SIZE):
        number, _errno, code, pid = struct.unpack_from("=IiiI", data, start)
        found.append(SignalInfo(number, code, pid))
    return found


def start_thread(thread: threading.Thread) -> None:
    """With all signals blocked: they are for the main thread, whatever the kernel would choose.
    One that a thread took would be lost to a descriptor that tells of signals.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def open_process(pid: int) -> int:
    """A descriptor that is readable once this child has ended; -1 where there is no such thing
    (Linux before 5.3, or a Python built for one).
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def close_all_but(wanted: Iterable[int]) -> None:
    """Close every descriptor above 2 except these."""
    keep = set(wanted)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the one that listed the folder


def silence(fds: Iterable[int]) -> None:
    """Let these descriptors read nothing and write nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)


def open_standard_descriptors() -> None:
    """Fill closed ones of 0, 1, 2, so that no socket of ours lands there; not inherited."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def wait_for_end(pid: int, patience_s: float) -> bool:
    """Wait for a child and reap it; False when it has not ended in time."""
    deadline, nap_s = time.monotonic() + patience_s, 0.0005
    fd = open_process(pid)
    if fd >= 0:  # else naps have to do
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(patience_s * 1000)
        os.close(fd)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(nap_s)
        nap_s = min(2 * nap_s, 0.02)
    return True


ELSEWHERE = (  # of documentation's networks: nobody's, so the default route leads there
    (socket.AF_INET, "192.0.2.1"),
    (socket.AF_INET6, "2001:db8::1"),
)


def own_address() -> str:
    """The address that other machines see of this one: of its default route, else its first
    interface's beside loopback; empty without any. Nothing is sent.
    """
    for family, where in ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((where, 9))
                return str(sock.getsockname()[0])
        except OSError:
            continue  # no way there
    return _first_address()


def _first_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _index, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("40s", name.encode()))
            except OSError:
                continue  # it has none
            address = socket.inet_ntoa(answer[20:24])
            if not address.startswith("127."):
                return address
    return ""


PROBES = 6  # in the time after which a machine counts as vanished


def keep_alive(sock: socket.socket, patience_s: float = 30) -> None:
    """Notice that the other machine vanished, but for no outage that is shorter than this; send
    small things at once.

    A process that is stopped does not count as vanished: its kernel answers for it.
    """
    if sock.family != socket.AF_UNIX:
        # The last answer came so long before the outage at most, and then so many are missed.
        interval_s = max(1, int(patience_s / PROBES))
        probes = max(1, math.ceil(patience_s / interval_s))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)


def keep_descriptor_alive(fd: int, patience_s: float) -> None:
    """The same for a connection whose socket somebody else has; nothing for what is no socket."""
    try:
        copy = os.dup(fd)
    except OSError:
        return
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return
    with sock:
        keep_alive(sock, patience_s)


def raise_open_files(wanted: int) -> int:
    """Let this process have that many descriptors, or as many as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return wanted if soft == resource.RLIM_INFINITY else soft


def give_up_sending(sock: socket.socket, patience_s: float) -> None:
    """Notice a vanished machine also while something is on its way to it. Only for connections
    that carry little: one whose other end leaves data unread for so long is ended as well.
    """
    if sock.family != socket.AF_UNIX:
        timeout_ms = int(patience_s * 1000 * (1 + 1 / PROBES))  # since the last answer
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def give_up_receiving(sock: socket.socket, patience_s: float) -> None:
    """Let no receipt wait longer. It goes with the descriptor, to whoever gets that."""
    limit = struct.pack("ll", int(patience_s), int(patience_s % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def network_place() -> str:
    """Name this boot of this machine and our network namespace: abstract Unix sockets of one name
    are the same one for all who read the same here. "" where /proc does not tell.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.stat("/proc/self/ns/net")
    except OSError:
        return ""
    return f"{boot} {namespace.st_dev}:{namespace.st_ino}"


def expect_owner(sock: socket.socket, uid: int) -> None:
    """Raise PermissionError unless a process of this user listens at a Unix socket's other end."""
    owner = peer_credentials(sock)[1]
    if owner != uid:
        raise PermissionError(errno.EPERM, f"user {owner} listens there, not user {uid}")


def process_fields(pid: int) -> list[str]:
    """What /proc/PID/stat says behind the process's name, which may hold anything: from its state
    on. [] of one that is gone.
    """
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """0 where it is gone."""
    fields = process_fields(pid)
    return int(fields[1]) if fields else 0


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process at the other end of a Unix socket."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("=iII", data)
    return pid, uid, gid
