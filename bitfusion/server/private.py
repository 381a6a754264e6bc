# SPDX-License-Identifier: Apache-2.0
"""A private server: forked from `bitfusion run`, which costs less than starting a program, and
ended with it. The child loads what a server is made of, while the launcher prepares the program.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn, Optional

from bitfusion import linux, log, paths
from bitfusion.inventory import Inventory

if TYPE_CHECKING:
    from bitfusion.server.nursery import Worker

END_PATIENCE_S = 4.0


class PrivateServer:
    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control

    def stop(self) -> None:
        """Close our end and wait until server and workers are gone."""
        self.control.close()
        if not linux.wait_for_end(self.pid, END_PATIENCE_S):
            os.kill(self.pid, signal.SIGKILL)  # the nursery ends with it
            os.waitpid(self.pid, 0)


def start(
    inventory: Inventory, transport: str, worker: Optional[Worker] = None, ledgers: bool = True
) -> PrivateServer:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_server(inventory, transport, worker, theirs, parent, ledgers)
    theirs.close()
    return PrivateServer(pid, ours)


def _become_server(
    inventory: Inventory,
    transport: str,
    worker: Optional[Worker],
    control: socket.socket,
    parent: int,
    ledgers: bool,
) -> NoReturn:
    status = 1
    try:
        os.setsid()  # out of the terminal's reach: Ctrl-C is the program's
        linux.set_process_name("bitfusion-serve")
        linux.close_all_but({control.fileno()})
        linux.silence((0, 1))
        linux.die_with_parent(signal.SIGTERM, parent)
        log.never_wait()
        from bitfusion.server.service import Service, serve_private
        from bitfusion.server.worker import ExecutorWorker

        chosen = os.environ.get("BITFUSION_PYTHON")  # as `bitfusion softgpu` takes it
        environment = {"BITFUSION_PYTHON": chosen or sys.executable, "BITFUSION_HOME": paths.ROOT}
        service = Service(inventory, worker or ExecutorWorker(), "", environment, ledgers)
        serve_private(service, control, transport)
        status = 0
    except BaseException as error:
        log.error(f"private server: {error!r}")
        if log.level() <= log.DEBUG:
            import traceback

            traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)
