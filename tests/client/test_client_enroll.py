# SPDX-License-Identifier: Apache-2.0
"""Bundles: installed as they should be, and hostile ones refused with nothing changed."""

from __future__ import annotations

import grp
import io
import os
import pathlib
import random
import resource
import stat
import tarfile
import time

import pytest

from bitfusion import bundle, cli, config
from bitfusion.client import enroll
from bitfusion.client.access import access
from bitfusion.client.enroll import Place
from bitfusion.errors import ConfigError, Enrolled, SystemFailure, WrongBundle
from bitfusion.server import authority

SECRET = "ab" * 32
TOML = f"""\
# by a test
[client]
server_list = ["gpu01:56001"]
ca = "ca.crt"
token = "alice:{SECRET}"
"""


@pytest.fixture(scope="module")
def ca() -> bytes:
    return authority.make_authority("lab", time.time()).certificate


@pytest.fixture()
def place(tmp_path: pathlib.Path) -> Place:
    return Place(str(tmp_path / "to"), 0o700, 0o600, -1)


def write(path: pathlib.Path, files: dict[str, bytes]) -> str:
    path.write_bytes(bundle.pack(files, 0))
    return str(path)


def tree(place: Place) -> dict[str, bytes]:
    folder = pathlib.Path(place.folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.exists() else {}


def missing_group(name: str) -> object:
    raise KeyError(name)


def install(path: str, place: Place, force: bool = False) -> tuple[str, bool]:
    given = enroll.read_bundle(path)
    return given.client, enroll.enroll(given, place, force)


def test_a_bundle_is_installed_for_its_owner_alone(
    tmp_path: pathlib.Path, place: Place, ca: bytes
) -> None:
    path = write(tmp_path / "alice.tar", {"ca.crt": ca, "client.toml": TOML.encode()})
    assert install(path, place) == ("alice", True)
    assert tree(place) == {"ca.crt": ca, "client.toml": TOML.encode()}
    assert os.stat(place.folder).st_mode & 0o777 == 0o700
    for name in tree(place):
        assert os.stat(os.path.join(place.folder, name)).st_mode & 0o777 == 0o600
    settings = config.load((f"{place.folder}/client.toml",), None, ("client",))
    assert access(settings) == (f"{place.folder}/ca.crt", f"alice:{SECRET}", "auto")
    before = os.stat(f"{place.folder}/client.toml").st_mtime_ns
    assert install(path, place) == ("alice", False)
    assert os.stat(f"{place.folder}/client.toml").st_mtime_ns == before


def test_other_settings_are_replaced_only_by_force(
    tmp_path: pathlib.Path, place: Place, ca: bytes
) -> None:
    path = write(tmp_path / "alice.tar", {"ca.crt": ca, "client.toml": TOML.encode()})
    os.mkdir(place.folder)
    there = pathlib.Path(place.folder, "client.toml")
    there.write_text("# only comments, as in the sample\n[client]\n#timeout = 3\n")
    assert install(path, place)[1]
    there.write_text('[client]\ntimeout = "9s"\n')
    with pytest.raises(Enrolled, match="has other settings"):
        install(path, place)
    assert "9s" in there.read_text()
    assert install(path, place, force=True) == ("alice", True)
    assert there.read_text() == TOML and "9s" in tree(place)["client.toml.old"].decode()


def test_a_rotated_token_needs_no_force(tmp_path: pathlib.Path, place: Place, ca: bytes) -> None:
    def bundled(text: str, authority: bytes = ca) -> str:
        files = {"ca.crt": authority, "client.toml": text.encode()}
        return write(tmp_path / f"{len(list(tmp_path.iterdir()))}.tar", files)

    rotated = TOML.replace(SECRET, "cd" * 32)
    assert install(bundled(TOML), place) == ("alice", True)
    assert install(bundled(rotated), place) == ("alice", True)
    assert tree(place)["client.toml"].decode() == rotated
    other_ca = authority.make_authority("other", time.time()).certificate
    others = {
        "client": bundled(TOML.replace("alice:", "bob:")),
        "server": bundled(TOML.replace("gpu01", "gpu02")),
        "authority": bundled(TOML, other_ca),
    }
    for path in others.values():
        with pytest.raises(Enrolled):
            install(path, place)


def test_a_machine_s_settings_are_the_group_s(
    tmp_path: pathlib.Path, ca: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(SystemFailure, match="no group 'bitfusion'")
        if "bitfusion" not in {entry.gr_name for entry in grp.getgrall()}
        else pytest.MonkeyPatch.context()
    ):  # a machine may have it
        enroll.system_place()
    mine = grp.getgrgid(os.getegid())
    monkeypatch.setattr(grp, "getgrnam", lambda _name: mine)
    assert enroll.system_place() == ("/etc/bitfusion", 0o755, 0o640, os.getegid())
    place = enroll.system_place()._replace(folder=str(tmp_path / "etc"))
    path = write(tmp_path / "alice.tar", {"ca.crt": ca, "client.toml": TOML.encode()})
    install(path, place)
    status = os.stat(tmp_path / "etc" / "client.toml")
    assert (status.st_mode & 0o777, status.st_gid) == (0o640, os.getegid())


def test_what_is_wrong_with_the_bundle_is_said_first(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that there is no group, which the bundle's absence has nothing to do with."""
    monkeypatch.setattr(grp, "getgrnam", missing_group)
    with pytest.raises(WrongBundle, match="none.tar': no such file"):
        cli.dispatch(["enroll", "--system", str(tmp_path / "none.tar")])


WRONG = [
    ("a bundle may not set 'client.driver'", TOML + 'driver = "/tmp/evil.so"\n'),
    ("client.toml:7: [server] is not for this file", TOML + "[server]\ninsecure = true\n"),
    ("'client.ca' is not as it must be", TOML.replace('"ca.crt"', '"/etc/passwd"')),
    ("'client.ca' is not as it must be", TOML.replace('"ca.crt"', '"../ca.crt"')),
    ("'client.token' is not as it must be", TOML.replace("token", "#token")),
    ("the token is not NAME:SECRET", TOML.replace("alice:", "../x:")),
    ("'client.server_list' is not as it must be", TOML.replace('["gpu01:56001"]', "[]")),
    ("no port", TOML.replace("56001", "0")),
    ("client.toml:1: ", "["),
    ("'utf-8' codec", "\udcff"),
]


@pytest.mark.parametrize(("why", "text"), WRONG)
def test_settings_that_a_bundle_may_not_have(
    tmp_path: pathlib.Path, place: Place, ca: bytes, why: str, text: str
) -> None:
    data = text.encode("utf-8", "surrogateescape")
    path = write(tmp_path / "x.tar", {"ca.crt": ca, "client.toml": data})
    with pytest.raises(WrongBundle, match="x.tar") as caught:
        install(path, place, force=True)
    assert why in str(caught.value) and "\n" not in str(caught.value) and tree(place) == {}


def test_a_certificate_that_is_none(tmp_path: pathlib.Path, place: Place) -> None:
    ca = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    path = write(tmp_path / "x.tar", {"ca.crt": ca, "client.toml": TOML.encode()})
    with pytest.raises(WrongBundle, match="'ca.crt' holds no certificate"):
        install(path, place, force=True)
    assert tree(place) == {}


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def large_part() -> bytes:
    """A header whose size no file has."""
    header = bytearray(member("x", type=tarfile.GNUTYPE_LONGNAME)[0].tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80".ljust(12, b"\x7f")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


HOSTILE = [
    [member("../../etc/passwd", b"x")],
    [member("/etc/passwd", b"x")],
    [member("ca.crt", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    [member("ca.crt", type=tarfile.LNKTYPE, linkname="client.toml")],
    [member("ca.crt", type=tarfile.DIRTYPE)],
    [member("ca.crt", type=tarfile.CHRTYPE)],
    [member("ca.crt", type=tarfile.FIFOTYPE)],
    [member("ca.crt", b"x" * (bundle.MAX_FILE + 1))],
    [member("ca.crt", b"x"), member("ca.crt", b"y")],
    [member("client.toml", TOML.encode())],
    [member("./ca.crt", b"x")],
    [member("x" * 200, b"x")],
    [],
]


@pytest.mark.parametrize("members", HOSTILE, ids=lambda m: m[0][0].name[:20] if m else "empty")
def test_hostile_tars(
    tmp_path: pathlib.Path, place: Place, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(WrongBundle) as caught:
        install(str(path), place, force=True)
    assert "\n" not in str(caught.value) and tree(place) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello" * 1000,
        b"\0" * (2 << 20),
        b"\x1f\x8b\x08\0",
        random.Random(7).randbytes(4096),
        b"\xff" * 512,
        member("x", type=tarfile.GNUTYPE_LONGNAME)[0].tobuf() * 2000,
        member("x", type=tarfile.XHDTYPE)[0].tobuf() * 2000,
        large_part(),
    ],
    ids=lambda d: repr(d[:6]),
)
def test_what_is_not_a_tar(tmp_path: pathlib.Path, place: Place, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(WrongBundle):
        install(str(tmp_path / "x.tar"), place, force=True)
    with pytest.raises(WrongBundle, match="no such file"):
        install(str(tmp_path / "none.tar"), place, force=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[client]\n" + "a." * 30_000 + "a = 1", "more than 256 parts"),
        ("x = {" + "'a' . " * 10_000 + "a = 1}", "more than 256 parts"),
        ("[" + "a." * 30_000 + "a]", "more than 256 parts"),
        ("[client]\nca = " + "[" * 30_000, "nested too deeply"),
        ("[client]\nca = " + "[" * 200 + "]" * 200, "not a text, a number"),
    ],
    ids=["parts", "inner parts", "parts of a section", "depth", "list in a list"],
)
def test_settings_that_are_costly(
    tmp_path: pathlib.Path, place: Place, ca: bytes, text: str, why: str
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(bundle.pack({"ca.crt": ca, "client.toml": text.encode()}, 0))
    with pytest.raises(WrongBundle) as caught:
        install(str(path), place, force=True)
    assert why in str(caught.value) and tree(place) == {}


def test_many_dots_are_no_key(tmp_path: pathlib.Path, place: Place, ca: bytes) -> None:
    many = ", ".join(f'"gpu{number}.a.b.c:56001"' for number in range(200))
    text = f'[client] # {"." * 1000}\nserver_list = [{many}]\nca = "ca.crt"\ntoken = "al:abc"\n'
    path = tmp_path / "x.tar"
    path.write_bytes(bundle.pack({"ca.crt": ca, "client.toml": text.encode()}, 0))
    assert install(str(path), place, force=True)


def test_cut_and_changed_bundles(tmp_path: pathlib.Path, place: Place, ca: bytes) -> None:
    """A bundle that lost its end, or one byte of a header, is not half installed."""
    good = bundle.pack({"ca.crt": ca, "client.toml": TOML.encode()}, 0)
    path = tmp_path / "x.tar"
    for size in range(0, 2048, 37):
        path.write_bytes(good[:size])
        with pytest.raises(WrongBundle):
            install(str(path), place)
    for at in range(0, 512, 11):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        with pytest.raises(WrongBundle):
            install(str(path), place)
    assert tree(place) == {}


def test_the_command(
    tmp_path: pathlib.Path,
    ca: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "alice.tar", {"ca.crt": ca, "client.toml": TOML.encode()})
    for said in ("enrolled as client 'alice'", "nothing to do: this is already client 'alice'"):
        assert cli.dispatch(["enroll", path, "--user"]) == 0
        assert capsys.readouterr().out == f"{said} in {tmp_path}/.bitfusion\n"


def test_a_token_is_never_sent_in_clear_text() -> None:
    settings = config.Config()
    settings.set("client.token", f"alice:{SECRET}", "c.toml:3")
    with pytest.raises(ConfigError, match="c.toml:3: the token would be sent in clear text"):
        access(settings)


def test_a_bundle_is_whole_or_not_there(tmp_path: pathlib.Path) -> None:
    """On a disk that is full, say: the next try would find it there."""
    before, path = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / "alice.tar"
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(SystemFailure, match="file too large"):
            bundle.write(str(path), b"x" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
    bundle.write(str(path), b"x")
    assert path.read_bytes() == b"x" and stat.S_IMODE(path.stat().st_mode) == 0o600
