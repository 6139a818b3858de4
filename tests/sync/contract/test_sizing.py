# Generated from tests/aio/contract/test_sizing.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The number of connections, and their age."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from psycopg import Connection

from tests.support.packages import everpool_only
from tests.support.threads import eventually, gather, scalar, sleep, spawn


def size(pool: Any) -> Any:
    return pool.get_stats()["pool_size"]


def available(pool: Any) -> Any:
    return pool.get_stats()["pool_available"]


def take(pool: Any, number: int) -> list[Any]:
    return gather(*[spawn(pool.getconn, 5) for _ in range(number)])


def give_back(pool: Any, conns: list[Any]) -> None:
    for conn in conns:
        pool.putconn(conn)


# growing and shrinking


def test_a_pool_starts_with_min_size_connections(make: Any, database: Any) -> None:
    with make(3, 8) as pool:
        pool.wait(5)
        sleep(0.1)
        assert len(database.pids()) == 3
        assert (size(pool), available(pool)) == (3, 3)


def test_a_pool_grows_to_max_size_and_no_further(make: Any, module: Any, database: Any) -> None:
    with make(1, 3) as pool:
        pool.wait(5)
        conns = take(pool, 3)
        assert len({conn.info.backend_pid for conn in conns}) == 3
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.2)
        assert len(database.pids()) == 3
        assert size(pool) == 3
        give_back(pool, conns)


def test_a_pool_of_fixed_size_does_not_grow(make: Any, module: Any, database: Any) -> None:
    with make(2) as pool:
        conns = take(pool, 2)
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.2)
        assert len(database.pids()) == 2
        give_back(pool, conns)


def test_a_pool_may_start_empty_and_grow_on_demand(make: Any, database: Any) -> None:
    with make(0, 2) as pool:
        pool.wait(1)
        sleep(0.05)
        assert not database.pids()
        conns = take(pool, 2)
        assert size(pool) == 2
        give_back(pool, conns)


def test_a_client_takes_a_returned_connection_rather_than_wait_for_a_new_one(
    make: Any,
) -> None:
    class SlowToGrow(Connection[Any]):
        made = 0

        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            SlowToGrow.made += 1
            if SlowToGrow.made > 1:
                sleep(0.5)
            return super().connect(conninfo, **kwargs)

    with make(1, 2, connection_class=SlowToGrow) as pool:
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        start = monotonic()
        pool.putconn(conn)
        assert worker.result() is conn
        assert monotonic() - start < 0.3
        pool.putconn(conn)
        eventually(lambda: available(pool) == 2)


def test_unused_connections_above_min_size_are_closed(make: Any, database: Any) -> None:
    with make(1, 4, max_idle=0.15) as pool:
        conns = take(pool, 4)
        assert size(pool) == 4
        give_back(pool, conns)
        eventually(lambda: size(pool) == 1)
        eventually(lambda: len(database.pids()) == 1)
        sleep(0.4)
        assert (size(pool), available(pool)) == (1, 1)


def test_a_pool_may_shrink_to_nothing(make: Any, database: Any) -> None:
    with make(0, 2, max_idle=0.1) as pool:
        give_back(pool, take(pool, 2))
        eventually(lambda: size(pool) == 0)
        eventually(lambda: not database.pids())
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


def test_connections_in_use_are_not_closed_for_idleness(make: Any) -> None:
    with make(1, 3, max_idle=0.1) as pool:
        conns = take(pool, 3)
        sleep(0.4)
        assert size(pool) == 3
        for conn in conns:
            assert scalar(conn, "select 1") == 1
            conn.rollback()
        give_back(pool, conns)


# max_lifetime


def test_a_connection_past_its_lifetime_is_replaced_when_it_returns(
    make: Any, database: Any
) -> None:
    with make(max_lifetime=0.2) as pool:
        conn = pool.getconn(5)
        pid = conn.info.backend_pid
        sleep(0.25)
        assert not conn.closed
        pool.putconn(conn)
        assert conn.closed
        with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid
        eventually(lambda: len(database.pids()) == 1)


