# Generated from tests/aio/contract/test_callbacks.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The callbacks: configure, check, reset."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.support.packages import everpool_only
from tests.support.threads import Event, eventually, scalar, sleep, spawn


class Boom(Exception):
    """What a callback of a test raises."""


def settle(pool: Any) -> None:
    """Wait until a returned connection is back: with a `reset` that may happen in the background."""
    eventually(lambda: pool.get_stats()["pool_available"] == pool.min_size)


# configure


def test_configure_is_called_once_for_each_connection_made(make: Any) -> None:
    configured = []

    def configure(conn: Any) -> None:
        configured.append(conn.info.backend_pid)
        conn.set_autocommit(True)

    with make(2, configure=configure) as pool:
        pool.wait(5)
        for _ in range(4):
            with pool.connection(timeout=5) as conn:
                assert conn.autocommit
                assert conn.info.backend_pid in configured
        assert len(configured) == 2
        pool.drain()
        eventually(lambda: len(configured) == 4)


def test_null_pools_configure_each_connection_too(make_null: Any) -> None:
    configured = []

    def configure(conn: Any) -> None:
        configured.append(conn.info.backend_pid)
        conn.execute("set statement_timeout = 12345")
        conn.commit()

    with make_null(configure=configure) as pool:
        for n in (1, 2):
            with pool.connection(timeout=5) as conn:
                assert scalar(conn, "show statement_timeout") == "12345ms"
            assert len(configured) == n


def test_a_connection_that_configure_leaves_in_a_transaction_is_not_lent(
    make: Any, module: Any, caplog: Any
) -> None:
    caplog.set_level(logging.WARNING)
    calls = []

    def configure(conn: Any) -> None:
        calls.append(conn)
        conn.execute("select 1")

    with make(configure=configure) as pool:
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.5)
        assert pool.get_stats()["pool_available"] == 0
    assert calls
    assert any("INTRANS" in record.getMessage() for record in caplog.records)


