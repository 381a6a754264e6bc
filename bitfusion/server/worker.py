# SPDX-License-Identifier: Apache-2.0
"""A worker process: one client process's end of the stream, alone with a driver, without
privileges or secrets.
"""

from __future__ import annotations

import os
import resource
import stat
import sys

from bitfusion import linux, paths
from bitfusion.errors import SystemFailure
from bitfusion.server.nursery import Job

SYSTEM_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
PROBE_TIMEOUT_S = 30
FALLBACK_USERS = ("bitfusion-worker", "nobody")


class ExecutorWorker:
    """Serves a client with the C executor."""

    def load(self) -> None:
        from bitfusion.executor import core

        load_modules()
        core.load()  # here, because the library may lie where only the server's user can read

    def settle(self, job: Job) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a client's data
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # the proxy applies the program's own
        os.environ.update(job.environment)
        if job.user:
            drop_privileges(job.user)
        linux.no_new_privileges()
        linux.set_dumpable(False)  # neither for a core, nor for another client's worker

    def warm(self, job: Job) -> None:
        from bitfusion.executor import core

        core.warm(job.driver)

    def serve(self, job: Job, data: int, ledger: int) -> int:
        """Returns how the executor says it ended: 0 in good order."""
        from bitfusion.executor import core

        return core.serve(
            data,
            driver=job.driver,
            devices=job.devices,
            ledger_fd=ledger,
            slot=job.slot,
            log_fd=-1 if job.silent else 2,
            host_memory=job.host_memory,
            software=job.software,
        )


def load_modules() -> None:
    """The kernel's for GPUs, as NVIDIA's driver does with a program that is root for whoever
    starts it: a worker can start none such.
    """
    import subprocess

    if os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/nvidia-uvm"):
        try:
            subprocess.run(
                ["nvidia-modprobe", "-c", "0", "-u"], timeout=PROBE_TIMEOUT_S, capture_output=True
            )
        except (OSError, subprocess.TimeoutExpired):
            pass  # the driver says what is missing


def pick_user(wanted: str) -> str:
    """Whom the workers run as of a server that may choose."""
    import pwd

    for name in (wanted,) if wanted else FALLBACK_USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise SystemFailure(what="drop privileges", why=f"no user '{wanted or FALLBACK_USERS[-1]}'")


def pick_python(user: str, root: str) -> str:
    """A Python that this user may run, with our package, for the software GPU's compiler."""
    import pwd
    import subprocess

    entry = pwd.getpwnam(user)
    for python in (sys.executable, *SYSTEM_PYTHONS):
        command = paths.command(python, "import bitfusion.softgpu.ptx.helper", root=root)
        try:
            done = subprocess.run(
                command,
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
                cwd="/",
                env={},
                capture_output=True,
                timeout=PROBE_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python
    raise SystemFailure(
        what=f"let user '{user}' run the software GPU's compiler",
        why=f"it may not run '{sys.executable}', or not read '{root}'",
        hint="install both where everybody may read them, or set worker_user in [server]",
    )


def gpu_groups() -> list[int]:
    """Groups that a GPU's device files are restricted to; empty where everybody may open them."""
    groups = set()
    for folder in ("/dev", "/dev/dri"):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.startswith(("nvidia", "renderD")):
                status = os.stat(os.path.join(folder, name))
                if stat.S_ISCHR(status.st_mode) and not status.st_mode & stat.S_IWOTH:
                    groups.add(status.st_gid)
    return sorted(groups - {0})


def drop_privileges(user: str) -> None:
    import pwd

    entry = pwd.getpwnam(user)
    os.setgroups(gpu_groups())
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    linux.drop_capabilities()
    os.environ["HOME"] = entry.pw_dir
