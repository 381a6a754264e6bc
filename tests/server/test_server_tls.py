# SPDX-License-Identifier: Apache-2.0
"""TLS: who is trusted, what is said where it fails, and renewal."""

from __future__ import annotations

import os
import pathlib
import socket
import ssl
import subprocess
import time

import pytest
from identities import Lab, foreign_ca
from servers import Server
from waiting import wait_for

from bitfusion import certificates, log
from bitfusion.client import channels, control, trust
from bitfusion.client.access import Access
from bitfusion.errors import AccessDenied, ConfigError, NotTrusted
from bitfusion.server import authority
from bitfusion.server.http import HttpCodec
from bitfusion.server.keys import RENEW_S
from bitfusion.server.tls import TlsCodec


def test_a_session_over_tls(lab: Lab) -> None:
    alice = lab.client("alice")
    server = lab.start()
    assert "with TLS, cluster" in server.log
    session = lab.claim(alice)
    stream, _transport = session.open_data(os.getpid())
    assert stream.recv(100).startswith(session.name.encode())
    assert isinstance(session.channel, channels.HttpChannel)
    with open(os.path.join(lab.state, "server.id")) as file:
        assert session.channel.certificate
        assert session.channel.certificate.server == file.read().strip()
    tls = session.channel._connection.sock
    assert isinstance(tls, ssl.SSLSocket) and tls.version() == "TLSv1.3"
    tls.settimeout(0.3)
    with pytest.raises((TimeoutError, socket.timeout, ssl.SSLWantReadError)):
        tls.recv(1)  # nothing comes unasked, so that readable means lost


def refusal(lab: Lab, access: Access) -> str:
    with pytest.raises((NotTrusted, AccessDenied)) as caught:
        control.greet(lab.channel(access))
    assert caught.value.exit_status == 1 and caught.value.hint
    assert "\n" not in str(caught.value)
    return f"{caught.value} hint: {caught.value.hint}"


def test_another_cluster_is_not_trusted(lab: Lab) -> None:
    lab.start()
    said = refusal(lab, Access(foreign_ca(lab.folder), "alice:00"))
    assert "its certificate is of another cluster" in said and "foreign.crt" in said


def test_an_expired_certificate_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.resign(3600)
    lab.keys.path("ca.key")
    os.rename(lab.keys.path("ca.key"), lab.keys.path("kept.key"))  # so it cannot renew
    server = lab.start()
    assert "cannot renew the server's certificate" in server.log
    lines: list[str] = []
    monkeypatch.setattr(log, "once", lines.append)
    lab.channel(Access(lab.ca, "alice:00"))
    assert lines[0].startswith("the certificate of server '127.0.0.1:") and len(lines) == 1
    assert "expires in 0 hours" in lines[0]
    os.rename(lab.keys.path("kept.key"), lab.keys.path("ca.key"))
    lab.resign(-60)
    context = certificates.server_context(lab.keys.path("server.crt"), lab.keys.path("server.key"))
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        certificates.inspect(context, certificates.client_context(lab.ca))
    assert certificates.explain(error.value) == "its certificate has expired"


def test_a_server_renews_what_has_expired(lab: Lab) -> None:
    lab.resign(-60)
    server = lab.start()
    assert "renewed the server's certificate" in server.log
    channel = lab.channel(Access(lab.ca, ""))
    assert channel.certificate and channel.certificate.expires_s > time.time() + 300 * 86400


def test_a_running_server_renews(lab: Lab) -> None:
    context = lab.keys.context()
    before = lab.keys.certificate()
    lab.keys.renew(context)
    assert before and lab.keys.certificate() == before  # nothing is due
    lab.resign(RENEW_S - 60)
    context = certificates.server_context(lab.keys.path("server.crt"), lab.keys.path("server.key"))
    lab.keys.renew(context)
    seen = certificates.inspect(context, certificates.client_context(lab.ca))
    assert seen.expires_s > time.time() + 300 * 86400


def test_a_key_that_does_not_fit_is_replaced(lab: Lab) -> None:
    """As after a crash between writing the key and writing the certificate."""
    made = authority.make_authority("x", time.time())
    lab.keys._write("server.key", made.key)
    certificates.inspect(lab.keys.context(), certificates.client_context(lab.ca))


def test_clear_text_and_tls_name_each_other(lab: Lab) -> None:
    server = lab.start()
    said = refusal(lab, Access())
    assert "it speaks TLS, and no 'ca' is configured here" in said and "enroll" in said
    plain = Server("echo", 1, 100)
    try:
        with pytest.raises(
            NotTrusted, match="it speaks clear text where TLS is expected"
        ) as error:
            channels.HttpChannel(("127.0.0.1", plain.port), "x", 5.0, Access(lab.ca, "a:1"))
        assert "server init" in error.value.hint
    finally:
        assert plain.stop() == 0
    assert "Traceback" not in server.log


