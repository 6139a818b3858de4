"""The connection beside the pools': one for all that lead to the same host, and trusted by none too much."""

from __future__ import annotations

import gc
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from everpool._async import inflight
from everpool._async import side as registry
from everpool.lab import SILENCE, FaultProxy, Hold, Message
from tests.aio.defences.measure import cuts, is_whole
from tests.aio.defences.test_inflight import SLACK, asleep, side, sleeper
from tests.support.aio import eventually, gather, spawn
from tests.support.database import Database

if True:  # ASYNC
    import asyncio
    from collections.abc import Generator
    from contextlib import ExitStack
    from threading import Thread

pytestmark = pytest.mark.anyio

PERIOD = 0.1

QUESTION = Message("client", "Query", where=lambda frame: b"pg_stat_activity WHERE" in frame.body)


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """Each with the database it was asked in, and about which processes."""
    asked = []
    ask = inflight._ask

    async def noted(conn: Any, pids: list[int]) -> Any:
        asked.append((conn.info.dbname, pids))
        return await ask(conn, pids)

    monkeypatch.setattr(inflight, "_ask", noted)
    return asked


@pytest.fixture
def elsewhere(dsn: str) -> str:
    """Another database of the same server."""
    return make_conninfo(dsn, dbname="template1")


async def slow(pool: Any, database: Database) -> None:
    """A query that is asked about, and left alone."""
    before, worker = cuts(pool), spawn(sleeper, pool, 30.0)
    [slot] = pool._machine.slots
    pid = slot.session.pid
    await eventually(lambda: database.state(pid) == "active")
    await eventually(lambda: side(pool) and not pool._machine.inquiry)
    database.execute(f"select pg_cancel_backend({pid})")
    await worker.result()
    assert cuts(pool) == before and is_whole(pool, 1)


def asked_on(pool: Any) -> int:
    """The backend of the connection beside it."""
    return pool._machine.side.conn.pgconn.backend_pid  # type: ignore[no-any-return]


def maker_of(pool: Any) -> Any:
    return pool._machine.side._maker()


async def test_pools_on_one_host_ask_on_one_connection_which_goes_with_who_made_it(
    make: Any, elsewhere: str, proxy: FaultProxy, database: Database, questions: Any
) -> None:
    """Though all ask at once, in two databases."""
    async with AsyncExitStack() as stack:
        pools = []
        for number in range(6):
            settings = {"conninfo": elsewhere} if number % 2 else {}
            pool = make(1, watch_queries=PERIOD, **settings)
            pools.append(await stack.enter_async_context(pool))
            await pool.wait()
        workers = [spawn(sleeper, pool, 30.0) for pool in pools]
        pids = await asleep(database, 6)
        await eventually(lambda: {pid for _, asked in questions for pid in asked} == pids)
        await eventually(lambda: all(side(pool) for pool in pools))
        assert len(database.pids()) == 6 + 1
        assert len({dbname for dbname, _ in questions}) == 1
        for pid in pids:
            proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(*pids)
        assert {how for how, _ in await gather(*workers)} == {"ended"}
        await eventually(lambda: all(is_whole(pool, 1) for pool in pools))
        assert all(cuts(pool) == {"silence": 1} for pool in pools)
        assert proxy.stats().accepted == 6 + 6 + 1
        maker = maker_of(pools[0])
        others = [pool for pool in pools if pool is not maker]
        for pool in others[1:]:
            await pool.close()
            assert side(pool) == 0
        assert side(maker) == 1 and await eventually(lambda: len(database.pids()) == 2 + 1)
        await maker.close()
        assert side(others[0]) == 0 and await eventually(lambda: len(database.pids()) == 1)
        await slow(others[0], database)
        assert side(others[0]) == 1 and maker_of(others[0]) is others[0]
    await eventually(lambda: not database.pids())


async def test_a_pool_that_is_closed_does_not_cut_off_the_question_of_another(
    make: Any, proxy: FaultProxy, database: Database, questions: Any
) -> None:
    async with (
        make(1, watch_queries=PERIOD) as first,
        make(1, watch_queries=PERIOD, name="second") as second,
    ):
        await first.wait()
        await second.wait()
        await slow(first, database)
        beside = asked_on(first)
        hold = proxy.on(QUESTION, Hold(), link=proxy.find(backend_pid=beside))
        before = len(questions)
        worker = spawn(sleeper, second, 30.0)
        [pid] = await asleep(database)
        proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(pid)
        await eventually(lambda: hold.hits)
        await first.close()
        assert side(first) == 0 and side(second) == 1
        hold.release()
        assert (await worker.result())[0] == "ended"
        assert len(questions) == before + 1
        await eventually(lambda: side(second) == 0 and beside not in database.pids())


