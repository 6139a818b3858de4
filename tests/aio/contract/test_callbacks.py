"""The callbacks: configure, check, reset."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.support.aio import Event, eventually, scalar, sleep, spawn
from tests.support.packages import everpool_only

pytestmark = pytest.mark.anyio


class Boom(Exception):
    """What a callback of a test raises."""


async def settle(pool: Any) -> None:
    """Wait until a returned connection is back: with a `reset` that may happen in the background."""
    await eventually(lambda: pool.get_stats()["pool_available"] == pool.min_size)


# configure


async def test_configure_is_called_once_for_each_connection_made(make: Any) -> None:
    configured = []

    async def configure(conn: Any) -> None:
        configured.append(conn.info.backend_pid)
        await conn.set_autocommit(True)

    async with make(2, configure=configure) as pool:
        await pool.wait(5)
        for _ in range(4):
            async with pool.connection(timeout=5) as conn:
                assert conn.autocommit
                assert conn.info.backend_pid in configured
        assert len(configured) == 2
        await pool.drain()
        await eventually(lambda: len(configured) == 4)


async def test_null_pools_configure_each_connection_too(make_null: Any) -> None:
    configured = []

    async def configure(conn: Any) -> None:
        configured.append(conn.info.backend_pid)
        await conn.execute("set statement_timeout = 12345")
        await conn.commit()

    async with make_null(configure=configure) as pool:
        for n in (1, 2):
            async with pool.connection(timeout=5) as conn:
                assert await scalar(conn, "show statement_timeout") == "12345ms"
            assert len(configured) == n


async def test_a_connection_that_configure_leaves_in_a_transaction_is_not_lent(
    make: Any, module: Any, caplog: Any
) -> None:
    caplog.set_level(logging.WARNING)
    calls = []

    async def configure(conn: Any) -> None:
        calls.append(conn)
        await conn.execute("select 1")

    async with make(configure=configure) as pool:
        with pytest.raises(module.PoolTimeout):
            await pool.getconn(0.5)
        assert pool.get_stats()["pool_available"] == 0
    assert calls
    assert any("INTRANS" in record.getMessage() for record in caplog.records)


async def test_configure_is_tried_again_on_a_new_connection_after_raising(
    make: Any, caplog: Any
) -> None:
    caplog.set_level(logging.WARNING)
    calls = []

    async def configure(conn: Any) -> None:
        calls.append(conn.info.backend_pid)
        if len(calls) == 1:
            await conn.execute("wat")

    async with make(configure=configure) as pool:
        async with pool.connection(timeout=10) as conn:
            assert await scalar(conn, "select 1") == 1
            assert conn.info.backend_pid == calls[1]
    assert len(set(calls)) == 2
    assert any("wat" in record.getMessage() for record in caplog.records)


async def test_configure_is_tried_again_after_leaving_a_transaction_once(make: Any) -> None:
    calls = []

    async def configure(conn: Any) -> None:
        calls.append(conn.info.backend_pid)
        if len(calls) == 1:
            await conn.execute("select 1")

    async with make(configure=configure) as pool:
        async with pool.connection(timeout=10) as conn:
            assert conn.info.backend_pid == calls[1]


@everpool_only("psycopg_pool leaves such a connection to the garbage collector")
async def test_a_connection_whose_configure_failed_is_closed(make: Any, database: Any) -> None:
    failed = []

    async def configure(conn: Any) -> None:
        if not failed:
            failed.append(conn)
            raise Boom

    async with make(configure=configure) as pool:
        await pool.wait(10)
        await eventually(lambda: failed[0].closed)
        await eventually(lambda: len(database.pids()) == 1)


# check


async def test_check_is_called_before_each_lending(make_any: Any) -> None:
    checked = []

    async def check(conn: Any) -> None:
        checked.append(conn)

    async with make_any(check=check) as pool:
        for n in (1, 2, 3):
            async with pool.connection(timeout=5) as conn:
                assert checked[-1] is conn
                assert len(checked) == n
        conn = await pool.getconn(5)
        assert checked[-1] is conn
        await pool.putconn(conn)
        assert len(checked) == 4


async def test_check_is_called_for_a_client_that_had_to_wait(make_any: Any) -> None:
    checked = []

    async def check(conn: Any) -> None:
        checked.append(conn)

    async def client() -> None:
        async with pool.connection(timeout=5):
            pass

    async with make_any(check=check) as pool:
        async with pool.connection(timeout=5):
            worker = spawn(client)
            await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        await worker.result()
        assert len(checked) == 2


async def test_a_client_whose_connection_fails_the_check_gets_another(make: Any) -> None:
    refused = []

    async def check(conn: Any) -> None:
        if not refused:
            refused.append(conn.info.backend_pid)
            raise Boom

    async with make(2, check=check) as pool:
        await pool.wait(5)
        async with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid not in refused
            assert await scalar(conn, "select 1") == 1


async def test_a_connection_found_broken_by_the_check_is_replaced(make: Any, database: Any) -> None:
    async with make(check=make.cls.check_connection) as pool:
        await pool.wait(5)
        (pid,) = database.pids()
        database.kill(pid)
        async with pool.connection(timeout=10) as conn:
            assert conn.info.backend_pid != pid
            assert await scalar(conn, "select 1") == 1
        await eventually(lambda: pool.get_stats()["pool_available"] == 1)
        assert len(database.pids()) == 1


async def test_a_check_that_always_fails_ends_in_pool_timeout_in_time(
    make_any: Any, module: Any
) -> None:
    async def check(conn: Any) -> None:
        raise Boom

    async with make_any(check=check) as pool:
        for timeout in (0.3, 0.6):
            start = monotonic()
            with pytest.raises(module.PoolTimeout):
                await pool.getconn(timeout)
            assert timeout * 0.5 < monotonic() - start < timeout + 0.3
            start = monotonic()
            with pytest.raises(module.PoolTimeout):
                async with pool.connection(timeout=timeout):
                    raise AssertionError("not reached")
            assert timeout * 0.5 < monotonic() - start < timeout + 0.3


async def test_failed_checks_lose_no_connection(make: Any, module: Any) -> None:
    bad = True

    async def check(conn: Any) -> None:
        if bad:
            raise Boom

    async with make(2, check=check) as pool:
        await pool.wait(5)
        for _ in range(3):
            with pytest.raises(module.PoolTimeout):
                await pool.getconn(0.1)
        bad = False
        async with pool.connection(timeout=5) as one, pool.connection(timeout=5) as two:
            assert one is not two
            assert await scalar(one, "select 1") == 1
            assert await scalar(two, "select 1") == 1
        assert pool.get_stats()["pool_size"] == 2


@pytest.mark.parametrize("left", ["a transaction", "a failed transaction"])
async def test_a_check_that_raises_inside_a_transaction_does_not_spoil_the_connection(
    make: Any, left: str
) -> None:
    bad = True

    async def check(conn: Any) -> None:
        if bad:
            await conn.execute("select 1" if left == "a transaction" else "wat")
            raise Boom

    async with make(check=check) as pool:
        await pool.wait(5)
        with pytest.raises(psycopg.OperationalError):
            await pool.getconn(0.3)
        bad = False
        async with pool.connection(timeout=5) as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert await scalar(conn, "select 1") == 1


@pytest.mark.parametrize("autocommit", [True, False])
async def test_check_connection_leaves_a_working_connection_as_it_was(
    make_any: Any, autocommit: bool
) -> None:
    async with make_any(
        kwargs={"autocommit": autocommit}, check=make_any.cls.check_connection
    ) as pool:
        async with pool.connection(timeout=5) as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is autocommit
            await make_any.cls.check_connection(conn)
            assert await pool.check_connection(conn) is None
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is autocommit


@pytest.mark.parametrize("how", ["killed", "closed"])
async def test_check_connection_raises_on_a_connection_that_is_gone(
    make_any: Any, database: Any, how: str
) -> None:
    async with make_any() as pool:
        async with pool.connection(timeout=5) as conn:
            if how == "killed":
                database.kill(conn.info.backend_pid)
            else:
                await conn.close()
            with pytest.raises(psycopg.OperationalError):
                await make_any.cls.check_connection(conn)


async def test_a_check_that_blocks_does_not_hold_the_pool(make: Any) -> None:
    blocked, release = Event(), Event()

    async def check(conn: Any) -> None:
        if not blocked.is_set():
            blocked.set()
            await release.wait()

    async with make(2, check=check) as pool:
        await pool.wait(5)
        worker = spawn(pool.getconn, 10)
        await blocked.wait()
        async with pool.connection(timeout=1) as conn:
            assert await scalar(conn, "select 1") == 1
        release.set()
        await pool.putconn(await worker.result())


# reset


async def test_reset_is_called_when_a_connection_returns(make: Any) -> None:
    seen = []

    async def reset(conn: Any) -> None:
        seen.append((conn, conn.info.transaction_status))
        await conn.set_autocommit(True)
        await conn.execute("reset all")
        await conn.set_autocommit(False)

    async with make(reset=reset) as pool:
        await pool.wait(5)
        assert not seen
        async with pool.connection() as conn:
            assert not seen
            await conn.execute("set timezone = 'Asia/Tokyo'")
        await eventually(lambda: len(seen) == 1)
        assert seen[0] == (conn, TransactionStatus.IDLE)
        async with pool.connection(timeout=5) as again:
            assert again is conn
            assert await scalar(again, "show timezone") != "Asia/Tokyo"
        await eventually(lambda: len(seen) == 2)


async def test_reset_finds_a_connection_returned_in_a_transaction_already_idle(make: Any) -> None:
    seen = []

    async def reset(conn: Any) -> None:
        seen.append(conn.info.transaction_status)

    async with make(reset=reset) as pool:
        conn = await pool.getconn(5)
        await conn.execute("select 1")
        await pool.putconn(conn)
        await eventually(lambda: seen == [TransactionStatus.IDLE])


async def test_a_client_that_waits_gets_the_connection_after_its_reset(make_any: Any) -> None:
    order = []

    async def reset(conn: Any) -> None:
        await sleep(0.05)
        order.append("reset")

    async def client() -> Any:
        async with pool.connection(timeout=5) as conn:
            order.append("lent")
            return conn

    async with make_any(reset=reset) as pool:
        async with pool.connection(timeout=5) as conn:
            worker = spawn(client)
            await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        assert await worker.result() is conn
        assert order[:2] == ["reset", "lent"]


async def test_null_pools_reset_a_connection_only_for_a_client_that_waits(make_null: Any) -> None:
    seen = []

    async def reset(conn: Any) -> None:
        seen.append(conn)

    async with make_null(reset=reset) as pool:
        async with pool.connection(timeout=5) as conn:
            pass
        await eventually(lambda: conn.closed)
        assert not seen


@pytest.mark.parametrize("fault", ["raises", "leaves a transaction"])
async def test_a_connection_spoiled_by_reset_is_replaced(
    make: Any, caplog: Any, fault: str
) -> None:
    caplog.set_level(logging.WARNING)
    spoiled = []

    async def reset(conn: Any) -> None:
        if not spoiled:
            spoiled.append(conn.info.backend_pid)
            if fault == "raises":
                raise Boom("reset went wrong")
            await conn.execute("select 1")

    async with make(reset=reset) as pool:
        async with pool.connection(timeout=5) as conn:
            pid = conn.info.backend_pid
        async with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid
            assert await scalar(conn, "select 1") == 1
        await settle(pool)
        assert spoiled == [pid]
        assert pool.get_stats()["pool_size"] == 1
    wanted = "reset went wrong" if fault == "raises" else "INTRANS"
    assert any(wanted in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("fault", ["raises", "leaves a transaction"])
async def test_a_client_that_waits_is_served_although_reset_spoiled_the_connection(
    make_any: Any, fault: str
) -> None:
    spoiled = []

    async def reset(conn: Any) -> None:
        if not spoiled:
            spoiled.append(conn)
            if fault == "raises":
                raise Boom
            await conn.execute("select 1")

    async def client() -> Any:
        async with pool.connection(timeout=5) as conn:
            assert await scalar(conn, "select 1") == 1
            return conn

    async with make_any(reset=reset) as pool:
        async with pool.connection(timeout=5) as first:
            worker = spawn(client)
            await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        second = await worker.result()
        assert spoiled == [first]
        assert second is not first
        assert first.closed
