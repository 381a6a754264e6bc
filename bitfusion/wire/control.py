# SPDX-License-Identifier: Apache-2.0
"""What launcher, proxy and server say around the command stream. Pure: bytes and values.

Three small languages: requests of the control plane (over HTTP, or as lines to a private server),
the ticket that opens a data connection, and the broker's answer to a proxy (struct layouts known
to the proxy's C code).
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple, Optional, Union

PROTOCOL = 6  # of the command stream and of the control plane; BF_PROTOCOL in wire.h

# ------------------------------------------ control plane

MAX_BODY = 64 << 10
SECRET_HEADER = "Session-Secret"
CLEAR_TEXT = "clear-text"  # kind of the failure that a server of TLS tells others
MAX_ABOUT = 255  # characters of each thing that a launcher says about itself, as a host's name has
NO_ROOM = "it has no room for another connection now"
MAX_WAIT_S = 30.0  # for an answer that comes when something happens

MAX_DIGITS, MOST = 20, 2.0**64  # of numbers: all of ours are far less
MAX_DEPTH = 32  # of values in values: whoever prints one has less room than who reads it
MAX_NAME = 64  # of a session, or a place in the queue

Json = dict[str, object]


def speaks(protocol: int, calls: str) -> str:
    """What both ends of a connection must have the same, in words."""
    return f"protocol {protocol}, calls {calls[:8] or 'unknown'}"


class Call(NamedTuple):
    method: str
    path: str
    body: Json
    authorization: str = ""  # how its caller proves who it is
    secret: str = ""  # of the session that it is about


class Reply(NamedTuple):
    status: int
    body: Json


def failure(status: int, kind: str, text: str) -> Reply:
    return Reply(status, {"error": {"kind": kind, "text": text}})


def pack_line(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _number(text: str) -> float:
    value = float(text)
    if not -MOST <= value <= MOST:
        raise ValueError(f"a number of {text[:24]}")
    return value


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def unpack_object(data: bytes) -> Json:
    """A JSON object whose numbers are ones; ValueError for anything else."""
    try:
        value = json.loads(data, parse_float=_number, parse_int=_whole, parse_constant=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Json) -> None:
    level: list[Union[Json, list[object]]] = [value]
    for _ in range(MAX_DEPTH):
        parts = (item.values() if isinstance(item, dict) else item for item in level)
        level = [part for some in parts for part in some if isinstance(part, (dict, list))]
    if level:
        raise ValueError("nested too deeply")


def is_name(text: str) -> bool:
    """Whether it can be the name of a session or of a place in the queue: it goes into paths of
    requests.
    """
    return 0 < len(text) <= MAX_NAME and text.isascii() and text.replace("-", "").isalnum()


# ------------------------------------------ why a session ends

# Our exit statuses, by why: those of shells for programs that cannot run are 126 and above.
ENDS = {"killed": 122, "revoked": 122, "drained": 122, "idle": 123, "time": 124, "lost": 125}

THIS = "this"  # stands for the ID of the server that is asked

# ------------------------------------------ tickets

TICKET_PREFIX = b"BITFUSION/1 TICKET "
MAX_TICKET_LINE = 128
OK = b"OK\n"
MAX_ANSWER = 256


def pack_ticket(ticket: str) -> bytes:
    return TICKET_PREFIX + ticket.encode() + b"\n"


def unpack_ticket(line: bytes) -> Optional[str]:
    """The ticket of a whole line, without its newline; None when the line is anything else."""
    ticket = line[len(TICKET_PREFIX) :]
    if not line.startswith(TICKET_PREFIX) or not ticket.isalnum():
        return None
    return ticket.decode()


# ------------------------------------------ broker

BROKER_MAGIC = b"BFBROKR\0"
BROKER_VERSION = 1
BROKER_CONNECT = 1
BROKER_REQUEST = struct.Struct("<8sIIII")  # magic, version, operation, pid, flags
BROKER_COLD = 1  # flag: the program's environment matters to a driver's start, so no spare worker
BROKER_ANSWER = struct.Struct(
    "<8sIiII"
)  # magic, version, CUresult, transport, size of the text that follows
TRANSPORT_TCP, TRANSPORT_UNIX = 1, 2
CUDA_SUCCESS = 0
CUDA_ERROR_SYSTEM_NOT_READY = 802


def unpack_broker_request(data: bytes) -> tuple[int, int]:
    """pid and flags of a request; ValueError when it is not one."""
    magic, version, operation, pid, flags = BROKER_REQUEST.unpack(data)
    if magic != BROKER_MAGIC:
        raise ValueError("not a request to the broker")
    if version != BROKER_VERSION or operation != BROKER_CONNECT:
        raise ValueError(f"the library speaks version {version} of the broker's protocol, not 1")
    return int(pid), int(flags)


def pack_broker_answer(status: int, transport: int, text: str) -> bytes:
    data = text.encode()[:1000]
    return BROKER_ANSWER.pack(BROKER_MAGIC, BROKER_VERSION, status, transport, len(data)) + data


# ------------------------------------------ addresses of Unix sockets in JSON


def unix_address(name: str) -> str:
    """'@name' stands for an abstract socket, which leaves no file behind."""
    return "\0" + name[1:] if name.startswith("@") else name
