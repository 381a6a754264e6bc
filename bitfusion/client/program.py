# SPDX-License-Identifier: Apache-2.0
"""The program that `run` runs: started, signalled, stopped and continued, waited for.

The program stays in our process group, so what the terminal sends (Ctrl-C, Ctrl-\\, Ctrl-Z, hang-
up) reaches it without us; such signals come from the kernel and are not forwarded again. What
another process sends to us is.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import threading
from collections.abc import Sequence
from typing import NoReturn

from bitfusion import linux
from bitfusion.errors import ProgramNotExecutable, ProgramNotFound, SystemFailure

FORWARDED = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGWINCH, signal.SIGALRM, signal.SIGTSTP, signal.SIGCONT,
)  # fmt: skip
FAULTS = (
    signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGPIPE,
)  # fmt: skip
LOOK_S = 1.0  # at the program, where no descriptor tells of its end
JOB_CONTROL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def _advice(program: str) -> str:
    """What people mean who name a program that is not there."""
    if os.path.isfile(program) and "/" not in program:
        return f"there is a file ./{program}"
    if program == "nvidia-smi":
        return "'bitfusion smi' shows the GPUs of the pool"
    if program.partition("=")[0].isidentifier() and "=" in program:
        return f"'env {program} program' runs a program with a variable"
    return ""


def find(program: str, environment: dict[str, str]) -> str:
    """The file to execute, by the rules of a shell: not found is 127, found but not executable
    126.
    """
    if "/" in program:
        candidates = [program]
    else:
        folders = environment.get("PATH", os.defpath).split(os.pathsep)
        candidates = [os.path.join(folder or ".", program) for folder in folders]
    found = ""
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        if os.path.exists(path) and not found:
            found = path
    if not found:
        raise ProgramNotFound(program=program, hint=_advice(program))
    why = "it is a folder" if os.path.isdir(found) else "permission denied"
    raise ProgramNotExecutable(program=program, why=why)


class Program:
    def __init__(self, path: str, words: Sequence[str], environment: dict[str, str]) -> None:
        """Start it; raises where exec fails."""
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # an inherited 'ignore' would lose the exit status
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._signals = linux.open_signals({signal.SIGCHLD, *FORWARDED})
        self._lock = threading.Lock()  # of a thread that ends the program, against its own end
        self._over = threading.Event()
        reader, writer = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._execute(path, words, environment, writer, parent)
        os.close(writer)
        failure = os.read(reader, 16)
        os.close(reader)
        if failure:
            os.waitpid(self.pid, 0)
            raise cannot_execute(words[0], path, int(failure))

    def _execute(
        self,
        path: str,
        words: Sequence[str],
        environment: dict[str, str],
        writer: int,
        parent: int,
    ) -> NoReturn:
        try:
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
                signal.signal(number, signal.SIG_DFL)
            linux.die_with_parent(signal.SIGKILL, parent)  # without us it has no GPU
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            os.execve(path, list(words), environment)
        except OSError as error:
            os.write(writer, str(error.errno).encode())
        finally:
            os._exit(127)

    def wait(self) -> int:
        """Forward signals until it ends; returns the wait status. Whatever wakes us, we look at
        the program too: its end is told by more than a signal, which may get lost.
        """
        poll, process = select.poll(), linux.open_process(self.pid)
        for fd in (self._signals, process):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        while True:
            status = self._look()
            if status is not None:
                break
            poll.poll(None if process >= 0 else LOOK_S * 1000)
            for info in linux.read_signals(self._signals):
                if info.number != signal.SIGCHLD:
                    self._forward(info)
        if process >= 0:
            os.close(process)
        return status

    def _forward(self, info: linux.SignalInfo) -> None:
        if not info.from_kernel and info.pid != self.pid:
            self._send(info.number)

    def end(self, patience_s: float) -> None:
        """From another thread: ask it to end, and make it end after that time."""
        for number in (signal.SIGTERM, signal.SIGCONT):
            self._send(number)
        if not self._over.wait(patience_s):
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        """Unless it was waited for, because then the pid may be another's."""
        with self._lock:
            try:
                if not self._over.is_set():
                    os.kill(self.pid, number)
            except PermissionError:
                pass  # it changed its user

    def _look(self) -> int | None:
        while True:
            with self._lock:
                pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
                if pid and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
                    self._over.set()
            if pid == 0:
                return None
            if os.WIFSTOPPED(status):
                self._stop_too(os.WSTOPSIG(status))
            elif not os.WIFCONTINUED(status):
                return status

    def _stop_too(self, number: int) -> None:
        """Let our shell see its job stopped, and go on when the shell says so."""
        if number == signal.SIGSTOP and not self._in_foreground():
            return  # somebody examines the program, and would not think of continuing us
        number = signal.SIGSTOP if number not in JOB_CONTROL else number
        before = os.getpgrp()
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {number}
        )  # stops here; a group without a shell goes on
        signal.pthread_sigmask(signal.SIG_BLOCK, {number} & set(FORWARDED))
        if os.getpgrp() == before:
            self._send(signal.SIGCONT)

    def _in_foreground(self) -> bool:
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return False
        try:
            return os.tcgetpgrp(terminal) in (os.getpgrp(), os.getpgid(self.pid))
        except OSError:
            return False
        finally:
            os.close(terminal)


NOT_EXECUTABLE = (
    errno.EACCES, errno.ENOEXEC, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENOTDIR,
)  # fmt: skip


def cannot_execute(
    program: str, path: str, number: int
) -> ProgramNotFound | ProgramNotExecutable | SystemFailure:
    """path: what was found for it."""
    if number == errno.ENOENT and os.path.exists(path):
        return ProgramNotExecutable(program=program, why=_what_lacks(path))
    if number == errno.ENOENT:
        return ProgramNotFound(program=program)
    if number in NOT_EXECUTABLE:
        why = "not a program" if number == errno.ENOEXEC else os.strerror(number).lower()
        return ProgramNotExecutable(program=program, why=why)
    return SystemFailure(what=f"run '{program}'", why=os.strerror(number).lower())


def _what_lacks(path: str) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(256).partition(b"\n")[0]
    except OSError:
        head = b""
    if head[:2] != b"#!":
        return "its dynamic linker is not there"
    interpreter = head[2:].strip(b" \t").split(b" ")[0]
    return f"its interpreter {os.fsdecode(interpreter)!r} is not there"  # it may end in \r


def has_failed(status: int) -> bool:
    """By itself, as far as one can see from outside."""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) in FAULTS
    return status != 0


def end_like(status: int) -> int:
    """Our exit status; a program that a signal killed makes us die by the same signal, as if it
    ran alone.
    """
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's own core is enough
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
