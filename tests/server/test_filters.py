# SPDX-License-Identifier: Apache-2.0
"""Filters: what they match, and one clear line for a bad one."""

from __future__ import annotations

import pytest

from bitfusion.server.filters import KEYS, bound, match, parse
from bitfusion.server.views import GpuView, ServerView

V100 = GpuView(0, "Tesla V100-PCIE-16GB", 16160 << 20, "GPU-5a3b1c77-0001")
A100 = GpuView(3, "NVIDIA A100-SXM4-40GB", 40960 << 20, "GPU-77aa0000-0002")
L40S = GpuView(11, "NVIDIA L40S", 46068 << 20, "GPU-0c0c0c0c-0003")
SERVER = ServerView(
    "0123456789abcdef",
    "bf-server.example.com",
    ("10.117.32.177:56001", "[fd00::7]:56001"),
    (V100, A100, L40S),
    "11.2",
    "460.73.01",
    True,
)
UNKNOWN = SERVER._replace(cuda_version="", driver_version="", rdma=False)


@pytest.mark.parametrize(
    "text",
    [
        "server.addr=10.117.32.177",
        "server.addr=10.117.32.177:56001",
        "server.addr=10.117.*",
        "server.addr=fd00::7",
        "server.addr=[fd00::7]",
        "server.addr=[fd00::7]:56001",
        "server.addr!=10.117.32.17",
        "server.hostname=bf-server",
        "server.hostname=BF-Server.example.com",
        "server.hostname=bf-*",
        "server.hostname!=bf",
        "server.has-rdma=true",
        "server.has-rdma!=no",
        "server.cuda-version=11.2",
        "server.cuda-version==11.2.0",
        "server.cuda-version>=9.1",
        "server.cuda-version < 11.10",
        "server.driver-version=460.73.1",
        "server.driver-version<=460.73.01",
        "server.driver-version>460.73",
        "server.driver-version!=460.73.2",
        "device.id=0",
        "device.id<1",
        "device.name=Tesla",
        "device.name=v100",
        "device.name=tesla v100-pcie",
        "device.name=*16GB",
        "device.name!=V10",
        "device.name!=10",
        "device.phy-memory=16160",
        "device.phy-memory>=15G",
        "device.phy-memory<16161",
        "device.uuid=gpu-5a3b",
        "device.uuid=GPU-*-0001",
        " device.uuid != GPU-77 ",
    ],
)
def test_matches(text: str) -> None:
    assert match([parse(text)], SERVER, V100)
    condition = parse(text)
    assert parse(str(condition)) == condition


@pytest.mark.parametrize(
    "text",
    [
        "server.addr=10.117.32.17",
        "server.addr!=fd00::7",
        "server.hostname=bf",
        "server.hostname=example",
        "server.has-rdma=false",
        "server.cuda-version=11",
        "server.cuda-version>11.2",
        "server.cuda-version>=11.10",
        "server.driver-version<460.73.1",
        "device.id!=0",
        "device.name=Tesl",
        "device.name=A100",
        "device.name!=Tesla",
        "device.phy-memory>16160",
        "device.phy-memory=16161",
        "device.uuid=GPU-77",
    ],
)
def test_does_not_match(text: str) -> None:
    assert not match([parse(text)], SERVER, V100)


def test_quotes_that_no_shell_took_away() -> None:
    assert parse('device.name="Tesla V100"').value == "Tesla V100"
    assert parse("device.name='Tesla V100'").value == "Tesla V100"
    assert parse('device.name="Tesla').value == '"Tesla'


def test_a_model_is_not_its_longer_namesake() -> None:
    assert match([parse("device.name=L40S")], SERVER, L40S)
    assert not match([parse("device.name=L40")], SERVER, L40S)
    assert not match([parse("device.name=L4")], SERVER, L40S)
    assert match([parse("device.name=A100")], SERVER, A100)
    assert match([parse("device.name=A100-SXM4-40GB")], SERVER, A100)
    assert not match([parse("device.name=A10")], SERVER, A100)


def test_all_must_hold() -> None:
    both = [parse("device.id>=3"), parse("device.name=NVIDIA")]
    assert [match(both, SERVER, gpu) for gpu in SERVER.gpus] == [False, True, True]


def test_an_unknown_version_only_differs() -> None:
    for text in ("=11.2", "<11.2", "<=99", ">0", ">=0"):
        assert not match([parse(f"server.cuda-version{text}")], UNKNOWN, V100)
        assert not match([parse(f"server.driver-version{text}")], UNKNOWN, V100)
    assert match([parse("server.cuda-version!=11.2")], UNKNOWN, V100)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not a filter such as device.name=Tesla"),
        ("device.name", "'device.name' is not a filter such as device.name=Tesla"),
        ("device.name~Tesla", "'device.name~Tesla' is not a filter such as device.name=Tesla"),
        ("=Tesla", "'=Tesla' is not a filter such as device.name=Tesla"),
        ("device.color=red", f"'device.color' is no key of filters; they are {', '.join(KEYS)}"),
        (
            "device.name=",
            "'device.name=': 'device.name' is compared with a name or a pattern, not ''",
        ),
        ("device.name=a\nb", "'device.name=a\\nb' is not a filter such as device.name=Tesla"),
        ("device.name<Tesla", "'device.name' knows = and !=, not '<'"),
        ("server.has-rdma>=true", "'server.has-rdma' knows = and !=, not '>='"),
        (
            "server.has-rdma=maybe",
            "'server.has-rdma=maybe': 'server.has-rdma' is compared with true or false, not "
            "'maybe'",
        ),
        (
            "server.cuda-version=new",
            "'server.cuda-version=new': 'server.cuda-version' is compared with a version such as "
            "11.2, not 'new'",
        ),
        (
            "device.id=-1",
            "'device.id=-1': 'device.id' is compared with the number of a GPU, from 0, not '-1'",
        ),
        (
            "device.phy-memory>=lots",
            "'device.phy-memory>=lots': 'device.phy-memory' is compared with MiB, or a size such "
            "as 16G, not 'lots'",
        ),
    ],
)
def test_a_bad_one_is_told_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == why


def test_a_long_one_is_not_shown_whole() -> None:
    with pytest.raises(ValueError) as caught:
        parse(f"device.name={'x' * 5000}")
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x"] * 33, "33 of them, and 32 are the most"),
        (["x", "y" * 301], f"'{'y' * 40}...' has more than 300 characters"),
        (["\u00fc" * 299] * 8, "as JSON they take 14384 bytes together, and 12288 are the most"),
    ],
)
def test_too_many_words_of_an_ask(words: list[str], why: str) -> None:
    with pytest.raises(ValueError) as caught:
        bound(words, 32)
    assert str(caught.value) == why
    bound(["x" * 300] * 32, 32)
