# SPDX-License-Identifier: Apache-2.0
"""What is linked against NVIDIA's compilers finds ours first, by the versions of names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from instrumented import compiler
from test_compilers import HERE, OURS
from test_driver_programs import LIBRARY, ROOT, TOOLKIT, environment

# Prints the newest architecture that its NVRTC knows, and the options that it was given.
ASKS = """
#include <stdio.h>
extern int nvrtcCompileProgram(void *, int, const char *const *);
extern int nvrtcGetNumSupportedArchs(int *);
extern int nvrtcGetSupportedArchs(int *);
extern const char *options_given(void);
void ask(const char *who)
{
	const char *options[] = { "-arch=sm_130" };
	int count, archs[9];
	nvrtcGetNumSupportedArchs(&count);
	nvrtcGetSupportedArchs(archs);
	nvrtcCompileProgram(0, 1, options);
	printf("%s knows %d, got %s\\n", who, archs[count - 1], options_given());
}
"""
# Opens libraries that ask, as Python does with its extensions.
OPENS = """
#include <dlfcn.h>
int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		((void (*)(const char *))dlsym(dlopen(argv[i], RTLD_NOW), "ask"))(argv[i]);
	return 0;
}
"""
# The names that a header makes of nvJitLinkCreate and nvJitLinkVersion.
LINKER = """
int __nvJitLinkCreate_%s(void **link, unsigned count, const char **options) { return 5; }
int nvJitLinkVersion(unsigned *major, unsigned *minor)
{
	*major = 12;
	*minor = 6;
	return 0;
}
"""
LINKS = """
#include <stdio.h>
extern int __nvJitLinkCreate_%s(void **, unsigned, const char **);
extern int nvJitLinkVersion(unsigned *, unsigned *);
int main(void)
{
	unsigned major, minor;
	void *link;
	int status = __nvJitLinkCreate_%s(&link, 0, 0);
	nvJitLinkVersion(&major, &minor);
	printf("%%d %%u.%%u\\n", status, major, minor);
	return 0;
}
"""


def make(folder: Path, name: str, source: str, *words: str) -> str:
    text = folder / f"{name}.c"
    text.write_text(source)
    command = [*compiler(), "-o", str(folder / name), str(text), f"-Wl,-rpath,{folder}", *words]
    subprocess.run(command, check=True)
    return str(folder / name)


def library(folder: Path, name: str, source: str, version: str = "", *words: str) -> str:
    """A library, all of whose symbols are of that version, as in NVIDIA's."""
    flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", *words]
    if version:
        script = folder / f"{name}.map"
        script.write_text(f"{version} {{ global: *; }};\n")
        flags.append(f"-Wl,--version-script={script}")
    return make(folder, name, source, *flags)


def said(*command: str, **extra: str) -> list[str]:
    env = {**os.environ, "LD_PRELOAD": str(OURS), **extra}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_each_finds_the_compiler_that_it_is_linked_against(tmp_path: Path) -> None:
    fake = (HERE / "fake_compiler.c").read_text()
    older = fake.replace("= 121;", "= 101;")
    names = {"libnvrtc.so.13": "13", "libnvrtc-0b1d.so": "12", "libnvrtc.so.14": "14"}
    opened = []
    for name, major in names.items():
        nvrtc = library(tmp_path, name, fake if major == "13" else older, f"libnvrtc.so.{major}")
        opened.append(library(tmp_path, f"asks-{major}", ASKS, "", nvrtc))
    opened.append(library(tmp_path, "asks-itself", ASKS + older))
    # The program's own one can be seen by all that it opens.
    program = make(tmp_path, "program", OPENS, "-Wl,--no-as-needed", opened[0], "-ldl")
    assert [line.rpartition("/")[2] for line in said(program, *opened[:3])] == [
        "asks-13 knows 130, got -arch=sm_121 ",
        "asks-12 knows 130, got -arch=sm_101 ",
        "asks-14 knows 101, got -arch=sm_130 ",
    ]
    alone = make(tmp_path, "alone", OPENS, "-ldl")
    assert said(alone, opened[3])[0].endswith("asks-itself knows 101, got -arch=sm_130 ")


@pytest.mark.parametrize(
    ("of", "version", "answer"),
    [
        ("12_0", "libnvJitLink.so.12", "0 12.6"),
        ("12_9", "libnvJitLink.so.12", "0 12.6"),
        ("13_0", "libnvJitLink.so.13", "0 12.6"),
        ("13_5", "libnvJitLink.so.13", "0 12.6"),
        ("14_0", "libnvJitLink.so.14", "5 12.6"),
    ],
)
def test_a_program_finds_the_linker_of_its_version(
    tmp_path: Path, of: str, version: str, answer: str
) -> None:
    first = version[-2:] + "_0"  # all that came after have its names too
    text = LINKER % of + (LINKER.splitlines()[1] % first if of != first else "")
    linker = library(tmp_path, version, text, version)
    program = make(tmp_path, "program", LINKS % (of, of), linker)
    assert said(program, LD_BIND_NOW="1") == [answer]


@pytest.mark.skipif(TOOLKIT is None, reason="needs NVIDIA's compilers: make cuda-programs")
def test_a_program_compiles_for_the_device(tmp_path: Path) -> None:
    assert TOOLKIT is not None
    source = (HERE / "linked_compilers.c").read_text()
    words = [f"-I{TOOLKIT / 'include'}", f"-L{TOOLKIT / 'lib'}", f"-L{LIBRARY}"]
    libraries = ["-l:libnvrtc.so.13", "-l:libnvJitLink.so.13", "-lcuda"]
    program = make(tmp_path, "program", source, *words, *libraries)
    env = environment(TOOLKIT / "lib", LD_BIND_NOW="1", BITFUSION_CACHE="off")
    command = [sys.executable, str(ROOT / "bin/bitfusion"), "softgpu", "--", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "known: 1",
        "cubin: 41",
        "PTX: 41",
        "linked: 41",
        "linked when optimised: 41",
    ]
