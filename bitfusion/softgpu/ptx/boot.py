# SPDX-License-Identifier: Apache-2.0
"""How a helper begins: with the whole compiler from one file, where there is one that fits.

The first launch of a program may wait for this. Finding forty modules, and compiling their regular
expressions, takes longer than Python itself takes to start; so the first helper leaves what it
has found behind (startup.py), beside the compiled modules or, where those may not be written, in
the cache's folder. The file fits when this Python made it and no source of it has changed since:
the rule for compiled modules. Nothing is imported here that is not part of Python itself.
"""

import gc
import sys
from marshal import loads
from posix import (
    O_CLOEXEC,
    O_NOFOLLOW,
    O_RDONLY,
    _exit,
    close,
    environ,
    fstat,
    geteuid,
    open,
    read,
    stat,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

    Stamp = Tuple[int, int]
    Module = Tuple[str, str, bool, CodeType]  # name, file, is it a package, its code

FORMAT = 2
PACKAGE = __file__.rpartition("/")[0]
ROOT = PACKAGE.rpartition("/bitfusion/softgpu/")[0]
# Named as compiled modules are, for whatever removes these.
NAME = f"helper.{sys.implementation.cache_tag}.opt-start.pyc"
MAX_BYTES = 16 << 20

# What compiling gave: of sources that are made at run time, and of regular expressions (regex.py).
CODE: "Dict[str, CodeType]" = {}
PATTERNS: "Dict[Tuple[object, int], Any]" = {}
# What was found in the tables of forms (../engine/lower.py).
MATCHED: "Dict[Tuple[str, Tuple[str, ...]], Optional[Tuple[str, ...]]]" = {}


def find_folder(environment: "Mapping[str, str]") -> "Optional[str]":
    """Say where the cache is by the environment, None for no cache."""
    chosen = environment.get("BITFUSION_CACHE")
    if chosen is not None:
        return None if chosen in ("", "off") else chosen
    base = environment.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        home = environment.get("HOME", "")
        if not home.startswith("/"):
            return None
        base = home.rstrip("/") + "/.cache"
    return base.rstrip("/") + "/bitfusion/ptx"


def environment() -> "Dict[str, str]":
    """What counts for the cache's folder; ``os.environ`` would be an import."""
    names = ("BITFUSION_CACHE", "XDG_CACHE_HOME", "HOME")
    found = {name: environ.get(name.encode()) for name in names}
    return {
        name: v.decode("utf-8", "surrogateescape") for name, v in found.items() if v is not None
    }


def by_pip() -> bool:
    """Is the package a wheel's? It has the libraries in it."""
    try:
        stat(f"{ROOT}/bitfusion/lib")
    except OSError:
        return False
    return True


def places() -> "Iterator[str]":
    if not by_pip():  # which removes nothing but what it wrote
        yield f"{PACKAGE}/__pycache__/{NAME}"
    folder = find_folder(environment())
    if folder is not None:
        yield f"{folder}/{NAME}"


def stamp(path: str) -> "Stamp":
    status = stat(path)
    return status.st_mtime_ns, status.st_size


def _read(path: str) -> bytes:
    """Give a file's content, if nobody could write it who may not write the sources."""
    descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    try:
        status = fstat(descriptor)
        owners = (geteuid(), stat(__file__).st_uid)
        if status.st_uid not in owners or status.st_mode & 0o22 or status.st_size > MAX_BYTES:
            return b""
        data = read(descriptor, status.st_size)
        return data if len(data) == status.st_size else b""
    finally:
        close(descriptor)


def split(data: bytes) -> "Tuple[Dict[str, Any], memoryview]":
    """Give the head of a file, whose size is before it, and what its modules are made of. That is
    the most of a file, so it is not copied.
    """
    view = memoryview(data)
    end = 8 + int.from_bytes(view[:8], "little")
    return loads(view[8:end]), view[end:]


def kept(path: str) -> "Optional[Dict[str, Any]]":
    """Give what a helper left in a file, if it still fits."""
    try:
        found, modules = split(_read(path))
        mine = found["format"], found["python"], found["root"]
        if mine != (FORMAT, sys.version, ROOT):
            return None
        for source, its in found["sources"].items():
            if stamp(source) != its:
                return None
        found["modules"] = loads(modules)
    except (OSError, ValueError, TypeError, EOFError, KeyError):
        return None
    return found


def _run(module: "Module") -> None:
    name, path, is_package, code = module
    made = type(sys)(name)
    spec = type(sys.__spec__)(name, None, origin=path, is_package=is_package)
    made.__file__, made.__spec__ = path, spec
    made.__package__ = spec.parent
    if is_package:
        spec.submodule_search_locations = made.__path__ = [path.rpartition("/")[0]]
    sys.modules[name] = made
    exec(code, made.__dict__)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, made)


class Typing(type(sys)):  # type: ignore[misc]
    """Stands for ``typing`` while our modules are imported, which only name types in it.

    The real one, with ``re`` and all that this needs, takes as long to import as all of them.
    """

    def __init__(self) -> None:
        super().__init__("typing")
        self.TYPE_CHECKING = False

    def __getattr__(self, name: str) -> "Typing":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _key: object) -> "Typing":
        return self

    def __enter__(self) -> None:
        if "typing" not in sys.modules:
            sys.modules["typing"] = self

    def __exit__(self, *_error: object) -> None:
        if sys.modules["typing"] is self:
            del sys.modules["typing"]


def load() -> bool:
    """Import the compiler; says whether it came from one file."""
    with Typing():
        for found in filter(None, map(kept, places())):
            CODE.update(found["code"])
            PATTERNS.update(found["patterns"])
            MATCHED.update(found["matched"])
            for module in found["modules"]:
                if module[0] not in sys.modules:
                    _run(module)
            return True
        from . import helper

        helper.load()
    return False


def run() -> None:
    gc.disable()  # what is made here stays
    is_kept = load()
    from . import helper

    status = helper.main()
    if not is_kept:
        from . import startup

        startup.write()
    _exit(status)  # takes nothing apart: some ms less
