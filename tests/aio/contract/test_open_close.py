"""Opening, waiting until ready, closing."""

from __future__ import annotations

import warnings
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from tests.support.aio import Event, eventually, scalar, sleep, spawn
from tests.support.net import refusing_port, silent_port

pytestmark = pytest.mark.anyio


class SlowConnection(AsyncConnection[Any]):
    """Takes a while to connect."""

    delay = 0.2

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
        await sleep(cls.delay)
        return await super().connect(conninfo, **kwargs)


async def test_a_pool_is_closed_until_it_is_opened(make_any: Any, module: Any) -> None:
    pool = make_any()
    assert pool.closed
    with pytest.raises(module.PoolClosed, match="is not open yet"):
        await pool.getconn()
    with pytest.raises(module.PoolClosed, match="is not open yet"):
        async with pool.connection():
            raise AssertionError("not reached")
    with pytest.raises(module.PoolClosed, match="is not open yet"):
        await pool.wait(1)

    await pool.open()
    assert not pool.closed
    async with pool.connection(timeout=5) as conn:
        assert await scalar(conn, "select 1") == 1

    await pool.close()
    assert pool.closed
    with pytest.raises(module.PoolClosed, match="is already closed"):
        await pool.getconn()
    with pytest.raises(module.PoolClosed, match="is already closed"):
        async with pool.connection():
            raise AssertionError("not reached")


async def test_the_error_of_a_closed_pool_names_the_pool(make_any: Any, module: Any) -> None:
    pool = make_any(name="dormant")
    with pytest.raises(module.PoolClosed, match="the pool 'dormant' is not open yet"):
        await pool.getconn()
    await pool.open()
    await pool.close()
    with pytest.raises(module.PoolClosed, match="the pool 'dormant' is already closed"):
        await pool.getconn()


async def test_opening_twice_is_fine(make_any: Any) -> None:
    pool = make_any()
    await pool.open()
    await pool.open()
    async with pool:
        await pool.open()
        async with pool.connection(timeout=5) as conn:
            pid = conn.info.backend_pid
        await pool.open()
        if not make_any.null:
            async with pool.connection(timeout=5) as conn:
                assert conn.info.backend_pid == pid
    assert pool.closed


async def test_closing_twice_is_fine(make_any: Any) -> None:
    pool = make_any()
    await pool.open()
    await pool.close()
    await pool.close()
    assert pool.closed


async def test_a_closed_pool_cannot_be_opened_again(make_any: Any, module: Any) -> None:
    pool = make_any()
    await pool.open()
    await pool.close()
    for _ in range(2):
        with pytest.raises(
            module.PoolClosed, match="pool has already been opened/closed and cannot be reused"
        ):
            await pool.open()
    with pytest.raises(module.PoolClosed, match="cannot be reused"):
        async with pool:
            raise AssertionError("not reached")
    assert pool.closed


async def test_a_pool_closed_before_it_was_ever_opened_can_still_be_opened(make_any: Any) -> None:
    pool = make_any()
    await pool.close()
    async with pool:
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


async def test_the_context_opens_and_closes_and_is_the_pool(make_any: Any) -> None:
    pool = make_any()
    async with pool as entered:
        assert entered is pool
        assert not pool.closed
    assert pool.closed


async def test_the_context_closes_the_pool_on_an_error_and_lets_it_through(make_any: Any) -> None:
    pool = make_any()
    with pytest.raises(ZeroDivisionError):
        async with pool:
            raise ZeroDivisionError
    assert pool.closed


async def test_open_returns_before_the_connections_are_there(make: Any) -> None:
    pool = make(2, connection_class=SlowConnection)
    start = monotonic()
    await pool.open()
    assert monotonic() - start < SlowConnection.delay / 2
    assert pool.get_stats()["pool_available"] == 0
    async with pool:
        await pool.wait(5)


