"""`deadline` bounds the work in hand, whatever it waits for, and its place does not wait for it."""

from __future__ import annotations

import time
from math import inf
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import DeadlineExceeded, Outcome, PoolTimeout
from everpool.events import Cut
from everpool.lab import COMMIT, SILENCE, CutAfter, CutBefore, FaultProxy
from tests.aio.defences.measure import best_of, cuts, is_whole, states
from tests.support.aio import Event, eventually, scalar, sleep, spawn
from tests.support.database import Database

pytestmark = pytest.mark.anyio

DEADLINE = 0.5
GRACE = 0.25

# How much later than it must a caller may be free on a machine that does other things too.
ROOM = 0.05

TRANSACTION: dict[str, Any] = {"kwargs": {}}  # no autocommit


# What a borrower may wait for: each goes silent where it matters, and then waits for ever.


async def execute(conn: Any, proxy: FaultProxy) -> None:
    await conn.execute("select 1")
    proxy.silence()
    await conn.execute("select 1")


async def fetch(conn: Any, proxy: FaultProxy) -> None:
    async with conn.cursor("c") as cur:
        await cur.execute("select generate_series(1, 100)")
        proxy.silence()
        await cur.fetchall()


async def stream(conn: Any, proxy: FaultProxy) -> None:
    async for row in conn.cursor().stream(
        "select n, repeat('x', 1000) from generate_series(1, 20000) n"
    ):
        if row[0] == 1:
            proxy.silence()


async def copy_in(conn: Any, proxy: FaultProxy) -> None:
    await conn.execute("create temp table t (x text)")
    async with conn.cursor().copy("copy t from stdin") as copy:
        proxy.silence()
        while True:
            await copy.write(b"x" * 10000 + b"\n")
            await sleep(0.001)


async def copy_out(conn: Any, proxy: FaultProxy) -> None:
    query = "copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout"
    async with conn.cursor().copy(query) as copy:
        proxy.silence()
        async for _ in copy:
            pass


async def pipeline(conn: Any, proxy: FaultProxy) -> None:
    async with conn.pipeline():
        await conn.execute("select 1")
        proxy.silence()


async def savepoint(conn: Any, proxy: FaultProxy) -> None:
    await conn.execute("select 1")
    async with conn.transaction():
        proxy.silence()


async def commit(conn: Any, proxy: FaultProxy) -> None:
    await conn.execute("select 1")
    proxy.silence()
    await conn.commit()


async def transaction(conn: Any, proxy: FaultProxy) -> None:
    async with conn.transaction():
        await conn.execute("select 1")
        proxy.silence()


async def own_commit(conn: Any, proxy: FaultProxy) -> None:
    await conn.execute("select 1")
    proxy.silence()
    await conn.execute("commit")


async def leave(conn: Any, proxy: FaultProxy) -> None:
    await conn.execute("select 1")
    proxy.silence()


async def swallow(conn: Any, proxy: FaultProxy) -> None:
    try:
        await execute(conn, proxy)
    except psycopg.Error:
        pass


OUTCOMES = {
    execute: "rolled_back",
    fetch: "rolled_back",
    stream: "rolled_back",
    copy_in: "rolled_back",
    copy_out: "rolled_back",
    swallow: "rolled_back",
    savepoint: "rolled_back",
    pipeline: "unknown",
    leave: "unknown",
    commit: "unknown",
    transaction: "unknown",
    own_commit: "unknown",
}


async def ended_after(pool: Any, path: Any, use: Any, deadline: float) -> tuple[float, Any]:
    """Use a connection in a block with a deadline; return when it ended, and with what."""
    start = monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        async with pool.connection(deadline=deadline) as conn:
            path.number = path.proxy.find(backend_pid=conn.info.backend_pid)
            await use(conn, path)
    return monotonic() - start, caught.value


