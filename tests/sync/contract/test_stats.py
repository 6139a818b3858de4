# Generated from tests/aio/contract/test_stats.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""`get_stats` and `pop_stats`."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection

from tests.support.net import refusing_port
from tests.support.threads import eventually, gather, scalar, sleep, spawn

MEASURES = {"pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting"}
COUNTERS = {
    "usage_ms",
    "requests_num",
    "requests_queued",
    "requests_wait_ms",
    "requests_errors",
    "returns_bad",
    "connections_num",
    "connections_ms",
    "connections_errors",
    "connections_lost",
}


def stat(pool: Any, key: str) -> Any:
    """A statistic; those that are zero may be missing."""
    assert key in MEASURES | COUNTERS
    return pool.get_stats().get(key, 0)


def test_measures_are_always_there(make_any: Any) -> None:
    pool = make_any(2, 5)
    assert set(pool.get_stats()) >= MEASURES
    with pool:
        assert set(pool.get_stats()) >= MEASURES
        assert set(pool.pop_stats()) >= MEASURES
    assert set(pool.get_stats()) >= MEASURES


def test_the_documented_names_are_the_only_plain_ones(make_any: Any) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
        stats = pool.get_stats()
    assert set(stats) <= MEASURES | COUNTERS
    assert all(type(value) is int for value in stats.values())


def test_stats_are_a_copy(make_any: Any) -> None:
    with make_any() as pool:
        pool.get_stats()["pool_max"] = 99
        pool.get_stats().clear()
        assert stat(pool, "pool_max") == 1


def test_the_sizes_are_those_of_the_pool(make: Any) -> None:
    with make(2, 4) as pool:
        pool.wait(5)
        assert [
            stat(pool, key) for key in ("pool_min", "pool_max", "pool_size", "pool_available")
        ] == [2, 4, 2, 2]
        conns = gather(*[spawn(pool.getconn, 5) for _ in range(3)])
        eventually(lambda: (stat(pool, "pool_size"), stat(pool, "pool_available")) == (3, 0))
        pool.putconn(conns.pop())
        eventually(lambda: (stat(pool, "pool_size"), stat(pool, "pool_available")) == (3, 1))
        for conn in conns:
            pool.putconn(conn)
        eventually(lambda: (stat(pool, "pool_size"), stat(pool, "pool_available")) == (3, 3))


def test_pool_size_counts_connections_in_preparation(make: Any) -> None:
    class Slow(Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            sleep(0.3)
            return super().connect(conninfo, **kwargs)

    with make(2, connection_class=Slow) as pool:
        sleep(0.05)
        # How many are opened side by side is the pool's business.
        assert stat(pool, "pool_size") >= 1
        assert stat(pool, "pool_available") == 0
        pool.wait(5)
        assert (stat(pool, "pool_size"), stat(pool, "pool_available")) == (2, 2)


def test_the_size_of_a_null_pool_is_the_number_of_connections_lent(make_null: Any) -> None:
    with make_null(1, 3) as pool:
        assert [
            stat(pool, key) for key in ("pool_min", "pool_max", "pool_size", "pool_available")
        ] == [0, 3, 0, 0]
        one = pool.getconn(5)
        two = pool.getconn(5)
        assert (stat(pool, "pool_size"), stat(pool, "pool_available")) == (2, 0)
        pool.putconn(one)
        pool.putconn(two)
        assert (stat(pool, "pool_size"), stat(pool, "pool_available")) == (0, 0)


def test_requests_are_counted(make_any: Any) -> None:
    with make_any() as pool:
        pool.wait(5)
        assert stat(pool, "requests_num") == 0
        for n in range(1, 4):
            with pool.connection(timeout=5):
                assert stat(pool, "requests_num") == n
        pool.putconn(pool.getconn(5))
        assert stat(pool, "requests_num") == 4
        assert stat(pool, "requests_queued") == 0
        assert stat(pool, "requests_errors") == 0
        assert stat(pool, "requests_wait_ms") == 0


def test_queued_requests_and_their_waiting_are_counted(make_any: Any) -> None:
    def client() -> None:
        with pool.connection(timeout=5):
            pass

    with make_any() as pool:
        pool.wait(5)
        with pool.connection(timeout=5):
            workers = [spawn(client) for _ in range(2)]
            eventually(lambda: stat(pool, "requests_waiting") == 2)
            sleep(0.2)
        gather(*workers)
        assert stat(pool, "requests_waiting") == 0
        assert stat(pool, "requests_num") == 3
        assert stat(pool, "requests_queued") == 2
        assert 380 <= stat(pool, "requests_wait_ms") < 2000


def test_requests_that_time_out_are_errors(make_any: Any, module: Any) -> None:
    with make_any() as pool:
        conn = pool.getconn(5)
        for n in (1, 2):
            with pytest.raises(module.PoolTimeout):
                pool.getconn(0.1)
            assert stat(pool, "requests_errors") == n
        assert stat(pool, "requests_num") == 3
        assert stat(pool, "requests_queued") >= 2
        assert stat(pool, "requests_wait_ms") >= 190
        pool.putconn(conn)


def test_requests_turned_away_are_errors_and_were_not_queued(make_any: Any, module: Any) -> None:
    with make_any(max_waiting=1) as pool:
        pool.wait(5)
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: stat(pool, "requests_waiting") == 1)
        with pytest.raises(module.TooManyRequests):
            pool.getconn(5)
        assert stat(pool, "requests_errors") == 1
        assert stat(pool, "requests_num") == 3
        assert stat(pool, "requests_queued") == 1
        pool.putconn(conn)
        pool.putconn(worker.result())


