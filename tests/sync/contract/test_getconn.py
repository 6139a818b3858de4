# Generated from tests/aio/contract/test_getconn.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""`getconn` and `putconn`: borrowing without a block."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.pq import TransactionStatus

from tests.support.threads import eventually, scalar


def available(pool: Any) -> Any:
    return pool.get_stats()["pool_available"]


def test_a_connection_can_be_taken_and_given_back(make: Any) -> None:
    with make() as pool:
        conn = pool.getconn()
        assert scalar(conn, "select 1") == 1
        conn.rollback()
        assert available(pool) == 0
        pool.putconn(conn)
        eventually(lambda: available(pool) == 1)
        assert pool.getconn(timeout=5) is conn
        pool.putconn(conn)


def test_null_pools_close_what_is_given_back(make_null: Any) -> None:
    with make_null() as pool:
        conn = pool.getconn(timeout=5)
        assert pool.get_stats()["pool_size"] == 1
        pool.putconn(conn)
        assert conn.closed
        assert pool.get_stats()["pool_size"] == 0


def test_a_connection_of_no_pool_is_refused(make_any: Any) -> None:
    conn = Connection.connect(make_any.dsn)
    with conn, make_any(name="choosy") as pool:
        with pytest.raises(
            ValueError,
            match="can't return connection to pool 'choosy', it doesn't come from any pool",
        ):
            pool.putconn(conn)
        assert not conn.closed


def test_a_connection_of_another_pool_is_refused(make_any: Any) -> None:
    with make_any(name="one") as one, make_any(name="two") as two:
        conn = one.getconn(5)
        with pytest.raises(
            ValueError, match="can't return connection to pool 'two', it comes from pool 'one'"
        ):
            two.putconn(conn)
        assert scalar(conn, "select 1") == 1
        conn.rollback()
        one.putconn(conn)


