"""The server to measure on: one that is started for it, or one that is there already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    "max_connections": "1600",
    "fsync": "off",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}
"""1,010 connections for ``size``, 400 for ``idle-cpu``, and nothing that stirs on its own."""


@contextmanager
def server(dsn: str | None) -> Iterator[str]:
    """The connection string of a server for as long as the block lasts."""
    if dsn is not None:
        yield dsn
        return
    from everpool.lab.server import PostgresServer

    with PostgresServer(settings=SETTINGS) as started:
        yield started.dsn
