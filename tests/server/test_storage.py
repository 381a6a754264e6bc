# SPDX-License-Identifier: Apache-2.0
"""From settings to a store; and etcd that wants TLS and a certificate."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from etcds import EtcdServer
from stores import Listener, turn_until

from bitfusion.config import Config
from bitfusion.errors import StoreUnusable
from bitfusion.server import storage
from bitfusion.server.loop import Loop
from bitfusion.server.store import APPLIED
from bitfusion.server.store_sqlite import SqliteStore


def settings(**values: str) -> Config:
    config = Config()
    for name, value in values.items():
        config.set(f"cluster.{name}", value, "test")
    return config


def test_sqlite_is_the_default(tmp_path: Path) -> None:
    store = storage.make_store(settings(), str(tmp_path), Loop())
    assert isinstance(store, SqliteStore) and store.where == str(tmp_path / "state.db")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h1", ("h1", 2379)),
        ("h1:1", ("h1", 1)),
        ("10.0.0.1", ("10.0.0.1", 2379)),
        ("[::1]", ("::1", 2379)),
        ("[::1]:7", ("::1", 7)),
    ],
)
def test_endpoints(text: str, address: tuple[str, int]) -> None:
    assert storage.parse_endpoint(text) == address


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable) as caught:
        storage.make_store(settings(store="etcd://no.such.host.invalid"), str(tmp_path), Loop())
    assert "etcd://no.such.host.invalid" in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.crt")
    with pytest.raises(StoreUnusable) as caught:
        storage.make_store(
            settings(store="etcds://127.0.0.1", store_ca=missing), str(tmp_path), Loop()
        )
    assert missing in str(caught.value)


def make_certificates(folder: Path) -> None:
    """One that signs itself, for both ends."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "crt").write_bytes(certificate.public_bytes(pem))
    (folder / "key").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


def test_etcd_with_tls(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    crt, key = str(tmp_path / "crt"), str(tmp_path / "key")
    server = EtcdServer(
        *("--cert-file", crt, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", crt)
    )
    loop, where = Loop(), f"etcds://127.0.0.1:{server.port}"
    good = settings(store=where, store_ca=crt, store_cert=crt, store_key=key)
    for _ in range(2):
        one = Listener(loop, storage.make_store(good, "", loop)).open()
        text = "x" * 50000
        assert one.put("a", text=text) == APPLIED
        assert one.values == {"a": {"text": text}}
        one.store.close()
    states: list[bool] = []
    for bad in (settings(store=where), settings(store=where, store_ca=crt)):
        store = storage.make_store(bad, "", loop)
        store.open(lambda _key, _value, _version: None, states.append)
        assert not turn_until(loop, lambda: states, 0.5)
        store.close()
    server.end()
