# Generated from tests/aio/defences/test_side.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The connection beside the pools': one for all that lead to the same host, and trusted by none too much."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from everpool._sync import inflight
from everpool._sync import side as registry
from everpool.lab import SILENCE, FaultProxy, Hold, Message
from tests.support.database import Database
from tests.support.threads import eventually, gather, spawn
from tests.sync.defences.measure import cuts, is_whole
from tests.sync.defences.test_inflight import SLACK, asleep, side, sleeper

PERIOD = 0.1

QUESTION = Message("client", "Query", where=lambda frame: b"pg_stat_activity WHERE" in frame.body)


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """Each with the database it was asked in, and about which processes."""
    asked = []
    ask = inflight._ask

    def noted(conn: Any, pids: list[int]) -> Any:
        asked.append((conn.info.dbname, pids))
        return ask(conn, pids)

    monkeypatch.setattr(inflight, "_ask", noted)
    return asked


@pytest.fixture
def elsewhere(dsn: str) -> str:
    """Another database of the same server."""
    return make_conninfo(dsn, dbname="template1")


def slow(pool: Any, database: Database) -> None:
    """A query that is asked about, and left alone."""
    before, worker = cuts(pool), spawn(sleeper, pool, 30.0)
    [slot] = pool._machine.slots
    pid = slot.session.pid
    eventually(lambda: database.state(pid) == "active")
    eventually(lambda: side(pool) and not pool._machine.inquiry)
    database.execute(f"select pg_cancel_backend({pid})")
    worker.result()
    assert cuts(pool) == before and is_whole(pool, 1)


def asked_on(pool: Any) -> int:
    """The backend of the connection beside it."""
    return pool._machine.side.conn.pgconn.backend_pid  # type: ignore[no-any-return]


def maker_of(pool: Any) -> Any:
    return pool._machine.side._maker()


def test_pools_on_one_host_ask_on_one_connection_which_goes_with_who_made_it(
    make: Any, elsewhere: str, proxy: FaultProxy, database: Database, questions: Any
) -> None:
    """Though all ask at once, in two databases."""
    with ExitStack() as stack:
        pools = []
        for number in range(6):
            settings = {"conninfo": elsewhere} if number % 2 else {}
            pool = make(1, watch_queries=PERIOD, **settings)
            pools.append(stack.enter_context(pool))
            pool.wait()
        workers = [spawn(sleeper, pool, 30.0) for pool in pools]
        pids = asleep(database, 6)
        eventually(lambda: {pid for _, asked in questions for pid in asked} == pids)
        eventually(lambda: all(side(pool) for pool in pools))
        assert len(database.pids()) == 6 + 1
        assert len({dbname for dbname, _ in questions}) == 1
        for pid in pids:
            proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(*pids)
        assert {how for how, _ in gather(*workers)} == {"ended"}
        eventually(lambda: all(is_whole(pool, 1) for pool in pools))
        assert all(cuts(pool) == {"silence": 1} for pool in pools)
        assert proxy.stats().accepted == 6 + 6 + 1
        maker = maker_of(pools[0])
        others = [pool for pool in pools if pool is not maker]
        for pool in others[1:]:
            pool.close()
            assert side(pool) == 0
        assert side(maker) == 1 and eventually(lambda: len(database.pids()) == 2 + 1)
        maker.close()
        assert side(others[0]) == 0 and eventually(lambda: len(database.pids()) == 1)
        slow(others[0], database)
        assert side(others[0]) == 1 and maker_of(others[0]) is others[0]
    eventually(lambda: not database.pids())


def test_a_pool_that_is_closed_does_not_cut_off_the_question_of_another(
    make: Any, proxy: FaultProxy, database: Database, questions: Any
) -> None:
    with (
        make(1, watch_queries=PERIOD) as first,
        make(1, watch_queries=PERIOD, name="second") as second,
    ):
        first.wait()
        second.wait()
        slow(first, database)
        beside = asked_on(first)
        hold = proxy.on(QUESTION, Hold(), link=proxy.find(backend_pid=beside))
        before = len(questions)
        worker = spawn(sleeper, second, 30.0)
        [pid] = asleep(database)
        proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(pid)
        eventually(lambda: hold.hits)
        first.close()
        assert side(first) == 0 and side(second) == 1
        hold.release()
        assert worker.result()[0] == "ended"
        assert len(questions) == before + 1
        eventually(lambda: side(second) == 0 and beside not in database.pids())


