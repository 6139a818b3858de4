"""A connection for a request: committed before the response, returned whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse

from everpool import AsyncConnectionPool, ConnectionPool
from everpool.fastapi import add_handlers, borrow, lifespan
from everpool.lab import COMMIT, FIN, CutAfter, CutBefore, FaultProxy
from tests.fastapi.conftest import running
from tests.support.database import Database

pytestmark = pytest.mark.anyio


def books(database: Database) -> list[str]:
    rows = database._admin.execute("select title from books order by title").fetchall()
    return [title for (title,) in rows]


def awaiting(dsn: str, **settings: Any) -> FastAPI:
    """An application of coroutines."""
    pool = AsyncConnectionPool(dsn, open=False, **settings)
    app = FastAPI(lifespan=lifespan(pool))
    add_handlers(app)
    app.state.pool = pool

    @app.post("/books/{title}")
    async def add(title: str, then: str = "", conn: Any = borrow(pool)) -> str:
        await conn.execute("insert into books values (%s)", [title])
        if then == "refuse":
            raise HTTPException(409)
        if then == "fail":
            raise LookupError
        return title

    @app.get("/slow")
    async def slow(conn: Any = borrow(pool)) -> None:
        await conn.execute("select pg_sleep(0.02)")

    return app


def threaded(dsn: str, **settings: Any) -> FastAPI:
    """The same of plain functions."""
    pool = ConnectionPool(dsn, open=False, **settings)
    app = FastAPI(lifespan=lifespan(pool))
    add_handlers(app)
    app.state.pool = pool

    @app.post("/books/{title}")
    def add(title: str, then: str = "", conn: Any = borrow(pool)) -> str:
        conn.execute("insert into books values (%s)", [title])
        if then == "refuse":
            raise HTTPException(409)
        if then == "fail":
            raise LookupError
        return title

    @app.get("/slow")
    def slow(conn: Any = borrow(pool)) -> None:
        conn.execute("select pg_sleep(0.02)")

    return app


worlds = pytest.mark.parametrize("world", [awaiting, threaded])


@worlds
async def test_a_request_that_succeeds_is_committed(
    world: Any, dsn: str, database: Database
) -> None:
    app = world(dsn, min_size=1)
    async with running(app) as client:
        response = await client.post("/books/one")
        assert (response.status_code, response.json()) == (200, "one")
        assert books(database) == ["one"]
        assert app.state.pool.snapshot().slots["lent"] == 0


@worlds
@pytest.mark.parametrize(("then", "status"), [("refuse", 409), ("fail", 500)])
async def test_one_that_fails_is_rolled_back(
    world: Any, then: str, status: int, dsn: str, database: Database
) -> None:
    app = world(dsn, min_size=1)
    async with running(app) as client:
        response = await client.post("/books/one", params={"then": then})
        assert response.status_code == status
        assert books(database) == []
        assert app.state.pool.snapshot().slots["lent"] == 0


@worlds
async def test_a_commit_that_is_refused_is_no_success(
    world: Any, dsn: str, database: Database
) -> None:
    async with running(world(dsn, min_size=1)) as client:
        assert (await client.post("/books/one")).status_code == 200
        # The constraint is deferred: only COMMIT finds out.
        assert (await client.post("/books/one")).status_code == 500
        assert books(database) == ["one"]


@worlds
@pytest.mark.parametrize("cut", [CutBefore, CutAfter])
async def test_a_commit_that_is_cut_is_no_success(
    world: Any, cut: Any, dsn: str, proxy: FaultProxy
) -> None:
    async with running(world(dsn, min_size=1)) as client:
        proxy.on(COMMIT, cut(FIN))
        response = await client.post("/books/one")
        assert (response.status_code, response.json()) == (500, {"code": "unknown"})
        assert "retry-after" not in response.headers


@worlds
async def test_many_requests_share_few_connections(world: Any, dsn: str) -> None:
    """More requests than threads: those who wait leave threads to those who have a connection."""
    async with running(world(dsn, min_size=2, timeout=20)) as client:
        began = time.monotonic()
        responses = await asyncio.gather(*[client.get("/slow") for _ in range(100)])
        assert {response.status_code for response in responses} == {200}
        assert time.monotonic() - began < 10


@worlds
@pytest.mark.alone
async def test_the_deadline_holds_for_all_who_wait(world: Any, dsn: str) -> None:
    app = world(dsn, min_size=1, timeout=0.5)
    pool = app.state.pool

    async def ask(client: Any) -> float:
        began = time.monotonic()
        assert (await client.get("/slow")).status_code == 503
        return time.monotonic() - began

    async with running(app) as client:
        if world is awaiting:
            conn = await pool.getconn()
        else:
            conn = await asyncio.to_thread(pool.getconn)
        took = await asyncio.gather(*[ask(client) for _ in range(100)])
        if world is awaiting:
            await pool.putconn(conn)
        else:
            pool.putconn(conn)
        assert max(took) < 1.5  # and not twice or thrice the time-out


async def test_a_request_has_one_connection_however_often_it_asks(dsn: str) -> None:
    pool = AsyncConnectionPool(dsn, min_size=1, timeout=1, open=False)
    app = FastAPI(lifespan=lifespan(pool))

    def user(conn: Any = borrow(pool)) -> Any:
        return conn

    @app.get("/")
    async def root(user: Any = Depends(user), conn: Any = borrow(pool)) -> bool:
        return user is conn

    async with running(app) as client:
        assert (await client.get("/")).json() is True


async def test_a_stream_is_sent_when_the_connection_is_back(dsn: str) -> None:
    pool = AsyncConnectionPool(dsn, min_size=1, open=False)
    app = FastAPI(lifespan=lifespan(pool))

    @app.get("/")
    async def root(conn: Any = borrow(pool)) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield f"{pool.snapshot().slots['lent']}"

        return StreamingResponse(lines())

    async with running(app) as client:
        assert (await client.get("/")).text == "0"


async def test_it_can_be_overridden_as_any_dependency(dsn: str) -> None:
    pool = AsyncConnectionPool(dsn, min_size=1, open=False)
    app = FastAPI()
    app.dependency_overrides[borrow(pool).dependency] = lambda: "another"

    @app.get("/")
    async def root(conn: Any = borrow(pool)) -> Any:
        return conn

    async with running(app) as client:
        assert (await client.get("/")).json() == "another"


async def test_for_a_websocket(dsn: str, database: Database) -> None:
    pool = AsyncConnectionPool(dsn, min_size=1, open=False)
    app = FastAPI(lifespan=lifespan(pool))

    @app.websocket("/")
    async def root(websocket: WebSocket, conn: Any = borrow(pool)) -> None:
        await websocket.accept()
        await conn.execute("insert into books values ('one')")
        await websocket.close()

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
        assert sent == ["websocket.accept", "websocket.close"]
        assert books(database) == ["one"]
