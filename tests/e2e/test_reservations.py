# SPDX-License-Identifier: Apache-2.0
"""request_gpus, client, release_gpus: GPUs that are held between programs."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from bitfusion import cli
from bitfusion.client import reservation
from bitfusion.errors import NoReservation

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = str(ROOT / "build/programs/vector_add")
Bitfusion = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bitfusion(tmp_path: Path) -> Iterator[Bitfusion]:
    """Runs a command whose reservations lie in a folder of the test; all are released after it."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "BITFUSION_SERVER_LIST": ""}
    environment["XDG_RUNTIME_DIR"] = ""

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "bin/bitfusion"), *words],
            capture_output=True,
            text=True,
            timeout=100,
            env={**environment, **more},
        )

    yield run
    assert run("release_gpus", "--all").returncode == 0
    assert files(tmp_path) == []


def files(folder: Path) -> List[Path]:
    return sorted(folder.glob("bitfusion" + "[0-9]" * 9))


def held(bitfusion: Bitfusion, *words: str) -> Path:
    done = bitfusion("request_gpus", "-n", "1", *words)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.rpartition("'")[0].rpartition("'")[2])


def ended(pid: int) -> bool:
    return reservation.started_at(pid) == -1


def test_programs_one_after_the_other(bitfusion: Bitfusion, tmp_path: Path) -> None:
    done = bitfusion("request_gpus", "-n", "1", "-m", "512")
    assert done.returncode == 0 and done.stderr == ""
    (path,) = files(tmp_path)
    assert done.stdout.splitlines() == [
        "Requested resources:",
        "Server List: private server",
        f"Locked 1 GPU with 512 MiB, configuration saved to '{path}'",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pid = reservation.read(str(path)).pid
    for _ in range(2):
        done = bitfusion("client", "--", PROGRAM)
        assert done.returncode == 0, done.stderr
    assert bitfusion("client", f"{PROGRAM}").returncode == 0
    assert bitfusion("client", "--", "sh", "-c", "exit 7").returncode == 7
    assert (
        "512MiB" in bitfusion("client", sys.executable, str(ROOT / "bin/bitfusion"), "smi").stdout
    )
    assert bitfusion("release_gpus").returncode == 0
    assert ended(pid)
    done = bitfusion("client", "--", PROGRAM)
    assert done.returncode == 1 and "there is no reservation" in done.stderr


def test_two_reservations(bitfusion: Bitfusion, tmp_path: Path) -> None:
    named = tmp_path / "mine"
    held(bitfusion, "-f", str(named))
    first, second = held(bitfusion, "-p", "0.5"), held(bitfusion, "-p", "0.25")
    done = bitfusion("client", "--", PROGRAM)
    assert done.returncode == 2 and str(first) in done.stderr and str(second) in done.stderr
    for path in (named, first):
        assert bitfusion("client", "-f", str(path), "--", PROGRAM).returncode == 0
    assert bitfusion("release_gpus", "-f", str(first)).returncode == 0
    assert files(tmp_path) == [second]
    assert bitfusion("release_gpus", "-f", str(named)).returncode == 0
    assert bitfusion("request_gpus", "-n", "1", "-f", str(second)).returncode == 1


def test_a_holder_that_was_killed(bitfusion: Bitfusion, tmp_path: Path) -> None:
    path = held(bitfusion)
    os.kill(reservation.read(str(path)).pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not ended(reservation.read(str(path)).pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    for words in (("client", "-f", str(path), PROGRAM), ("client", PROGRAM), ("release_gpus",)):
        done = bitfusion(*words)
        assert done.returncode == 1, words
        assert f"'{path}': the process" in done.stderr and "was killed" in done.stderr
    done = bitfusion("client", PROGRAM)
    assert done.returncode == 1 and "there is no reservation" in done.stderr
    assert not path.exists()


def left(path: Path, why: str = "they ended: an operator ended it") -> Path:
    """The file of a reservation that was not released."""
    there = reservation.Reservation(os.getpid(), 1, "/", "/", True, 1, "gpu01", "n", why)
    reservation.write(str(path), there)
    return path


def test_why_a_reservation_ended_is_told_until_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command whose file it is, or that finds no other; the one that is held goes first."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    first, second = left(tmp_path / "bitfusion000000001"), left(tmp_path / "bitfusion000000002")
    named = left(tmp_path / "named", "they ended: its GPUs were idle for 1 minute")
    why = "they ended: an operator ended it"
    for _ in range(2):
        assert tell(capsys, "client", "true") == f"'{first}': {why}; '{second}': {why}"
        assert tell(capsys, "client", "-f", str(second), "true") == f"'{second}': {why}"
        assert "idle" in tell(capsys, "client", "-f", str(named), "true")
    assert tell(capsys, "release_gpus", "-f", str(first)) == f"'{first}': {why}"
    assert named.exists() and files(tmp_path) == [second]
    assert tell(capsys, "release_gpus") == f"'{second}': {why}"
    assert named.exists() and tell(capsys, "release_gpus") == "there is no reservation"
    left(first)
    assert cli.dispatch(["release_gpus", "--all"]) == 0 and files(tmp_path) == []


def tell(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(NoReservation) as error:
        cli.dispatch(list(words))
    return str(error.value).partition("cannot find reserved GPUs: ")[2]


def test_what_is_left_of_a_reservation_goes_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    old, new = left(tmp_path / "bitfusion000000001"), left(tmp_path / "bitfusion000000002")
    os.utime(old, (0, time.time() - reservation.LEFT_S))
    os.utime(new, (0, time.time() - reservation.LEFT_S + 100))
    held = tmp_path / "bitfusion000000003"
    started = reservation.started_at(os.getpid())
    there = reservation.Reservation(os.getpid(), started, "/", "/", True, 1, "gpu01", "n")
    reservation.write(str(held), there)
    os.utime(held, (0, 0))
    reservation.sweep()
    assert files(tmp_path) == [new, held]
    with pytest.raises(FileExistsError):
        reservation.create_named(str(held))
    reservation.create_named(str(new))
    assert new.read_text() == ""


def test_nothing_is_written_through_a_link_of_somebody_else(
    bitfusion: Bitfusion, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("mine.new", "mine.tmp"):
        (tmp_path / name).symlink_to(victim)
    path = held(bitfusion, "-f", str(tmp_path / "mine"))
    assert reservation.read(str(path)).alive() and victim.read_text() == "precious"
    assert path.stat().st_mode & 0o777 == 0o600
    assert bitfusion("release_gpus", "-f", str(path)).returncode == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.new", "mine.tmp", "victim"]


UNREADABLE = """
import json, sys
from bitfusion import cli, errors
from bitfusion.client import reservation
def read(path):
    raise errors.NoReservation(why="pid %d" % json.load(open(path))["pid"])
reservation.read = read
sys.argv[1:] = ["request_gpus", "-n", "1", "-f", sys.argv[1]]
cli.main()
"""


def test_a_reservation_that_nobody_could_release_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE, str(tmp_path / "mine")],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BITFUSION_SERVER_LIST": ""},
    )
    assert done.returncode == 1 and "pid " in done.stderr, done.stderr
    assert ended(int(done.stderr.partition("pid ")[2].split()[0]))
    assert list(tmp_path.iterdir()) == []


def test_another_process_with_the_number(bitfusion: Bitfusion, tmp_path: Path) -> None:
    """A pid that was given away again is not the holder's."""
    path = tmp_path / "bitfusion123456789"
    there = reservation.Reservation(os.getpid(), 1, "/nowhere", "/nowhere", True, 1, "s", "n")
    reservation.write(str(path), there)
    done = bitfusion("release_gpus", "-f", str(path))
    assert done.returncode == 1 and "that held its GPUs was killed" in done.stderr
    assert not path.exists()  # and so it was the last word of it


def test_a_holder_that_nobody_reaps(bitfusion: Bitfusion, tmp_path: Path) -> None:
    """Of a child that has ended, here: in a container nobody may wait for what was left behind."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    there = reservation.Reservation(pid, reservation.started_at(pid), "/", "/", True, 1, "s", "n")
    assert there.alive()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not there.alive()
    path = tmp_path / "bitfusion123456789"
    reservation.write(str(path), there)
    done = bitfusion("release_gpus", "-f", str(path))
    os.waitpid(pid, 0)
    assert done.returncode == 1 and "that held its GPUs was killed" in done.stderr


ABSURD = {"started": -1, "gpus": 1, "socket": "/", "events": "/", "ended": ""}
ABSURD = {**ABSURD, "software": True, "server": "s", "session": "n"}
NO_RESERVATIONS = [
    *("", "{}", "[1]", '{"pid": "x"}', "nonsense"),
    *(json.dumps({**ABSURD, "pid": pid}) for pid in (2**70, 2**40, 1, 99999999)),
]


@pytest.mark.parametrize("content", NO_RESERVATIONS)
def test_files_that_are_none(bitfusion: Bitfusion, tmp_path: Path, content: str) -> None:
    path = tmp_path / "other"
    path.write_text(content)
    done = bitfusion("release_gpus", "-f", str(path))
    assert done.returncode == 1 and f"'{path}' is not a reservation" in done.stderr
    assert path.read_text() == content


def test_more_than_there_is(bitfusion: Bitfusion, tmp_path: Path) -> None:
    done = bitfusion("request_gpus", "-n", "99")
    assert done.returncode == 2 and done.stdout == "" and "at most 16" in done.stderr
    assert files(tmp_path) == []
    assert bitfusion("request_gpus", "-n", "1", "word").returncode == 2
    assert bitfusion("release_gpus", "-f", "x", "--all").returncode == 2
