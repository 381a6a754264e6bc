# SPDX-License-Identifier: Apache-2.0
"""bitfusion softgpu: a program directly on the software GPU, without client, server and worker."""

from __future__ import annotations

import os
import sys

from bitfusion import config, inventory, paths
from bitfusion.client import launcher, program
from bitfusion.errors import UsageError
from bitfusion.options import Parsed

USAGE = "[--gpus N] [--memory SIZE] [--] program [arguments]"
ABOUT = """\
Run a program directly on the software GPU: CUDA on this machine's processors, in the program's
own process. Useful to tell whether a fault is the software GPU's or comes from between client and
server."""
OPTIONS = (config.option("softgpu.gpus"), config.option("softgpu.memory"))
EXAMPLES = """\
examples:
  bitfusion softgpu -- ./vector_add
  bitfusion softgpu --gpus 2 --memory 512M python3 script.py"""


def run(parsed: Parsed) -> int:
    settings = config.load_without_servers(parsed)
    if not parsed.words:
        raise UsageError(verb=parsed.verb, why="which program? it is missing")
    wanted = settings.number("softgpu.gpus") or 1
    found = inventory.software(wanted, settings.number("softgpu.memory"))
    environment = {**os.environ, **found.environment}
    environment.setdefault("BITFUSION_PYTHON", sys.executable)
    environment.setdefault("BITFUSION_HOME", paths.ROOT)
    folder = os.path.dirname(launcher.loadable(found.driver))
    launcher.prepend(environment, "LD_LIBRARY_PATH", folder)
    launcher.add_presence(environment, wanted)
    launcher.add_compilers(environment)
    path = program.find(parsed.words[0], environment)
    try:
        os.execve(path, parsed.words, environment)
    except OSError as error:
        raise program.cannot_execute(parsed.words[0], path, error.errno or 0) from None