async def test_open_can_wait_for_the_connections(make: Any) -> None:
    pool = make(2, connection_class=SlowConnection)
    await pool.open(wait=True, timeout=5)
    async with pool:
        assert pool.get_stats()["pool_available"] == 2


async def test_wait_returns_when_min_size_connections_are_ready(make: Any) -> None:
    async with make(2, 5, connection_class=SlowConnection) as pool:
        start = monotonic()
        await pool.wait(5)
        assert SlowConnection.delay * 0.9 < monotonic() - start < 3
        assert pool.get_stats()["pool_available"] == 2
        start = monotonic()
        await pool.wait(5)
        assert monotonic() - start < SlowConnection.delay / 2


@pytest.mark.parametrize("how", ["wait", "open"])
async def test_a_wait_in_vain_closes_the_pool_and_raises_pool_timeout(
    make_any: Any, module: Any, how: str
) -> None:
    with refusing_port() as port:
        pool = make_any(conninfo=f"host=127.0.0.1 port={port} dbname=x")
        start = monotonic()
        with pytest.raises(
            module.PoolTimeout, match=r"pool initialization incomplete after 0\.2 sec"
        ):
            if how == "open":
                await pool.open(wait=True, timeout=0.2)
            else:
                await pool.open()
                await pool.wait(0.2)
        assert 0.19 < monotonic() - start < 2
        assert pool.closed
        with pytest.raises(module.PoolClosed):
            await pool.getconn()


async def test_a_failed_wait_does_not_lose_the_error_inside_the_context(
    make: Any, module: Any
) -> None:
    with refusing_port() as port, pytest.raises(module.PoolTimeout):
        async with make(conninfo=f"host=127.0.0.1 port={port}") as pool:
            await pool.wait(0.1)


async def test_the_pool_serves_clients_before_it_is_full(make: Any) -> None:
    opened = []

    class LaterSlow(AsyncConnection[Any]):
        @classmethod
        async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            opened.append(1)
            if len(opened) > 1:
                await sleep(1)
            return await super().connect(conninfo, **kwargs)

    start = monotonic()
    async with make(2, connection_class=LaterSlow) as pool:
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1
            assert monotonic() - start < 0.9


async def test_the_connections_of_a_fresh_pool_are_not_opened_one_after_the_other(
    make: Any,
) -> None:
    start = monotonic()
    async with make(6, connection_class=SlowConnection, num_workers=3) as pool:
        await pool.wait(5)
        assert monotonic() - start < 5 * SlowConnection.delay


async def test_close_closes_the_idle_connections(make: Any, database: Any) -> None:
    async with make(3) as pool:
        await pool.wait(5)
        assert len(database.pids()) == 3
    await eventually(lambda: not database.pids())


async def test_close_leaves_lent_connections_alone_until_they_are_returned(
    make_any: Any, database: Any
) -> None:
    pool = make_any()
    await pool.open()
    conn = await pool.getconn(5)
    start = monotonic()
    await pool.close()
    assert monotonic() - start < 1
    assert not conn.closed
    assert await scalar(conn, "select 1") == 1
    await pool.putconn(conn)
    assert conn.closed
    await eventually(lambda: not database.pids())


async def test_a_connection_block_may_outlive_its_pool(make_any: Any, database: Any) -> None:
    pool = make_any()
    await pool.open()
    async with pool.connection(timeout=5) as conn:
        await pool.close()
        assert await scalar(conn, "select 1") == 1
    assert conn.closed
    await eventually(lambda: not database.pids())


async def test_close_refuses_the_clients_that_wait(make_any: Any, module: Any) -> None:
    async def client() -> str:
        try:
            await pool.getconn(10)
        except module.PoolClosed as ex:
            return str(ex)
        return "served"

    pool = make_any(name="shutting")
    await pool.open()
    conn = await pool.getconn(5)
    clients = [spawn(client) for _ in range(3)]
    await eventually(lambda: pool.get_stats()["requests_waiting"] == 3)
    await pool.close()
    for worker in clients:
        assert "the pool 'shutting' is closed" in await worker.result(2)
    await pool.putconn(conn)


