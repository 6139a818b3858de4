"""The server to measure on: one that is started for it, or one that is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

SETTINGS = {
    "max_connections": "1600",
    "fsync": "off",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}
"""1,010 connections for ``size``, 400 for ``idle-cpu``, and nothing that stirs on its own."""

DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "off"}
"""A COMMIT waits for the disk, as it does wherever data matters."""


@contextmanager
def server(dsn: str | None, settings: Mapping[str, object] = SETTINGS) -> Iterator[str]:
    """The connection string of a server for as long as the block lasts."""
    if dsn is not None:
        yield dsn
        return
    from everpool.lab.server import PostgresServer

    with PostgresServer(settings=settings) as started:
        yield started.dsn


class Durable:
    """A second server, which flushes to the disk; started when it is first asked for."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._stack = ExitStack()

    @property
    def dsn(self) -> str:
        if self._dsn is None:
            self._dsn = self._stack.enter_context(server(None, DURABLE))
        return self._dsn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
