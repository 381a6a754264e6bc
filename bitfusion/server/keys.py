# SPDX-License-Identifier: Apache-2.0
"""The keys of a server, in tls/ of its state folder: made once, renewed before they expire.

Every server of a cluster has the CA's key, so that each renews its own certificate whatever the
others do; whoever can read one server's keys could also read all tokens' hashes and all clients'
data there.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import NamedTuple, Optional

from bitfusion import certificates, log
from bitfusion.certificates import Certificate, NotOurs
from bitfusion.errors import AlreadyThere, BitfusionError, NoKeys, SystemFailure
from bitfusion.server.state import StateFolder

FOLDER = "tls"
CA, CA_KEY, CERTIFICATE, KEY = "ca.crt", "ca.key", "server.crt", "server.key"
RENEW_S = 45 * 86400.0  # before its end, and so before clients warn
LOOK_EVERY_S = 3600.0


class Invitation(NamedTuple):
    """What another server needs to be of the same cluster."""

    ca: bytes
    ca_key: bytes


class Keys:
    def __init__(self, folder: StateFolder) -> None:
        self._state = folder
        self.folder = os.path.join(folder.path, FOLDER)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def exist(self) -> bool:
        return os.path.exists(self.path(CA))

    def cluster(self) -> str:
        return certificates.cluster_id(self.path(CA))

    def authority(self) -> str:
        """What clients trust, as PEM."""
        return self._read(CA).decode()

    def make(self, cluster: str) -> None:
        """A new cluster, and its first server's keys."""
        from bitfusion.server import authority

        pair = authority.make_authority(cluster, time.time())
        self.join(Invitation(pair.certificate, pair.key))

    def join(self, invitation: Invitation) -> None:
        if self.exist():
            raise AlreadyThere(path=self.folder)
        with self._state.as_owner():
            os.makedirs(self.folder, 0o700, exist_ok=True)
            os.chmod(self.folder, 0o700)
            self._write(CA_KEY, invitation.ca_key)
            self._sign(invitation)
            self._write(CA, invitation.ca)  # the last: with it, the keys are there

    def invite(self) -> Invitation:
        if not self.exist():
            raise NoKeys(what="invite a server", path=self.folder)
        return Invitation(self._read(CA), self._read(CA_KEY))

    def _sign(self, authority: Invitation) -> None:
        from bitfusion.server import authority as maker

        pair = maker.Pair(authority.ca, authority.ca_key)
        host = socket.gethostname()
        made = maker.make_server(pair, self._state.server_id(), [host], time.time())
        self._write(KEY, made.key)
        self._write(CERTIFICATE, made.certificate)

    def context(self) -> ssl.SSLContext:
        """For the server's end of connections; after renewing what is due."""
        if self.due():
            try:
                self._renew()
            except BitfusionError as error:
                if self.certificate() is None:
                    raise
                log.warn(f"cannot renew the server's certificate: {error}")
        return certificates.server_context(self.path(CERTIFICATE), self.path(KEY))

    def _renew(self) -> None:
        self._sign(self.invite())
        log.info("renewed the server's certificate")

    def due(self) -> bool:
        certificate = self.certificate()
        return certificate is None or certificate.expires_s - time.time() < RENEW_S

    def certificate(self) -> Optional[Certificate]:
        """As clients see it; None where they would not accept it."""
        try:
            context = certificates.server_context(self.path(CERTIFICATE), self.path(KEY))
            seen = certificates.inspect(context, certificates.client_context(self.path(CA)))
        except (OSError, NotOurs):  # expired, of another key, half written
            return None
        return seen if seen.server == self._state.server_id() else None

    def renew(self, context: ssl.SSLContext) -> None:
        """While the server runs: for the connections to come."""
        try:
            if self.due():
                self._renew()
                context.load_cert_chain(self.path(CERTIFICATE), self.path(KEY))
        except (BitfusionError, OSError) as error:
            log.once(f"cannot renew the server's certificate: {error}")

    def _read(self, name: str) -> bytes:
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except OSError as error:
            raise self._failed("read", name, error) from None

    def _write(self, name: str, data: bytes) -> None:
        """Whole or not at all, and for our eyes only."""
        path = self.path(f"{name}.new")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            os.replace(path, self.path(name))
        except OSError as error:
            raise self._failed("write", name, error) from None

    def _failed(self, what: str, name: str, error: OSError) -> SystemFailure:
        return SystemFailure(
            what=f"{what} '{self.path(name)}'", why=(error.strerror or str(error)).lower()
        )
