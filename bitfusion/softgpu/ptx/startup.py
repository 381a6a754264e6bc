# SPDX-License-Identifier: Apache-2.0
"""Writes the file that helpers begin with (boot.py).

``python3 -m bitfusion.softgpu.ptx.startup`` does it for who installs the package.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import SourceFileLoader
from itertools import islice
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from . import boot

if TYPE_CHECKING:
    from .boot import Module, Stamp

# What begins a helper before there is a file to begin with, and what only the end of one needs.
_OUTSIDE = [f"bitfusion.softgpu.ptx.{name}" for name in ("boot", "startup", "cache")]
# Modules of Python's own that all need: looking for these takes longer than running them.
_STANDARD = ("__future__", "struct")
_MOST_MATCHED = 1000  # reading these takes its time, too


def _modules() -> Tuple[List[Module], Dict[str, Stamp]]:
    """All modules that it takes, each behind those that it imports; and their sources.

    Python moves a module to the end of ``sys.modules`` when its import is done.
    """
    modules: List[Module] = []
    sources: Dict[str, Stamp] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "bitfusion" and name not in _STANDARD:
            continue
        loader = module.__spec__.loader if module.__spec__ else None
        if not isinstance(loader, SourceFileLoader):
            continue
        before = boot.stamp(loader.path)
        code = loader.get_code(name)
        if code is None or boot.stamp(loader.path) != before:
            raise ValueError(f"'{loader.path}' changes")
        sources[loader.path] = before
        is_package = hasattr(module, "__path__")
        if name not in _OUTSIDE:
            modules.append((name, loader.path, is_package, code))
    return modules, sources


def _arguments(text: Any, flags: int) -> Optional[Tuple[Any, ...]]:
    """What the engine of ``re`` is given for an expression. That is Python's own affair, so it is
    compared with what Python makes, and left to Python where it differs.
    """
    import re

    try:
        if sys.version_info >= (3, 11):
            from re import _compiler as compiler  # type: ignore[attr-defined]
            from re import _parser as parser  # type: ignore[attr-defined]
        else:
            import sre_compile as compiler
            import sre_parse as parser
        from _sre import compile as make  # type: ignore[import-not-found]

        parsed = parser.parse(text, flags)
        state = parsed.state
        names: List[Optional[str]] = [None] * state.groups
        for name, number in state.groupdict.items():
            names[number] = name
        code = [int(word) for word in vars(compiler)["_code"](parsed, flags)]  # or a subclass
        made = (
            int(flags | state.flags),
            code,
            state.groups - 1,
            dict(state.groupdict),
            tuple(names),
        )
        return made if make(text, *made) == re.compile(text, flags) else None
    except (ImportError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _content() -> bytes:
    modules, sources = _modules()
    patterns = {key: _arguments(*key) for key in boot.PATTERNS}
    head = {
        "format": boot.FORMAT,
        "python": sys.version,
        "root": boot.ROOT,
        "sources": sources,
        "patterns": patterns,
        "code": boot.CODE,
        "matched": dict(islice(boot.MATCHED.items(), _MOST_MATCHED)),
    }
    return join(head, modules)


def join(head: Dict[str, Any], modules: List[Module]) -> bytes:
    """What boot.split() takes apart. The modules are one object: what they share is read once."""
    first = marshal.dumps(head)
    return len(first).to_bytes(8, "little") + first + marshal.dumps(modules)


def _write(path: str, data: bytes) -> bool:
    """Readers see a whole file or none."""
    temporary = f"{path}.{os.getpid()}.tmp"
    mode = os.stat(boot.__file__).st_mode & 0o644 | 0o200
    try:
        mine = 0o777 if path.startswith(boot.PACKAGE) else 0o700
        os.makedirs(os.path.dirname(path), mode=mine, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(temporary, flags, mode), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        return False
    return True


def write() -> str:
    """Write it to the first place that can be written; gives the path, or nothing."""
    try:
        data = _content()
    except (OSError, ValueError):
        return ""
    places = list(boot.places())
    if sys.dont_write_bytecode:
        places = [path for path in places if not path.startswith(boot.PACKAGE)]
    return next(filter(lambda path: _write(path, data), places), "")


def main() -> int:
    from . import helper

    helper.load()
    path = write()
    print(
        path or "startup: there is no place to write to", file=sys.stdout if path else sys.stderr
    )
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
