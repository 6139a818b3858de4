# Generated from tests/aio/contract/test_connection.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""`connection()`: a connection for the length of a block."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.support.threads import eventually, scalar


@pytest.fixture
def table(database: Any) -> Any:
    """A table of this test, with a column `n`."""
    name = database.application_name.replace("-", "_")
    database.execute(f"create unlogged table {name} (n int)")
    yield name
    database.execute(f"drop table {name}")


class Boom(Exception):
    """What a block of a test raises."""


def test_the_block_is_committed_when_it_ends_well(make_any: Any, table: str) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            conn.execute(f"insert into {table} values (1)")
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, f"select count(*) from {table}") == 1


def test_the_block_is_rolled_back_when_it_raises_and_the_error_passes_through(
    make_any: Any, table: str
) -> None:
    with make_any() as pool:
        error = Boom("unchanged")
        with pytest.raises(Boom) as caught:
            with pool.connection(timeout=5) as conn:
                conn.execute(f"insert into {table} values (1)")
                raise error
        assert caught.value is error
        with pool.connection(timeout=5) as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert scalar(conn, f"select count(*) from {table}") == 0


def test_a_database_error_passes_through_and_the_connection_lives_on(make: Any) -> None:
    with make() as pool:
        with pytest.raises(psycopg.errors.DivisionByZero):
            with pool.connection(timeout=5) as conn:
                conn.execute("select 1 / 0")
        with pool.connection(timeout=5) as again:
            assert again is conn
            assert scalar(again, "select 1") == 1


def test_a_handled_database_error_leaves_the_block_rolled_back(make_any: Any, table: str) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            conn.execute(f"insert into {table} values (1)")
            with pytest.raises(psycopg.errors.UndefinedTable):
                conn.execute("select * from there_is_no_such_table")
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, f"select count(*) from {table}") == 0


def test_an_error_at_commit_passes_through(make_any: Any, table: str, database: Any) -> None:
    database.execute(f"alter table {table} add unique (n) deferrable initially deferred")
    with make_any() as pool:
        with pytest.raises(psycopg.errors.UniqueViolation):
            with pool.connection(timeout=5) as conn:
                conn.execute(f"insert into {table} values (1), (1)")
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, f"select count(*) from {table}") == 0


def test_the_user_may_end_the_transaction_inside_the_block(make_any: Any, table: str) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            conn.execute(f"insert into {table} values (1)")
            conn.commit()
            conn.execute(f"insert into {table} values (2)")
            conn.rollback()
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, f"select sum(n) from {table}") == 1


def test_transaction_blocks_work_inside(make_any: Any, table: str) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            with conn.transaction():
                conn.execute(f"insert into {table} values (1)")
            with pytest.raises(Boom):
                with conn.transaction():
                    conn.execute(f"insert into {table} values (2)")
                    raise Boom
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, f"select sum(n) from {table}") == 1


def test_blocks_may_be_nested_and_have_a_connection_each(make_any: Any) -> None:
    with make_any(2) as pool:
        with pool.connection(timeout=5) as outer:
            with pool.connection(timeout=5) as inner:
                assert outer.info.backend_pid != inner.info.backend_pid
            assert scalar(outer, "select 1") == 1


def test_the_connection_goes_back_and_is_lent_again(make: Any) -> None:
    with make() as pool:
        with pool.connection(timeout=5) as first:
            pass
        assert not first.closed
        with pool.connection(timeout=5) as second:
            assert second is first


def test_null_pools_close_the_connection_at_the_end_of_the_block(make_null: Any) -> None:
    with make_null() as pool:
        with pool.connection(timeout=5) as first:
            assert not first.closed
        assert first.closed
        with pool.connection(timeout=5) as second:
            assert second is not first


def test_the_block_may_be_left_by_return_and_break(make: Any) -> None:
    def leave() -> Any:
        for _ in range(3):
            with pool.connection(timeout=5):
                break
        with pool.connection(timeout=5) as conn:
            return conn

    with make() as pool:
        conn = leave()
        with pool.connection(timeout=5) as again:
            assert again is conn


def test_the_timeout_of_the_call_overrides_that_of_the_pool(make_any: Any, module: Any) -> None:
    with make_any(timeout=20.0) as pool:
        with pool.connection(timeout=5):
            start = monotonic()
            with pytest.raises(module.PoolTimeout):
                with pool.connection(timeout=0.1):
                    raise AssertionError("not reached")
            with pytest.raises(module.PoolTimeout):
                with pool.connection(0.1):
                    raise AssertionError("not reached")
            assert 0.15 < monotonic() - start < 1.5


def test_no_connection_is_borrowed_before_the_block_is_entered(make: Any) -> None:
    with make() as pool:
        pool.wait(5)
        manager = pool.connection()
        assert pool.get_stats()["pool_available"] == 1
        assert pool.get_stats().get("requests_num", 0) == 0
        with manager as conn:
            assert pool.get_stats()["pool_available"] == 0
            assert scalar(conn, "select 1") == 1


@pytest.mark.parametrize("with_error", [False, True])
def test_a_connection_broken_inside_the_block_is_replaced(
    make_any: Any, database: Any, with_error: bool
) -> None:
    with make_any() as pool:
        with pytest.raises(psycopg.OperationalError):
            with pool.connection(timeout=5) as conn:
                pid = conn.info.backend_pid
                database.kill(pid)
                if with_error:
                    conn.execute("select 1")
                else:
                    with pytest.raises(psycopg.OperationalError):
                        conn.execute("select 1")
                    raise psycopg.OperationalError("the user's own")
        with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid
            assert scalar(conn, "select 1") == 1
        assert pool.get_stats()["returns_bad"] == 1


def test_a_broken_connection_does_not_hide_the_error_of_the_block(
    make_any: Any, database: Any
) -> None:
    with make_any() as pool:
        with pytest.raises(Boom):
            with pool.connection(timeout=5) as conn:
                conn.execute("select 1")
                database.kill(conn.info.backend_pid)
                raise Boom
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


def test_a_connection_closed_by_the_user_inside_the_block_is_replaced(make_any: Any) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as first:
            first.close()
            assert first.closed
        with pool.connection(timeout=5) as second:
            assert second is not first
            assert scalar(second, "select 1") == 1
        eventually(lambda: pool.get_stats()["pool_size"] == (0 if make_any.null else 1))


def test_the_autocommit_of_the_connection_is_respected(make_any: Any, table: str) -> None:
    with make_any(kwargs={"autocommit": True}) as pool:
        with pytest.raises(Boom):
            with pool.connection(timeout=5) as conn:
                conn.execute(f"insert into {table} values (1)")
                raise Boom
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, f"select count(*) from {table}") == 1


def test_a_block_that_ends_well_warns_of_nothing(make_any: Any, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
    assert [record.getMessage() for record in caplog.records] == []


def test_a_block_left_by_a_base_exception_is_rolled_back_and_returned(
    make: Any, table: str
) -> None:
    class Interrupt(BaseException):
        """As KeyboardInterrupt, without its effect on the test runner."""

    with make() as pool:
        with pytest.raises(Interrupt):
            with pool.connection(timeout=5) as conn:
                conn.execute(f"insert into {table} values (1)")
                raise Interrupt
        with pool.connection(timeout=5) as again:
            assert again is conn
            assert scalar(again, f"select count(*) from {table}") == 0
