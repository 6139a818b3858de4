"""`watch_queries`: a query nobody works on any more is ended, a slow one is left alone."""

from __future__ import annotations

import gc
import os
import socket
import warnings
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool._async import inflight
from everpool.lab import SILENCE, FaultProxy
from tests.aio.defences.measure import best_of, cuts, is_whole
from tests.support.aio import eventually, gather, sleep, spawn
from tests.support.database import Database

pytestmark = pytest.mark.anyio

PERIOD = 0.2

# How much later than a period: a look comes a little late, then one connect and one question.
ROOM = 0.3

# Where the figure is not the point.
SLACK = 2.0


async def sleeper(pool: Any, seconds: float) -> tuple[str, float]:
    """Run a query that takes so long; return how it ended, and after how many seconds."""
    async with pool.connection() as conn:
        started = monotonic()
        try:
            await conn.execute("select pg_sleep(%s)", (seconds,))
            return "answered", monotonic() - started
        except psycopg.OperationalError:
            return "ended", monotonic() - started


def side(pool: Any) -> int:
    return pool.snapshot().side_connections  # type: ignore[no-any-return]


async def asleep(database: Database, count: int = 1) -> set[int]:
    """The backends that sleep, when there are so many."""

    def found() -> set[int]:
        pids = {pid for pid in database.pids() if database.state(pid) == "active"}
        return pids if len(pids) == count else set()

    return await eventually(found)  # type: ignore[no-any-return]


