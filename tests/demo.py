# SPDX-License-Identifier: Apache-2.0
"""`make demo`: one CUDA program through every part of Bitfusion, told in plain words.

Runs build/programs/demo_mandelbrot through `bitfusion run --transport tcp`, with the software
GPU as the server's driver, turns its picture into build/demo.png, and looks for processes that
were left behind.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import List, Tuple

from waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PROGRAM = BUILD / "programs" / "demo_mandelbrot"
SOFTWARE_GPU = BUILD / "lib" / "softgpu" / "libcuda.so.1"


def read_pgm(path: Path) -> Tuple[int, int, bytes]:
    magic, size, _, pixels = path.read_bytes().split(b"\n", 3)
    if magic != b"P5":
        raise ValueError("not a grey picture: '%s'" % path)
    width, height = (int(word) for word in size.split())
    return width, height, pixels


def colour(count: int) -> bytes:
    """Black inside, then from deep blue over orange to white."""
    if count == 255:
        return b"\0\0\0"
    t = min(1.0, count / 60.0)
    parts = (t * 1.8 - 0.1, t * t * 1.4, 0.35 + 0.8 * t * (1 - t) * 2)
    return bytes(int(255 * min(1.0, max(0.0, part))) for part in parts)


def write_png(path: Path, width: int, height: int, pixels: bytes) -> None:
    palette = [colour(count) for count in range(256)]
    rows = (pixels[y * width : (y + 1) * width] for y in range(height))
    raw = b"".join(b"\0" + b"".join(palette[count] for count in row) for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def marked_processes(mark: str) -> List[str]:
    """Command lines of other processes that carry the mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append("%s %s" % (folder.name, command))
        except OSError:
            continue
    return found


def left_behind(mark: str) -> List[str]:
    """The same after a second's grace: a worker may still be on its way out."""
    wait_for(lambda: not marked_processes(mark), 1)
    return marked_processes(mark)


def main() -> int:
    mark = "BITFUSION_DEMO_MARK=%d.%d" % (os.getpid(), time.time_ns())
    environment = dict(os.environ, BITFUSION_DRIVER=str(SOFTWARE_GPU))
    environment.update([mark.split("=")])
    picture = BUILD / "demo.pgm"
    command = [str(ROOT / "bin" / "bitfusion"), "run", "-n", "1", "--transport", "tcp", "-v", "--"]
    command += [str(PROGRAM), str(picture)]
    print("$ bitfusion run -n 1 --transport tcp -v -- %s" % PROGRAM.relative_to(ROOT))
    print(
        "  This machine needs no GPU: the server's driver is Bitfusion's software GPU.", flush=True
    )
    start = time.monotonic()
    status = subprocess.run(command, env=environment, check=False).returncode
    seconds = time.monotonic() - start
    if status != 0:
        print("demo: the program ended with status %d" % status, file=sys.stderr)
        return 1
    write_png(BUILD / "demo.png", *read_pgm(picture))
    processes = left_behind(mark)
    print()
    print(
        "What happened: an unmodified CUDA program loaded Bitfusion's libcuda.so.1 (the client)."
    )
    print("Every driver call it made went over TCP to a server, which gave the program a worker")
    print("process; the worker made the calls on the software GPU, which ran the program's PTX on")
    print("this machine's CPU. The picture came back the same way and equals the CPU's own.")
    print("  whole run, start of the server included: %.2f s" % seconds)
    print("  picture: %s" % (BUILD / "demo.png").relative_to(ROOT))
    print("  processes left behind: %s" % (", ".join(processes) or "none"))
    return 1 if processes else 0


if __name__ == "__main__":
    sys.exit(main())
