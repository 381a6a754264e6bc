# SPDX-License-Identifier: Apache-2.0
"""Runs a program with GPUs: a session, a broker, the program, and all put back at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Optional

from bitfusion import __version__, inventory, log, paths
from bitfusion.client.broker import Broker
from bitfusion.client.channels import is_dead
from bitfusion.client.control import Session
from bitfusion.client.folder import LIBRARIES, RunFolder, private_base
from bitfusion.client.program import Program, has_failed
from bitfusion.wire.control import ENDS, Json

MIB = 1 << 20
ENDS_A_NAME = frozenset(" \t\n:;$")  # in LD_PRELOAD or LD_LIBRARY_PATH; nothing escapes them

Keep = Callable[[Session, str, Callable[[], Program]], int]


def environment_for(
    session_software: bool, gpus: int, socket: str, base: dict[str, str]
) -> dict[str, str]:
    """What the program sees: our libraries first, and where the broker is."""
    environment = dict(base)
    library = loadable(paths.library(paths.CLIENT_LIBRARY))
    prepend(environment, "LD_LIBRARY_PATH", os.path.dirname(library))
    environment["BITFUSION_SOCKET"] = socket
    add_presence(environment, gpus)
    if session_software:
        add_compilers(environment)
    return environment


def prepend(environment: dict[str, str], name: str, value: str) -> None:
    rest = environment.get(name, "")
    environment[name] = f"{value}:{rest}" if rest else value


def loadable(path: str) -> str:
    """The same library by a name that the dynamic loader reads as one: through a link of ours
    where it is installed below a folder such as `My Programs`.
    """
    folder, name = os.path.split(path)
    if not ENDS_A_NAME.intersection(folder):
        return path
    import hashlib

    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    link = os.path.join(private_base(), f"{LIBRARIES}{digest}")
    try:
        os.symlink(folder, link)
    except FileExistsError:
        pass  # it is the same folder's
    return os.path.join(link, name)


def add_presence(environment: dict[str, str], gpus: int) -> None:
    """Programs that look for NVIDIA's device files find as many as the run has GPUs."""
    path = os.path.join(paths.library_folder(), paths.PRESENCE_LIBRARY)
    if os.path.exists(path) and not inventory.has_nvidia_driver():
        prepend(environment, "LD_PRELOAD", loadable(path))
        environment["BITFUSION_DEVICES"] = str(gpus)


def add_compilers(environment: dict[str, str]) -> None:
    """NVIDIA's compilers and linkers make code for real GPUs; ours keep PTX for software ones."""
    path = os.path.join(paths.library_folder(), paths.SOFTGPU_COMPILERS)
    if os.path.exists(path):
        prepend(environment, "LD_PRELOAD", loadable(path))
    # What CuPy keeps there is PTX now, and would be machine code without us, under the same names.
    home = environment.get("HOME", "/")
    cache = environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    environment.setdefault("CUPY_CACHE_DIR", os.path.join(cache, "bitfusion", "cupy"))


def describe(session: Session, words: Sequence[str]) -> None:
    gpus = session.gpus
    first = gpus[0] if gpus else {}
    indexes = " ".join(str(gpu.get("index")) for gpu in gpus)
    memory = size_of(first, "memory")
    share = memory / (size_of(first, "total") or 1)
    name = session.channel.name
    log.info(
        f"Requesting GPUs [{indexes}] with {memory // MIB} MiB of memory from {name}, "
        f"with version {__version__}"
    )
    log.info(f"Locked {len(gpus)} GPUs with partial memory {share:.4g}")
    command = " ".join(words)
    log.info(
        f"Running client command '{command}' on {len(gpus)} GPUs, with the following servers:"
    )
    log.info(f"{name} {session.data_port() or '-'} {session.name} {__version__}")


def size_of(gpu: Json, key: str) -> int:
    value = gpu.get(key)
    return value if isinstance(value, int) else 0


def run_program(
    session: Session,
    path: str,
    words: Sequence[str],
    base: Optional[dict[str, str]] = None,
    keep: Optional[Keep] = None,
) -> int:
    """Returns the program's wait status, or one of ours where the session ended first.

    keep: how to look after a session on the network; a private server's ends with its connection.
    """
    describe(session, words)
    folder = RunFolder()
    try:
        environment = environment_for(
            session.software, len(session.gpus), folder.socket, dict(base or os.environ)
        )
        if keep is not None:
            status = keep(session, folder.socket, lambda: Program(path, words, environment))
        else:
            status = keep_alone(session, folder.socket, path, words, environment)
        if os.WEXITSTATUS(status) and not session.used and status >> 8 not in ENDS.values():
            from bitfusion.client import advice  # only here: few programs fail like that

            advice.tell(path, words[0])
    finally:
        folder.remove()
    return status


def keep_alone(
    session: Session, socket: str, path: str, words: Sequence[str], environment: dict[str, str]
) -> int:
    """On a private server."""
    broker = Broker(socket, session, session.channel.fileno(), lambda: lost(session))
    program = Program(path, words, environment)  # forks, so before the broker's thread starts
    broker.start()
    status = program.wait()
    broker.stop()
    if has_failed(status) and is_dead(session.channel):
        if not broker.lost:
            lost(session)
        status = ENDS["lost"] << 8
    return status


def lost(session: Session) -> None:
    log.error(f"lost {session.channel.name}: the program's GPUs are gone")
