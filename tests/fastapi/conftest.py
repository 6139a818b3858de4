"""Applications in this process, on a real server behind a proxy that breaks things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from everpool.lab import FaultProxy, PostgresServer
from tests.support.database import Database


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """The test's own view of the server, past the proxy."""
    database = Database(server.dsn)
    database.execute("drop table if exists books")
    database.execute("create table books (title text unique deferrable initially deferred)")
    yield database
    database.execute("drop table books")
    database.close()


@pytest.fixture
def dsn(database: Database, proxy: FaultProxy) -> str:
    """The way to the server through the proxy."""
    return proxy.via(database.dsn)


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that is started, and ended afterwards.

    Like a web server, it answers 500 for what the application raises.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
