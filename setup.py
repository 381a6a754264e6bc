# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: the libraries inside a wheel, its platform, archives whose bytes
depend on their contents only.

`make wheel` names libraries that are built already and the machine they are for; `pip install .`
and `pip install bitfusion-*.tar.gz` build them here, with a C compiler or ziglang's.
"""

import gzip
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = os.path.dirname(os.path.abspath(__file__))
PARTS = ("client", "server", "softgpu")
ONLY_FOR_TESTS = "libsoftgpu-engine.so"
LINK = "libcuda.so"  # a link where we build, for which the wheel has a library in wheel/
LIBRARIES = os.environ.get("BITFUSION_LIBRARIES", "")
MACHINE = os.environ.get("BITFUSION_MACHINE", "")  # of LIBRARIES, which `make release` built
ZIG = "ziglang==0.14.1"
COMPILERS = ("cc", "gcc", "clang")

os.umask(0o022)  # modes in archives are not the builder's


def compiler() -> str:
    """What make may use; "" where the system has none."""
    return os.environ.get("CC") or next((name for name in COMPILERS if shutil.which(name)), "")


def build_libraries(folder: str) -> str:
    """Build them by make; says where they are."""
    command = compiler() or f"{sys.executable} -m ziglang cc"
    if not shutil.which("make"):
        sys.exit("bitfusion: cannot build its libraries: there is no make")
    out = os.path.abspath(folder)
    # NEEDS_ZIG: pip has put ziglang where sys.executable finds it.
    words = [f"OUT={out}", f"CC={command}", "NEEDS_ZIG="]
    subprocess.run(["make", "-C", HERE, "libs", *words], check=True)
    return os.path.join(out, "lib")


class BuildPy(build_py):
    """The package, and the libraries in it: bitfusion/lib/client and its like."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # a checkout's libraries are those of its last `make`
        source = LIBRARIES or build_libraries(os.path.join(self.build_lib, "..", "libraries"))
        for part in PARTS:
            target = os.path.join(self.build_lib, "bitfusion", "lib", part)
            shutil.rmtree(target, ignore_errors=True)
            os.makedirs(target)
            for name in sorted(os.listdir(os.path.join(source, part))):
                folder = "wheel" if name == LINK else part
                if name != ONLY_FOR_TESTS:
                    shutil.copyfile(os.path.join(source, folder, name), os.path.join(target, name))
                    os.chmod(os.path.join(target, name), 0o755)


class Wheel(bdist_wheel):
    """For any Python 3 and one kind of machine."""

    def get_tag(self) -> "tuple[str, str, str]":
        if MACHINE:
            return "py3", "none", f"manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}"
        return "py3", "none", sysconfig.get_platform().replace("-", "_").replace(".", "_")


class Sdist(sdist):
    """In an order, with times and owners that do not depend on who packs it."""

    def make_archive(self, base_name: str, format: str, **where: object) -> str:
        if format != "gztar":
            raise SystemExit(f"bitfusion: cannot make an archive of format {format}: only gztar")
        name, epoch = base_name + ".tar.gz", int(os.environ.get("SOURCE_DATE_EPOCH", "0"))

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            entry.mtime = epoch or entry.mtime
            return entry

        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, mtime=epoch) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(str(where["base_dir"]), filter=plain)  # adds in the order of names
        return name


class Binary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=Binary,
    cmdclass={"build_py": BuildPy, "bdist_wheel": Wheel, "sdist": Sdist},
    setup_requires=[] if compiler() or LIBRARIES else [ZIG],
)