async def test_queries_whose_backends_are_gone_are_ended_soon_after_a_period(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(2, watch_queries=PERIOD) as pool:
        await pool.wait()

        async def measure() -> float:
            accepted, before = proxy.stats().accepted, cuts(pool).get("silence", 0)
            beside = side(pool)
            workers = [spawn(sleeper, pool, 30.0) for _ in range(2)]
            pids = await asleep(database, 2)
            for pid in pids:
                proxy.cut(SILENCE, link=proxy.find(backend_pid=pid))
            database.kill(*pids)
            ended = await gather(*workers)
            assert all(how == "ended" and took > PERIOD for how, took in ended)
            await eventually(lambda: is_whole(pool, 2))
            assert cuts(pool) == {"silence": before + 2} and pool.snapshot().cuts_lent == before + 2
            assert side(pool) == 1
            assert proxy.stats().accepted == accepted + 2 + 1 - beside, "one asks about both"
            return max(took for _, took in ended)

        assert await best_of(measure, PERIOD + ROOM) <= PERIOD + ROOM


async def test_a_slow_query_is_left_alone_and_returns_its_result(
    make: Any, database: Database
) -> None:
    async with make(1, watch_queries=PERIOD) as pool:
        await pool.wait()
        worker = spawn(sleeper, pool, 3 * PERIOD)
        await eventually(lambda: side(pool))
        how, took = await worker.result()
        assert how == "answered" and took >= 3 * PERIOD
        assert not cuts(pool) and is_whole(pool, 1)
        assert len(database.pids()) == 2
        side_conn = pool._machine.side.conn
    assert side(pool) == 0 and side_conn.closed
    await eventually(lambda: not database.pids())


async def test_a_transaction_is_repeated_though_the_connection_to_ask_on_was_cut_too(
    make: Any, proxy: FaultProxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "KEPT_ANSWERS_WITHIN", 0.2)
    attempts: list[float] = []
    questions: list[float] = []
    inquire = inflight._inquire

    async def counted(*args: Any) -> Any:
        questions.append(monotonic())
        return await inquire(*args)

    monkeypatch.setattr(inflight, "_inquire", counted)

    async def work(conn: Any) -> str:
        attempts.append(monotonic())
        await conn.execute("select pg_sleep(%s)", (30.0 if len(attempts) == 1 else 0.0,))
        return "done"

    async with make(1, watch_queries=PERIOD) as pool:
        await pool.wait()
        worker = spawn(pool.run, work)
        pids = await asleep(database)
        await eventually(lambda: pool._machine.side is not None and not pool._machine.side.taken)
        before = len(questions)
        proxy.cut(SILENCE)
        database.kill(*pids)
        assert await worker.result() == "done"
        assert len(attempts) == 2 and len(questions) == before + 1
        assert attempts[1] - attempts[0] < 2 * PERIOD + 0.2 + SLACK
        assert side(pool) == 1


async def test_where_no_connection_can_be_made_what_stays_silent_is_ended(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    """Not before the time is up that a connect may take: a byte may come until then."""
    async with make(2, watch_queries=PERIOD, connect_timeout=0.4) as pool:
        await pool.wait()
        slow = spawn(sleeper, pool, PERIOD + 0.25)
        [alive] = await asleep(database)
        silent = spawn(sleeper, pool, 30.0)
        [pid] = await asleep(database, 2) - {alive}
        proxy.refuse()
        proxy.silence(link=proxy.find(backend_pid=pid))
        assert (await slow.result())[0] == "answered"
        how, took = await silent.result()
        assert how == "ended" and PERIOD + 0.4 < took < PERIOD + 0.4 + SLACK
        assert cuts(pool)["silence"] == 1 and side(pool) == 0


if True:  # ASYNC  It takes its time; the other world does the same.

    async def test_a_server_that_accepts_and_never_answers_is_out_of_reach_too(
        make: Any, proxy: FaultProxy, database: Database
    ) -> None:
        async with make(1, watch_queries=PERIOD, connect_timeout=1.0) as pool:
            await pool.wait()
            worker = spawn(sleeper, pool, 30.0)
            await asleep(database)
            proxy.silence()
            how, took = await worker.result()
            # psycopg takes two seconds for the least.
            assert how == "ended" and PERIOD + 2.0 < took < PERIOD + 2.0 + SLACK


async def test_off_by_default_nobody_is_asked(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(1) as pool:
        await pool.wait()
        accepted = proxy.stats().accepted
        assert (await sleeper(pool, 1.5 * PERIOD))[0] == "answered"
        assert proxy.stats().accepted == accepted and side(pool) == 0


async def test_only_an_answer_that_has_not_come_is_asked_about(make: Any) -> None:
    async with make(2, watch_queries=0.1) as pool:
        await pool.wait()
        async with pool.connection(), pool.connection() as conn:  # one at rest, one that reads late
            conn.pgconn.send_query(b"select 1")
            conn.pgconn.flush()
            await sleep(0.3)
            assert side(pool) == 0
            while conn.pgconn.get_result():
                pass
        assert not cuts(pool)


async def test_a_pool_closed_while_it_asks_leaves_no_connection(
    make: Any, proxy: FaultProxy, database: Database
) -> None:
    async with make(1, watch_queries=0.1, connect_timeout=5.0) as pool:
        await pool.wait()
        worker = spawn(sleeper, pool, 0.4)
        await asleep(database)
        accepted = proxy.stats().accepted
        proxy.hang()
        await eventually(lambda: proxy.stats().accepted > accepted)
        began = monotonic()
        await pool.close()
        assert monotonic() - began < 0.5
        proxy.heal()
        assert (await worker.result())[0] == "answered"
    await eventually(lambda: not database.pids())


async def test_a_dropped_pool_leaves_no_connection_beside_it(make: Any, database: Database) -> None:
    async def use(pool: Any) -> None:
        await pool.open()
        await pool.wait()
        worker = spawn(sleeper, pool, 0.3)
        await eventually(lambda: side(pool))
        await worker.result()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        await use(make(1, watch_queries=0.1))
        await eventually(lambda: gc.collect() >= 0 and not database.pids())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
async def test_a_forked_child_does_not_touch_its_parent_s(make: Any, database: Database) -> None:
    async with make(1, watch_queries=0.1) as pool:
        await pool.wait()
        worker = spawn(sleeper, pool, 0.3)
        await eventually(lambda: side(pool))
        await worker.result()
        pids, descriptor = database.pids(), pool._machine.side.conn.pgconn.socket
        child = os.fork()
        if not child:
            buried = socket.socket(fileno=os.dup(descriptor)).family == socket.AF_UNIX
            os._exit(not buried or pool._machine.side is not None)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222  it does nothing that takes time
        assert side(pool) == 1 and len(pids) == 2
        assert (await sleeper(pool, 0.2))[0] == "answered"
        assert database.pids() == pids
