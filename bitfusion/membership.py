# SPDX-License-Identifier: Apache-2.0
"""Why a user may not read the machine's settings, which are for a group's members."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Optional

from bitfusion.errors import NotPermitted


def refused(path: str) -> NotPermitted:
    """About a file that may not be read, or that lies in a folder that may not be entered."""
    group = group_of(path)
    user = user_name()
    if group is None:
        hint = "its owner's group may read it: are you a member, and logged in since?"
        return NotPermitted(place=path, why="permission denied", hint=hint)
    if user in group.gr_mem:
        return NotPermitted(
            place=path,
            why=f"permission denied: you are in the group '{group.gr_name}' since you logged in",
            hint="log in again",
        )
    return NotPermitted(
        place=path,
        why=f"permission denied: you are not in the group '{group.gr_name}'",
        hint=f"'sudo usermod -aG {group.gr_name} {user}', then log in again",
    )


def group_of(path: str) -> Optional[grp.struct_group]:
    """Whose members may read it; None where that would be no help."""
    for where in (path, os.path.dirname(path)):
        try:
            status = os.stat(where)
            group = grp.getgrgid(status.st_gid)
        except (OSError, KeyError):
            continue
        helps = status.st_gid != 0 and status.st_mode & 0o040
        return group if helps else None
    return None


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
