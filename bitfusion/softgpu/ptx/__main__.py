# SPDX-License-Identifier: Apache-2.0
"""``python3 -m bitfusion.softgpu.ptx FILE``: show what the front end makes of a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .dump import show_module
from .frontend import read_image
from .ir import PtxError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m bitfusion.softgpu.ptx",
        description="List kernels, parameters and variables of PTX text or of a fat binary.",
    )
    parser.add_argument("file", type=Path, help="PTX, fatbin or cubin")
    parser.add_argument("-d", "--dump", action="store_true", help="also the instructions")
    arguments = parser.parse_args()
    try:
        module = read_image(arguments.file.read_bytes())
    except (OSError, PtxError) as error:
        print(f"ptx: {error}", file=sys.stderr)
        return 1
    try:
        for line in show_module(module, arguments.dump):
            print(line)
    except BrokenPipeError:
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
