"""What a client is told when there is no connection, and that it is told no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from everpool import AsyncConnectionPool, Refused
from everpool.errors import refused
from everpool.fastapi import add_handlers, is_cut, lifespan
from everpool.lab import FIN, RST, FaultProxy, PostgresServer, Style, fatal
from tests.fastapi.conftest import running
from tests.support.net import refusing_port

pytestmark = pytest.mark.anyio

SECRET = "secret-host.example"


def raising(ex: BaseException, kind: Any = Starlette) -> Any:
    """An application whose only page raises."""

    async def page(request: Request) -> None:
        raise ex

    app = kind(routes=[Route("/", page)])
    add_handlers(app)
    return app


def told(response: Any) -> str:
    """The code of an answer that keeps the promises made for all of them."""
    assert response.status_code == 503
    body = response.json()
    assert body.keys() == {"code", "retry_after"}
    assert response.headers["retry-after"] == str(body["retry_after"])
    assert body["retry_after"] >= 1
    assert SECRET not in response.text
    return str(body["code"])


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
@pytest.mark.parametrize("code", ["timeout", "saturated", "full", "down", "rejected", "closed"])
async def test_a_refusal(code: str, kind: Any) -> None:
    async with running(raising(refused(code, SECRET, 0.1, SECRET), kind)) as client:
        assert told(await client.get("/")) == code


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(0.0, 1, 1), (0.1, 1, 2), (1.5, 2, 3), (29.0, 30, 30)]
)
async def test_retry_after_is_rounded_up(seconds: float, least: int, most: int) -> None:
    """Never earlier than the pool says, never much later, and not the same for all."""
    async with running(raising(refused("down", "", seconds, ""))) as client:
        asked = {(await client.get("/")).json()["retry_after"] for _ in range(100)}
    assert asked == {least, most}


class Shop:
    """An application on a pool, plain Starlette, and the ways to get no answer from it."""

    def __init__(self, dsn: str, **settings: Any) -> None:
        settings.setdefault("min_size", 1)
        self.pool = AsyncConnectionPool(dsn, open=False, **settings)

        async def page(request: Request) -> PlainTextResponse:
            async with self.pool.connection() as conn:
                await conn.execute(request.query_params["sql"])
            return PlainTextResponse("done")

        self.app = Starlette(routes=[Route("/", page)], lifespan=lifespan(self.pool))
        add_handlers(self.app)


async def ask(client: Any, sql: str = "select 1") -> Any:
    return await client.get("/", params={"sql": sql})


async def test_the_database_is_away() -> None:
    with refusing_port() as port:
        shop = Shop(f"host=127.0.0.1 port={port}", when_down="fail")
        async with running(shop.app) as client:
            assert told(await ask(client)) == "down"


async def test_the_database_rejects_us(server: PostgresServer) -> None:
    async with running(Shop(f"{server.conninfo} dbname=nowhere").app) as client:
        assert told(await ask(client)) == "rejected"


async def test_every_connection_is_in_use(dsn: str) -> None:
    shop = Shop(dsn, timeout=0.1)
    async with running(shop.app) as client, shop.pool.connection():
        assert told(await ask(client)) == "timeout"


async def test_the_queue_is_full(dsn: str) -> None:
    shop = Shop(dsn, timeout=0.5, max_waiting=1)
    async with running(shop.app) as client, shop.pool.connection():
        codes = [told(answer) for answer in await asyncio.gather(ask(client), ask(client))]
        assert sorted(codes) == ["full", "timeout"]


async def test_the_pool_is_closed(dsn: str) -> None:
    shop = Shop(dsn)
    async with running(shop.app) as client:
        await shop.pool.close()
        assert told(await ask(client)) == "closed"


@pytest.mark.parametrize(
    "style", [FIN, RST, fatal("57P01"), fatal("57P05"), fatal("08006")], ids=str
)
async def test_the_connection_is_cut_in_use(style: Style, dsn: str, proxy: FaultProxy) -> None:
    async with running(Shop(dsn).app) as client:
        asking = asyncio.create_task(ask(client, "select pg_sleep(10)"))
        await asyncio.sleep(0.3)
        proxy.cut(style)
        assert told(await asking) == "cut"
        assert (await ask(client)).status_code == 200


async def test_the_server_ends_the_connection_in_use(dsn: str) -> None:
    async with running(Shop(dsn).app) as client:
        ended = await ask(client, "select pg_terminate_backend(pg_backend_pid())")
        assert told(ended) == "cut"


async def test_errors_of_the_request_stay_what_they_are(dsn: str) -> None:
    async with running(Shop(dsn).app) as client:
        for sql in (
            "nonsense",
            "set statement_timeout = 10; select pg_sleep(1)",
            "do $$ begin raise 'deadlock' using errcode = '40P01'; end $$",
        ):
            assert (await ask(client, sql)).status_code == 500


def failure(fn: Callable[[], Any]) -> BaseException:
    with pytest.raises(psycopg.Error) as info:
        fn()
    return info.value


def test_what_is_a_cut(server: PostgresServer) -> None:
    with psycopg.connect(server.dsn) as conn:
        cut = failure(lambda: conn.execute("select pg_terminate_backend(pg_backend_pid())"))
        assert is_cut(cut)
        assert is_cut(failure(lambda: conn.execute("select 1")))  # already known to be gone


def test_what_is_not(server: PostgresServer) -> None:
    def pipeline() -> None:
        with psycopg.connect(server.dsn) as conn, conn.pipeline():
            cursor = conn.cursor()
            with suppress(psycopg.errors.SyntaxError):
                conn.execute("nonsense")
                cursor.fetchone()
            cursor.execute("select 1")
            cursor.fetchone()

    with refusing_port() as port:
        connect = failure(lambda: psycopg.connect(f"host=127.0.0.1 port={port}"))
    assert type(connect) is psycopg.OperationalError
    for ex in (
        connect,
        psycopg.errors.PipelineAborted("pipeline aborted"),
        psycopg.errors.QueryCanceled(),
        psycopg.errors.ConnectionTimeout(),
        refused("timeout", "", 0.0, ""),
        LookupError(),
    ):
        assert not is_cut(ex)


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("deniable", [False, True])
async def test_websockets(accepted: bool, deniable: bool) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        if accepted:
            await websocket.accept()
        raise refused("timeout", SECRET, 1.0, SECRET)

    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    add_handlers(app)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    if deniable:
        scope["extensions"] = {"websocket.http.response": {}}
    await app(scope, receive, send)
    first = sent[accepted]
    if deniable and not accepted:
        assert (first["type"], first["status"]) == ("websocket.http.response.start", 503)
    else:
        assert first == {"type": "websocket.close", "code": 1013, "reason": "timeout"}
    assert SECRET not in str(sent)


async def test_a_handler_of_the_users_for_one_refusal_goes_first() -> None:
    async def mine(request: Request, ex: Exception) -> PlainTextResponse:
        return PlainTextResponse("mine", 418)

    app = raising(refused("saturated", "", 1.0, ""))
    app.add_exception_handler(type(refused("saturated", "", 1.0, "")), mine)
    async with running(app) as client:
        assert (await client.get("/")).status_code == 418
    assert issubclass(Refused, Exception)
