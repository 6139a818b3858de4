"""When the server cannot be reached: trying again, giving notice, coming back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest

from tests.support.aio import eventually, scalar, sleep, spawn
from tests.support.net import refusing_port, silent_port
from tests.support.packages import everpool_only

pytestmark = pytest.mark.anyio


class Line:
    """The way to the server, which the test can cut. Give `conninfo` to the pool."""

    def __init__(self, dsn: str, port: int) -> None:
        self.up = False
        self.calls: list[float] = []
        self._dsn = dsn
        self._down = f"host=127.0.0.1 port={port} dbname=x"

    def conninfo(self) -> str:
        self.calls.append(monotonic())
        return self._dsn if self.up else self._down


@pytest.fixture
def line(dsn: str) -> Iterator[Line]:
    """A way to the server that is cut to begin with."""
    with refusing_port() as port:
        yield Line(dsn, port)


async def test_a_client_of_an_unreachable_server_gets_pool_timeout_in_time(
    make_any: Any, module: Any
) -> None:
    with silent_port() as port:
        pool = make_any(conninfo=f"host=127.0.0.1 port={port} connect_timeout=2")
        await pool.open()
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            await pool.getconn(0.5)
        # libpq knows no timeout below two seconds, and the null pools of the original rely on libpq's.
        assert 0.45 < monotonic() - start < (2.5 if make_any.null else 1.0)
        await pool.close(timeout=0.1)


@everpool_only(
    "the null pools of psycopg_pool rely on libpq's connect_timeout, which knows no less than two seconds"
)
async def test_the_deadline_of_a_null_pool_bounds_the_connect(make_null: Any, module: Any) -> None:
    with silent_port() as port:
        pool = make_null(conninfo=f"host=127.0.0.1 port={port}")
        await pool.open()
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            await pool.getconn(0.3)
        assert 0.29 < monotonic() - start < 0.5
        await pool.close(timeout=0.1)


async def test_the_pool_keeps_trying_and_serves_the_client_that_waits(
    make: Any, line: Line
) -> None:
    async with make(conninfo=line.conninfo) as pool:
        worker = spawn(pool.getconn, 10)
        await eventually(lambda: len(line.calls) >= 2)
        line.up = True
        conn = await worker.result()
        assert await scalar(conn, "select 1") == 1
        await conn.rollback()
        await pool.putconn(conn)


async def test_failed_attempts_are_logged(make: Any, line: Line, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    async with make(conninfo=line.conninfo, name="cut-off"):
        await eventually(lambda: any("cut-off" in record.getMessage() for record in caplog.records))


async def test_reconnect_failed_is_called_with_the_pool_after_reconnect_timeout(
    make: Any, line: Line
) -> None:
    calls = []

    def reconnect_failed(pool: Any) -> None:
        calls.append((pool, monotonic()))

    start = monotonic()
    async with make(
        conninfo=line.conninfo, reconnect_timeout=0.4, reconnect_failed=reconnect_failed
    ) as pool:
        await eventually(lambda: calls)
        assert calls[0][0] is pool
        assert 0.39 < calls[0][1] - start < 2
        assert len(line.calls) >= 2


if True:  # ASYNC

    async def test_reconnect_failed_may_be_a_coroutine_function(make: Any, line: Line) -> None:
        calls = []

        async def reconnect_failed(pool: Any) -> None:
            await sleep(0)
            calls.append(pool)

        async with make(
            conninfo=line.conninfo, reconnect_timeout=0.1, reconnect_failed=reconnect_failed
        ) as pool:
            await eventually(lambda: calls == [pool])


async def test_reconnect_failed_is_not_called_when_the_server_comes_back_in_time(
    make: Any, line: Line
) -> None:
    calls: list[Any] = []
    async with make(
        conninfo=line.conninfo, reconnect_timeout=30.0, reconnect_failed=calls.append
    ) as pool:
        await eventually(lambda: len(line.calls) >= 2)
        line.up = True
        async with pool.connection(timeout=10) as conn:
            assert await scalar(conn, "select 1") == 1
    assert not calls


async def test_reconnect_failed_is_not_called_while_the_server_answers(make: Any) -> None:
    calls: list[Any] = []
    async with make(reconnect_timeout=0.1, reconnect_failed=calls.append) as pool:
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1
        await sleep(0.2)
    assert not calls


async def test_the_pool_recovers_after_reconnect_failed_when_it_is_asked(
    make: Any, line: Line
) -> None:
    calls: list[Any] = []
    async with make(
        conninfo=line.conninfo, reconnect_timeout=0.2, reconnect_failed=calls.append
    ) as pool:
        await eventually(lambda: calls)
        line.up = True
        async with pool.connection(timeout=10) as conn:
            assert await scalar(conn, "select 1") == 1


@everpool_only(
    "psycopg_pool gives up and stays below min_size until somebody asks, though it documents the contrary"
)
async def test_the_pool_recovers_after_reconnect_failed_by_itself(
    make: Any, line: Line, database: Any
) -> None:
    calls: list[Any] = []
    async with make(
        2, conninfo=line.conninfo, reconnect_timeout=0.2, reconnect_failed=calls.append
    ) as pool:
        await eventually(lambda: calls)
        line.up = True
        await eventually(lambda: pool.get_stats()["pool_available"] == 2)
        assert len(database.pids()) == 2


@everpool_only("psycopg_pool calls it for each connection it gave up")
async def test_reconnect_failed_is_called_once_for_each_reconnect_timeout(
    make: Any, line: Line
) -> None:
    calls = []

    def reconnect_failed(pool: Any) -> None:
        calls.append(monotonic())

    async with make(
        4, conninfo=line.conninfo, reconnect_timeout=0.5, reconnect_failed=reconnect_failed
    ):
        await eventually(lambda: len(calls) == 3)
    assert all(0.4 < later - earlier < 3 for earlier, later in pairwise(calls))


async def test_a_reconnect_failed_that_raises_does_not_stop_the_pool(make: Any, line: Line) -> None:
    calls = []

    def reconnect_failed(pool: Any) -> None:
        calls.append(pool)
        raise ZeroDivisionError

    async with make(
        conninfo=line.conninfo, reconnect_timeout=0.2, reconnect_failed=reconnect_failed
    ) as pool:
        await eventually(lambda: calls)
        line.up = True
        async with pool.connection(timeout=10) as conn:
            assert await scalar(conn, "select 1") == 1


async def test_a_pool_whose_server_went_away_and_came_back_is_whole_again(
    make: Any, line: Line, database: Any
) -> None:
    line.up = True
    async with make(2, conninfo=line.conninfo, check=make.cls.check_connection) as pool:
        await pool.wait(5)
        line.up = False
        database.kill(*database.pids())
        await pool.check()
        line.up = True
        await eventually(lambda: pool.get_stats()["pool_available"] == 2, timeout=10)
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


async def test_close_ends_the_trying(make: Any, line: Line) -> None:
    async with make(conninfo=line.conninfo):
        await eventually(lambda: line.calls)
    tried = len(line.calls)
    await sleep(1.3)
    assert len(line.calls) <= tried


async def test_a_null_pool_without_a_server_fails_the_client_at_once_or_in_time(
    make_null: Any, line: Line
) -> None:
    import psycopg

    async with make_null(conninfo=line.conninfo) as pool:
        start = monotonic()
        with pytest.raises(psycopg.OperationalError):
            await pool.getconn(0.5)
        assert monotonic() - start < 1.0
        line.up = True
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1
        assert pool.get_stats()["pool_size"] == 0


@everpool_only("psycopg_pool lends a connection that died while it was idle")
async def test_a_connection_that_died_while_idle_is_not_lent(make: Any, database: Any) -> None:
    async with make(3) as pool:
        await pool.wait(5)
        database.kill(*database.pids())
        await sleep(0.02)  # the time the news takes: tasks get none while `kill` blocks the loop
        for _ in range(3):
            async with pool.connection(timeout=5) as conn:
                assert await scalar(conn, "select 1") == 1
        await eventually(lambda: len(database.pids()) == 3)
