"""The number of connections, and their age."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from psycopg import AsyncConnection

from tests.support.aio import eventually, gather, scalar, sleep, spawn
from tests.support.packages import everpool_only

pytestmark = pytest.mark.anyio


def size(pool: Any) -> Any:
    return pool.get_stats()["pool_size"]


def available(pool: Any) -> Any:
    return pool.get_stats()["pool_available"]


async def take(pool: Any, number: int) -> list[Any]:
    return await gather(*[spawn(pool.getconn, 5) for _ in range(number)])


async def give_back(pool: Any, conns: list[Any]) -> None:
    for conn in conns:
        await pool.putconn(conn)


# growing and shrinking


async def test_a_pool_starts_with_min_size_connections(make: Any, database: Any) -> None:
    async with make(3, 8) as pool:
        await pool.wait(5)
        await sleep(0.1)
        assert len(database.pids()) == 3
        assert (size(pool), available(pool)) == (3, 3)


async def test_a_pool_grows_to_max_size_and_no_further(
    make: Any, module: Any, database: Any
) -> None:
    async with make(1, 3) as pool:
        await pool.wait(5)
        conns = await take(pool, 3)
        assert len({conn.info.backend_pid for conn in conns}) == 3
        with pytest.raises(module.PoolTimeout):
            await pool.getconn(0.2)
        assert len(database.pids()) == 3
        assert size(pool) == 3
        await give_back(pool, conns)


async def test_a_pool_of_fixed_size_does_not_grow(make: Any, module: Any, database: Any) -> None:
    async with make(2) as pool:
        conns = await take(pool, 2)
        with pytest.raises(module.PoolTimeout):
            await pool.getconn(0.2)
        assert len(database.pids()) == 2
        await give_back(pool, conns)


async def test_a_pool_may_start_empty_and_grow_on_demand(make: Any, database: Any) -> None:
    async with make(0, 2) as pool:
        await pool.wait(1)
        await sleep(0.05)
        assert not database.pids()
        conns = await take(pool, 2)
        assert size(pool) == 2
        await give_back(pool, conns)


async def test_a_client_takes_a_returned_connection_rather_than_wait_for_a_new_one(
    make: Any,
) -> None:
    class SlowToGrow(AsyncConnection[Any]):
        made = 0

        @classmethod
        async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            SlowToGrow.made += 1
            if SlowToGrow.made > 1:
                await sleep(0.5)
            return await super().connect(conninfo, **kwargs)

    async with make(1, 2, connection_class=SlowToGrow) as pool:
        conn = await pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        start = monotonic()
        await pool.putconn(conn)
        assert await worker.result() is conn
        assert monotonic() - start < 0.3
        await pool.putconn(conn)
        await eventually(lambda: available(pool) == 2)


async def test_unused_connections_above_min_size_are_closed(make: Any, database: Any) -> None:
    async with make(1, 4, max_idle=0.15) as pool:
        conns = await take(pool, 4)
        assert size(pool) == 4
        await give_back(pool, conns)
        await eventually(lambda: size(pool) == 1)
        await eventually(lambda: len(database.pids()) == 1)
        await sleep(0.4)
        assert (size(pool), available(pool)) == (1, 1)


async def test_a_pool_may_shrink_to_nothing(make: Any, database: Any) -> None:
    async with make(0, 2, max_idle=0.1) as pool:
        await give_back(pool, await take(pool, 2))
        await eventually(lambda: size(pool) == 0)
        await eventually(lambda: not database.pids())
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


async def test_connections_in_use_are_not_closed_for_idleness(make: Any) -> None:
    async with make(1, 3, max_idle=0.1) as pool:
        conns = await take(pool, 3)
        await sleep(0.4)
        assert size(pool) == 3
        for conn in conns:
            assert await scalar(conn, "select 1") == 1
            await conn.rollback()
        await give_back(pool, conns)


# max_lifetime


async def test_a_connection_past_its_lifetime_is_replaced_when_it_returns(
    make: Any, database: Any
) -> None:
    async with make(max_lifetime=0.2) as pool:
        conn = await pool.getconn(5)
        pid = conn.info.backend_pid
        await sleep(0.25)
        assert not conn.closed
        await pool.putconn(conn)
        assert conn.closed
        async with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid
        await eventually(lambda: len(database.pids()) == 1)


async def test_a_connection_within_its_lifetime_is_kept(make: Any) -> None:
    async with make(max_lifetime=20.0) as pool:
        async with pool.connection(timeout=5) as first:
            await sleep(0.05)
        async with pool.connection(timeout=5) as second:
            assert second is first


async def test_a_connection_lives_no_more_than_five_percent_short_of_its_lifetime(
    make: Any,
) -> None:
    async with make(8, max_lifetime=1.0) as pool:
        start = monotonic()
        conns = await take(pool, 8)
        while (now := monotonic()) < start + 0.85:
            await sleep(start + 0.85 - now)
        if monotonic() < start + 0.94:
            await give_back(pool, conns)
            assert not any(conn.closed for conn in conns)


async def test_the_lifetimes_of_connections_made_together_differ(make: Any) -> None:
    async with make(8, max_lifetime=1000.0) as pool:
        conns = await take(pool, 8)
        lifetimes = {conn._expire_at - conn._created_at for conn in conns}
        assert all(949.9 < lifetime < 1000.1 for lifetime in lifetimes)
        assert max(lifetimes) - min(lifetimes) > 0.1
        await give_back(pool, conns)


@everpool_only("psycopg_pool looks at the age of a connection only when it is returned or checked")
async def test_an_idle_connection_past_its_lifetime_is_not_lent(make: Any) -> None:
    async with make(max_lifetime=0.2) as pool:
        async with pool.connection(timeout=5) as conn:
            pid = conn.info.backend_pid
        await sleep(0.3)
        async with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid


async def test_null_pools_close_whatever_comes_back_and_replace_the_old_for_those_who_wait(
    make_null: Any,
) -> None:
    async with make_null(max_lifetime=0.1) as pool:
        conn = await pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        await sleep(0.15)
        await pool.putconn(conn)
        again = await worker.result()
        assert conn.closed
        assert again is not conn
        assert await scalar(again, "select 1") == 1
        await again.rollback()
        await pool.putconn(again)


# resize


async def test_resize_up_opens_connections_at_once(make: Any, database: Any) -> None:
    async with make(1) as pool:
        await pool.wait(5)
        await pool.resize(3)
        assert (pool.min_size, pool.max_size) == (3, 3)
        await eventually(lambda: available(pool) == 3)
        assert len(database.pids()) == 3


async def test_resize_up_serves_the_clients_that_wait(make: Any) -> None:
    async with make(1) as pool:
        conn = await pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        await pool.resize(2)
        other = await worker.result()
        assert other is not conn
        await give_back(pool, [conn, other])


async def test_resize_may_raise_max_size_alone(make: Any, module: Any) -> None:
    async with make(1) as pool:
        conn = await pool.getconn(5)
        with pytest.raises(module.PoolTimeout):
            await pool.getconn(0.1)
        await pool.resize(1, 2)
        assert (pool.min_size, pool.max_size) == (1, 2)
        other = await pool.getconn(5)
        await give_back(pool, [conn, other])


async def test_resize_down_lets_the_pool_shrink(make: Any, database: Any) -> None:
    async with make(4, max_idle=0.15) as pool:
        await pool.wait(5)
        await pool.resize(2)
        assert (pool.min_size, pool.max_size) == (2, 2)
        await eventually(lambda: size(pool) == 2)
        await eventually(lambda: len(database.pids()) == 2)


async def test_resize_shows_in_the_statistics(make: Any) -> None:
    async with make(1, 2) as pool:
        await pool.resize(2, 7)
        stats = pool.get_stats()
        assert (stats["pool_min"], stats["pool_max"]) == (2, 7)


@pytest.mark.parametrize(("min_size", "max_size"), [(-1, None), (3, 2), (0, 0), (0, None)])
async def test_resize_refuses_impossible_sizes_and_changes_nothing(
    make: Any, min_size: int, max_size: int | None
) -> None:
    async with make(2) as pool:
        with pytest.raises(ValueError, match="min_size|max_size"):
            await pool.resize(min_size, max_size)
        assert (pool.min_size, pool.max_size) == (2, 2)
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


# drain


async def test_drain_replaces_the_idle_connections_at_once(make: Any, database: Any) -> None:
    async with make(3) as pool:
        await pool.wait(5)
        before = database.pids()
        await pool.drain()
        await eventually(lambda: available(pool) == 3)
        await eventually(lambda: len(database.pids()) == 3)
        assert not before & database.pids()
        assert size(pool) == 3


async def test_drain_leaves_lent_connections_alone_and_replaces_them_on_return(
    make: Any, database: Any
) -> None:
    async with make(2) as pool:
        await pool.wait(5)
        conn = await pool.getconn(5)
        before = database.pids()
        await pool.drain()
        assert not conn.closed
        assert await scalar(conn, "select 1") == 1
        await conn.rollback()
        await pool.putconn(conn)
        assert conn.closed
        await eventually(lambda: available(pool) == 2)
        await eventually(lambda: len(database.pids()) == 2)
        assert not before & database.pids()


async def test_connections_made_after_drain_are_kept(make: Any) -> None:
    async with make() as pool:
        await pool.wait(5)
        await pool.drain()
        async with pool.connection(timeout=5) as first:
            pass
        async with pool.connection(timeout=5) as second:
            assert second is first


async def test_drain_reconfigures(make: Any) -> None:
    zone = "Asia/Tokyo"

    async def configure(conn: Any) -> None:
        await conn.execute(f"set timezone = '{zone}'")
        await conn.commit()

    async with make(2, configure=configure) as pool:
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "show timezone") == "Asia/Tokyo"
        zone = "Africa/Cairo"
        await pool.drain()
        for _ in range(3):
            async with pool.connection(timeout=5) as conn:
                assert await scalar(conn, "show timezone") == "Africa/Cairo"


async def test_null_pools_take_drain(make_null: Any) -> None:
    async with make_null() as pool:
        await pool.drain()
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1


# check()


async def test_check_keeps_the_good_and_replaces_the_broken(make: Any, database: Any) -> None:
    async with make(4) as pool:
        await pool.wait(5)
        before = database.pids()
        dead = set(sorted(before)[:2])
        database.kill(*dead)
        await pool.check()
        await eventually(lambda: available(pool) == 4)
        await eventually(lambda: len(database.pids()) == 4)
        assert database.pids() & before == before - dead
        for conn in (conns := await take(pool, 4)):
            assert await scalar(conn, "select 1") == 1
            await conn.rollback()
        await give_back(pool, conns)


async def test_check_leaves_healthy_connections_idle_outside_a_transaction(
    make: Any, database: Any
) -> None:
    async with make(2) as pool:
        await pool.wait(5)
        before = database.pids()
        await pool.check()
        await eventually(lambda: available(pool) == 2)
        assert database.pids() == before
        assert {database.state(pid) for pid in before} == {"idle"}


async def test_check_replaces_expired_connections(make: Any, database: Any) -> None:
    async with make(2, max_lifetime=0.3) as pool:
        await pool.wait(5)
        before = database.pids()
        await sleep(0.31)
        await pool.check()
        await eventually(lambda: not before & database.pids())
        await eventually(lambda: available(pool) == 2)


async def test_check_does_not_touch_lent_connections(make: Any) -> None:
    async with make(2) as pool:
        await pool.wait(5)
        async with pool.connection(timeout=5) as conn:
            await conn.execute("select 1")
            await pool.check()
            assert await scalar(conn, "select 2") == 2


async def test_check_of_a_null_pool_does_nothing(make_null: Any, database: Any) -> None:
    async with make_null() as pool:
        await pool.check()
        assert not database.pids()