@pytest.mark.parametrize("timeout", [-1, 0, 0.5])
async def test_close_takes_a_timeout(make_any: Any, timeout: float) -> None:
    pool = make_any()
    await pool.open()
    await pool.close(timeout=timeout)
    assert pool.closed


async def test_close_does_not_wait_longer_than_its_timeout_for_a_connect(
    make: Any, recwarn: Any
) -> None:
    with silent_port() as port:
        pool = make(conninfo=f"host=127.0.0.1 port={port} connect_timeout=2")
        await pool.open()
        await sleep(0.05)
        start = monotonic()
        await pool.close(timeout=0.3)
        assert monotonic() - start < 1
        assert pool.closed


async def test_a_pool_closed_while_it_connects_closes_soon(make: Any, database: Any) -> None:
    for _ in range(6):
        pool = make(2)
        await pool.open()
        start = monotonic()
        await pool.close()
        assert monotonic() - start < 2
    await eventually(lambda: not database.pids())


async def test_connections_that_arrive_after_close_are_closed(make: Any, database: Any) -> None:
    connecting = Event()

    class Announced(SlowConnection):
        @classmethod
        async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            connecting.set()
            return await super().connect(conninfo, **kwargs)

    pool = make(connection_class=Announced)
    await pool.open()
    await connecting.wait()
    await pool.close(timeout=5)
    await sleep(SlowConnection.delay)
    await eventually(lambda: not database.pids())


if True:  # ASYNC

    async def test_open_in_the_constructor_warns_at_once(make_any: Any) -> None:
        with pytest.warns(
            RuntimeWarning,
            match=rf"opening the async pool {make_any.cls.__name__} in the constructor",
        ):
            pool = make_any(open=True)
        async with pool:
            async with pool.connection(timeout=5) as conn:
                await conn.execute("select 1")

    async def test_implicit_open_warns_at_first_use_and_only_then(make_any: Any) -> None:
        pool = make_any(open=None)
        assert not pool.closed
        with pytest.warns(
            RuntimeWarning,
            match=rf"opening the async pool {make_any.cls.__name__} in the constructor",
        ):
            conn = await pool.getconn(5)
        await pool.putconn(conn)
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")
        await pool.close()

    def test_open_in_the_constructor_needs_a_running_loop(make_any: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for when in (True, None):
                with pytest.raises(RuntimeError, match="open with no running loop"):
                    make_any(open=when)

    def test_a_pool_may_be_made_outside_any_loop(make_any: Any) -> None:
        import asyncio

        async def use() -> Any:
            async with pool, pool.connection(timeout=5) as conn:
                return await scalar(conn, "select 1")

        pool = make_any()
        assert asyncio.run(use()) == 1

else:

    def test_open_in_the_constructor_is_silent(make_any: Any) -> None:
        pool = make_any(open=True)
        assert not pool.closed
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
        pool.close()

    def test_implicit_open_warns_at_first_use_and_only_then(make_any: Any) -> None:
        pool = make_any(open=None)
        assert not pool.closed
        with pytest.warns(
            DeprecationWarning,
            match=rf"the default for the {make_any.cls.__name__} 'open' parameter",
        ):
            conn = pool.getconn(5)
        pool.putconn(conn)
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
        pool.close()


async def test_a_pool_opened_implicitly_may_wait(make_any: Any) -> None:
    pool = make_any(open=None)
    with pytest.warns(Warning, match="in the constructor|'open' parameter"):
        await pool.wait(5)
    await pool.close()


async def test_an_implicitly_opened_pool_used_as_a_context_does_not_warn(make_any: Any) -> None:
    async with make_any(open=None) as pool:
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")


async def test_the_pools_errors_are_operational_errors(make_any: Any, module: Any) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        await make_any().getconn()
    assert isinstance(caught.value, module.PoolClosed)
