# SPDX-License-Identifier: Apache-2.0
"""The helper process and the cache, as the driver meets them."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

import pytest
from ptx_fatbins import container, entry, ptx

from bitfusion.softgpu.engine.generated import SG_IMAGE_VERSION
from bitfusion.softgpu.ptx import cache as cache_module
from bitfusion.softgpu.ptx.cache import Cache, Key, digest, find_folder, key_of

ROOT = Path(__file__).resolve().parents[2]
MAGIC = 0x50545831
# The encoder is the engine's; this stand-in makes an image that tests can look into.
STAND_IN = """
import os, sys, types
encode = types.ModuleType("bitfusion.softgpu.engine.encode")
def encode_module(module):
    if "defect" in module.functions:
        raise RuntimeError("as bad as it gets")
    return ("image of " + " ".join(module.functions)).encode()
encode.encode_module = encode_module
sys.modules["bitfusion.softgpu.engine.encode"] = encode
from bitfusion.softgpu.ptx import helper
os._exit(helper.main())
"""


class Helper:
    """A running helper and our ends of its pipes."""

    def __init__(
        self,
        environment: Optional[Dict[str, str]] = None,
        real: bool = False,
        code: str = STAND_IN,
        root: Path = ROOT,
    ) -> None:
        request_read, self.request = os.pipe()
        self.reply, reply_write = os.pipe()
        command = ["-m", "bitfusion.softgpu.ptx.helper"] if real else ["-c", code, str(root)]
        moves = f'exec {sys.executable} "$@" 3<&{request_read} 4>&{reply_write}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", moves, "bash", *command],
            pass_fds=(request_read, reply_write),
            env={**os.environ, "PYTHONPATH": str(root), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(request_read)
        os.close(reply_write)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.request, data) :]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = os.read(self.reply, size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def receive(self) -> Tuple[int, str, bytes]:
        magic, status, text_size, zero, size = struct.unpack("<IiIIQ", self._read(24))
        assert (magic, zero) == (MAGIC, 0)
        text = self._read(text_size).decode()
        return status, text, self._read(size)

    def ask(self, request: bytes) -> Tuple[int, str, bytes]:
        self.send(request)
        return self.receive()

    def close(self) -> Tuple[int, bytes]:
        """Hang up; returns the exit status and what it printed. What it says of a failure is shown
        beside that of the test.
        """
        for descriptor in (self.request, self.reply):
            os.close(descriptor)
        out, said = self.process.communicate(timeout=100)
        sys.stderr.write(said.decode("utf-8", "replace"))
        return self.process.returncode, out


def compile_request(image: bytes, key: Optional[Key] = None) -> bytes:
    packed = key.pack() if key else b""
    head = struct.pack("<IIII", MAGIC, 1, 1, 1 if key else 0)
    return head + packed + struct.pack("<Q", len(image)) + image


def link_request(images: List[Tuple[bytes, int, str]]) -> bytes:
    request = struct.pack("<IIII", MAGIC, 2, len(images), 0)
    for data, kind, name in images:
        encoded = name.encode()
        request += struct.pack("<Q", len(data)) + data
        request += struct.pack("<II", kind, len(encoded)) + encoded
    return request


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    running = Helper({"BITFUSION_CACHE": str(tmp_path / "cache")})
    yield running
    status, printed = running.close()
    assert (status, printed) == (0, b"")


# ---------------------------------------------------------------- protocol


def test_requests_are_answered_in_order(helper: Helper) -> None:
    requests = [compile_request(ptx(name=f"k{i}")) for i in range(5)]
    helper.send(b"".join(requests))
    for i in range(5):
        assert helper.receive() == (0, "", f"image of k{i}".encode())


def test_containers_and_links(helper: Helper) -> None:
    fatbin = container([entry(1, 75, ptx("sm_75", "old")), entry(1, 90, ptx("sm_90", "new"))])
    assert helper.ask(compile_request(fatbin)) == (0, "", b"image of new")
    images = [(ptx(name="a") + b"\0", 1, "a.ptx"), (fatbin, 2, "f"), (ptx(name="b"), 1, "")]
    assert helper.ask(link_request(images)) == (0, "", b"image of a new b")


def test_failures_have_a_status_and_one_line(helper: Helper) -> None:
    for image, expected, part in (
        (b"\x7fELF" + bytes(60), 209, "machine code"),
        (b"\xff\xfe\x00", 200, "neither PTX"),
        (b"hello world", 218, "line 1:"),
        (b".version 99.0", 222, "not supported"),
        (b"", 200, "neither PTX"),
        (ptx(name="defect"), 999, "as bad as it gets"),
    ):
        status, text, data = helper.ask(compile_request(image))
        assert (status, data) == (expected, b"")
        assert part in text
        assert "\n" not in text
    assert helper.ask(link_request([]))[0] == 218
    twice = [(ptx(), 1, "one"), (ptx(), 1, "two")]
    status, text, _ = helper.ask(link_request(twice))
    assert status == 218
    assert "'k' is defined twice, the second time in 'two'" in text
    assert helper.ask(compile_request(ptx())) == (0, "", b"image of k")


@pytest.mark.parametrize(
    "request_bytes",
    [
        struct.pack("<IIII", 0x12345678, 1, 1, 0),
        struct.pack("<IIII", MAGIC, 3, 1, 0),
        struct.pack("<IIII", MAGIC, 1, 2, 0),
        struct.pack("<IIII", MAGIC, 2, 1 << 20, 0),
        struct.pack("<IIII", MAGIC, 1, 1, 0x80),
        struct.pack("<IIIIQ", MAGIC, 1, 1, 0, 1 << 62),
    ],
)
def test_what_is_no_request_ends_the_helper(request_bytes: bytes) -> None:
    running = Helper()
    running.send(request_bytes)
    with pytest.raises(EOFError):
        running.receive()
    assert running.close() == (1, b"")


@pytest.mark.parametrize("length", [0, 7, 16, 20, 30])
def test_hanging_up_ends_the_helper_at_any_point(length: int) -> None:
    running = Helper()
    running.send(compile_request(ptx())[:length])
    assert running.close() == (0, b"")


def at_work(work: str, seconds: int = 1) -> Helper:
    """A helper whose encoder says so and does this first; with limits of a test's size."""
    limits = f"from bitfusion.softgpu.ptx import bounds\nbounds.MAX_SECONDS = {seconds}\n"
    limits += "bounds.LEAST_MEMORY = bounds.MOST_MEMORY = 1 << 28\nos._exit("
    code = STAND_IN.replace("os._exit(", limits)
    code = code.replace("    if ", f"    os.write(1, b'!')\n    {work}\n    if ", 1)
    return Helper(code="import re\n" + code)


