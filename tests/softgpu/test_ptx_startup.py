# SPDX-License-Identifier: Apache-2.0
"""The file that helpers begin with: what it spares them, and that none begins with a wrong one."""

from __future__ import annotations

import marshal
import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Callable, List

import pytest
from ptx_fatbins import ptx
from test_driver_programs import build, environment, run
from test_engine_version import PROGRAM
from test_ptx_helper import Helper, compile_request
from waiting import wait_for

from bitfusion.softgpu.engine.generated import SG_IMAGE_VERSION
from bitfusion.softgpu.engine.version import PACKAGE
from bitfusion.softgpu.ptx import boot, record, startup

# What the driver has Python run (helper.c), and then what a test wants to see.
BEGIN = """import sys; sys.path[:] = [*filter(None, sys.path), *sys.argv[1:]]
from _frozen_importlib import module_from_spec, spec_from_loader
from _frozen_importlib_external import SourceFileLoader
name = 'bitfusion.softgpu.ptx.boot'
loader = SourceFileLoader(name, sys.argv[1] + '/bitfusion/softgpu/ptx/boot.py')
boot = sys.modules[name] = module_from_spec(spec_from_loader(name, loader))
loader.exec_module(boot); """
SHOW = "print(boot.load(), *sys.modules)"
WRITE = "print(boot.load()); from bitfusion.softgpu.ptx import startup; print(startup.write())"
LARGE = {"argparse", "ast", "collections", "contextlib", "dataclasses", "dis", "enum"}
LARGE |= {"functools", "hashlib", "inspect", "os", "pathlib", "re", "signal", "typing"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the package that no helper was started in; compiled modules save time."""
    skip = shutil.ignore_patterns(boot.NAME, "*.c", "*.h")
    shutil.copytree(PACKAGE, tmp_path / "home/bitfusion/softgpu", ignore=skip)
    shutil.copy(PACKAGE.parent / "__init__.py", tmp_path / "home/bitfusion")
    return tmp_path / "home"


def python(home: Path, code: str, **environment: str) -> List[str]:
    command = [sys.executable, "-I", "-S", "-c", BEGIN + code, str(home)]
    env = {"BITFUSION_CACHE": "off", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd="/")
    assert done.stderr == ""
    return done.stdout.split()


def kept_file(home: Path) -> Path:
    return home / "bitfusion/softgpu/ptx/__pycache__" / boot.NAME


def begins_with_it(home: Path, **environment: str) -> bool:
    return python(home, SHOW, **environment)[0] == "True"


def test_the_second_helper_begins_with_what_the_first_one_left(home: Path) -> None:
    assert python(home, WRITE) == ["False", str(kept_file(home))]
    said, *names = python(home, SHOW)
    assert said == "True"
    assert not LARGE & set(names)
    wanted = ("ptx.helper", "ptx.parser", "ptx.frontend", "ptx.key", "engine.encode")
    assert {f"bitfusion.softgpu.{name}" for name in wanted} <= set(names)
    code = "boot.load(); print(*(n for n, m in sys.modules.items() if '/bitfusion/' in"
    code += " getattr(m, '__file__', '') and m.__spec__.loader))"
    found = python(home, code)  # all else is from the one file
    assert found == ["bitfusion.softgpu.ptx.boot"]


def test_a_kernel_needs_nothing_that_the_file_has_not(home: Path) -> None:
    """Also of the file that is written when the package is installed: nobody compiled a kernel."""
    python(home, WRITE)
    code = "import posix; boot.load(); before = set(sys.modules);"
    code += "from bitfusion.softgpu.ptx import helper;"
    code += "from bitfusion.softgpu.ptx.frontend import Item;"
    code += f"status = helper.answer([Item({ptx()!r})], helper.KIND_COMPILE, posix.pipe()[0])[0];"
    code += "print(status, *set(sys.modules) - before);"
    code += "print(*(sys.modules[n].__spec__.loader for n in ('__future__', 'struct')))"
    assert python(home, code) == ["0", "None", "None"]


def test_typing_itself_is_there_for_what_comes_later(home: Path) -> None:
    code = "boot.load(); before = 'typing' in sys.modules; import typing;"
    code += "print(before, typing.List[int])"
    assert python(home, code) == ["False", "typing.List[int]"]


def test_images_are_the_same(home: Path) -> None:
    """Of the helper as the driver starts it, without and with the file."""
    request = compile_request(ptx())
    env = {"BITFUSION_CACHE": "off", "PYTHONDONTWRITEBYTECODE": ""}
    replies = []
    for _ in range(2):
        running = Helper(env, code=BEGIN + "boot.run()", root=home)
        replies.append(running.ask(request))
        assert running.close() == (0, b"")
    assert replies[0] == replies[1]
    assert replies[0][0] == 0
    assert kept_file(home).exists()


def test_expressions_are_those_that_python_makes(home: Path) -> None:
    python(home, WRITE)
    left, _ = boot.split(kept_file(home).read_bytes())
    assert len(left["patterns"]) > 15
    assert None not in left["patterns"].values()
    code = "boot.load(); found = boot.PATTERNS; from bitfusion.softgpu.ptx.regex import regex;"
    code += "made = [regex(*key) for key in found]; kept = dict(found); found.clear();"
    code += "print(made == [regex(*key) for key in kept], 're' in sys.modules)"
    assert python(home, code) == ["True", "True"]
    assert all(re.compile(*key).groups == value[2] for key, value in left["patterns"].items())


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "softgpu/__init__.py",
        "softgpu/ptx/boot.py",
        "softgpu/ptx/helper.py",
        "softgpu/ptx/parser.py",
        "softgpu/engine/lower_video.py",
        "softgpu/engine/generated/forms.py",
    ],
)
def test_a_changed_source_is_seen(name: str, home: Path) -> None:
    python(home, WRITE)
    source = home / "bitfusion" / name
    status = source.stat()
    source.write_text(source.read_text() + "\nCHANGED = 1\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not begins_with_it(home)
    assert python(home, WRITE)[0] == "False"
    assert begins_with_it(home)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not begins_with_it(home)
    source.unlink()
    assert boot.kept(str(kept_file(home))) is None


def _edit(key: str, value: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        head, modules = boot.split(path.read_bytes())
        head[key] = value
        path.write_bytes(startup.join(head, marshal.loads(modules)))

    return edit


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


@pytest.mark.parametrize(
    "spoil",
    [
        _edit("python", sys.version + "+"),
        _edit("format", boot.FORMAT + 1),
        _edit("root", "/elsewhere"),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(marshal.dumps([1])),
        lambda path: path.chmod(0o666),
        lambda path: path.chmod(0o664),
        _link,
        lambda path: path.unlink(),
    ],
)
def test_what_does_not_fit_is_passed_over(spoil: Callable[[Path], None], home: Path) -> None:
    python(home, WRITE)
    assert begins_with_it(home)
    spoil(kept_file(home))
    assert not begins_with_it(home)


def test_a_moved_package_has_no_file(home: Path) -> None:
    python(home, WRITE)
    moved = home.with_name("moved")
    home.rename(moved)
    assert not begins_with_it(moved)


def test_where_python_may_keep_nothing_the_cache_has_it(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(kept_file(home).parent, ignore_errors=True)
    kept_file(home).parent.write_text("no folder")
    cache = tmp_path / "cache"
    where = {"BITFUSION_CACHE": str(cache)}
    assert python(home, WRITE) == ["False"]
    assert python(home, WRITE, **where) == ["False", str(cache / boot.NAME)]
    assert cache.stat().st_mode & 0o777 == 0o700
    assert begins_with_it(home, **where)
    assert not begins_with_it(home)


def test_the_driver_s_helper_begins_with_it(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "load.c"
    source.write_text(PROGRAM)
    program = build("load", tmp_path, source=source)
    env = environment(BITFUSION_HOME=str(home), BITFUSION_CACHE="off")
    assert run(program, env).stdout.endswith(": CUDA_SUCCESS\n")
    assert wait_for(kept_file(home).exists)
    head, modules = boot.split(kept_file(home).read_bytes())
    said = compile(f"SG_IMAGE_VERSION = {SG_IMAGE_VERSION ^ 1}", "", "exec")
    changed = [
        (*module[:3], said) if module[0].endswith(".generated") else module
        for module in marshal.loads(modules)
    ]
    kept_file(home).write_bytes(startup.join(head, changed))
    assert "are of different builds" in run(program, env).stderr


class Ours(record.NamedTuple):
    a: int
    b: str = "x"

    def twice(self) -> int:
        return self.a * 2


class Plain(typing.NamedTuple):
    a: int
    b: str = "x"


def test_tuples_are_as_python_s() -> None:
    assert type(record.NamedTuple) is not type(typing.NamedTuple)
    assert Ours(1) == (1, "x") == Plain(1)
    assert Ours(1, b="y")._replace(a=3) == (3, "y")
    assert Ours(4).twice() == 8
    assert repr(Ours(1)) == repr(Plain(1)).replace("Plain", "Ours") == "Ours(a=1, b='x')"
    assert isinstance(Ours(1), tuple) and not hasattr(Ours(1), "__dict__")
    assert Ours._fields == Plain._fields == Ours.__match_args__
    ours: Any = Ours
    for wrong in (lambda: ours(), lambda: ours(1, "x", 2), lambda: ours(1, c=2)):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="no fields: c"):
        ours(1)._replace(c=1)
