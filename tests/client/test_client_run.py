# SPDX-License-Identifier: Apache-2.0
"""`run` with real processes and a worker in Python: ends, signals, kills, nothing left behind."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from runs import HARNESS, HERE, PROXY, leftovers, parent_of, run, start, status_of
from waiting import stop, wait_for

from bitfusion.client import advice


@pytest.mark.parametrize(("transport", "number"), [("auto", "2"), ("unix", "2"), ("tcp", "1")])
def test_a_process_gets_a_worker(environment: dict[str, str], transport: str, number: str) -> None:
    done = run(environment, "--transport", transport, "--", *PROXY)
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout.split()[2:] == [number, "ping"]
    assert leftovers(environment) == []


def test_silent_and_transparent(environment: dict[str, str]) -> None:
    done = run(environment, "--", "sh", "-c", "cat; echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_verbose_says_what_happens_on_stderr(environment: dict[str, str]) -> None:
    done = run(environment, "-v", "-p", "0.5", *PROXY)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    for text in (
        "private",
        "Requesting GPUs [0] with 2048 MiB",
        "partial memory 0.5",
        "Unix socket",
    ):
        assert text in done.stderr, done.stderr
    assert all(
        line.startswith("[INFO] 20") and line[26] == "Z" for line in done.stderr.splitlines()
    )


def test_the_programs_environment(environment: dict[str, str]) -> None:
    done = run(environment, "env", LD_LIBRARY_PATH="/a:/b")
    seen = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert seen["LD_LIBRARY_PATH"] == f"{environment['BITFUSION_LIBDIR']}/client:/a:/b"
    assert seen["BITFUSION_SOCKET"].startswith(environment["TMPDIR"])
    assert "nvJitLink" not in seen.get("LD_PRELOAD", "")  # only where the GPUs are software


@pytest.mark.parametrize("odd", ["my programs", "a:b", "a;b", "$ORIGIN"])
def test_libraries_in_a_folder_that_the_loader_would_take_apart(
    environment: dict[str, str], tmp_path: pathlib.Path, odd: str
) -> None:
    (tmp_path / odd).symlink_to(tmp_path / "lib")
    (tmp_path / "lib/client/libbitfusion-presence.so").touch()
    for _ in range(2):  # the second finds the first's link
        done = run(environment, "env", BITFUSION_LIBDIR=str(tmp_path / odd))
        seen = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        for path in (seen["LD_LIBRARY_PATH"] + "/libcuda.so.1", seen.get("LD_PRELOAD", "")):
            assert not set(" :;$").intersection(path), path
            assert not path or os.path.samefile(
                path, tmp_path / "lib/client" / os.path.basename(path)
            )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_dies_like_its_program(environment: dict[str, str], number: int) -> None:
    done = run(environment, "sh", "-c", f"kill -{number} $$")
    assert done.returncode == -number


FORWARDED = ["TERM", "HUP", "USR1", "USR2", "INT", "QUIT", "WINCH", "ALRM"]


@pytest.mark.parametrize("name", FORWARDED)
def test_signals_are_passed_on(environment: dict[str, str], name: str) -> None:
    script = f"trap 'echo got; exit 5' {name}; echo ready; while :; do sleep 0.02; done"
    with start(environment, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.readline() == "got\n"
        assert process.wait(100) == 5


def test_a_stopped_program_is_continued(environment: dict[str, str]) -> None:
    with start(environment, "sh", "-c", "echo ready; sleep 0.2; echo done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTSTP)
        wait_for(lambda: status_of(process.pid)[1] == "T", 0.2)  # without a shell nothing stops
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "done\n"
        assert process.wait(100) == 0


def test_ignored_signals_stay_ignored(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [
            "sh",
            "-c",
            'trap "" INT; exec "$@"',
            "sh",
            *HARNESS,
            "sh",
            "-c",
            "kill -INT $$; echo alive",
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "alive\n" and done.returncode == 0


def test_inherited_dispositions_are_restored(environment: dict[str, str]) -> None:
    """Python ignores SIGPIPE; a program must not inherit that."""
    done = run(environment, "sh", "-c", "kill -PIPE $$; echo alive")
    assert done.returncode == -signal.SIGPIPE


@pytest.mark.parametrize("victim", ["launcher", "server", "nursery", "worker"])
def test_kill_anyone_and_nothing_is_left(environment: dict[str, str], victim: str) -> None:
    """The fixture checks that no process remains."""
    with start(environment, *PROXY, "wait") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline().split()[1])
        nursery = parent_of(worker)
        pids = {
            "launcher": process.pid,
            "worker": worker,
            "nursery": nursery,
            "server": parent_of(nursery),
        }
        os.kill(pids[victim], signal.SIGKILL)
        process.wait(100)
        assert victim == "launcher" or process.returncode == 0
    if victim != "launcher":
        assert leftovers(environment) == []


def test_the_next_run_removes_what_a_killed_one_left(environment: dict[str, str]) -> None:
    with start(environment, "sh", "-c", "echo ready; exec sleep 60") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert len(leftovers(environment)) == 1
    assert run(environment, "true").returncode == 0
    assert leftovers(environment) == []


def test_a_stuck_server_does_not_keep_the_run(environment: dict[str, str]) -> None:
    with start(environment, *PROXY, "wait") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline().split()[1])
        stop(parent_of(parent_of(worker)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == -signal.SIGTERM


def test_closed_standard_descriptors(environment: dict[str, str]) -> None:
    words = " ".join([*HARNESS, "--", "sh", "-c", "'exit 3'"])
    done = subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], env=environment)
    assert done.returncode == 3


def test_a_long_tmpdir(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    done = run(environment, *PROXY, TMPDIR=str(long))
    assert done.returncode == 0 and "ping" in done.stdout, done.stderr


def test_two_runs_at_once_do_not_disturb_each_other(environment: dict[str, str]) -> None:
    with start(environment, *PROXY, "wait") as first:
        assert first.stdout is not None
        first.stdout.readline()
        assert run(environment, *PROXY).returncode == 0
        first.send_signal(signal.SIGTERM)
        assert first.wait(100) == -signal.SIGTERM


def test_background_processes_lose_their_worker(
    environment: dict[str, str],
) -> None:
    code = f"{sys.executable} {PROXY[1]} wait & read x < /dev/stdin; echo main ends"
    with subprocess.Popen(
        [*HARNESS, "sh", "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        worker = int(process.stdout.readline().split()[1])
        process.stdin.write("go\n")
        process.stdin.close()
        assert process.wait(100) == 0
        assert not os.path.exists(f"/proc/{worker}")


def test_a_stubborn_worker_is_ended(environment: dict[str, str]) -> None:
    code = "import fake_proxy as p; print(p.hello(p.connect()[0]))"
    more = {"HARNESS_WORKER": "stubborn", "PYTHONPATH": HERE}
    assert run(environment, sys.executable, "-c", code, **more).returncode == 0


def test_a_crashed_worker_is_its_clients_error(environment: dict[str, str]) -> None:
    code = (
        "import fake_proxy as p; a = p.connect()[0]; b = p.connect()[0]; p.hello(a); p.hello(b);"
        "a.sendall(b'crash'); assert a.recv(9) == b''; b.sendall(b'x'); assert b.recv(9) == b'x';"
        "c = p.connect()[0]; p.hello(c); print('fine')"
    )
    done = run(environment, "-v", sys.executable, "-c", code, PYTHONPATH=HERE)
    assert done.stdout == "fine\n", done.stderr
    assert "was ended by signal 6" in done.stderr


def test_a_lost_server_is_told(environment: dict[str, str]) -> None:
    code = (
        "import fake_proxy as p, os, signal, time; a = p.connect()[0]; pid = p.hello(a)[1]\n"
        "parent = lambda p: int(open(f'/proc/{p}/stat').read().rpartition(')')[2].split()[1])\n"
        "os.kill(parent(parent(pid)), signal.SIGKILL); assert a.recv(9) == b''\n"
        "end, said = time.monotonic() + 60, ''\n"
        "while 'gone' not in said and time.monotonic() < end:\n"
        "    try: p.connect()\n"
        "    except p.Refused as error: said = f'{error.status} {error}'\n"
        "print(said)\n"
    )
    done = run(environment, sys.executable, "-c", code, PYTHONPATH=HERE)
    assert done.stdout == "802 the server is gone\n", done.stderr
    assert "lost private server" in done.stderr


def test_many_processes_at_once(environment: dict[str, str]) -> None:
    script = f"for i in $(seq 12); do {sys.executable} {PROXY[1]} & done; wait"
    done = run(environment, "sh", "-c", script)
    assert done.stdout.count("ping") == 12, done.stderr
    assert len({line.split()[1] for line in done.stdout.splitlines()}) == 12


def test_nested(environment: dict[str, str]) -> None:
    done = run(environment, *HARNESS, *PROXY)
    assert done.returncode == 0 and "ping" in done.stdout


def test_not_a_program(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\0\1\2 no program")
    path.chmod(0o755)
    done = run(environment, str(path))
    assert (
        done.returncode == 126
        and done.stderr == f"bitfusion: cannot run '{path}': not a program\n"
    )


SOURCE = "int main(int count, char **words) { return count > 1; }\n"


@pytest.mark.parametrize(("how", "why"), [("-static", "statically linked"), ("-O1", "")])
def test_a_program_that_cannot_load_our_library(
    environment: dict[str, str], tmp_path: pathlib.Path, how: str, why: str
) -> None:
    """It is told why, once it has failed without GPUs; one that does without them is let alone."""
    path, source = str(tmp_path / "program"), tmp_path / "program.c"
    source.write_text(SOURCE)
    subprocess.run(["cc", how, "-o", path, str(source)], check=True)
    fine = run(environment, path)
    assert (fine.returncode, fine.stderr) == (0, "")
    failed = run(environment, path, "x")
    assert failed.returncode == 1 and (why in failed.stderr if why else not failed.stderr)


def test_programs_that_do_not_hear_of_us(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(80))
    assert "32-bit" in advice.why_no_gpu(str(path))
    path.write_bytes(pathlib.Path("/bin/sh").read_bytes())
    assert advice.why_no_gpu(str(path)) == ""
    path.chmod(0o4755)
    assert advice.why_no_gpu(str(path)) == ""  # our own
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert "other rights" in advice.why_no_gpu(str(path))
    assert advice.why_no_gpu(str(tmp_path / "none")) == ""


def test_a_folder_that_others_may_write_is_refused(environment: dict[str, str]) -> None:
    base = os.path.join(environment["TMPDIR"], f"bitfusion-{os.geteuid()}")
    os.mkdir(base)
    os.chmod(base, 0o777)
    done = run(environment, "true")
    assert done.returncode == 1 and "it is not ours alone" in done.stderr


def test_a_system_that_refuses_is_told_in_one_line(environment: dict[str, str]) -> None:
    """Descriptors run out wherever it happens to strike."""
    limit = ["sh", "-c", 'ulimit -n "$1"; shift; exec "$@"', "sh"]
    for descriptors in range(8, 20):
        done = subprocess.run(
            [*limit, str(descriptors), *HARNESS, "true"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "Traceback" not in done.stderr, (descriptors, done.stderr)
        if done.returncode:
            assert done.stderr.startswith(("bitfusion", "[ERROR] ")), done.stderr
