# SPDX-License-Identifier: Apache-2.0
"""Makes the cluster's CA and its servers' certificates. The only file that imports `cryptography`,
which the standard library has nothing for; loaded to make certificates, not to serve.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from typing import NamedTuple

from bitfusion import certificates
from bitfusion.certificates import CLUSTER, ORGANIZATION, SERVER
from bitfusion.errors import MissingServerPackage

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    raise MissingServerPackage(what="make certificates", package="cryptography") from None

AUTHORITY_LIFE_S = 3650 * 86400.0
SERVER_LIFE_S = 365 * 86400.0
CLOCK_SKEW_S = 86400.0  # of a client whose clock is behind


class Pair(NamedTuple):
    certificate: bytes  # PEM
    key: bytes  # PEM, not encrypted: the file's mode guards it


def make_authority(name: str, now_s: float, life_s: float = AUTHORITY_LIFE_S) -> Pair:
    """Signs servers' certificates and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(CLUSTER, name)
    builder = (
        _builder(subject, subject, key.public_key(), now_s, life_s)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return _sign(builder, key, key)


def make_server(
    authority: Pair,
    server: str,
    names: Sequence[str],
    now_s: float,
    life_s: float = SERVER_LIFE_S,
) -> Pair:
    """server: its ID. names: its hosts and addresses, for people and other tools."""
    ca = x509.load_pem_x509_certificate(authority.certificate)
    ca_key = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    life_s = min(life_s, _end_of(authority.certificate) - now_s)
    builder = (
        _builder(_subject(SERVER, server), ca.subject, key.public_key(), now_s, life_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
            critical=False,
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return _sign(builder, key, ca_key)


def _end_of(authority: bytes) -> float:
    """By the standard library, which tells it the same way in all versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.decode())
    return certificates.authority_expires_s(context)


def _subject(role: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_s: float,
    life_s: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_s - CLOCK_SKEW_S))
        .not_valid_after(_time(now_s + life_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Pair:
    return Pair(
        builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
