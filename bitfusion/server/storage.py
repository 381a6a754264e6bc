# SPDX-License-Identifier: Apache-2.0
"""The store that the settings ask for."""

from __future__ import annotations

import ssl
from typing import Optional

from bitfusion.config import Config
from bitfusion.errors import StoreUnusable
from bitfusion.server.loop import Loop
from bitfusion.server.store import Store
from bitfusion.values import parse_address

ETCD_PORT = 2379


def make_store(settings: Config, state_dir: str, loop: Loop) -> Store:
    """Not open yet. Raises StoreUnusable."""
    where = settings.text("cluster.store")
    if where == "sqlite":
        from bitfusion.server.store_sqlite import SqliteStore

        return SqliteStore(state_dir, loop)
    return _make_etcd_store(settings, where, loop)


def _make_etcd_store(settings: Config, where: str, loop: Loop) -> Store:
    from bitfusion.server.etcd import resolve
    from bitfusion.server.store_etcd import EtcdStore

    scheme, _, hosts = where.partition("://")
    try:
        endpoints = resolve([parse_endpoint(text) for text in hosts.split(",") if text.strip()])
    except OSError as error:
        raise StoreUnusable(
            where=where,
            why=(error.strerror or str(error)).lower(),
            hint="see store in [cluster]",
        ) from None
    return EtcdStore(
        loop,
        endpoints,
        settings.text("cluster.prefix"),
        settings.seconds("cluster.lease"),
        _make_tls(settings) if scheme == "etcds" else None,
    )


def parse_endpoint(text: str) -> tuple[str, int]:
    """An address whose port is etcd's where none is given."""
    text = text.strip()
    has_port = text.rpartition("]")[2].count(":") == 1
    return parse_address(text if has_port else f"{text}:{ETCD_PORT}")


def _make_tls(settings: Config) -> ssl.SSLContext:
    path: Optional[str] = None
    try:
        path = settings.text("cluster.store_ca") or None
        tls = ssl.create_default_context(cafile=path)
        path = settings.text("cluster.store_cert") or None
        if path:
            tls.load_cert_chain(path, settings.text("cluster.store_key") or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise StoreUnusable(
            where=settings.text("cluster.store"),
            why=f"'{path}': {why}",
            hint="see store_ca, store_cert and store_key in [cluster]",
        ) from None
    return tls
