# Generated from tests/aio/contract/test_null.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Null pools: the interface of a pool, a connection for each block.

What both kinds of pool have in common is tested in the other files, with `make_any`.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from tests.support.net import refusing_port
from tests.support.threads import eventually, gather, scalar, sleep, spawn


def size(pool: Any) -> Any:
    return pool.get_stats()["pool_size"]


def test_nothing_is_connected_before_it_is_asked_for(make_null: Any, database: Any) -> None:
    with make_null(1, 4) as pool:
        sleep(0.05)
        assert not database.pids()
        assert size(pool) == 0


def test_nothing_is_kept(make_null: Any, database: Any) -> None:
    with make_null(1, 4) as pool:
        conns = gather(*[spawn(pool.getconn, 5) for _ in range(4)])
        assert len(database.pids()) == 4
        for conn in conns:
            pool.putconn(conn)
            assert conn.closed
        eventually(lambda: not database.pids())
        assert size(pool) == 0


@pytest.mark.parametrize("max_size", [None, 0])
def test_without_max_size_there_is_no_limit(module: Any, dsn: str, max_size: int | None) -> None:
    with module.NullConnectionPool(dsn, max_size=max_size, open=False) as pool:
        assert (pool.min_size, pool.max_size) == (0, 0)
        conns = gather(*[spawn(pool.getconn, 5) for _ in range(8)])
        assert len({conn.info.backend_pid for conn in conns}) == 8
        assert pool.get_stats().get("requests_queued", 0) == 0
        for conn in conns:
            pool.putconn(conn)
        assert size(pool) == 0


def test_no_more_than_max_size_connections_are_made(
    make_null: Any, module: Any, database: Any
) -> None:
    with make_null(1, 2) as pool:
        conns = [pool.getconn(5) for _ in range(2)]
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.2)
        assert len(database.pids()) == 2
        for conn in conns:
            pool.putconn(conn)


def test_a_connection_given_back_goes_to_the_client_that_waits(
    make_null: Any, database: Any
) -> None:
    with make_null() as pool:
        conn = pool.getconn(5)
        pid = conn.info.backend_pid
        worker = spawn(pool.getconn, 5)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        pool.putconn(conn)
        again = worker.result()
        assert again.info.backend_pid == pid
        assert size(pool) == 1
        pool.putconn(again)
        assert again.closed
        assert size(pool) == 0


def test_a_broken_connection_given_back_is_replaced_for_the_client_that_waits(
    make_null: Any,
) -> None:
    with make_null() as pool:
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        conn.close()
        pool.putconn(conn)
        again = worker.result()
        assert again is not conn
        assert scalar(again, "select 1") == 1
        again.rollback()
        pool.putconn(again)
        assert size(pool) == 0


def test_a_block_inside_a_transaction_is_closed_without_a_trace(
    make_null: Any, caplog: Any
) -> None:
    with make_null() as pool:
        conn = pool.getconn(5)
        conn.execute("create table this_will_not_stay ()")
        pool.putconn(conn)
        assert conn.closed
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select to_regclass('this_will_not_stay')") is None


def test_wait_tries_the_server_and_keeps_nothing(make_null: Any, database: Any) -> None:
    with make_null() as pool:
        pool.wait(5)
        assert pool.get_stats()["connections_num"] == 1
        eventually(lambda: not database.pids())
        assert pool.get_stats()["pool_available"] == 0
        assert size(pool) == 0
        pool.wait(5)
        assert pool.get_stats()["connections_num"] == 2
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


def test_wait_in_vain_closes_the_pool(make_null: Any, module: Any) -> None:
    with refusing_port() as port:
        pool = make_null(conninfo=f"host=127.0.0.1 port={port}")
        pool.open()
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            pool.wait(0.2)
        assert 0.19 < monotonic() - start < 1
        assert pool.closed


def test_resize_changes_max_size_only(make_null: Any, module: Any) -> None:
    with make_null(1, 1) as pool:
        one = pool.getconn(5)
        pool.resize(0, 2)
        assert (pool.min_size, pool.max_size) == (0, 2)
        two = pool.getconn(5)
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.1)
        pool.putconn(one)
        pool.putconn(two)
        pool.resize(0)
        assert (pool.min_size, pool.max_size) == (0, 0)


@pytest.mark.parametrize(("min_size", "max_size"), [(1, None), (1, 2), (-1, 2), (0, -1)])
def test_resize_refuses_a_min_size(make_null: Any, min_size: int, max_size: int | None) -> None:
    with make_null(1, 3) as pool:
        with pytest.raises(ValueError, match="min_size|max_size"):
            pool.resize(min_size, max_size)
        assert (pool.min_size, pool.max_size) == (0, 3)


def test_a_failed_connect_takes_no_place(make_null: Any) -> None:
    import psycopg

    with refusing_port() as port:
        pool = make_null(conninfo=f"host=127.0.0.1 port={port}")
        with pool:
            for _ in range(2):
                with pytest.raises(psycopg.OperationalError):
                    pool.getconn(0.2)
            pool.conninfo = make_null.dsn
            with pool.connection(timeout=5) as conn:
                assert scalar(conn, "select 1") == 1


def test_connections_are_made_in_parallel(make_null: Any) -> None:
    from psycopg import Connection

    class Slow(Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            sleep(0.2)
            return super().connect(conninfo, **kwargs)

    with make_null(1, 8, connection_class=Slow) as pool:
        start = monotonic()
        conns = gather(*[spawn(pool.getconn, 10) for _ in range(4)])
        elapsed = monotonic() - start
        for conn in conns:
            pool.putconn(conn)
    assert elapsed > 0.19
