# Generated from tests/aio/defences/test_callbacks.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Callbacks that fail or hang cost their connection, and nothing else."""

from __future__ import annotations

from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool.lab import FaultProxy
from tests.support.threads import eventually
from tests.sync.defences.measure import is_whole, request, states

ERRORS = [ZeroDivisionError, psycopg.OperationalError, psycopg.errors.QueryCanceled, TimeoutError]


class Failing:
    """A callback that fails some times, and works from then on."""

    def __init__(self, error: type[Exception], times: int = 2, result: Any = None) -> None:
        self.error = error
        self.left = times
        self.calls = 0
        self.result = result

    def _run(self) -> Any:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error("not now")
        return self.result

    def with_connection(self, conn: Any) -> None:
        self._run()

    def without(self) -> Any:
        return self._run()

    def with_pool(self, pool: Any) -> None:
        self._run()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("callback", ["configure", "check", "reset"])
def test_the_pool_works_on_after_a_callback_failed(
    make: Any, callback: str, error: type[Exception]
) -> None:
    failing = Failing(error)
    with make(2, **{callback: failing.with_connection}) as pool:
        for _ in range(4):
            request(pool, 5)
        eventually(lambda: failing.calls >= 3)  # a reset runs after its connection's return
        eventually(lambda: is_whole(pool, 2))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("setting", ["conninfo", "kwargs"])
def test_the_pool_works_on_after_a_settings_function_failed(
    make: Any, setting: str, error: type[Exception]
) -> None:
    result = make.dsn if setting == "conninfo" else {"autocommit": True}
    failing = Failing(error, result=result)
    with make(2, **{setting: failing.without}) as pool:
        request(pool, 5)
        assert failing.calls >= 3
        eventually(lambda: is_whole(pool, 2))


def test_the_pool_works_on_after_reconnect_failed_failed(make: Any, proxy: FaultProxy) -> None:
    failing = Failing(ZeroDivisionError, times=100)
    proxy.refuse()
    with make(2, reconnect_timeout=0.1, reconnect_failed=failing.with_pool) as pool:
        eventually(lambda: failing.calls >= 2)
        proxy.accept()
        request(pool, 5)
        eventually(lambda: is_whole(pool, 2))


def begin(conn: Any) -> None:
    conn.execute("begin")


@pytest.mark.parametrize("callback", ["configure", "reset"])
def test_a_callback_that_leaves_a_transaction_open_costs_its_connection(
    make: Any, callback: str, caplog: Any
) -> None:
    with make(1, **{callback: begin}) as pool:
        if callback == "configure":
            with pytest.raises(psycopg.OperationalError, match="INTRANS"):
                with pool.connection(timeout=0.3):
                    pass
            return
        pids = set()
        for _ in range(3):
            with pool.connection(timeout=1) as conn:
                pids.add(conn.info.backend_pid)
        assert len(pids) == 3


def hang(conn: Any) -> None:
    conn.execute("select pg_sleep(60)")


def test_a_configure_that_hangs_ends_at_its_limit(make: Any) -> None:
    with make(1, configure=hang, callback_timeout=0.2) as pool:
        with pytest.raises(psycopg.OperationalError, match="callback_timeout=0.2"):
            with pool.connection(timeout=1):
                pass
        pool._configure = None
        request(pool, 5)


def test_a_reset_that_hangs_ends_at_its_limit_and_holds_up_nobody(
    make: Any, proxy: FaultProxy
) -> None:
    with make(2, 2, reset=hang, callback_timeout=0.3, num_workers=1) as pool:
        pool.wait(10)
        start = monotonic()
        request(pool)
        assert monotonic() - start < 0.2
        request(pool)  # the other one
        eventually(lambda: states(pool)["returning"] == 2)
        pool._reset = None
        request(pool, 5)
        assert monotonic() - start < 2
        eventually(lambda: is_whole(pool, 2))


def test_returning_a_connection_in_a_transaction_over_silence_ends_at_the_limit(
    make: Any, proxy: FaultProxy
) -> None:
    with make(2, 2, callback_timeout=0.3) as pool:
        pool.wait(10)
        conn = pool.getconn()
        conn.execute("begin")
        proxy.silence(link=proxy.find(backend_pid=conn.info.backend_pid))
        start = monotonic()
        pool.putconn(conn)
        assert 0.25 < monotonic() - start < 0.8
        eventually(lambda: is_whole(pool, 2))
        request(pool)


def test_a_check_that_fails_always_does_not_open_connections_as_fast_as_it_can(
    make: Any, proxy: FaultProxy
) -> None:
    failing = Failing(ZeroDivisionError, times=10**6)
    with make(2, check=failing.with_connection) as pool:
        pool.wait(10)
        with pytest.raises(psycopg.OperationalError):
            request(pool, 1)
        assert proxy.stats().accepted < 20
        failing.left = 0
        request(pool, 5)
        eventually(lambda: is_whole(pool, 2))
