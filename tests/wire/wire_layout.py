# SPDX-License-Identifier: Apache-2.0
"""The wire as tests write and read it: what wire.h and calls.h say, once more in Python.

test_wire_layout.py holds it against the header, so that a test which passes speaks the real wire.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Dict, Tuple

ROOT = Path(__file__).resolve().parents[2]

MAGIC = b"BFWIRE\r\n"
PROTOCOL = 6
HELLO = struct.Struct("<8sIIQII")
WELCOME = struct.Struct("<8sIiQII")
COMMAND = struct.Struct("<IHHII")
REPLY_HEAD = struct.Struct("<IIIiiI")
DATA = struct.Struct("<QQ")
CALLBACK = struct.Struct("<QQQQIi")
OUTPUT = struct.Struct("<II")
FETCH = struct.Struct("<QQQII")

STRUCTS = {
    "bf_hello": HELLO,
    "bf_welcome": WELCOME,
    "bf_command": COMMAND,
    "bf_reply": REPLY_HEAD,
    "bf_data": DATA,
    "bf_callback": CALLBACK,
    "bf_output": OUTPUT,
    "bf_fetch": FETCH,
}
WANTS_REPLY, HAS_BULK = 1, 2
REPLY_KIND, DATA_KIND, CALLBACK_KIND, OUTPUT_KIND, FETCH_KIND, PROGRESS_KIND = range(6)
OPERATIONS = (
    "NONE",
    "DEVICES",
    "LAUNCH",
    "HTOD",
    "DTOH",
    "COPY3D",
    "ALLOC",
    "FREE",
    "LOAD",
    "GET_FUNCTION",
    "HOST_FUNCTION",
    "CALLBACK_DONE",
    "MEMORY_INFO",
    "GOODBYE",
    "LATE",
    "PROGRESS",
    "REFRESH",
    "KERNEL_NODE",
    "PROGRAM_NODE",
    "GRAPH_SHAPE",
)


def _calls() -> Tuple[int, Dict[str, int]]:
    text = (ROOT / "bitfusion/wire/generated/calls.h").read_text(encoding="utf-8")
    spec = re.search(r"BF_SPEC_HASH 0x([0-9a-f]+)ull", text)
    assert spec
    found = re.findall(r"BF_(cu\w+) = (\d+)", text)
    return int(spec.group(1), 16), {name: int(number) for name, number in found}


SPEC_HASH, CALLS = _calls()
