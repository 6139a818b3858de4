# Generated from tests/aio/contract/test_open_close.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Opening, waiting until ready, closing."""

from __future__ import annotations

from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from tests.support.net import refusing_port, silent_port
from tests.support.threads import Event, eventually, scalar, sleep, spawn


class SlowConnection(Connection[Any]):
    """Takes a while to connect."""

    delay = 0.2

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
        sleep(cls.delay)
        return super().connect(conninfo, **kwargs)


def test_a_pool_is_closed_until_it_is_opened(make_any: Any, module: Any) -> None:
    pool = make_any()
    assert pool.closed
    with pytest.raises(module.PoolClosed, match="is not open yet"):
        pool.getconn()
    with pytest.raises(module.PoolClosed, match="is not open yet"):
        with pool.connection():
            raise AssertionError("not reached")
    with pytest.raises(module.PoolClosed, match="is not open yet"):
        pool.wait(1)

    pool.open()
    assert not pool.closed
    with pool.connection(timeout=5) as conn:
        assert scalar(conn, "select 1") == 1

    pool.close()
    assert pool.closed
    with pytest.raises(module.PoolClosed, match="is already closed"):
        pool.getconn()
    with pytest.raises(module.PoolClosed, match="is already closed"):
        with pool.connection():
            raise AssertionError("not reached")


def test_the_error_of_a_closed_pool_names_the_pool(make_any: Any, module: Any) -> None:
    pool = make_any(name="dormant")
    with pytest.raises(module.PoolClosed, match="the pool 'dormant' is not open yet"):
        pool.getconn()
    pool.open()
    pool.close()
    with pytest.raises(module.PoolClosed, match="the pool 'dormant' is already closed"):
        pool.getconn()


def test_opening_twice_is_fine(make_any: Any) -> None:
    pool = make_any()
    pool.open()
    pool.open()
    with pool:
        pool.open()
        with pool.connection(timeout=5) as conn:
            pid = conn.info.backend_pid
        pool.open()
        if not make_any.null:
            with pool.connection(timeout=5) as conn:
                assert conn.info.backend_pid == pid
    assert pool.closed


def test_closing_twice_is_fine(make_any: Any) -> None:
    pool = make_any()
    pool.open()
    pool.close()
    pool.close()
    assert pool.closed


def test_a_closed_pool_cannot_be_opened_again(make_any: Any, module: Any) -> None:
    pool = make_any()
    pool.open()
    pool.close()
    for _ in range(2):
        with pytest.raises(
            module.PoolClosed, match="pool has already been opened/closed and cannot be reused"
        ):
            pool.open()
    with pytest.raises(module.PoolClosed, match="cannot be reused"):
        with pool:
            raise AssertionError("not reached")
    assert pool.closed


def test_a_pool_closed_before_it_was_ever_opened_can_still_be_opened(make_any: Any) -> None:
    pool = make_any()
    pool.close()
    with pool:
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


def test_the_context_opens_and_closes_and_is_the_pool(make_any: Any) -> None:
    pool = make_any()
    with pool as entered:
        assert entered is pool
        assert not pool.closed
    assert pool.closed


def test_the_context_closes_the_pool_on_an_error_and_lets_it_through(make_any: Any) -> None:
    pool = make_any()
    with pytest.raises(ZeroDivisionError):
        with pool:
            raise ZeroDivisionError
    assert pool.closed


def test_open_returns_before_the_connections_are_there(make: Any) -> None:
    pool = make(2, connection_class=SlowConnection)
    start = monotonic()
    pool.open()
    assert monotonic() - start < SlowConnection.delay / 2
    assert pool.get_stats()["pool_available"] == 0
    with pool:
        pool.wait(5)


def test_open_can_wait_for_the_connections(make: Any) -> None:
    pool = make(2, connection_class=SlowConnection)
    pool.open(wait=True, timeout=5)
    with pool:
        assert pool.get_stats()["pool_available"] == 2


def test_wait_returns_when_min_size_connections_are_ready(make: Any) -> None:
    with make(2, 5, connection_class=SlowConnection) as pool:
        start = monotonic()
        pool.wait(5)
        assert SlowConnection.delay * 0.9 < monotonic() - start < 3
        assert pool.get_stats()["pool_available"] == 2
        start = monotonic()
        pool.wait(5)
        assert monotonic() - start < SlowConnection.delay / 2


@pytest.mark.parametrize("how", ["wait", "open"])
def test_a_wait_in_vain_closes_the_pool_and_raises_pool_timeout(
    make_any: Any, module: Any, how: str
) -> None:
    with refusing_port() as port:
        pool = make_any(conninfo=f"host=127.0.0.1 port={port} dbname=x")
        start = monotonic()
        with pytest.raises(
            module.PoolTimeout, match=r"pool initialization incomplete after 0\.2 sec"
        ):
            if how == "open":
                pool.open(wait=True, timeout=0.2)
            else:
                pool.open()
                pool.wait(0.2)
        assert 0.19 < monotonic() - start < 2
        assert pool.closed
        with pytest.raises(module.PoolClosed):
            pool.getconn()