def test_a_client_without_a_token_is_told_what_to_do(lab: Lab) -> None:
    lab.start()
    channel = lab.channel(Access(lab.ca, ""))
    control.greet(channel)
    with pytest.raises(AccessDenied, match="it asks who you are, and you have no token") as error:
        control.list_gpus(channel)
    assert "bitfusion enroll" in error.value.hint


def test_an_authority_is_not_a_server(tmp_path: pathlib.Path) -> None:
    """Every certificate of the cluster is not that of a server."""
    told = {"subject": ((("organizationName", "Bitfusion"),), (("commonName", "lab"),))}
    with pytest.raises(certificates.NotOurs):
        certificates.examine(told)
    with pytest.raises(certificates.NotOurs):
        certificates.examine(None)


def test_wrong_files_of_certificates(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="none.crt: no such file"):
        certificates.client_context(str(tmp_path / "none.crt"))
    (tmp_path / "x.crt").write_text("hello")
    with pytest.raises(ConfigError, match="x.crt: it holds no certificate"):
        certificates.client_context(str(tmp_path / "x.crt"))


def test_the_cluster_s_end_is_told_a_month_before(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.make_authority("lab", time.time(), 10 * 86400)
    (tmp_path / "ca.crt").write_bytes(pair.certificate)
    context = certificates.client_context(str(tmp_path / "ca.crt"))
    lines: list[str] = []
    monkeypatch.setattr(log, "once", lines.append)
    trust._warn_of_expiry("x", certificates.Certificate("x", time.time() + 1e9), context)
    assert lines == ["the cluster's own certificate expires in 9 days: tell an operator"]


def test_a_server_of_the_network_needs_keys(tmp_path: pathlib.Path, lab: Lab) -> None:
    words = ("server", "--listen", "0.0.0.0:0", "--data_ports", "0")
    done = lab.command(*words, "--state_dir", str(tmp_path / "s"))
    assert done.returncode == 2
    assert "in clear text: it is not a loopback address\nhint: run 'bitfusion" in done.stderr


def test_joining_a_cluster(lab: Lab, tmp_path: pathlib.Path) -> None:
    done = lab.command("server", "invite", "lab.tar")
    assert done.returncode == 0, done.stderr
    assert os.stat(tmp_path / "lab.tar").st_mode & 0o777 == 0o600
    other = str(tmp_path / "other")
    done = lab.command("server", "init", "--join", "lab.tar", "--state_dir", other)
    assert done.returncode == 0, done.stderr
    assert lab.keys.cluster() in done.stdout
    subprocess.run(["cmp", f"{other}/tls/ca.crt", lab.ca], check=True)
    again = lab.command("server", "init", "--join", "lab.tar", "--state_dir", other)
    assert again.returncode == 1 and "is there already" in again.stderr
    for name in ("ca.key", "server.key", "server.crt"):
        assert os.stat(f"{other}/tls/{name}").st_mode & 0o777 == 0o600
    assert os.stat(f"{other}/tls").st_mode & 0o777 == 0o700


# ------------------------------------------ the codec, without sockets


def pair(lab: Lab) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO, TlsCodec]:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context(lab.ca).wrap_bio(to_client, to_server)
    return client, to_client, to_server, TlsCodec(lab.keys.context(), HttpCodec())


def test_any_cut_of_the_bytes_gives_the_same_calls(lab: Lab) -> None:
    client, to_client, to_server, codec = pair(lab)
    asked = b"GET /v1/server HTTP/1.1\r\nHost: x\r\n\r\n"
    calls, answers, sent = 0, b"", False
    for _ in range(200_000):
        try:
            if not sent:
                client.do_handshake()
                client.write(asked + asked)
                sent = True
            answers += client.read(1 << 16)
        except ssl.SSLWantReadError:
            pass
        byte = to_server.read(1)
        if byte:
            codec.feed(byte)
            to_client.write(codec.take())
        call = codec.next_call()
        if call is not None:
            calls += 1
            to_client.write(codec.reply(control.Reply(200, {"n": calls, "long": "x" * 50_000})))
        if answers.count(b"\n{") + answers.count(b"}\n") >= 4:
            break
    assert calls == 2 and answers.count(b"x" * 50_000) == 2
    assert not codec.finished()
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    codec.feed(to_server.read())
    assert codec.finished()


def test_the_word_before_a_body_is_encrypted_too(lab: Lab) -> None:
    client, to_client, to_server, codec = pair(lab)
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    for action in (client.do_handshake, client.do_handshake, lambda: client.write(head)):
        try:
            action()
        except ssl.SSLWantReadError:
            pass
        codec.feed(to_server.read())
        assert codec.next_call() is None
        to_client.write(codec.take())
    assert client.read(100).startswith(b"HTTP/1.1 100")


def test_a_server_ends_in_time_with_a_dawdling_handshake(lab: Lab) -> None:
    server = lab.start()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"\x16\x03\x01")
        assert lab.channel(Access(lab.ca)).request("GET", "/v1/server").status == 200
    assert wait_for(lambda: server.process.poll() is None)