ENDLESS = 're.match("(a|a)*b", "a" * 60)'


def test_hanging_up_ends_the_helper_in_its_work() -> None:
    running = at_work(ENDLESS, 100)
    running.send(compile_request(ptx()))
    assert running.process.stdout and running.process.stdout.read(1) == b"!"
    assert running.close()[0] == 0


def test_a_late_signal_of_the_request_itself_is_no_hanging_up() -> None:
    running = at_work("os.kill(os.getpid(), %d)" % signal.SIGIO)
    assert running.ask(compile_request(ptx())) == (0, "", b"image of k")
    assert running.close()[0] == 0


@pytest.mark.parametrize(
    "work, status, why", [(ENDLESS, 218, "than 1 s"), ("'x' * (1 << 30)", 2, "than 256 MiB")]
)
def test_a_request_may_not_take_everything(work: str, status: int, why: str) -> None:
    running = at_work(work)
    answer = running.ask(compile_request(ptx()))
    assert (answer[0], answer[2]) == (status, b"") and why in answer[1]
    assert ".version" in running.ask(compile_request(b"no PTX"))[1]  # it goes on
    assert running.close()[0] == 0


def test_an_interrupt_is_not_for_the_helper(helper: Helper) -> None:
    assert helper.ask(compile_request(ptx()))[0] == 0
    helper.process.send_signal(signal.SIGINT)
    assert helper.ask(compile_request(ptx()))[0] == 0


def test_the_real_encoder() -> None:
    running = Helper({"BITFUSION_CACHE": "off"}, real=True)
    status, text, image = running.ask(compile_request(ptx()))
    assert (status, text) == (0, "")
    assert len(image) > 16
    assert running.close() == (0, b"")


# ---------------------------------------------------------------- cache


def _wait_for(path: Path) -> bytes:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_bytes()


def test_the_helper_fills_the_cache(helper: Helper, tmp_path: Path) -> None:
    image = ptx()
    key = key_of(image, SG_IMAGE_VERSION)
    assert helper.ask(compile_request(image, key)) == (0, "", b"image of k")
    data = _wait_for(tmp_path / "cache" / f"{key.digest.hex()[:32]}.sgi")
    expected = b"SGCACHE2" + key.pack() + struct.pack("<Q", 10) + digest(b"image of k")
    assert data == expected + b"image of k"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    bad = key_of(b"bad", SG_IMAGE_VERSION)
    assert helper.ask(compile_request(b"bad", bad))[0] == 218
    assert helper.ask(compile_request(ptx(name="other")))[0] == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_driver_of_another_build_is_told_so(helper: Helper, tmp_path: Path) -> None:
    image = ptx()
    key = key_of(image, SG_IMAGE_VERSION ^ 1)
    status, text, data = helper.ask(compile_request(image, key))
    assert (status, data) == (221, b"")
    assert "of different builds, run `make`" in text and "\n" not in text
    assert helper.ask(compile_request(image))[0] == 0
    assert not (tmp_path / "cache").exists()


