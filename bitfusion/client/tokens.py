# SPDX-License-Identifier: Apache-2.0
"""What a server says of clients' tokens, which operators' commands show and put into bundles:
taken only where it makes sense.
"""

from __future__ import annotations

from bitfusion.client.channels import Channel
from bitfusion.client.control import list_of_objects
from bitfusion.errors import NotAServer
from bitfusion.quantity import seconds_of
from bitfusion.values import check_name, parse_addresses, parse_token
from bitfusion.wire.control import Json


def described(channel: Channel, row: Json) -> Json:
    """One client."""
    try:
        check_description(row)
    except ValueError:
        raise nonsense(channel) from None
    return row


def listed(channel: Channel, answer: Json) -> list[Json]:
    return [described(channel, row) for row in list_of_objects(answer.get("tokens"))]


def made(channel: Channel, answer: Json) -> Json:
    """A client with its new token, and what else its bundle holds."""
    try:
        check_description(answer)
        token, addresses = text_of(answer, "token"), answer.get("addresses")
        if not isinstance(addresses, list):
            raise ValueError("no addresses")
        parse_addresses(",".join(map(str, addresses)))
        if not parse_token(token).startswith(f"{answer['name']}:"):
            raise ValueError("the token of another client")
        text_of(answer, "ca").encode("ascii")
    except ValueError:
        raise nonsense(channel) from None
    return answer


def nonsense(channel: Channel) -> NotAServer:
    return NotAServer(server=channel.name, why="what it says of tokens makes no sense")


def check_description(row: Json) -> None:
    """Raise ValueError unless all is there that is shown of a client."""
    check_name(text_of(row, "name"))
    text_of(row, "state")
    limits = row.get("limits")
    if not isinstance(limits, dict) or not isinstance(row.get("admin"), bool):
        raise ValueError("no limits")
    times = (*map(row.get, ("expires_s", "old_until_s")), *map(limits.get, ("time_s", "idle_s")))
    if any((seconds_of(time) or -1.0) < 0 for time in times if time != 0):
        raise ValueError("no times")
    counts = map(limits.get, ("gpus", "memory"))
    if any(not isinstance(count, int) or count < 0 for count in counts):
        raise ValueError("no numbers")


def text_of(row: Json, name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        raise ValueError(f"no {name}")
    return text
