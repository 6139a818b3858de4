"""The pool lives as long as the application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from everpool import AsyncConnectionPool, ConnectionPool
from everpool.fastapi import lifespan
from tests.support.net import refusing_port

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[AsyncConnectionPool, ConnectionPool])
def pool(request: pytest.FixtureRequest, dsn: str) -> Any:
    return request.param(dsn, min_size=1, open=False)


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
async def test_the_pool_is_open_around_the_applications_own_lifespan(kind: Any, pool: Any) -> None:
    seen = []

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, str]]:
        seen.append(pool.closed)
        yield {"greeting": "hello"}
        seen.append(pool.closed)

    app = kind(lifespan=lifespan(pool, own))
    assert pool.closed
    async with app.router.lifespan_context(app) as state:
        assert state == {"greeting": "hello"}
        assert not pool.closed
    assert seen == [False, False]
    assert pool.closed


async def test_without_one_of_its_own(pool: Any) -> None:
    app = Starlette(lifespan=lifespan(pool))
    async with app.router.lifespan_context(app):
        assert not pool.closed
    assert pool.closed


async def test_an_application_that_does_not_start_leaves_no_open_pool(pool: Any) -> None:
    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[None]:
        raise LookupError
        yield

    app = Starlette(lifespan=lifespan(pool, own))
    with pytest.raises(LookupError):
        async with app.router.lifespan_context(app):
            pass
    assert pool.closed


async def test_two_pools(dsn: str) -> None:
    one = AsyncConnectionPool(dsn, min_size=1, open=False)
    two = ConnectionPool(dsn, min_size=1, open=False)
    app = Starlette(lifespan=lifespan(one, lifespan(two)))
    async with app.router.lifespan_context(app):
        assert not one.closed and not two.closed
    assert one.closed and two.closed


async def test_an_application_starts_while_the_database_is_away() -> None:
    with refusing_port() as port:
        pool = AsyncConnectionPool(f"host=127.0.0.1 port={port}", open=False)
        app = Starlette(lifespan=lifespan(pool))
        async with app.router.lifespan_context(app):
            assert not pool.closed