@pytest.mark.alone
def test_a_pool_closed_while_it_asks_itself_waits_for_no_answer(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    with make(1, watch_queries=PERIOD) as other, make(1, watch_queries=PERIOD) as pool:
        other.wait()
        pool.wait()
        slow(other, database)
        pid = asked_on(other)
        hold = proxy.on(QUESTION, Hold(), link=proxy.find(backend_pid=pid))
        worker = spawn(sleeper, pool, 30.0)
        [alive] = asleep(database)
        eventually(lambda: hold.hits)
        began = monotonic()
        pool.close()
        assert monotonic() - began < 0.5 and side(pool) == side(other) == 0
        assert not worker.done
        database.kill(alive)
        worker.result()
        slow(other, database)
        assert side(other) == 1
        hold.release()  # else the proxy keeps the server waiting
        eventually(lambda: pid not in database.pids())
        assert len(database.pids()) == 1 + 1


def test_one_that_was_cut_is_replaced_by_one_for_all(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "KEPT_ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(inflight, "TURN", 15.0)  # a busy machine takes its time
    with ExitStack() as stack:
        pools = []
        for _ in range(4):
            pools.append(stack.enter_context(make(1, watch_queries=PERIOD)))
            pools[-1].wait()
        gather(*[spawn(slow, pool, database) for pool in pools])
        [beside] = {asked_on(pool) for pool in pools}
        accepted = proxy.stats().accepted
        proxy.cut(SILENCE, link=proxy.find(backend_pid=beside))
        database.kill(beside)
        workers = [spawn(sleeper, pool, 30.0) for pool in pools]
        pids = asleep(database, 4)
        for pid in pids:
            proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(*pids)
        for how, took in gather(*workers):
            assert how == "ended" and took < PERIOD + 0.2 + SLACK
        eventually(lambda: all(is_whole(pool, 1) for pool in pools))
        eventually(lambda: len(database.pids()) == 4 + 1)
        assert proxy.stats().accepted == accepted + 4 + 1
        assert [side(pool) for pool in pools] == [1] * 4


def test_a_pool_that_has_let_go_just_as_it_asks_goes_on_asking(
    make: Any, database: Database, questions: Any
) -> None:
    """Another thread did so between the look for the connection and its use."""
    with make(1, watch_queries=PERIOD) as pool:
        pool.wait()
        slow(pool, database)
        pool._way = ()
        before = len(questions)
        worker = spawn(sleeper, pool, 30.0)
        [pid] = asleep(database)
        eventually(lambda: len(questions) > before)
        database.kill(pid)
        worker.result()


def test_a_pool_whose_turn_does_not_come_asks_on_one_of_its_own_for_once(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "KEPT_ANSWERS_WITHIN", 0.05)
    with make(1, watch_queries=PERIOD) as stuck, make(1, watch_queries=PERIOD) as pool:
        stuck.wait()
        pool.wait()
        hold = proxy.on(QUESTION, Hold())
        left = spawn(sleeper, stuck, 30.0)
        [alive] = asleep(database)
        eventually(lambda: hold.hits)
        worker = spawn(sleeper, pool, 30.0)
        [pid] = asleep(database, 2) - {alive}
        proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(pid)
        assert worker.result()[0] == "ended"
        eventually(lambda: side(pool) == 0)
        hold.release()
        eventually(lambda: side(stuck) == 1 and not stuck._machine.inquiry)
        eventually(lambda: len(database.pids()) == 2 + 1)
        assert not left.done
        database.kill(alive)
        left.result()


def test_a_copy_of_the_server_that_another_database_leads_to_is_not_believed(
    make: Any, elsewhere: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler may do that. The copy knows none of the processes."""
    asked = []
    ask = inflight._ask

    def pooled(conn: Any, pids: list[int]) -> Any:
        asked.append(conn.info.dbname)
        server, alive = ask(conn, pids)
        if conn.info.dbname == "template1":
            return replace(server, started=server.started + 1, timeline=9), frozenset()
        return server, alive

    with make(1, conninfo=elsewhere, watch_queries=PERIOD) as other:
        with make(1, watch_queries=PERIOD) as pool, make(1, watch_queries=PERIOD) as like:
            for each in (other, pool, like):
                each.wait()
            slow(other, database)
            monkeypatch.setattr(inflight, "_ask", pooled)
            worker = spawn(sleeper, pool, 30.0)
            eventually(lambda: len(asked) >= 3 or worker.done)
            assert asked[:3] == ["template1", "postgres", "postgres"] and not worker.done
            slow(like, database)
            assert asked_on(like) == asked_on(pool) != asked_on(other)
            assert len(database.pids()) == 3 + 2
            [pid] = asleep(database)
            database.kill(pid)
            assert worker.result()[0] == "ended" and "silence" not in cuts(pool)
        eventually(lambda: len(database.pids()) == 2)


def test_nobody_stays_in_the_database_of_a_pool_that_was_closed(
    make: Any, dsn: str, elsewhere: str, database: Database
) -> None:
    """Who wants to drop it may, though another pool asks on, without end."""
    query = "select 1 from pg_stat_activity where datname = 'template1'"
    with psycopg.connect(dsn, autocommit=True, application_name="") as beside:
        with make(1, watch_queries=PERIOD) as pool:
            pool.wait()
            with make(1, conninfo=elsewhere, watch_queries=PERIOD) as closing:
                closing.wait()
                slow(closing, database)
                worker = spawn(sleeper, pool, 30.0)
                [pid] = asleep(database)
                eventually(lambda: side(pool))
                assert maker_of(pool) is closing
            eventually(lambda: not beside.execute(query).fetchone())
            eventually(lambda: side(pool) and maker_of(pool) is pool)
            assert not worker.done
            database.kill(pid)
            worker.result()


def test_an_operator_that_another_database_puts_first_is_not_asked(
    make: Any, dsn: str, database: Database
) -> None:
    """Who owns one must not decide over the queries in all others."""
    database.execute("create database liar")
    try:
        with psycopg.connect(dsn, dbname="liar", autocommit=True) as conn:
            conn.execute("create function never(int, int) returns bool return false")
            conn.execute("create operator = (leftarg = int, rightarg = int, function = never)")
            conn.execute("alter database liar set search_path = public, pg_catalog")
        liar = make_conninfo(dsn, dbname="liar")
        with (
            make(1, conninfo=liar, watch_queries=PERIOD) as other,
            make(1, watch_queries=PERIOD) as pool,
        ):
            other.wait()
            pool.wait()
            worker = spawn(sleeper, other, 5 * PERIOD)
            eventually(lambda: side(other) and not other._machine.inquiry)
            slow(pool, database)
            assert asked_on(pool) == asked_on(other)
            assert worker.result()[0] == "answered"
    finally:
        database.execute("drop database liar with (force)")


def test_after_a_restart_all_share_again(
    make: Any, proxy: FaultProxy, database: Database, elsewhere: str
) -> None:
    """Who was connected before cannot know whether it is a copy, and asks on its own, once."""
    with (
        make(1, conninfo=elsewhere, watch_queries=PERIOD) as other,
        make(1, watch_queries=PERIOD) as pool,
    ):
        other.wait()
        pool.wait()
        slow(other, database)
        [slot] = pool._machine.slots
        slot.incarnation = replace(slot.incarnation, started=slot.incarnation.started - 1)
        accepted = proxy.stats().accepted
        assert sleeper(pool, 30.0)[0] == "ended"
        eventually(lambda: side(pool) == 0 and is_whole(pool, 1))
        slow(pool, database)
        assert side(pool) == 1 and asked_on(pool) == asked_on(other)
        assert proxy.stats().accepted == accepted + 2


def test_a_forgotten_pool_leaves_it_to_the_others(make: Any, database: Database) -> None:
    def use() -> None:
        pool = make(1, watch_queries=PERIOD)
        pool.open()
        pool.wait()
        slow(pool, database)
        assert side(pool) == 1

    with make(1, watch_queries=PERIOD) as other:
        other.wait()
        use()
        eventually(lambda: gc.collect() >= 0 and len(database.pids()) == 1)
        use()
        slow(other, database)
        eventually(lambda: gc.collect() >= 0 and len(database.pids()) == 2)
    eventually(lambda: not database.pids())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_shares_none_of_its_parent_s() -> None:
    held = registry.Side("somewhere")
    lock = registry._lock
    with lock:
        registry._sides.add(held)
        child = os.fork()
        if not child:
            os._exit(registry._lock is lock or held in registry._sides)
    assert os.waitpid(child, 0)[1] == 0