def test_configure_is_tried_again_on_a_new_connection_after_raising(make: Any, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    calls = []

    def configure(conn: Any) -> None:
        calls.append(conn.info.backend_pid)
        if len(calls) == 1:
            conn.execute("wat")

    with make(configure=configure) as pool:
        with pool.connection(timeout=10) as conn:
            assert scalar(conn, "select 1") == 1
            assert conn.info.backend_pid == calls[1]
    assert len(set(calls)) == 2
    assert any("wat" in record.getMessage() for record in caplog.records)


def test_configure_is_tried_again_after_leaving_a_transaction_once(make: Any) -> None:
    calls = []

    def configure(conn: Any) -> None:
        calls.append(conn.info.backend_pid)
        if len(calls) == 1:
            conn.execute("select 1")

    with make(configure=configure) as pool:
        with pool.connection(timeout=10) as conn:
            assert conn.info.backend_pid == calls[1]


@everpool_only("psycopg_pool leaves such a connection to the garbage collector")
def test_a_connection_whose_configure_failed_is_closed(make: Any, database: Any) -> None:
    failed = []

    def configure(conn: Any) -> None:
        if not failed:
            failed.append(conn)
            raise Boom

    with make(configure=configure) as pool:
        pool.wait(10)
        eventually(lambda: failed[0].closed)
        eventually(lambda: len(database.pids()) == 1)


# check


def test_check_is_called_before_each_lending(make_any: Any) -> None:
    checked = []

    def check(conn: Any) -> None:
        checked.append(conn)

    with make_any(check=check) as pool:
        for n in (1, 2, 3):
            with pool.connection(timeout=5) as conn:
                assert checked[-1] is conn
                assert len(checked) == n
        conn = pool.getconn(5)
        assert checked[-1] is conn
        pool.putconn(conn)
        assert len(checked) == 4


def test_check_is_called_for_a_client_that_had_to_wait(make_any: Any) -> None:
    checked = []

    def check(conn: Any) -> None:
        checked.append(conn)

    def client() -> None:
        with pool.connection(timeout=5):
            pass

    with make_any(check=check) as pool:
        with pool.connection(timeout=5):
            worker = spawn(client)
            eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        worker.result()
        assert len(checked) == 2


def test_a_client_whose_connection_fails_the_check_gets_another(make: Any) -> None:
    refused = []

    def check(conn: Any) -> None:
        if not refused:
            refused.append(conn.info.backend_pid)
            raise Boom

    with make(2, check=check) as pool:
        pool.wait(5)
        with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid not in refused
            assert scalar(conn, "select 1") == 1


def test_a_connection_found_broken_by_the_check_is_replaced(make: Any, database: Any) -> None:
    with make(check=make.cls.check_connection) as pool:
        pool.wait(5)
        (pid,) = database.pids()
        database.kill(pid)
        with pool.connection(timeout=10) as conn:
            assert conn.info.backend_pid != pid
            assert scalar(conn, "select 1") == 1
        eventually(lambda: pool.get_stats()["pool_available"] == 1)
        assert len(database.pids()) == 1


def test_a_check_that_always_fails_ends_in_pool_timeout_in_time(make_any: Any, module: Any) -> None:
    def check(conn: Any) -> None:
        raise Boom

    with make_any(check=check) as pool:
        for timeout in (0.3, 0.6):
            start = monotonic()
            with pytest.raises(module.PoolTimeout):
                pool.getconn(timeout)
            assert timeout * 0.5 < monotonic() - start < timeout + 0.3
            start = monotonic()
            with pytest.raises(module.PoolTimeout):
                with pool.connection(timeout=timeout):
                    raise AssertionError("not reached")
            assert timeout * 0.5 < monotonic() - start < timeout + 0.3


def test_failed_checks_lose_no_connection(make: Any, module: Any) -> None:
    bad = True

    def check(conn: Any) -> None:
        if bad:
            raise Boom

    with make(2, check=check) as pool:
        pool.wait(5)
        for _ in range(3):
            with pytest.raises(module.PoolTimeout):
                pool.getconn(0.1)
        bad = False
        with pool.connection(timeout=5) as one, pool.connection(timeout=5) as two:
            assert one is not two
            assert scalar(one, "select 1") == 1
            assert scalar(two, "select 1") == 1
        assert pool.get_stats()["pool_size"] == 2


@pytest.mark.parametrize("left", ["a transaction", "a failed transaction"])
def test_a_check_that_raises_inside_a_transaction_does_not_spoil_the_connection(
    make: Any, left: str
) -> None:
    bad = True

    def check(conn: Any) -> None:
        if bad:
            conn.execute("select 1" if left == "a transaction" else "wat")
            raise Boom

    with make(check=check) as pool:
        pool.wait(5)
        with pytest.raises(psycopg.OperationalError):
            pool.getconn(0.3)
        bad = False
        with pool.connection(timeout=5) as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert scalar(conn, "select 1") == 1


@pytest.mark.parametrize("autocommit", [True, False])
def test_check_connection_leaves_a_working_connection_as_it_was(
    make_any: Any, autocommit: bool
) -> None:
    with make_any(kwargs={"autocommit": autocommit}, check=make_any.cls.check_connection) as pool:
        with pool.connection(timeout=5) as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is autocommit
            make_any.cls.check_connection(conn)
            assert pool.check_connection(conn) is None
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is autocommit


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_check_connection_raises_on_a_connection_that_is_gone(
    make_any: Any, database: Any, how: str
) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            if how == "killed":
                database.kill(conn.info.backend_pid)
            else:
                conn.close()
            with pytest.raises(psycopg.OperationalError):
                make_any.cls.check_connection(conn)


def test_a_check_that_blocks_does_not_hold_the_pool(make: Any) -> None:
    blocked, release = Event(), Event()

    def check(conn: Any) -> None:
        if not blocked.is_set():
            blocked.set()
            release.wait()

    with make(2, check=check) as pool:
        pool.wait(5)
        worker = spawn(pool.getconn, 10)
        blocked.wait()
        with pool.connection(timeout=1) as conn:
            assert scalar(conn, "select 1") == 1
        release.set()
        pool.putconn(worker.result())


# reset


def test_reset_is_called_when_a_connection_returns(make: Any) -> None:
    seen = []

    def reset(conn: Any) -> None:
        seen.append((conn, conn.info.transaction_status))
        conn.set_autocommit(True)
        conn.execute("reset all")
        conn.set_autocommit(False)

    with make(reset=reset) as pool:
        pool.wait(5)
        assert not seen
        with pool.connection() as conn:
            assert not seen
            conn.execute("set timezone = 'Asia/Tokyo'")
        eventually(lambda: len(seen) == 1)
        assert seen[0] == (conn, TransactionStatus.IDLE)
        with pool.connection(timeout=5) as again:
            assert again is conn
            assert scalar(again, "show timezone") != "Asia/Tokyo"
        eventually(lambda: len(seen) == 2)


def test_reset_finds_a_connection_returned_in_a_transaction_already_idle(make: Any) -> None:
    seen = []

    def reset(conn: Any) -> None:
        seen.append(conn.info.transaction_status)

    with make(reset=reset) as pool:
        conn = pool.getconn(5)
        conn.execute("select 1")
        pool.putconn(conn)
        eventually(lambda: seen == [TransactionStatus.IDLE])


def test_a_client_that_waits_gets_the_connection_after_its_reset(make_any: Any) -> None:
    order = []

    def reset(conn: Any) -> None:
        sleep(0.05)
        order.append("reset")

    def client() -> Any:
        with pool.connection(timeout=5) as conn:
            order.append("lent")
            return conn

    with make_any(reset=reset) as pool:
        with pool.connection(timeout=5) as conn:
            worker = spawn(client)
            eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        assert worker.result() is conn
        assert order[:2] == ["reset", "lent"]


def test_null_pools_reset_a_connection_only_for_a_client_that_waits(make_null: Any) -> None:
    seen = []

    def reset(conn: Any) -> None:
        seen.append(conn)

    with make_null(reset=reset) as pool:
        with pool.connection(timeout=5) as conn:
            pass
        eventually(lambda: conn.closed)
        assert not seen


@pytest.mark.parametrize("fault", ["raises", "leaves a transaction"])
def test_a_connection_spoiled_by_reset_is_replaced(make: Any, caplog: Any, fault: str) -> None:
    caplog.set_level(logging.WARNING)
    spoiled = []

    def reset(conn: Any) -> None:
        if not spoiled:
            spoiled.append(conn.info.backend_pid)
            if fault == "raises":
                raise Boom("reset went wrong")
            conn.execute("select 1")

    with make(reset=reset) as pool:
        with pool.connection(timeout=5) as conn:
            pid = conn.info.backend_pid
        with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid
            assert scalar(conn, "select 1") == 1
        settle(pool)
        assert spoiled == [pid]
        assert pool.get_stats()["pool_size"] == 1
    wanted = "reset went wrong" if fault == "raises" else "INTRANS"
    assert any(wanted in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("fault", ["raises", "leaves a transaction"])
def test_a_client_that_waits_is_served_although_reset_spoiled_the_connection(
    make_any: Any, fault: str
) -> None:
    spoiled = []

    def reset(conn: Any) -> None:
        if not spoiled:
            spoiled.append(conn)
            if fault == "raises":
                raise Boom
            conn.execute("select 1")

    def client() -> Any:
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1
            return conn

    with make_any(reset=reset) as pool:
        with pool.connection(timeout=5) as first:
            worker = spawn(client)
            eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        second = worker.result()
        assert spoiled == [first]
        assert second is not first
        assert first.closed