def test_a_connection_within_its_lifetime_is_kept(make: Any) -> None:
    with make(max_lifetime=20.0) as pool:
        with pool.connection(timeout=5) as first:
            sleep(0.05)
        with pool.connection(timeout=5) as second:
            assert second is first


def test_a_connection_lives_no_more_than_five_percent_short_of_its_lifetime(
    make: Any,
) -> None:
    with make(8, max_lifetime=1.0) as pool:
        start = monotonic()
        conns = take(pool, 8)
        while (now := monotonic()) < start + 0.85:
            sleep(start + 0.85 - now)
        if monotonic() < start + 0.94:
            give_back(pool, conns)
            assert not any(conn.closed for conn in conns)


def test_the_lifetimes_of_connections_made_together_differ(make: Any) -> None:
    with make(8, max_lifetime=1000.0) as pool:
        conns = take(pool, 8)
        lifetimes = {conn._expire_at - conn._created_at for conn in conns}
        assert all(949.9 < lifetime < 1000.1 for lifetime in lifetimes)
        assert max(lifetimes) - min(lifetimes) > 0.1
        give_back(pool, conns)


@everpool_only("psycopg_pool looks at the age of a connection only when it is returned or checked")
def test_an_idle_connection_past_its_lifetime_is_not_lent(make: Any) -> None:
    with make(max_lifetime=0.2) as pool:
        with pool.connection(timeout=5) as conn:
            pid = conn.info.backend_pid
        sleep(0.3)
        with pool.connection(timeout=5) as conn:
            assert conn.info.backend_pid != pid


def test_null_pools_close_whatever_comes_back_and_replace_the_old_for_those_who_wait(
    make_null: Any,
) -> None:
    with make_null(max_lifetime=0.1) as pool:
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        sleep(0.15)
        pool.putconn(conn)
        again = worker.result()
        assert conn.closed
        assert again is not conn
        assert scalar(again, "select 1") == 1
        again.rollback()
        pool.putconn(again)


# resize


def test_resize_up_opens_connections_at_once(make: Any, database: Any) -> None:
    with make(1) as pool:
        pool.wait(5)
        pool.resize(3)
        assert (pool.min_size, pool.max_size) == (3, 3)
        eventually(lambda: available(pool) == 3)
        assert len(database.pids()) == 3


def test_resize_up_serves_the_clients_that_wait(make: Any) -> None:
    with make(1) as pool:
        conn = pool.getconn(5)
        worker = spawn(pool.getconn, 5)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        pool.resize(2)
        other = worker.result()
        assert other is not conn
        give_back(pool, [conn, other])


def test_resize_may_raise_max_size_alone(make: Any, module: Any) -> None:
    with make(1) as pool:
        conn = pool.getconn(5)
        with pytest.raises(module.PoolTimeout):
            pool.getconn(0.1)
        pool.resize(1, 2)
        assert (pool.min_size, pool.max_size) == (1, 2)
        other = pool.getconn(5)
        give_back(pool, [conn, other])


def test_resize_down_lets_the_pool_shrink(make: Any, database: Any) -> None:
    with make(4, max_idle=0.15) as pool:
        pool.wait(5)
        pool.resize(2)
        assert (pool.min_size, pool.max_size) == (2, 2)
        eventually(lambda: size(pool) == 2)
        eventually(lambda: len(database.pids()) == 2)


def test_resize_shows_in_the_statistics(make: Any) -> None:
    with make(1, 2) as pool:
        pool.resize(2, 7)
        stats = pool.get_stats()
        assert (stats["pool_min"], stats["pool_max"]) == (2, 7)


