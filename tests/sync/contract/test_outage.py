# Generated from tests/aio/contract/test_outage.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""When the server cannot be reached: trying again, giving notice, coming back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest

from tests.support.net import refusing_port, silent_port
from tests.support.packages import everpool_only
from tests.support.threads import eventually, scalar, sleep, spawn


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


def test_a_client_of_an_unreachable_server_gets_pool_timeout_in_time(
    make_any: Any, module: Any
) -> None:
    with silent_port() as port:
        pool = make_any(conninfo=f"host=127.0.0.1 port={port} connect_timeout=2")
        pool.open()
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.5)
        # libpq knows no timeout below two seconds, and the null pools of the original rely on libpq's.
        assert 0.45 < monotonic() - start < (2.5 if make_any.null else 1.0)
        pool.close(timeout=0.1)


@everpool_only(
    "the null pools of psycopg_pool rely on libpq's connect_timeout, which knows no less than two seconds"
)
def test_the_deadline_of_a_null_pool_bounds_the_connect(make_null: Any, module: Any) -> None:
    with silent_port() as port:
        pool = make_null(conninfo=f"host=127.0.0.1 port={port}")
        pool.open()
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.3)
        assert 0.29 < monotonic() - start < 0.5
        pool.close(timeout=0.1)


def test_the_pool_keeps_trying_and_serves_the_client_that_waits(make: Any, line: Line) -> None:
    with make(conninfo=line.conninfo) as pool:
        worker = spawn(pool.getconn, 10)
        eventually(lambda: len(line.calls) >= 2)
        line.up = True
        conn = worker.result()
        assert scalar(conn, "select 1") == 1
        conn.rollback()
        pool.putconn(conn)


def test_failed_attempts_are_logged(make: Any, line: Line, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    with make(conninfo=line.conninfo, name="cut-off"):
        eventually(lambda: any("cut-off" in record.getMessage() for record in caplog.records))


def test_reconnect_failed_is_called_with_the_pool_after_reconnect_timeout(
    make: Any, line: Line
) -> None:
    calls = []

    def reconnect_failed(pool: Any) -> None:
        calls.append((pool, monotonic()))

    start = monotonic()
    with make(
        conninfo=line.conninfo, reconnect_timeout=0.4, reconnect_failed=reconnect_failed
    ) as pool:
        eventually(lambda: calls)
        assert calls[0][0] is pool
        assert 0.39 < calls[0][1] - start < 2
        assert len(line.calls) >= 2


def test_reconnect_failed_is_not_called_when_the_server_comes_back_in_time(
    make: Any, line: Line
) -> None:
    calls: list[Any] = []
    with make(
        conninfo=line.conninfo, reconnect_timeout=30.0, reconnect_failed=calls.append
    ) as pool:
        eventually(lambda: len(line.calls) >= 2)
        line.up = True
        with pool.connection(timeout=10) as conn:
            assert scalar(conn, "select 1") == 1
    assert not calls


def test_reconnect_failed_is_not_called_while_the_server_answers(make: Any) -> None:
    calls: list[Any] = []
    with make(reconnect_timeout=0.1, reconnect_failed=calls.append) as pool:
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1
        sleep(0.2)
    assert not calls


def test_the_pool_recovers_after_reconnect_failed_when_it_is_asked(make: Any, line: Line) -> None:
    calls: list[Any] = []
    with make(conninfo=line.conninfo, reconnect_timeout=0.2, reconnect_failed=calls.append) as pool:
        eventually(lambda: calls)
        line.up = True
        with pool.connection(timeout=10) as conn:
            assert scalar(conn, "select 1") == 1


@everpool_only(
    "psycopg_pool gives up and stays below min_size until somebody asks, though it documents the contrary"
)
def test_the_pool_recovers_after_reconnect_failed_by_itself(
    make: Any, line: Line, database: Any
) -> None:
    calls: list[Any] = []
    with make(
        2, conninfo=line.conninfo, reconnect_timeout=0.2, reconnect_failed=calls.append
    ) as pool:
        eventually(lambda: calls)
        line.up = True
        eventually(lambda: pool.get_stats()["pool_available"] == 2)
        assert len(database.pids()) == 2


@everpool_only("psycopg_pool calls it for each connection it gave up")
def test_reconnect_failed_is_called_once_for_each_reconnect_timeout(make: Any, line: Line) -> None:
    calls = []

    def reconnect_failed(pool: Any) -> None:
        calls.append(monotonic())

    with make(4, conninfo=line.conninfo, reconnect_timeout=0.5, reconnect_failed=reconnect_failed):
        eventually(lambda: len(calls) == 3)
    assert all(0.4 < later - earlier < 3 for earlier, later in pairwise(calls))


def test_a_reconnect_failed_that_raises_does_not_stop_the_pool(make: Any, line: Line) -> None:
    calls = []

    def reconnect_failed(pool: Any) -> None:
        calls.append(pool)
        raise ZeroDivisionError

    with make(
        conninfo=line.conninfo, reconnect_timeout=0.2, reconnect_failed=reconnect_failed
    ) as pool:
        eventually(lambda: calls)
        line.up = True
        with pool.connection(timeout=10) as conn:
            assert scalar(conn, "select 1") == 1


def test_a_pool_whose_server_went_away_and_came_back_is_whole_again(
    make: Any, line: Line, database: Any
) -> None:
    line.up = True
    with make(2, conninfo=line.conninfo, check=make.cls.check_connection) as pool:
        pool.wait(5)
        line.up = False
        database.kill(*database.pids())
        pool.check()
        line.up = True
        eventually(lambda: pool.get_stats()["pool_available"] == 2, timeout=10)
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


def test_close_ends_the_trying(make: Any, line: Line) -> None:
    with make(conninfo=line.conninfo):
        eventually(lambda: line.calls)
    tried = len(line.calls)
    sleep(1.3)
    assert len(line.calls) <= tried


def test_a_null_pool_without_a_server_fails_the_client_at_once_or_in_time(
    make_null: Any, line: Line
) -> None:
    import psycopg

    with make_null(conninfo=line.conninfo) as pool:
        start = monotonic()
        with pytest.raises(psycopg.OperationalError):
            pool.getconn(0.5)
        assert monotonic() - start < 1.0
        line.up = True
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1
        assert pool.get_stats()["pool_size"] == 0


@everpool_only("psycopg_pool lends a connection that died while it was idle")
def test_a_connection_that_died_while_idle_is_not_lent(make: Any, database: Any) -> None:
    with make(3) as pool:
        pool.wait(5)
        database.kill(*database.pids())
        sleep(0.02)  # the time the news takes: tasks get none while `kill` blocks the loop
        for _ in range(3):
            with pool.connection(timeout=5) as conn:
                assert scalar(conn, "select 1") == 1
        eventually(lambda: len(database.pids()) == 3)
