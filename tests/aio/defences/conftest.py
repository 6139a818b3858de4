"""The defences, against real sockets: a server, a proxy before it that breaks things, and pools that must not mind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from everpool import AsyncConnectionPool
from everpool.lab import FaultProxy, PostgresServer
from tests.aio.defences.work import Insert, Table
from tests.support.database import Database


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """The test's own view of the server, past the proxy."""
    database = Database(server.dsn)
    yield database
    database.close()


@pytest.fixture
def dsn(database: Database, proxy: FaultProxy) -> str:
    """The way to the server through the proxy."""
    return proxy.via(database.dsn)


class Make:
    """Builds pools that hold *size* connections, or up to *max_size*, and are not open yet.

    Their connections are in autocommit, so that a query is one round trip.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def __call__(self, size: int = 1, max_size: int | None = None, **settings: Any) -> Any:
        settings.setdefault("conninfo", self.dsn)
        settings.setdefault("kwargs", {"autocommit": True})
        settings.setdefault("open", False)
        return AsyncConnectionPool(min_size=size, max_size=max_size, **settings)


@pytest.fixture
def make(dsn: str) -> Make:
    return Make(dsn)


@pytest.fixture
def table(database: Database, server: PostgresServer) -> Iterator[Table]:
    """A table of the test's own, seen past the proxy."""
    table = Table(server.dsn)
    yield table
    table.close()


@pytest.fixture
def insert(table: Table) -> Insert:
    return Insert(table)
