# Generated from tests/aio/contract/test_queue.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Waiting for a connection: order, timeouts, limits."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from tests.support.packages import everpool_only
from tests.support.threads import Queue, alive, eventually, gather, scalar, sleep, spawn


def waiting(pool: Any) -> Any:
    return pool.get_stats()["requests_waiting"]


def test_clients_are_served_in_the_order_they_came(make_any: Any) -> None:
    served = []

    def client(n: int) -> None:
        with pool.connection(timeout=10):
            served.append(n)

    with make_any() as pool:
        with pool.connection(timeout=5):
            workers = []
            for n in range(6):
                workers.append(spawn(client, n))
                eventually(lambda n=n: waiting(pool) == n + 1)
        gather(*workers)
    assert served == list(range(6))


def test_clients_share_few_connections(make_any: Any) -> None:
    def client() -> Any:
        with pool.connection(timeout=10) as conn:
            sleep(0.02)
            return conn.info.backend_pid, scalar(conn, "select pg_backend_pid()")

    with make_any(2) as pool:
        results = gather(*[spawn(client) for _ in range(20)])
    assert all(told == asked for told, asked in results)
    if not make_any.null:
        assert len({pid for pid, _ in results}) == 2


def test_no_connection_has_two_clients_at_once(make_any: Any) -> None:
    holders: dict[int, int] = {}

    def client(n: int) -> None:
        for _ in range(10):
            with pool.connection(timeout=10) as conn:
                pid = conn.info.backend_pid
                assert pid not in holders
                holders[pid] = n
                assert len(holders) <= 3
                sleep(0.001)
                assert holders.pop(pid) == n

    with make_any(3) as pool:
        gather(*[spawn(client, n) for n in range(12)])
        assert pool.get_stats()["requests_num"] == 120


def test_a_client_that_waits_gets_the_connection_given_back(make_any: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: waiting(pool) == 1)
        assert alive(worker)
        pool.putconn(conn)
        assert worker.result() is conn
        pool.putconn(conn)


def test_a_client_waits_no_longer_than_the_timeout_of_the_pool(make_any: Any, module: Any) -> None:
    with make_any(timeout=0.2) as pool:
        conn = pool.getconn(5)
        start = monotonic()
        with pytest.raises(module.PoolTimeout, match="couldn't get a connection after 0.20 sec"):
            pool.getconn()
        assert 0.19 < monotonic() - start < 0.7
        pool.putconn(conn)


def test_a_client_may_ask_for_another_timeout(make_any: Any, module: Any) -> None:
    with make_any(timeout=0.1) as pool:
        conn = pool.getconn(5)
        start = monotonic()
        with pytest.raises(module.PoolTimeout, match="couldn't get a connection after 0.35 sec"):
            pool.getconn(timeout=0.35)
        assert 0.34 < monotonic() - start < 0.9
        pool.putconn(conn)


def test_the_timeout_of_the_pool_may_be_changed_while_open(make_any: Any, module: Any) -> None:
    with make_any(timeout=25.0) as pool:
        conn = pool.getconn()
        pool.timeout = 0.1
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            pool.getconn()
        assert monotonic() - start < 1
        pool.putconn(conn)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_of_nothing_is_a_timeout_when_nothing_is_free(
    make_any: Any, module: Any, timeout: int
) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        start = monotonic()
        with pytest.raises(module.PoolTimeout):
            pool.getconn(timeout)
        assert monotonic() - start < 0.3
        pool.putconn(conn)


def test_each_client_has_its_own_timeout(make_any: Any, module: Any) -> None:
    ended = Queue()

    def client(timeout: float) -> None:
        try:
            pool.putconn(pool.getconn(timeout))
            ended.put("served")
        except module.PoolTimeout:
            ended.put(timeout)

    with make_any() as pool:
        with pool.connection(timeout=5):
            workers = [spawn(client, 0.5)]
            eventually(lambda: waiting(pool) == 1)
            workers += [spawn(client, timeout) for timeout in (0.3, 10.0, 0.1)]
            assert [ended.get() for _ in range(3)] == [0.1, 0.3, 0.5]
        assert ended.get() == "served"
        gather(*workers)


def test_a_client_that_gave_up_loses_no_connection(make_any: Any, module: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        for _ in range(3):
            with pytest.raises(module.PoolTimeout):
                pool.getconn(0.02)
        pool.putconn(conn)
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1
        eventually(lambda: pool.get_stats()["pool_available"] == (0 if make_any.null else 1))
        assert pool.get_stats()["pool_size"] == (0 if make_any.null else 1)


def test_a_client_that_gave_up_is_passed_over(make_any: Any, module: Any) -> None:
    def impatient() -> str:
        try:
            pool.getconn(0.05)
        except module.PoolTimeout:
            return "gave up"
        return "served"

    with make_any() as pool:
        conn = pool.getconn(5)
        first = spawn(impatient)
        eventually(lambda: waiting(pool) == 1)
        second = spawn(pool.getconn, 5)
        assert first.result() == "gave up"
        pool.putconn(conn)
        assert second.result() is conn
        pool.putconn(conn)


def test_clients_that_give_up_just_when_connections_come_lose_none(
    make_any: Any, module: Any
) -> None:
    def client(n: int) -> str:
        try:
            with pool.connection(timeout=0.004 + 0.0007 * n):
                sleep(0.004)
        except module.PoolTimeout:
            return "gave up"
        return "served"

    with make_any(2) as pool:
        pool.wait(5)
        for _ in range(5):
            results = gather(*[spawn(client, n) for n in range(12)])
            assert "served" in results or make_any.null
        with pool.connection(timeout=5) as one, pool.connection(timeout=5) as two:
            assert scalar(one, "select 1") == scalar(two, "select 1") == 1
        assert pool.get_stats()["pool_size"] == (0 if make_any.null else 2)


def test_more_clients_than_max_waiting_are_turned_away_at_once(make_any: Any, module: Any) -> None:
    with make_any(max_waiting=2, name="popular") as pool:
        conn = pool.getconn(5)
        workers = [spawn(pool.getconn, 5) for _ in range(2)]
        eventually(lambda: waiting(pool) == 2)
        start = monotonic()
        with pytest.raises(
            module.TooManyRequests, match="the pool 'popular' has already 2 requests waiting"
        ):
            pool.getconn(5)
        with pytest.raises(module.TooManyRequests):
            with pool.connection(timeout=5):
                raise AssertionError("not reached")
        assert monotonic() - start < 1
        for worker in workers:
            pool.putconn(conn)
            conn = worker.result()
        pool.putconn(conn)
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


def test_max_waiting_may_be_changed_while_open(make_any: Any, module: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: waiting(pool) == 1)
        pool.max_waiting = 1
        with pytest.raises(module.TooManyRequests):
            pool.getconn(5)
        pool.putconn(conn)
        pool.putconn(worker.result())


@everpool_only("psycopg_pool counts a client that gave up as waiting until it next serves one")
def test_a_client_that_gave_up_leaves_its_place_in_the_queue(make_any: Any, module: Any) -> None:
    with make_any(max_waiting=1) as pool:
        conn = pool.getconn(5)
        for _ in range(3):
            with pytest.raises(module.PoolTimeout):
                pool.getconn(0.05)
            assert waiting(pool) == 0
        pool.putconn(conn)


def test_a_burst_is_served_whole(make_any: Any) -> None:
    def client() -> int:
        with pool.connection(timeout=10) as conn:
            return scalar(conn, "select 1")

    with make_any(2, 4) as pool:
        assert sum(gather(*[spawn(client) for _ in range(60)])) == 60
        assert pool.get_stats()["pool_size"] <= 4
