"""`getconn` and `putconn`: borrowing without a block."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from tests.support.aio import eventually, scalar

pytestmark = pytest.mark.anyio


def available(pool: Any) -> Any:
    return pool.get_stats()["pool_available"]


async def test_a_connection_can_be_taken_and_given_back(make: Any) -> None:
    async with make() as pool:
        conn = await pool.getconn()
        assert await scalar(conn, "select 1") == 1
        await conn.rollback()
        assert available(pool) == 0
        await pool.putconn(conn)
        await eventually(lambda: available(pool) == 1)
        assert await pool.getconn(timeout=5) is conn
        await pool.putconn(conn)


async def test_null_pools_close_what_is_given_back(make_null: Any) -> None:
    async with make_null() as pool:
        conn = await pool.getconn(timeout=5)
        assert pool.get_stats()["pool_size"] == 1
        await pool.putconn(conn)
        assert conn.closed
        assert pool.get_stats()["pool_size"] == 0


async def test_a_connection_of_no_pool_is_refused(make_any: Any) -> None:
    conn = await AsyncConnection.connect(make_any.dsn)
    async with conn, make_any(name="choosy") as pool:
        with pytest.raises(
            ValueError,
            match="can't return connection to pool 'choosy', it doesn't come from any pool",
        ):
            await pool.putconn(conn)
        assert not conn.closed


async def test_a_connection_of_another_pool_is_refused(make_any: Any) -> None:
    async with make_any(name="one") as one, make_any(name="two") as two:
        conn = await one.getconn(5)
        with pytest.raises(
            ValueError, match="can't return connection to pool 'two', it comes from pool 'one'"
        ):
            await two.putconn(conn)
        assert await scalar(conn, "select 1") == 1
        await conn.rollback()
        await one.putconn(conn)


async def test_a_connection_cannot_be_given_back_twice(make_any: Any) -> None:
    async with make_any() as pool:
        conn = await pool.getconn(5)
        await pool.putconn(conn)
        with pytest.raises(ValueError, match="can't return connection to pool"):
            await pool.putconn(conn)
        if not make_any.null:
            await eventually(lambda: available(pool) == 1)
            assert await pool.getconn(5) is conn
            with pytest.raises(psycopg.OperationalError):
                await pool.getconn(0.1)
            await pool.putconn(conn)


async def test_the_error_of_a_refused_return_shows_no_password(make_any: Any) -> None:
    conn = await AsyncConnection.connect(make_any.dsn, password="sesame")
    async with conn, make_any() as pool:
        with pytest.raises(ValueError) as caught:
            await pool.putconn(conn)
        assert "sesame" not in str(caught.value)


async def test_a_connection_given_back_to_a_closed_pool_is_closed(make_any: Any) -> None:
    pool = make_any()
    await pool.open()
    conn = await pool.getconn(5)
    await pool.close()
    assert not conn.closed
    await pool.putconn(conn)
    assert conn.closed


@pytest.mark.parametrize("state", ["INTRANS", "INERROR"])
async def test_a_connection_given_back_in_a_transaction_is_rolled_back_with_a_warning(
    make: Any, caplog: Any, state: str
) -> None:
    caplog.set_level(logging.WARNING)
    async with make() as pool:
        conn = await pool.getconn(5)
        pid = conn.info.backend_pid
        if state == "INTRANS":
            await conn.execute("create table this_will_not_stay ()")
        else:
            with pytest.raises(psycopg.ProgrammingError):
                await conn.execute("wat")
        assert conn.info.transaction_status == TransactionStatus[state]
        await pool.putconn(conn)
        await eventually(lambda: available(pool) == 1)

        again = await pool.getconn(5)
        assert again.info.backend_pid == pid
        assert again.info.transaction_status == TransactionStatus.IDLE
        assert await scalar(again, "select to_regclass('this_will_not_stay')") is None
        await again.rollback()
        await pool.putconn(again)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "rolling back returned connection" in warnings[0]


async def test_null_pools_roll_back_for_a_client_that_waits(make_null: Any, caplog: Any) -> None:
    from tests.support.aio import spawn

    caplog.set_level(logging.WARNING)
    async with make_null() as pool:
        conn = await pool.getconn(5)
        await conn.execute("select 1")
        worker = spawn(pool.getconn, 5)
        await eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        await pool.putconn(conn)
        again = await worker.result()
        assert again is conn
        assert again.info.transaction_status == TransactionStatus.IDLE
        await pool.putconn(again)
    assert any(
        "rolling back returned connection" in record.getMessage() for record in caplog.records
    )


async def test_a_connection_given_back_in_the_middle_of_a_command_is_discarded(
    make: Any, caplog: Any, database: Any
) -> None:
    caplog.set_level(logging.WARNING)
    async with make() as pool:
        conn = await pool.getconn(5)
        pid = conn.info.backend_pid
        conn.pgconn.exec_(b"copy (select * from generate_series(1, 10)) to stdout")
        assert conn.info.transaction_status == TransactionStatus.ACTIVE
        await pool.putconn(conn)
        assert conn.closed

        again = await pool.getconn(5)
        assert again.info.backend_pid != pid
        assert again.info.transaction_status == TransactionStatus.IDLE
        await pool.putconn(again)
        await eventually(lambda: len(database.pids()) == 1)
    assert any(record.levelno >= logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("how", ["closed", "killed in a transaction", "killed"])
async def test_a_dead_connection_given_back_is_replaced(make: Any, database: Any, how: str) -> None:
    async with make() as pool:
        conn = await pool.getconn(5)
        pid = conn.info.backend_pid
        if how == "closed":
            await conn.close()
        else:
            if how == "killed in a transaction":
                await conn.execute("select 1")
            database.kill(pid)
            with pytest.raises(psycopg.OperationalError):
                await conn.execute("select 1")
        await pool.putconn(conn)
        again = await pool.getconn(5)
        assert again.info.backend_pid != pid
        assert await scalar(again, "select 1") == 1
        await pool.putconn(again)
        await eventually(lambda: available(pool) == 1)
        assert pool.get_stats()["pool_size"] == 1
        assert pool.get_stats()["returns_bad"] == 1


async def test_a_connection_whose_rollback_fails_is_replaced(
    make: Any, database: Any, caplog: Any
) -> None:
    caplog.set_level(logging.WARNING)
    async with make() as pool:
        conn = await pool.getconn(5)
        await conn.execute("select 1")
        database.kill(conn.info.backend_pid)
        await pool.putconn(conn)
        assert conn.closed
        again = await pool.getconn(5)
        assert again is not conn
        assert await scalar(again, "select 1") == 1
        await again.rollback()
        await pool.putconn(again)
    assert caplog.records


# close_returns


async def test_close_returns_makes_close_give_the_connection_back(make: Any) -> None:
    async with make(close_returns=True) as pool:
        assert pool.close_returns is True
        conn = await pool.getconn(5)
        assert available(pool) == 0
        await conn.close()
        assert not conn.closed
        await eventually(lambda: available(pool) == 1)
        assert await pool.getconn(5) is conn
        await conn.close()
    assert conn.closed


async def test_close_returns_rolls_back_an_open_transaction(make: Any) -> None:
    async with make(close_returns=True) as pool:
        conn = await pool.getconn(5)
        await conn.execute("create table this_will_not_stay ()")
        await conn.close()
        again = await pool.getconn(5)
        assert again is conn
        assert await scalar(again, "select to_regclass('this_will_not_stay')") is None
        await again.close()


async def test_close_returns_works_with_a_connection_class_of_the_users_own(make: Any) -> None:
    class Own(AsyncConnection[Any]):
        pass

    async with make(close_returns=True, connection_class=Own) as pool:
        conn = await pool.getconn(5)
        await conn.close()
        assert not conn.closed
        await eventually(lambda: available(pool) == 1)


async def test_close_returns_still_lets_old_connections_be_replaced(
    make: Any, database: Any
) -> None:
    from tests.support.aio import sleep

    async with make(close_returns=True, max_lifetime=0.05) as pool:
        conn = await pool.getconn(5)
        pid = conn.info.backend_pid
        await sleep(0.1)
        await conn.close()
        assert conn.closed
        await eventually(lambda: available(pool) == 1)
        again = await pool.getconn(5)
        assert again.info.backend_pid != pid
        await again.close()


async def test_close_returns_after_the_pool_was_closed_closes_for_real(make: Any) -> None:
    pool = make(close_returns=True)
    await pool.open()
    conn = await pool.getconn(5)
    await pool.close()
    await conn.close()
    assert conn.closed


async def test_close_returns_inside_a_block_counts_as_no_double_return(make: Any) -> None:
    async with make(close_returns=True) as pool:
        with pytest.raises(ValueError, match="can't return connection to pool"):
            async with pool.connection(timeout=5) as conn:
                await conn.close()
        await eventually(lambda: available(pool) == 1)


async def test_without_close_returns_close_closes(make_any: Any) -> None:
    async with make_any() as pool:
        conn = await pool.getconn(5)
        await conn.close()
        assert conn.closed
        await pool.putconn(conn)


async def test_null_pools_take_close_returns_and_close_for_real(make_null: Any) -> None:
    async with make_null(close_returns=True) as pool:
        assert pool.close_returns is False
        conn = await pool.getconn(5)
        await conn.close()
        assert conn.closed
        await pool.putconn(conn)


async def test_a_connection_class_may_give_itself_back_on_close(make: Any) -> None:
    class Returning(AsyncConnection[Any]):
        """What the documentation told users to write before there was `close_returns`."""

        async def close(self) -> None:
            pool: Any = getattr(self, "_pool", None)
            if pool:
                await pool.putconn(self)
            else:
                await super().close()

    async with make(connection_class=Returning) as pool:
        conn = await pool.getconn(5)
        await conn.close()
        assert not conn.closed
        await eventually(lambda: available(pool) == 1)
    assert conn.closed