@pytest.mark.parametrize(("min_size", "max_size"), [(-1, None), (3, 2), (0, 0), (0, None)])
def test_resize_refuses_impossible_sizes_and_changes_nothing(
    make: Any, min_size: int, max_size: int | None
) -> None:
    with make(2) as pool:
        with pytest.raises(ValueError, match="min_size|max_size"):
            pool.resize(min_size, max_size)
        assert (pool.min_size, pool.max_size) == (2, 2)
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


# drain


def test_drain_replaces_the_idle_connections_at_once(make: Any, database: Any) -> None:
    with make(3) as pool:
        pool.wait(5)
        before = database.pids()
        pool.drain()
        eventually(lambda: available(pool) == 3)
        eventually(lambda: len(database.pids()) == 3)
        assert not before & database.pids()
        assert size(pool) == 3


def test_drain_leaves_lent_connections_alone_and_replaces_them_on_return(
    make: Any, database: Any
) -> None:
    with make(2) as pool:
        pool.wait(5)
        conn = pool.getconn(5)
        before = database.pids()
        pool.drain()
        assert not conn.closed
        assert scalar(conn, "select 1") == 1
        conn.rollback()
        pool.putconn(conn)
        assert conn.closed
        eventually(lambda: available(pool) == 2)
        eventually(lambda: len(database.pids()) == 2)
        assert not before & database.pids()


def test_connections_made_after_drain_are_kept(make: Any) -> None:
    with make() as pool:
        pool.wait(5)
        pool.drain()
        with pool.connection(timeout=5) as first:
            pass
        with pool.connection(timeout=5) as second:
            assert second is first


def test_drain_reconfigures(make: Any) -> None:
    zone = "Asia/Tokyo"

    def configure(conn: Any) -> None:
        conn.execute(f"set timezone = '{zone}'")
        conn.commit()

    with make(2, configure=configure) as pool:
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "show timezone") == "Asia/Tokyo"
        zone = "Africa/Cairo"
        pool.drain()
        for _ in range(3):
            with pool.connection(timeout=5) as conn:
                assert scalar(conn, "show timezone") == "Africa/Cairo"


def test_null_pools_take_drain(make_null: Any) -> None:
    with make_null() as pool:
        pool.drain()
        with pool.connection(timeout=5) as conn:
            assert scalar(conn, "select 1") == 1


# check()


def test_check_keeps_the_good_and_replaces_the_broken(make: Any, database: Any) -> None:
    with make(4) as pool:
        pool.wait(5)
        before = database.pids()
        dead = set(sorted(before)[:2])
        database.kill(*dead)
        pool.check()
        eventually(lambda: available(pool) == 4)
        eventually(lambda: len(database.pids()) == 4)
        assert database.pids() & before == before - dead
        for conn in (conns := take(pool, 4)):
            assert scalar(conn, "select 1") == 1
            conn.rollback()
        give_back(pool, conns)


def test_check_leaves_healthy_connections_idle_outside_a_transaction(
    make: Any, database: Any
) -> None:
    with make(2) as pool:
        pool.wait(5)
        before = database.pids()
        pool.check()
        eventually(lambda: available(pool) == 2)
        assert database.pids() == before
        assert {database.state(pid) for pid in before} == {"idle"}


def test_check_replaces_expired_connections(make: Any, database: Any) -> None:
    with make(2, max_lifetime=0.3) as pool:
        pool.wait(5)
        before = database.pids()
        sleep(0.31)
        pool.check()
        eventually(lambda: not before & database.pids())
        eventually(lambda: available(pool) == 2)


def test_check_does_not_touch_lent_connections(make: Any) -> None:
    with make(2) as pool:
        pool.wait(5)
        with pool.connection(timeout=5) as conn:
            conn.execute("select 1")
            pool.check()
            assert scalar(conn, "select 2") == 2


def test_check_of_a_null_pool_does_nothing(make_null: Any, database: Any) -> None:
    with make_null() as pool:
        pool.check()
        assert not database.pids()
