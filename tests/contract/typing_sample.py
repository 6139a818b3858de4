"""What users write, as a type checker sees it. `test_typing` runs mypy --strict on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, TupleRow, class_row, dict_row

from everpool import (
    AsyncConnectionPool,
    AsyncNullConnectionPool,
    ConnectionPool,
    NullConnectionPool,
    PoolTimeout,
)


@dataclass
class Person:
    name: str


class OwnConnection(Connection[TupleRow]):
    def greet(self) -> str:
        return "hello"


class AsyncOwnConnection(AsyncConnection[TupleRow]):
    def greet(self) -> str:
        return "hello"


class OwnPool(ConnectionPool[Connection[DictRow]]):
    def getconn(self, timeout: float | None = None) -> Connection[DictRow]:
        return super().getconn(timeout)

    def putconn(self, conn: Connection[DictRow]) -> None:
        super().putconn(conn)


class AsyncOwnPool(AsyncConnectionPool[AsyncConnection[DictRow]]):
    async def getconn(self, timeout: float | None = None) -> AsyncConnection[DictRow]:
        return await super().getconn(timeout)

    async def putconn(self, conn: AsyncConnection[DictRow]) -> None:
        await super().putconn(conn)


def plain() -> None:
    with ConnectionPool("dbname=x", min_size=1, max_size=2, timeout=3, open=False) as pool:
        with pool.connection() as conn:
            assert_type(conn, Connection[TupleRow])
            assert_type(conn.execute("select 1").fetchone(), TupleRow | None)
        taken = pool.getconn(timeout=1.0)
        assert_type(taken, Connection[TupleRow])
        pool.putconn(taken)
        assert_type(pool.get_stats(), dict[str, int])
        assert_type(pool.closed, bool)
        assert_type(pool.min_size, int)
        assert_type(pool.name, str)


def rows_as_dicts() -> None:
    pool = ConnectionPool(
        "dbname=x",
        connection_class=Connection[DictRow],
        kwargs={"row_factory": dict_row},
        open=False,
    )
    with pool, pool.connection() as conn:
        assert_type(conn, Connection[DictRow])
        assert_type(conn.execute("select 1").fetchone(), DictRow | None)
    assert_type(pool.getconn(), Connection[DictRow])


def rows_as_objects() -> None:
    pool = NullConnectionPool(
        connection_class=Connection[Person], kwargs={"row_factory": class_row(Person)}, open=False
    )
    with pool, pool.connection(timeout=1) as conn:
        assert_type(conn.execute("select 1").fetchone(), Person | None)


def own_classes() -> None:
    pool = ConnectionPool(connection_class=OwnConnection, open=False)
    with pool.connection() as conn:
        assert_type(conn, OwnConnection)
        conn.greet()
    with OwnPool(open=False) as own:
        assert_type(own.getconn(), Connection[DictRow])
        with own.connection() as dict_conn:
            assert_type(dict_conn.execute("select 1").fetchone(), DictRow | None)


def configure(conn: Connection[Any]) -> None:
    conn.autocommit = True


def callbacks() -> None:
    pool = ConnectionPool(
        lambda: "dbname=x",
        kwargs=lambda: {"autocommit": True},
        configure=configure,
        check=ConnectionPool.check_connection,
        reset=configure,
        reconnect_failed=lambda pool: None,
        open=False,
    )
    try:
        pool.open(wait=True, timeout=1)
    except PoolTimeout as ex:
        assert_type(ex, PoolTimeout)
    pool.resize(1, 2)
    pool.drain()
    pool.check()
    pool.wait(1)
    pool.close(timeout=1)


async def async_plain() -> None:
    async with AsyncConnectionPool("dbname=x", open=False) as pool:
        async with pool.connection() as conn:
            assert_type(conn, AsyncConnection[TupleRow])
            cur = await conn.execute("select 1")
            assert_type(await cur.fetchone(), TupleRow | None)
        taken = await pool.getconn(timeout=1.0)
        assert_type(taken, AsyncConnection[TupleRow])
        await pool.putconn(taken)


async def async_rows() -> None:
    pool = AsyncConnectionPool(
        connection_class=AsyncConnection[DictRow], kwargs={"row_factory": dict_row}, open=False
    )
    async with pool, pool.connection() as conn:
        cur = await conn.execute("select 1")
        assert_type(await cur.fetchone(), DictRow | None)
    null = AsyncNullConnectionPool(connection_class=AsyncOwnConnection, open=False)
    async with null, null.connection(timeout=1) as own:
        assert_type(own, AsyncOwnConnection)
    async with AsyncOwnPool(open=False) as dicts:
        assert_type(await dicts.getconn(), AsyncConnection[DictRow])


async def async_configure(conn: AsyncConnection[Any]) -> None:
    await conn.set_autocommit(True)


async def async_conninfo() -> str:
    return "dbname=x"


async def async_kwargs() -> dict[str, Any]:
    return {}


async def async_callbacks() -> None:
    pool = AsyncConnectionPool(
        async_conninfo,
        kwargs=async_kwargs,
        configure=async_configure,
        check=AsyncConnectionPool.check_connection,
        reset=async_configure,
        open=False,
    )
    await pool.open(wait=True, timeout=1)
    await pool.resize(1, 2)
    await pool.drain()
    await pool.check()
    await pool.wait(1)
    await pool.close(timeout=1)
