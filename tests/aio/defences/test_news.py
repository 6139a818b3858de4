"""What a server says unasked is passed on to those it concerns, and to nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from everpool.lab import FaultProxy, fatal
from tests.aio.defences.measure import cuts, is_whole
from tests.support.aio import eventually, scalar, sleep, spawn
from tests.support.database import Database

pytestmark = pytest.mark.anyio


def listen(
    notices: list[Any] | None = None, notifications: list[Any] | None = None
) -> Callable[[Any], Awaitable[None]]:
    async def configure(conn: Any) -> None:
        if notices is not None:
            conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        if notifications is not None:
            conn.add_notify_handler(notifications.append)
        await conn.execute("listen news")

    return configure


async def test_a_fatal_on_an_idle_connection_does_not_run_the_users_notice_handler(
    make: Any, proxy: FaultProxy
) -> None:
    notices: list[Any] = []
    async with make(2, configure=listen(notices)) as pool:
        await pool.wait(10)
        proxy.cut(fatal("57P01"))
        await eventually(lambda: sum(cuts(pool).values()) == 2)
        await eventually(lambda: is_whole(pool, 2))
        await sleep(0.6)
        proxy.cut(fatal("57P05"))
        # Also when it answers a ping.
        await pool.check()
        await eventually(lambda: sum(cuts(pool).values()) == 4)
        assert not notices


async def test_a_borrowers_notices_still_reach_its_handler_after_pings(
    make: Any, proxy: FaultProxy
) -> None:
    notices: list[Any] = []
    async with make(1, configure=listen(notices)) as pool:
        await pool.wait(10)
        await pool.check()
        async with pool.connection() as conn:
            await conn.execute("do $$ begin raise notice 'hello'; end $$")
        assert notices == ["hello"]


async def test_a_notification_read_by_a_ping_reaches_the_handler_of_the_next_borrower(
    make: Any, database: Database
) -> None:
    notifications: list[Any] = []
    async with make(1, configure=listen(None, notifications)) as pool:
        await pool.wait(10)
        database.execute("notify news, 'first'")
        database.execute("notify news, 'second'")
        await pool.check()
        await eventually(lambda: is_whole(pool, 1))
        assert not notifications  # nobody's code runs in the background
        async with pool.connection():
            assert [n.payload for n in notifications] == ["first", "second"]
        async with pool.connection() as conn:
            await conn.execute("select 1")
        assert len(notifications) == 2
        assert not cuts(pool)


async def test_a_notification_read_by_a_ping_comes_out_of_notifies(
    make: Any, database: Database
) -> None:
    async with make(1, configure=listen()) as pool:
        await pool.wait(10)
        database.execute("notify news, 'first'")
        await pool.check()
        async with pool.connection() as conn:
            assert [n.payload async for n in conn.notifies(timeout=0.5, stop_after=1)] == ["first"]


async def test_a_handler_that_fails_does_not_cost_the_pool_a_connection(
    make: Any, database: Database
) -> None:
    async def configure(conn: Any) -> None:
        conn.add_notify_handler(fail)
        await conn.execute("listen news")

    def fail(notify: Any) -> None:
        raise ZeroDivisionError

    async with make(1, 2, configure=configure) as pool:
        await pool.wait(10)
        database.execute("notify news")
        await pool.check()
        try:
            async with pool.connection(timeout=5):
                pass
        except ZeroDivisionError:
            pass  # what the handler raises may reach the borrower, as it does from psycopg
        await eventually(lambda: is_whole(pool, 1))
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


async def test_heartbeats_and_notifications_are_news_and_not_death(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(3, configure=listen()) as pool:
        await pool.wait(10)
        await eventually(lambda: is_whole(pool, 3))
        pids = database.pids()
        proxy.heartbeat(0.05, value="beating")
        for _ in range(6):
            database.execute("notify news")
            await sleep(0.1)
            async with pool.connection() as conn:
                assert await scalar(conn, "select pg_backend_pid()") in pids
        await pool.check()
        await eventually(lambda: is_whole(pool, 3))
        assert database.pids() == pids
        assert not cuts(pool)
        async with pool.connection() as conn:
            await conn.execute("select 1")
            assert conn.pgconn.parameter_status(b"application_name") == b"beating"


async def test_a_connection_used_after_its_return_is_given_up_and_nobody_gets_wrong_results(
    make: Any, caplog: Any
) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        conn = await pool.getconn()
        await pool.putconn(conn)

        used: list[int] = []

        async def misuse() -> None:
            with suppress(psycopg.OperationalError):
                while True:
                    count = len(used)
                    assert await scalar(conn, "select %s::int from pg_sleep(0.02)", count) == count
                    used.append(count)

        worker = spawn(misuse)
        await eventually(lambda: used)
        for _ in range(20):
            if worker.done:
                break
            await pool.check()
            await sleep(0.007)
        await worker.result()
        assert "still used" in caplog.text
        await eventually(lambda: is_whole(pool, 2))
        assert cuts(pool) == {"misuse": 1}
        for number in range(20):
            async with pool.connection() as other:
                assert other is not conn
                assert await scalar(other, "select %s::int", number) == number
