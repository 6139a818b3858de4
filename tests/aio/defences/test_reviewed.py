"""Faults that a reading of the code found, each with the run that showed it."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

from everpool import AsyncConnectionPool
from everpool.conninfo import redact
from everpool.lab import FaultProxy, fatal
from tests.support.aio import eventually, gather, sleep, spawn

from .measure import is_whole

pytestmark = pytest.mark.anyio


async def test_callers_who_wait_for_their_own_ping_do_not_fill_the_queue(
    server: Any,
) -> None:
    async with AsyncConnectionPool(server.dsn, min_size=4, max_waiting=1, open=False) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 4))
        await sleep(0.7)  # longer than verify_after: each loan needs a ping
        conns = await gather(*(spawn(pool.getconn, 5) for _ in range(4)))
        assert len({id(conn) for conn in conns}) == 4
        for conn in conns:
            await pool.putconn(conn)


async def test_many_notifications_are_read_to_the_end(server: Any) -> None:
    async with AsyncConnectionPool(
        server.dsn, min_size=1, kwargs={"autocommit": True}, open=False
    ) as pool:
        async with pool.connection() as conn:
            await conn.execute("listen news")
        with psycopg.connect(server.dsn, autocommit=True) as other:
            for number in range(100):
                other.execute("select pg_notify('news', %s)", (f"{number:06}" + "x" * 1000,))
        await sleep(0.6)
        heard: list[Any] = []
        async with pool.connection() as conn:
            conn.add_notify_handler(heard.append)
            await conn.execute("select 1")
            backlog = conn._notifies_backlog or ()
            assert len(heard) + len(backlog) == 100
        assert not pool.snapshot().cuts


async def test_a_session_that_dies_at_birth_does_not_rest(proxy: FaultProxy) -> None:
    async def cut(conn: Any) -> None:
        proxy.cut(fatal("57P01", "not now"), link=proxy.links()[-1].number)
        await sleep(0.05)

    pool = AsyncConnectionPool(proxy.via("user=postgres dbname=postgres"), open=False, min_size=1)
    pool._configure = cut
    await pool.open()
    await sleep(0.5)
    assert not any(slot.link.peek() < 0 for slot in list(pool._machine.idle))
    await pool.close()


async def test_what_a_callable_returns_wrongly_costs_no_place(server: Any) -> None:
    answers = [[1, 2], [3]]

    def kwargs() -> Any:
        return answers.pop() if answers else {}

    async with AsyncConnectionPool(
        server.dsn, kwargs=kwargs, min_size=2, open=False, reconnect_timeout=5
    ) as pool:
        await eventually(lambda: is_whole(pool, 2), timeout=10)


async def test_an_error_of_configure_tells_no_sql(server: Any, caplog: Any) -> None:
    async def configure(conn: Any) -> None:
        await conn.execute("alter role nobody_here password 'S3CRET'")

    caplog.set_level(logging.DEBUG)
    pool = AsyncConnectionPool(server.dsn, min_size=1, configure=configure, open=False)
    await pool.open()
    with pytest.raises(psycopg.OperationalError) as caught:
        await pool.getconn(0.5)
    told = f"{caught.value}{pool.snapshot()}{caplog.text}"
    await pool.close()
    assert "S3CRET" not in told
    assert "nobody_here" in told  # PostgreSQL's primary message


async def test_a_close_of_the_users_that_fails_loses_no_place(server: Any) -> None:
    base: Any = psycopg.AsyncConnection

    class Grumpy(base):  # type: ignore[misc]
        failures = 1

        async def close(self) -> None:
            await super().close()
            if Grumpy.failures:
                Grumpy.failures -= 1
                raise ZeroDivisionError

    async with AsyncConnectionPool(
        server.dsn, min_size=3, connection_class=Grumpy, open=False
    ) as pool:
        await eventually(lambda: is_whole(pool, 3))
        await pool.drain()
        await eventually(lambda: is_whole(pool, 3))


def test_a_long_text_is_shortened_after_it_is_judged_and_redacted() -> None:
    text = "x" * 190 + "S3CRET-word"
    assert "S3C" not in redact(text, "password=S3CRET-word", {})
