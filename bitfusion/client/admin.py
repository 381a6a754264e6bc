# SPDX-License-Identifier: Apache-2.0
"""How operators' commands reach a server: its admin socket; else, where no server runs on this
machine, its state; else, where this machine has no server at all, a server of the network by a
token with the right.
"""

from __future__ import annotations

import os
import socket
from typing import Optional

from bitfusion import config, log, paths
from bitfusion.client.access import access
from bitfusion.client.channels import Channel, HttpChannel, LineChannel
from bitfusion.client.control import explain, greet
from bitfusion.config import Config
from bitfusion.errors import BitfusionError, NoServer, NotRunning, SystemFailure, reason
from bitfusion.server.keys import Keys
from bitfusion.server.state import ADMIN, StateFolder
from bitfusion.wire.control import Json

HERE = "localhost"


def open_service(timeout_s: float) -> Optional[Channel]:
    """To the server that runs on this machine; None where none does, or it is not ours to ask."""
    try:
        folder = StateFolder.existing(config.load_server(None).text("server.state_dir"))
        return _running(folder, timeout_s)
    except FileNotFoundError:
        return None
    except BitfusionError as error:
        log.info(f"this machine's server is not asked: {error}")
        return None


def open_admin(
    server: Config, client: Config, offline: bool = True, network: bool = True
) -> Channel:
    """Raises NoServer where there is none to ask. offline: the state will do, where none runs.
    network: so will a server on another machine.
    """
    timeout_s = client.seconds("client.timeout")
    path = server.text("server.state_dir")
    try:
        folder: Optional[StateFolder] = StateFolder.existing(path)
    except FileNotFoundError:
        folder = None
    if folder is not None:
        running = _running(folder, timeout_s)
        if running is not None:
            return running
        if offline and Keys(folder).exist():
            from bitfusion.server.offline import OfflineChannel

            return OfflineChannel(folder, server)
    for address in client.addresses("client.server_list") if network else ():
        channel = HttpChannel(address, config.format_address(address), timeout_s, access(client))
        greet(channel)
        return channel
    if folder is not None and not offline:
        raise NotRunning(folder=path)
    if path != paths.MACHINE_STATE and os.path.isdir(paths.MACHINE_STATE):
        hint = f"this machine's is in '{paths.MACHINE_STATE}': ask it with sudo"
        raise NoServer(folder=path, hint=hint)
    raise NoServer(folder=path)


def _running(folder: StateFolder, timeout_s: float) -> Optional[Channel]:
    try:
        return LineChannel(folder.connect(ADMIN, socket.SOCK_STREAM, timeout_s), timeout_s, HERE)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise SystemFailure(what="reach the server of this machine", why=reason(error)) from None


def ask(channel: Channel, method: str, path: str, body: Optional[Json] = None) -> Json:
    reply = channel.request(method, path, body)
    if reply.status >= 300:
        raise explain(channel, reply, path)
    return reply.body
