# SPDX-License-Identifier: Apache-2.0
"""Where the parts of Bitfusion lie, in a checkout and installed. The one place that knows."""

from __future__ import annotations

import os

from bitfusion.errors import NotBuilt

PACKAGE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(PACKAGE)

CLIENT_LIBRARY = "client/libcuda.so.1"
PRESENCE_LIBRARY = "client/libbitfusion-presence.so"
EXECUTOR_LIBRARY = "server/libbfexecutor.so"
SOFTGPU_LIBRARY = "softgpu/libcuda.so.1"
SOFTGPU_COMPILERS = "softgpu/libbitfusion-compilers.so"
MACHINE_STATE = "/var/lib/bitfusion"
MAX_RUNTIME_BASE = 60  # a Unix socket's path has 107 bytes at most
WHEEL = os.path.join(PACKAGE, "lib")  # what pip installs
BUILT = os.path.join(ROOT, "build", "lib")  # what `make` builds in a checkout
PRIVATE_FOLDER = "python"  # where packages put ours, beside the libraries
INSTALLED = ("/usr/lib/bitfusion", "/usr/local/lib/bitfusion")


def command(python: str, code: str, *words: str, root: str = ROOT) -> list[str]:
    """Runs code that imports ours, and nothing that lies in the current folder or that the
    environment names, which may be others' to write to.
    """
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    return [python, "-I", "-c", start + code, root, *words]


def library_folder() -> str:
    """The folder that holds client/, server/ and softgpu/."""
    given = os.environ.get("BITFUSION_LIBDIR")
    if given:
        return os.path.abspath(given)
    beside = [os.path.dirname(ROOT)] if os.path.basename(ROOT) == PRIVATE_FOLDER else []
    for folder in (WHEEL, BUILT, *beside, *INSTALLED):
        if os.path.isdir(folder):
            return folder
    return BUILT


def library(name: str) -> str:
    """The path of one of our libraries; raises NotBuilt where it is missing."""
    path = os.path.join(library_folder(), name)
    if not os.path.exists(path):
        raise NotBuilt(path=path, why="no such file")
    return path


def executor_library() -> str:
    return library(EXECUTOR_LIBRARY)


def system_file(name: str) -> str:
    return os.path.join("/etc/bitfusion", name)


def user_file(name: str) -> str:
    return os.path.join(os.path.expanduser("~"), ".bitfusion", name)


def is_root() -> bool:
    return os.geteuid() == 0


def state_folder() -> str:
    """What a server keeps when nobody says where: the machine's, of root and of its service."""
    try:
        of_service = os.stat(MACHINE_STATE).st_uid == os.geteuid()
    except OSError:
        of_service = False
    if is_root() or of_service:
        return MACHINE_STATE
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "bitfusion")


def runtime_folder() -> str:
    """Where the folders of running commands lie; made on demand, ours alone."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = base and len(base) <= MAX_RUNTIME_BASE
    if usable and os.path.isdir(base) and os.access(base, os.W_OK):
        return os.path.join(base, "bitfusion")
    base = os.environ.get("TMPDIR") or "/tmp"
    if len(base) > MAX_RUNTIME_BASE:
        base = "/tmp"
    return os.path.join(base, f"bitfusion-{os.geteuid()}")
