# SPDX-License-Identifier: Apache-2.0
"""A worker process: one client process's end of the stream, alone with a driver, without
privileges or secrets.
"""

from __future__ import annotations

import os
import resource
import stat

from bitfusion.errors import SystemFailure
from bitfusion.server.nursery import Job

FALLBACK_USERS = ("bitfusion", "nobody")


class ExecutorWorker:
    """Serves a client with the C executor."""

    def load(self) -> None:
        from bitfusion.executor import core

        core.load()  # here, because the library may lie where only the server's user can read

    def settle(self, job: Job) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a client's data
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # the proxy applies the program's own
        os.environ.update(job.environment)
        if job.user:
            drop_privileges(job.user)

    def warm(self, job: Job) -> None:
        from bitfusion.executor import core

        core.warm(job.driver)

    def serve(self, job: Job, data: int, ledger: int) -> int:
        """Returns how the executor says it ended: 0 in good order."""
        from bitfusion.executor import core

        return core.serve(
            data, driver=job.driver, devices=job.devices, ledger_fd=ledger, slot=job.slot
        )


def pick_user(wanted: str) -> str:
    """Whom a root server's workers run as."""
    import pwd

    for name in (wanted,) if wanted else FALLBACK_USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise SystemFailure(what="drop privileges", why=f"no user '{wanted or FALLBACK_USERS[-1]}'")


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
    os.environ["HOME"] = entry.pw_dir