def test_a_connection_cannot_be_given_back_twice(make_any: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        pool.putconn(conn)
        with pytest.raises(ValueError, match="can't return connection to pool"):
            pool.putconn(conn)
        if not make_any.null:
            eventually(lambda: available(pool) == 1)
            assert pool.getconn(5) is conn
            with pytest.raises(psycopg.OperationalError):
                pool.getconn(0.1)
            pool.putconn(conn)


def test_the_error_of_a_refused_return_shows_no_password(make_any: Any) -> None:
    conn = Connection.connect(make_any.dsn, password="sesame")
    with conn, make_any() as pool:
        with pytest.raises(ValueError) as caught:
            pool.putconn(conn)
        assert "sesame" not in str(caught.value)


def test_a_connection_given_back_to_a_closed_pool_is_closed(make_any: Any) -> None:
    pool = make_any()
    pool.open()
    conn = pool.getconn(5)
    pool.close()
    assert not conn.closed
    pool.putconn(conn)
    assert conn.closed


@pytest.mark.parametrize("state", ["INTRANS", "INERROR"])
def test_a_connection_given_back_in_a_transaction_is_rolled_back_with_a_warning(
    make: Any, caplog: Any, state: str
) -> None:
    caplog.set_level(logging.WARNING)
    with make() as pool:
        conn = pool.getconn(5)
        pid = conn.info.backend_pid
        if state == "INTRANS":
            conn.execute("create table this_will_not_stay ()")
        else:
            with pytest.raises(psycopg.ProgrammingError):
                conn.execute("wat")
        assert conn.info.transaction_status == TransactionStatus[state]
        pool.putconn(conn)
        eventually(lambda: available(pool) == 1)

        again = pool.getconn(5)
        assert again.info.backend_pid == pid
        assert again.info.transaction_status == TransactionStatus.IDLE
        assert scalar(again, "select to_regclass('this_will_not_stay')") is None
        again.rollback()
        pool.putconn(again)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "rolling back returned connection" in warnings[0]


def test_null_pools_roll_back_for_a_client_that_waits(make_null: Any, caplog: Any) -> None:
    from tests.support.threads import spawn

    caplog.set_level(logging.WARNING)
    with make_null() as pool:
        conn = pool.getconn(5)
        conn.execute("select 1")
        worker = spawn(pool.getconn, 5)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        pool.putconn(conn)
        again = worker.result()
        assert again is conn
        assert again.info.transaction_status == TransactionStatus.IDLE
        pool.putconn(again)
    assert any(
        "rolling back returned connection" in record.getMessage() for record in caplog.records
    )


def test_a_connection_given_back_in_the_middle_of_a_command_is_discarded(
    make: Any, caplog: Any, database: Any
) -> None:
    caplog.set_level(logging.WARNING)
    with make() as pool:
        conn = pool.getconn(5)
        pid = conn.info.backend_pid
        conn.pgconn.exec_(b"copy (select * from generate_series(1, 10)) to stdout")
        assert conn.info.transaction_status == TransactionStatus.ACTIVE
        pool.putconn(conn)
        assert conn.closed

        again = pool.getconn(5)
        assert again.info.backend_pid != pid
        assert again.info.transaction_status == TransactionStatus.IDLE
        pool.putconn(again)
        eventually(lambda: len(database.pids()) == 1)
    assert any(record.levelno >= logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("how", ["closed", "killed in a transaction", "killed"])
def test_a_dead_connection_given_back_is_replaced(make: Any, database: Any, how: str) -> None:
    with make() as pool:
        conn = pool.getconn(5)
        pid = conn.info.backend_pid
        if how == "closed":
            conn.close()
        else:
            if how == "killed in a transaction":
                conn.execute("select 1")
            database.kill(pid)
            with pytest.raises(psycopg.OperationalError):
                conn.execute("select 1")
        pool.putconn(conn)
        again = pool.getconn(5)
        assert again.info.backend_pid != pid
        assert scalar(again, "select 1") == 1
        pool.putconn(again)
        eventually(lambda: available(pool) == 1)
        assert pool.get_stats()["pool_size"] == 1
        assert pool.get_stats()["returns_bad"] == 1


def test_a_connection_whose_rollback_fails_is_replaced(
    make: Any, database: Any, caplog: Any
) -> None:
    caplog.set_level(logging.WARNING)
    with make() as pool:
        conn = pool.getconn(5)
        conn.execute("select 1")
        database.kill(conn.info.backend_pid)
        pool.putconn(conn)
        assert conn.closed
        again = pool.getconn(5)
        assert again is not conn
        assert scalar(again, "select 1") == 1
        again.rollback()
        pool.putconn(again)
    assert caplog.records


# close_returns


def test_close_returns_makes_close_give_the_connection_back(make: Any) -> None:
    with make(close_returns=True) as pool:
        assert pool.close_returns is True
        conn = pool.getconn(5)
        assert available(pool) == 0
        conn.close()
        assert not conn.closed
        eventually(lambda: available(pool) == 1)
        assert pool.getconn(5) is conn
        conn.close()
    assert conn.closed


def test_close_returns_rolls_back_an_open_transaction(make: Any) -> None:
    with make(close_returns=True) as pool:
        conn = pool.getconn(5)
        conn.execute("create table this_will_not_stay ()")
        conn.close()
        again = pool.getconn(5)
        assert again is conn
        assert scalar(again, "select to_regclass('this_will_not_stay')") is None
        again.close()


def test_close_returns_works_with_a_connection_class_of_the_users_own(make: Any) -> None:
    class Own(Connection[Any]):
        pass

    with make(close_returns=True, connection_class=Own) as pool:
        conn = pool.getconn(5)
        conn.close()
        assert not conn.closed
        eventually(lambda: available(pool) == 1)


def test_close_returns_still_lets_old_connections_be_replaced(make: Any, database: Any) -> None:
    from tests.support.threads import sleep

    with make(close_returns=True, max_lifetime=0.05) as pool:
        conn = pool.getconn(5)
        pid = conn.info.backend_pid
        sleep(0.1)
        conn.close()
        assert conn.closed
        eventually(lambda: available(pool) == 1)
        again = pool.getconn(5)
        assert again.info.backend_pid != pid
        again.close()


def test_close_returns_after_the_pool_was_closed_closes_for_real(make: Any) -> None:
    pool = make(close_returns=True)
    pool.open()
    conn = pool.getconn(5)
    pool.close()
    conn.close()
    assert conn.closed


def test_close_returns_inside_a_block_counts_as_no_double_return(make: Any) -> None:
    with make(close_returns=True) as pool:
        with pytest.raises(ValueError, match="can't return connection to pool"):
            with pool.connection(timeout=5) as conn:
                conn.close()
        eventually(lambda: available(pool) == 1)


def test_without_close_returns_close_closes(make_any: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        conn.close()
        assert conn.closed
        pool.putconn(conn)


def test_null_pools_take_close_returns_and_close_for_real(make_null: Any) -> None:
    with make_null(close_returns=True) as pool:
        assert pool.close_returns is False
        conn = pool.getconn(5)
        conn.close()
        assert conn.closed
        pool.putconn(conn)


def test_a_connection_class_may_give_itself_back_on_close(make: Any) -> None:
    class Returning(Connection[Any]):
        """What the documentation told users to write before there was `close_returns`."""

        def close(self) -> None:
            pool: Any = getattr(self, "_pool", None)
            if pool:
                pool.putconn(self)
            else:
                super().close()

    with make(connection_class=Returning) as pool:
        conn = pool.getconn(5)
        conn.close()
        assert not conn.closed
        eventually(lambda: available(pool) == 1)
    assert conn.closed
