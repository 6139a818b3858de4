"""The page in a real browser, and without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from everpool import ConnectionPool
from everpool.lab import FaultProxy, PostgresServer
from tests.support.programs import chromium


# As long as it is there, its loop is taken for a running one by every asynchronous test.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def pool(server: PostgresServer, proxy: FaultProxy) -> Iterator[ConnectionPool[Any]]:
    """Two connections at rest, through the proxy."""
    with ConnectionPool(
        proxy.via(server.dsn), min_size=2, max_size=5, name="orders", kwargs={"autocommit": True}
    ) as pool:
        pool.wait(10)
        yield pool