def test_a_failed_wait_does_not_lose_the_error_inside_the_context(make: Any, module: Any) -> None:
    with refusing_port() as port, pytest.raises(module.PoolTimeout):
        with make(conninfo=f"host=127.0.0.1 port={port}") as pool:
            pool.wait(0.1)


def test_the_pool_serves_clients_before_it_is_full(make: Any) -> None:
    opened = []

    class LaterSlow(Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            opened.append(1)
            if len(opened) > 1:
                sleep(1)
            return super().connect(conninfo, **kwargs)

    start = monotonic()
    with make(2, connection_class=LaterSlow) as pool:
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1
            assert monotonic() - start < 0.9


def test_the_connections_of_a_fresh_pool_are_not_opened_one_after_the_other(
    make: Any,
) -> None:
    start = monotonic()
    with make(6, connection_class=SlowConnection, num_workers=3) as pool:
        pool.wait(5)
        assert monotonic() - start < 5 * SlowConnection.delay


def test_close_closes_the_idle_connections(make: Any, database: Any) -> None:
    with make(3) as pool:
        pool.wait(5)
        assert len(database.pids()) == 3
    eventually(lambda: not database.pids())


def test_close_leaves_lent_connections_alone_until_they_are_returned(
    make_any: Any, database: Any
) -> None:
    pool = make_any()
    pool.open()
    conn = pool.getconn(5)
    start = monotonic()
    pool.close()
    assert monotonic() - start < 1
    assert not conn.closed
    assert scalar(conn, "select 1") == 1
    pool.putconn(conn)
    assert conn.closed
    eventually(lambda: not database.pids())


def test_a_connection_block_may_outlive_its_pool(make_any: Any, database: Any) -> None:
    pool = make_any()
    pool.open()
    with pool.connection(timeout=5) as conn:
        pool.close()
        assert scalar(conn, "select 1") == 1
    assert conn.closed
    eventually(lambda: not database.pids())


def test_close_refuses_the_clients_that_wait(make_any: Any, module: Any) -> None:
    def client() -> str:
        try:
            pool.getconn(10)
        except module.PoolClosed as ex:
            return str(ex)
        return "served"

    pool = make_any(name="shutting")
    pool.open()
    conn = pool.getconn(5)
    clients = [spawn(client) for _ in range(3)]
    eventually(lambda: pool.get_stats()["requests_waiting"] == 3)
    pool.close()
    for worker in clients:
        assert "the pool 'shutting' is closed" in worker.result(2)
    pool.putconn(conn)


@pytest.mark.parametrize("timeout", [-1, 0, 0.5])
def test_close_takes_a_timeout(make_any: Any, timeout: float) -> None:
    pool = make_any()
    pool.open()
    pool.close(timeout=timeout)
    assert pool.closed


def test_close_does_not_wait_longer_than_its_timeout_for_a_connect(make: Any, recwarn: Any) -> None:
    with silent_port() as port:
        pool = make(conninfo=f"host=127.0.0.1 port={port} connect_timeout=2")
        pool.open()
        sleep(0.05)
        start = monotonic()
        pool.close(timeout=0.3)
        assert monotonic() - start < 1
        assert pool.closed


def test_a_pool_closed_while_it_connects_closes_soon(make: Any, database: Any) -> None:
    for _ in range(6):
        pool = make(2)
        pool.open()
        start = monotonic()
        pool.close()
        assert monotonic() - start < 2
    eventually(lambda: not database.pids())


def test_connections_that_arrive_after_close_are_closed(make: Any, database: Any) -> None:
    connecting = Event()

    class Announced(SlowConnection):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            connecting.set()
            return super().connect(conninfo, **kwargs)

    pool = make(connection_class=Announced)
    pool.open()
    connecting.wait()
    pool.close(timeout=5)
    sleep(SlowConnection.delay)
    eventually(lambda: not database.pids())


def test_open_in_the_constructor_is_silent(make_any: Any) -> None:
    pool = make_any(open=True)
    assert not pool.closed
    with pool.connection(timeout=5) as conn:
        conn.execute("select 1")
    pool.close()


def test_implicit_open_warns_at_first_use_and_only_then(make_any: Any) -> None:
    pool = make_any(open=None)
    assert not pool.closed
    with pytest.warns(
        DeprecationWarning,
        match=rf"the default for the {make_any.cls.__name__} 'open' parameter",
    ):
        conn = pool.getconn(5)
    pool.putconn(conn)
    with pool.connection(timeout=5) as conn:
        conn.execute("select 1")
    pool.close()


def test_a_pool_opened_implicitly_may_wait(make_any: Any) -> None:
    pool = make_any(open=None)
    with pytest.warns(Warning, match="in the constructor|'open' parameter"):
        pool.wait(5)
    pool.close()


def test_an_implicitly_opened_pool_used_as_a_context_does_not_warn(make_any: Any) -> None:
    with make_any(open=None) as pool:
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")


def test_the_pools_errors_are_operational_errors(make_any: Any, module: Any) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        make_any().getconn()
    assert isinstance(caught.value, module.PoolClosed)