def test_requests_refused_by_close_are_errors(make_any: Any, module: Any) -> None:
    pool = make_any()
    pool.open()
    conn = pool.getconn(5)
    worker = spawn(pool.getconn, 5)
    eventually(lambda: stat(pool, "requests_waiting") == 1)
    pool.close()
    with pytest.raises(module.PoolClosed):
        worker.result()
    pool.putconn(conn)
    assert stat(pool, "requests_errors") == 1
    assert stat(pool, "requests_waiting") == 0


def test_the_time_spent_inside_blocks_is_counted(make_any: Any) -> None:
    with make_any(2) as pool:
        for _ in range(2):
            with pool.connection(timeout=5):
                sleep(0.1)
        assert 190 <= stat(pool, "usage_ms") < 1000
        with pytest.raises(ZeroDivisionError):
            with pool.connection(timeout=5):
                sleep(0.1)
                raise ZeroDivisionError
        assert 290 <= stat(pool, "usage_ms") < 1500


def test_connects_are_counted_and_timed(make: Any) -> None:
    class Slow(Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            sleep(0.1)
            return super().connect(conninfo, **kwargs)

    with make(3, connection_class=Slow) as pool:
        pool.wait(5)
        assert stat(pool, "connections_num") == 3
        assert stat(pool, "connections_errors") == 0
        assert 290 <= stat(pool, "connections_ms") < 2500


def test_the_connects_of_a_null_pool_are_counted(make_null: Any) -> None:
    with make_null() as pool:
        for n in (1, 2, 3):
            with pool.connection(timeout=5):
                assert stat(pool, "connections_num") == n


def test_failed_connects_are_counted(make: Any, module: Any) -> None:
    with refusing_port() as port:
        with make(2, conninfo=f"host=127.0.0.1 port={port}") as pool:
            with pytest.raises(module.PoolTimeout):
                pool.getconn(0.3)
            errors = stat(pool, "connections_errors")
            assert errors >= 1
            assert stat(pool, "connections_num") >= errors
            assert stat(pool, "requests_errors") == 1


def test_connections_found_lost_by_check_are_counted(make: Any, database: Any) -> None:
    with make(3) as pool:
        pool.wait(5)
        database.kill(*sorted(database.pids())[:2])
        pool.check()
        assert stat(pool, "connections_lost") == 2
        eventually(lambda: stat(pool, "pool_available") == 3)


def test_connections_found_lost_by_the_check_callback_are_counted(make: Any, database: Any) -> None:
    with make(check=make.cls.check_connection) as pool:
        pool.wait(5)
        database.kill(*database.pids())
        with pool.connection(timeout=10) as conn:
            assert scalar(conn, "select 1") == 1
        assert stat(pool, "connections_lost") == 1
        assert stat(pool, "returns_bad") == 0


def test_connections_returned_broken_are_counted(make_any: Any, database: Any) -> None:
    with make_any() as pool:
        for n in (1, 2):
            conn = pool.getconn(5)
            conn.close()
            pool.putconn(conn)
            assert stat(pool, "returns_bad") == n
        assert stat(pool, "connections_lost") == 0


def test_pop_stats_resets_the_counters_and_not_the_measures(make: Any) -> None:
    with make(2) as pool:
        pool.wait(5)
        with pool.connection(timeout=5):
            sleep(0.02)
        stats = pool.pop_stats()
        assert stats["requests_num"] == 1
        assert stats["connections_num"] == 2
        assert stats["usage_ms"] >= 15
        stats = pool.pop_stats()
        assert not any(stats.get(key, 0) for key in COUNTERS)
        assert [stats[key] for key in ("pool_min", "pool_max", "pool_size", "pool_available")] == [
            2,
            2,
            2,
            2,
        ]
        with pool.connection(timeout=5):
            pass
        assert stat(pool, "requests_num") == 1


def test_get_stats_resets_nothing(make_any: Any) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5):
            pass
        assert stat(pool, "requests_num") == 1
        assert stat(pool, "requests_num") == 1


def test_the_stats_of_a_closed_pool_can_be_read(make_any: Any) -> None:
    with make_any() as pool:
        with pool.connection(timeout=5):
            pass
    assert stat(pool, "requests_num") == 1
    assert stat(pool, "pool_available") == 0