@pytest.mark.alone
async def test_a_pool_closed_while_it_asks_itself_waits_for_no_answer(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(1, watch_queries=PERIOD) as other, make(1, watch_queries=PERIOD) as pool:
        await other.wait()
        await pool.wait()
        await slow(other, database)
        pid = asked_on(other)
        hold = proxy.on(QUESTION, Hold(), link=proxy.find(backend_pid=pid))
        worker = spawn(sleeper, pool, 30.0)
        [alive] = await asleep(database)
        await eventually(lambda: hold.hits)
        began = monotonic()
        await pool.close()
        assert monotonic() - began < 0.5 and side(pool) == side(other) == 0
        assert not worker.done
        database.kill(alive)
        await worker.result()
        await slow(other, database)
        assert side(other) == 1
        hold.release()  # else the proxy keeps the server waiting
        await eventually(lambda: pid not in database.pids())
        assert len(database.pids()) == 1 + 1


async def test_one_that_was_cut_is_replaced_by_one_for_all(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "KEPT_ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(inflight, "TURN", 15.0)  # a busy machine takes its time
    async with AsyncExitStack() as stack:
        pools = []
        for _ in range(4):
            pools.append(await stack.enter_async_context(make(1, watch_queries=PERIOD)))
            await pools[-1].wait()
        await gather(*[spawn(slow, pool, database) for pool in pools])
        [beside] = {asked_on(pool) for pool in pools}
        accepted = proxy.stats().accepted
        proxy.cut(SILENCE, link=proxy.find(backend_pid=beside))
        database.kill(beside)
        workers = [spawn(sleeper, pool, 30.0) for pool in pools]
        pids = await asleep(database, 4)
        for pid in pids:
            proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(*pids)
        for how, took in await gather(*workers):
            assert how == "ended" and took < PERIOD + 0.2 + SLACK
        await eventually(lambda: all(is_whole(pool, 1) for pool in pools))
        await eventually(lambda: len(database.pids()) == 4 + 1)
        assert proxy.stats().accepted == accepted + 4 + 1
        assert [side(pool) for pool in pools] == [1] * 4


async def test_a_pool_that_has_let_go_just_as_it_asks_goes_on_asking(
    make: Any, database: Database, questions: Any
) -> None:
    """Another thread did so between the look for the connection and its use."""
    async with make(1, watch_queries=PERIOD) as pool:
        await pool.wait()
        await slow(pool, database)
        pool._way = ()
        before = len(questions)
        worker = spawn(sleeper, pool, 30.0)
        [pid] = await asleep(database)
        await eventually(lambda: len(questions) > before)
        database.kill(pid)
        await worker.result()


async def test_a_pool_whose_turn_does_not_come_asks_on_one_of_its_own_for_once(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "KEPT_ANSWERS_WITHIN", 0.05)
    async with make(1, watch_queries=PERIOD) as stuck, make(1, watch_queries=PERIOD) as pool:
        await stuck.wait()
        await pool.wait()
        hold = proxy.on(QUESTION, Hold())
        left = spawn(sleeper, stuck, 30.0)
        [alive] = await asleep(database)
        await eventually(lambda: hold.hits)
        worker = spawn(sleeper, pool, 30.0)
        [pid] = await asleep(database, 2) - {alive}
        proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
        database.kill(pid)
        assert (await worker.result())[0] == "ended"
        await eventually(lambda: side(pool) == 0)
        hold.release()
        await eventually(lambda: side(stuck) == 1 and not stuck._machine.inquiry)
        await eventually(lambda: len(database.pids()) == 2 + 1)
        assert not left.done
        database.kill(alive)
        await left.result()


async def test_a_copy_of_the_server_that_another_database_leads_to_is_not_believed(
    make: Any, elsewhere: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler may do that. The copy knows none of the processes."""
    asked = []
    ask = inflight._ask

    async def pooled(conn: Any, pids: list[int]) -> Any:
        asked.append(conn.info.dbname)
        server, alive = await ask(conn, pids)
        if conn.info.dbname == "template1":
            return replace(server, started=server.started + 1, timeline=9), frozenset()
        return server, alive

    async with make(1, conninfo=elsewhere, watch_queries=PERIOD) as other:
        async with make(1, watch_queries=PERIOD) as pool, make(1, watch_queries=PERIOD) as like:
            for each in (other, pool, like):
                await each.wait()
            await slow(other, database)
            monkeypatch.setattr(inflight, "_ask", pooled)
            worker = spawn(sleeper, pool, 30.0)
            await eventually(lambda: len(asked) >= 3 or worker.done)
            assert asked[:3] == ["template1", "postgres", "postgres"] and not worker.done
            await slow(like, database)
            assert asked_on(like) == asked_on(pool) != asked_on(other)
            assert len(database.pids()) == 3 + 2
            [pid] = await asleep(database)
            database.kill(pid)
            assert (await worker.result())[0] == "ended" and "silence" not in cuts(pool)
        await eventually(lambda: len(database.pids()) == 2)


async def test_nobody_stays_in_the_database_of_a_pool_that_was_closed(
    make: Any, dsn: str, elsewhere: str, database: Database
) -> None:
    """Who wants to drop it may, though another pool asks on, without end."""
    query = "select 1 from pg_stat_activity where datname = 'template1'"
    with psycopg.connect(dsn, autocommit=True, application_name="") as beside:
        async with make(1, watch_queries=PERIOD) as pool:
            await pool.wait()
            async with make(1, conninfo=elsewhere, watch_queries=PERIOD) as closing:
                await closing.wait()
                await slow(closing, database)
                worker = spawn(sleeper, pool, 30.0)
                [pid] = await asleep(database)
                await eventually(lambda: side(pool))
                assert maker_of(pool) is closing
            await eventually(lambda: not beside.execute(query).fetchone())
            await eventually(lambda: side(pool) and maker_of(pool) is pool)
            assert not worker.done
            database.kill(pid)
            await worker.result()


async def test_an_operator_that_another_database_puts_first_is_not_asked(
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
        async with (
            make(1, conninfo=liar, watch_queries=PERIOD) as other,
            make(1, watch_queries=PERIOD) as pool,
        ):
            await other.wait()
            await pool.wait()
            worker = spawn(sleeper, other, 5 * PERIOD)
            await eventually(lambda: side(other) and not other._machine.inquiry)
            await slow(pool, database)
            assert asked_on(pool) == asked_on(other)
            assert (await worker.result())[0] == "answered"
    finally:
        database.execute("drop database liar with (force)")


async def test_after_a_restart_all_share_again(
    make: Any, proxy: FaultProxy, database: Database, elsewhere: str
) -> None:
    """Who was connected before cannot know whether it is a copy, and asks on its own, once."""
    async with (
        make(1, conninfo=elsewhere, watch_queries=PERIOD) as other,
        make(1, watch_queries=PERIOD) as pool,
    ):
        await other.wait()
        await pool.wait()
        await slow(other, database)
        [slot] = pool._machine.slots
        slot.incarnation = replace(slot.incarnation, started=slot.incarnation.started - 1)
        accepted = proxy.stats().accepted
        assert (await sleeper(pool, 30.0))[0] == "ended"
        await eventually(lambda: side(pool) == 0 and is_whole(pool, 1))
        await slow(pool, database)
        assert side(pool) == 1 and asked_on(pool) == asked_on(other)
        assert proxy.stats().accepted == accepted + 2


async def test_a_forgotten_pool_leaves_it_to_the_others(make: Any, database: Database) -> None:
    async def use() -> None:
        pool = make(1, watch_queries=PERIOD)
        await pool.open()
        await pool.wait()
        await slow(pool, database)
        assert side(pool) == 1

    async with make(1, watch_queries=PERIOD) as other:
        await other.wait()
        await use()
        await eventually(lambda: gc.collect() >= 0 and len(database.pids()) == 1)
        await use()
        await slow(other, database)
        await eventually(lambda: gc.collect() >= 0 and len(database.pids()) == 2)
    await eventually(lambda: not database.pids())


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


if True:  # ASYNC

    class Never:
        def __await__(self) -> Generator[None, None, None]:
            yield

    def test_a_task_of_a_dead_loop_that_is_collected_under_the_lock_stops_nobody() -> None:
        side = registry.Side("somewhere")

        async def ask() -> None:
            with ExitStack() as turn:
                await side.take(1.0, lambda: False)
                turn.callback(side.give_back)
                await Never()

        def collect() -> None:
            task = ask()
            task.send(None)
            with registry._lock:
                task.close()

        thread = Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5.0)
        assert not thread.is_alive() and not side.taken

    async def test_loops_share_none(make: Any, database: Database) -> None:
        async def use() -> None:
            async with make(1, watch_queries=PERIOD) as pool:
                await pool.wait()
                await slow(pool, database)
                assert side(pool) == 1
                assert len(database.pids()) == 4

        async with make(1, watch_queries=PERIOD) as pool:
            await pool.wait()
            await slow(pool, database)
            await asyncio.to_thread(asyncio.run, use())
            await eventually(lambda: len(database.pids()) == 2)
            assert side(pool) == 1