def test_the_header_for_the_driver_says_the_same() -> None:
    text = (ROOT / "bitfusion/softgpu/ptx/cache.h").read_text()
    assert f'SG_CACHE_MAGIC "{cache_module.MAGIC.decode()}"' in text
    assert f'SG_CACHE_SUFFIX "{cache_module.SUFFIX}"' in text
    assert f"SG_CACHE_NAME_BYTES = {cache_module.NAME_BYTES} " in text
    assert text.count(f"digest[{cache_module.DIGEST_BYTES}];") == 2


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"BITFUSION_CACHE": "off", "HOME": "/h"}, None),
        ({"BITFUSION_CACHE": "", "HOME": "/h"}, None),
        ({"BITFUSION_CACHE": "/c", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/bitfusion/ptx"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache/bitfusion/ptx"),
        ({"HOME": "/h"}, "/h/.cache/bitfusion/ptx"),
        ({}, None),
    ],
)
def test_where_the_cache_is(environment: Dict[str, str], folder: Optional[str]) -> None:
    assert find_folder(environment) == folder


def some_key(n: int) -> Key:
    return Key(1, bytes([n]) + bytes(31))


def test_a_cache_that_cannot_be_written_is_no_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    key = some_key(3)
    assert not Cache(str(file)).store(key, b"image")
    assert not Cache(str(file / "below")).store(key, b"image")
    assert not Cache(None).store(key, b"image")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert not Cache(str(shared)).store(key, b"image")
    assert list(shared.iterdir()) == []


def test_only_the_same_key_is_a_hit(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "c"))
    key = some_key(3)
    assert cache.load(key) is None
    assert cache.store(key, b"image")
    assert cache.load(key) == b"image"
    same_name = Key(1, key.digest[:31] + b"x")
    for other in (Key(9, key.digest), some_key(9), same_name):
        assert cache.load(other) is None
    assert same_name.file_name == key.file_name
    path = tmp_path / "c" / key.file_name
    whole = path.read_bytes()
    for torn in (whole[:-1], whole + b"e", whole[:-1] + b"E", bytes(len(whole)), b""):
        path.write_bytes(torn)
        assert cache.load(key) is None


def test_the_oldest_go_first(tmp_path: Path) -> None:
    room = 5 * 1088
    cache = Cache(str(tmp_path), max_bytes=room)
    for i in range(8):
        assert cache.store(some_key(i), bytes(1000))
        os.utime(tmp_path / some_key(i).file_name, (i, i))
    os.utime(tmp_path / some_key(0).file_name, (100, 100))
    stale, fresh = tmp_path / ".1-1.tmp", tmp_path / ".1-2.tmp"
    for file in (stale, fresh):
        file.write_bytes(b"")
    os.utime(stale, (1, 1))
    again = Cache(str(tmp_path), max_bytes=room)
    assert again.store(some_key(99), bytes(1000))
    again.close()
    left = sorted(int(p.name[:2], 16) for p in tmp_path.glob("*.sgi"))
    assert left == [0, 5, 6, 7, 99]
    assert not stale.exists()
    assert fresh.exists()
    assert not again.store(some_key(50), bytes(6000))


def test_many_writers_and_readers(tmp_path: Path) -> None:
    """A reader sees a whole image or none, whoever writes and evicts meanwhile."""
    images = {n: bytes([n]) * (500 + n) for n in range(12)}
    torn: List[int] = []
    done = threading.Event()

    def write(seed: int) -> None:
        cache = Cache(str(tmp_path / "c"), max_bytes=4000)
        for turn in range(40):
            n = (turn * 7 + seed) % 12
            cache.store(some_key(n), images[n])
            cache.close()  # evicts in every turn

    def read() -> None:
        cache = Cache(str(tmp_path / "c"))
        while not done.is_set():
            for n, image in images.items():
                if cache.load(some_key(n)) not in (None, image):
                    torn.append(n)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not torn
    assert not list((tmp_path / "c").glob(".*.tmp"))


def test_what_is_kept_is_kept_soon(tmp_path: Path) -> None:
    """The next run of a program may begin at once: no large module is imported for it."""
    code = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        from bitfusion.softgpu.ptx import helper
        from bitfusion.softgpu.ptx.key import Key
        print(helper._open_cache().store(Key(1, bytes(32)), b"image"), *sys.modules)
    """
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    env = {"BITFUSION_CACHE": str(tmp_path / "c")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    said, *names = done.stdout.split()
    assert said == "True"
    assert not {"hashlib", "_hashlib", "logging", "pathlib", "shutil", "tempfile"} & set(names)
    assert len(list((tmp_path / "c").iterdir())) == 1


def test_a_helper_imports_no_large_module_while_it_starts() -> None:
    """A program's first launch waits for the start; inspect alone would double it."""
    code = """if True:
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from bitfusion.softgpu.ptx import helper
        ends = os.pipe()
        os.close(ends[1])
        try:
            helper.serve(ends[0], 1)
        except helper.EndOfRequests:
            print(*sys.modules)
    """
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "bitfusion.softgpu.ptx.parser" in names  # nothing is left for the first request
    large = {"argparse", "ast", "dataclasses", "dis", "inspect", "json", "logging", "pathlib"}
    assert not large & set(names)