class Path:
    """The way of one connection through the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.number = 0

    def silence(self) -> None:
        self.proxy.silence(link=self.number)


async def test_whatever_waits_on_a_silent_connection_ends_on_time(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    """All at once, each on a connection of its own, while nothing new gets an answer either."""
    size = len(OUTCOMES)
    async with make(size, **TRANSACTION) as pool:

        async def measure() -> float:
            proxy.heal()
            await eventually(lambda: is_whole(pool, size), timeout=10)
            proxy.hang()
            workers = [spawn(ended_after, pool, Path(proxy), use, DEADLINE) for use in OUTCOMES]
            longest = 0.0
            for (use, outcome), worker in zip(OUTCOMES.items(), workers, strict=True):
                took, error = await worker.result()
                assert error.outcome == outcome, use
                assert isinstance(error.__cause__, psycopg.Error) or use is swallow
                assert took >= DEADLINE + GRACE, use
                longest = max(longest, took)
            return longest

        most = DEADLINE + GRACE + 2 * ROOM  # a dozen at once, on what may be two cores
        figure("the last of all calls over silence, s", await best_of(measure, most), most)
        seen = pool.snapshot()
        assert set(seen.cuts) == {"deadline"} and seen.deadlines["ended"] == seen.cuts["deadline"]
        assert seen.deadlines["ended"] % size == 0 and not seen.deadlines["cancelled"]
        assert not seen.cuts_lent and not seen.vitals.cuts
        assert not pool.get_stats().get("connections_lost")
        assert not pool.get_stats().get("returns_bad")
        proxy.heal()


async def test_with_autocommit_a_query_without_an_answer_may_have_done_its_work(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    async with make(1) as pool:

        async def measure() -> float:
            proxy.heal()
            await eventually(lambda: is_whole(pool, 1), timeout=10)
            proxy.hang()
            took, error = await ended_after(pool, Path(proxy), execute, 0.2)
            assert error.outcome is Outcome.UNKNOWN
            return took

        most = 0.2 + GRACE + ROOM
        figure("a query over silence with deadline=0.2, s", await best_of(measure, most), most)
        proxy.heal()


@pytest.mark.parametrize("reached", [True, False], ids=["committed", "not committed"])
async def test_the_outcome_is_true_whether_the_commit_arrived_or_not(
    make: Any, proxy: FaultProxy, database: Database, reached: bool
) -> None:
    async with make(1, **TRANSACTION) as pool:
        async with pool.connection() as conn:
            await conn.execute("drop table if exists paid")
            await conn.execute("create table paid (x int)")
        proxy.on(COMMIT, (CutAfter if reached else CutBefore)(SILENCE))
        with pytest.raises(DeadlineExceeded) as caught:
            async with pool.connection(deadline=DEADLINE) as conn:
                await conn.execute("insert into paid values (1)")
        assert caught.value.outcome == "unknown"
        proxy.heal()
        async with pool.connection() as conn:
            assert await scalar(conn, "select count(*) from paid") == reached
            await conn.execute("drop table paid")


@pytest.mark.parametrize("settings", [{}, TRANSACTION], ids=["autocommit", "transaction"])
async def test_a_server_that_lives_is_asked_to_stop_and_the_connection_is_kept(
    make: Any, settings: dict[str, Any], figure: Any
) -> None:
    async with make(1, **settings) as pool:
        await pool.wait(10)
        pids = set()

        async def measure() -> float:
            start = monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                async with pool.connection(deadline=DEADLINE) as conn:
                    pids.add(conn.info.backend_pid)
                    await conn.execute("select pg_sleep(30)")
            took = monotonic() - start
            assert took >= DEADLINE
            assert isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)
            assert caught.value.outcome is Outcome.ROLLED_BACK
            return took

        figure("cancelled in time, s", await best_of(measure, DEADLINE + ROOM), DEADLINE + ROOM)
        async with pool.connection() as conn:
            assert {conn.info.backend_pid} == pids
            assert await scalar(conn, "select 1") == 1
        assert pool.snapshot().deadlines["ended"] == 0 < pool.snapshot().deadlines["cancelled"]
        assert not cuts(pool)


async def test_a_block_that_goes_on_after_its_cancelled_query_is_rolled_back(
    make: Any, database: Database
) -> None:
    """Its connection is sound until the grace is over, but what it does then is too late."""
    async with make(1, **TRANSACTION) as pool:
        async with pool.connection() as conn:
            await conn.execute("drop table if exists paid")
            await conn.execute("create table paid (x int)")
        with pytest.raises(DeadlineExceeded) as caught:
            async with pool.connection(deadline=0.2) as conn:
                try:
                    await conn.execute("select pg_sleep(30)")
                except psycopg.errors.QueryCanceled:
                    await conn.rollback()
                await conn.execute("insert into paid values (1)")
        assert caught.value.outcome is Outcome.ROLLED_BACK
        async with pool.connection() as conn:
            assert await scalar(conn, "select count(*) from paid") == 0
            await conn.execute("drop table paid")


async def test_the_place_is_free_at_the_deadline_although_the_borrower_does_not_wake(
    make: Any, proxy: FaultProxy, figure: Any
) -> None:
    woken = Event()

    async def borrow() -> Outcome:
        try:
            async with pool.connection(deadline=DEADLINE) as conn:
                await conn.execute("select 1")
                started.set()
                await woken.wait()
        except DeadlineExceeded as ex:
            return ex.outcome
        return Outcome.COMMITTED

    async def measure() -> float:
        nonlocal started, woken
        started, woken = Event(), Event()
        start = monotonic()
        sleeper = spawn(borrow)
        await started.wait()
        async with pool.connection(5) as conn:
            took = monotonic() - start
            assert await scalar(conn, "select 1") == 1
        assert not sleeper.done and states(pool)["corpse"] == 1
        assert pool.snapshot().vitals.size == 1
        woken.set()
        assert await sleeper.result() is Outcome.ROLLED_BACK
        await eventually(lambda: is_whole(pool, 1))
        return took

    started = Event()
    async with make(1, **TRANSACTION) as pool:
        await pool.wait(10)
        most = DEADLINE + 0.1
        figure(
            "another served, after the deadline of one who sleeps, s",
            await best_of(measure, most),
            most,
        )


async def test_the_wait_for_the_connection_is_part_of_the_deadline(make: Any) -> None:
    async with make(1) as pool:
        async with pool.connection():
            start = monotonic()
            with pytest.raises(PoolTimeout) as caught:
                async with pool.connection(deadline=0.2):
                    pass
            assert 0.2 <= monotonic() - start < 0.4
            assert caught.value.outcome is Outcome.NOT_STARTED  # type: ignore[attr-defined]
            with pytest.raises(PoolTimeout):
                await pool.getconn(deadline=0)
        assert not pool.snapshot().deadlines["ended"]


async def test_a_pool_may_have_a_deadline_for_all_and_change_it(make: Any) -> None:
    async with make(1, deadline=0.2) as pool:
        with pytest.raises(DeadlineExceeded):
            async with pool.connection() as conn:
                await conn.execute("select pg_sleep(30)")
        async with pool.connection(deadline=inf) as conn:
            await conn.execute("select pg_sleep(0.3)")
        pool.deadline = inf
        async with pool.connection() as conn:
            await conn.execute("select pg_sleep(0.3)")
        pool.deadline = 0.2
        assert "deadline 0.2 s: changed at run time" in pool.policy.explain()
        with pytest.raises(DeadlineExceeded):
            async with pool.connection() as conn:
                await conn.execute("select pg_sleep(30)")
        with pytest.raises(ValueError, match="deadline must be more than 0"):
            pool.deadline = 0


async def test_without_a_block_only_the_socket_ends(make: Any, proxy: FaultProxy) -> None:
    async with make(1) as pool:
        conn = await pool.getconn(deadline=DEADLINE)
        with pytest.raises(psycopg.OperationalError) as caught:
            await execute(conn, proxy)
        assert not isinstance(caught.value, DeadlineExceeded)
        proxy.heal()
        await eventually(lambda: states(pool)["idle"])
        await pool.putconn(conn)
        await eventually(lambda: is_whole(pool, 1))
        conn = await pool.getconn(deadline=0.2)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await conn.execute("select pg_sleep(30)")
        await pool.putconn(conn)
        assert is_whole(pool, 1) and pool.snapshot().deadlines == {"cancelled": 1, "ended": 1}


async def test_what_is_over_in_time_is_left_alone(make: Any) -> None:
    async with make(1) as pool:
        async with pool.connection(deadline=0.5) as conn:
            await conn.execute("select 1")
        conn = await pool.getconn(deadline=0.5)
        await pool.putconn(conn)
        async with pool.connection(deadline=5) as again:
            await again.execute("select pg_sleep(0.6)")
        assert again is conn
        assert pool.snapshot().deadlines == {"cancelled": 0, "ended": 0}


async def test_an_error_of_the_block_s_own_stays_what_it_is(make: Any) -> None:
    async with make(1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.connection(deadline=5):
                raise ZeroDivisionError
        with pytest.raises(psycopg.errors.SyntaxError):
            async with pool.connection(deadline=5) as conn:
                await conn.execute("selec")
        assert is_whole(pool, 1)


async def test_it_is_told_when_it_happens_and_once(make: Any) -> None:
    told: list[Any] = []

    def note(cut: Cut) -> None:
        told.append((cut.cause.style, cut.lent))

    async with make(1) as pool:
        with pool.subscribe(note, Cut):
            conn = await pool.getconn(deadline=0.2)
            await eventually(lambda: told)
            assert states(pool)["corpse"] == 1
            await pool.putconn(conn)
            await eventually(lambda: is_whole(pool, 1))
        assert told == [("deadline", True)]


async def test_a_background_that_comes_late_does_not_end_what_came_back_in_time(make: Any) -> None:
    async with make(1) as pool:
        async with pool.connection(deadline=0.5) as conn:
            await conn.execute("select 1")
        async with pool.connection() as again:
            time.sleep(0.5)  # noqa: ASYNC251  # in a frozen loop nobody gets a turn
            query = spawn(scalar, again, "select 2 from pg_sleep(0.1)")
            assert await query.result() == 2
        assert again is conn and pool.snapshot().deadlines == {"cancelled": 0, "ended": 0}
