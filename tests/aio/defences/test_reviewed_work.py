"""Faults of transactions that a reading of the code found, each with the run that shows it."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from everpool import (
    AsyncConnectionPool,
    CommitUnknown,
    Outcome,
    Token,
    TransactionMisuse,
)
from everpool.lab import (
    COMMIT,
    COMMITTED,
    RST,
    CutBefore,
    FaultProxy,
    Hold,
    Message,
    PostgresServer,
    fatal,
)
from everpool.work.token import SCHEMA
from tests.support.aio import Event, eventually, sleep, spawn

from .measure import is_whole
from .work import INSERT, Insert

pytestmark = pytest.mark.anyio


# -- false outcomes ------------------------------------------------------------------------------


async def promoted(work: Any) -> None:
    """Call *work* with a pool whose idle connection was opened to a standby, now promoted."""
    with PostgresServer() as primary:
        with psycopg.connect(primary.dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute("CREATE TABLE done (id int)")
        with primary.standby() as standby, FaultProxy(standby.host, standby.port) as proxy:
            pool = AsyncConnectionPool(proxy.via(standby.dsn), min_size=1, max_size=1, open=False)
            async with pool:
                await pool.wait(10)
                standby.promote()
                with psycopg.connect(standby.dsn, autocommit=True) as seen:
                    await work(pool, proxy, seen)


async def done_twice(conn: Any) -> None:
    await conn.execute("INSERT INTO done VALUES (1)")


# `in_hot_standby` is what the server said with its last answer, before the promotion: the
# transaction is taken for one that writes nothing, and repeated though it is committed.
async def test_a_promoted_standby_is_no_standby(server: Any) -> None:
    async def work(pool: Any, proxy: FaultProxy, seen: Any) -> None:
        proxy.on(COMMITTED, CutBefore(RST))
        await pool.run(done_twice)
        assert seen.execute("SELECT count(*) FROM done").fetchone() == (1,)

    await promoted(work)


# The same, without any cut: the key is not written, and the work is done twice.
async def test_a_key_counts_on_a_promoted_standby(server: Any) -> None:
    async def work(pool: Any, proxy: FaultProxy, seen: Any) -> None:
        for _ in range(2):
            await pool.run(done_twice, commit=Token("order-4711"))
        assert seen.execute("SELECT count(*) FROM done").fetchone() == (1,)

    await promoted(work)


# The resolver's number is an int4 literal: whoever may create a function in a schema of the
# search path answers for the server (an exact match is preferred to pg_catalog's bigint).
async def test_nobody_else_answers_for_the_server(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    insert.table.execute(
        "CREATE FUNCTION public.txid_status(integer) RETURNS text LANGUAGE sql"
        " AS $$SELECT 'aborted'$$"
    )
    try:
        async with make(1) as pool:
            proxy.on(COMMITTED, CutBefore(RST))
            await pool.run(insert, 1)
            assert insert.table.rows() == [1]
    finally:
        insert.table.execute("DROP FUNCTION public.txid_status(integer)")


# numeric * integer: an operator of somebody's own is an exact match, and is executed with
# every BEGIN, as the pool's role.
async def test_nobody_elses_operator_is_called(make: Any, insert: Insert) -> None:
    insert.table.execute(
        f"""CREATE FUNCTION public.spy(numeric, integer) RETURNS numeric LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO {insert.table.name} VALUES (666);
        RETURN $1 OPERATOR(pg_catalog.*) $2::numeric; END';
        CREATE OPERATOR public.* (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = public.spy)
        """
    )
    try:
        async with make(1) as pool:
            await pool.run(insert, 1)
            assert insert.table.rows() == [1]
    finally:
        insert.table.execute(
            "DROP OPERATOR public.* (numeric, integer); DROP FUNCTION public.spy(numeric, integer)"
        )


# A schema before pg_catalog that overrides now(), as test suites and time travellers do: the
# old session is never found, and an undelivered COMMIT stays unknown.
async def test_somebody_elses_now_does_not_hide_the_old_session(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    insert.table.execute(
        "CREATE SCHEMA clock; CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql"
        " AS $$SELECT timestamptz '2001-01-01'$$"
    )
    options = "-c search_path=clock,pg_catalog,public"
    try:
        async with make(2, kwargs={"autocommit": True, "options": options}) as pool:
            await late_commit(pool, proxy, insert, deadline=3.0)
    finally:
        insert.table.execute("DROP SCHEMA clock CASCADE")


async def late_commit(pool: Any, proxy: FaultProxy, insert: Insert, **settings: Any) -> None:
    rule = proxy.on(COMMIT, Hold())
    old: list[int] = []

    async def cut() -> None:
        await eventually(lambda: rule.hits)
        proxy.cut(RST.one_sided(), link=old[0])

    async def work(conn: Any) -> None:
        if not old:
            old.append(proxy.find(backend_pid=conn.info.backend_pid))
        await insert(conn, 1)

    cutting = spawn(cut)
    try:
        await pool.run(work, **settings)
        await cutting.result()
        assert insert.table.rows() == [1]
    finally:
        insert.table.execute(  # what is held must not hold its locks
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


# Another cluster behind the same name: a fence written there proves nothing about the first.
async def test_a_fence_on_another_server_proves_nothing(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    with PostgresServer() as other:
        with psycopg.connect(other.dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute(f"CREATE TABLE {insert.table.name} (id int)")
        async with make(1, 1) as pool:

            async def work(conn: Any) -> None:
                await insert(conn, 1)
                proxy.retarget(other.host, other.port)

            proxy.on(COMMITTED, CutBefore(RST))
            with pytest.raises(CommitUnknown):
                await pool.run(work, commit="token", deadline=3)
            assert insert.calls == 1


# The function has ended its transaction in SQL and then raises: what it committed is told to
# be rolled back, and repeated if the error looks like contention.
@pytest.mark.parametrize("error", [KeyError, psycopg.errors.SerializationFailure])
async def test_a_function_that_commits_and_raises_is_not_rolled_back(
    make: Any, insert: Insert, error: Any
) -> None:
    async def work(conn: Any) -> None:
        await insert(conn, 1)
        await conn.execute("COMMIT")
        raise error("later")

    async with make(1) as pool:
        with pytest.raises(Exception) as caught:
            await pool.run(work)
        assert insert.table.rows() == [1]
        assert caught.value.outcome is not Outcome.ROLLED_BACK  # type: ignore[attr-defined]


# Terminated while it waits for its standby: the warning said that it is committed here only.
async def test_committed_here_only_is_told_when_somebody_else_ends_the_wait(
    proxy: FaultProxy, server: Any, insert: Insert
) -> None:
    insert.table.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    insert.table.execute("SELECT pg_reload_conf()")
    insert.table.execute("SET synchronous_commit = local")
    try:
        dsn = proxy.via(server.dsn)
        async with AsyncConnectionPool(dsn, min_size=1, open=False) as pool:

            async def end() -> None:
                def waiting() -> Any:
                    rows = insert.table.execute(
                        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                    ).fetchall()
                    return [row[0] for row in rows]

                for pid in await eventually(waiting):
                    insert.table.execute(f"SELECT pg_terminate_backend({pid})")

            ending = spawn(end)
            async for attempt in pool.attempts():
                async with attempt as conn:
                    await insert(conn, 1)
            await ending.result()
            assert attempt.outcome is Outcome.COMMITTED_LOCALLY_ONLY
    finally:
        insert.table.execute("ALTER SYSTEM RESET synchronous_standby_names")
        insert.table.execute("SELECT pg_reload_conf()")


# -- lost transactions ---------------------------------------------------------------------------


# `break` leaves the block and its loop for the next round of another loop, which is taken for
# the loop of attempts: the failure is swallowed, and nothing is repeated.
async def test_a_break_to_an_outer_loop_loses_nothing(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(1) as pool:
        proxy.on(COMMIT, CutBefore(RST))
        failed = 0
        try:
            for number in (1, 2):
                async for attempt in pool.attempts():
                    async with attempt as conn:
                        await insert(conn, number)
                        break
        except psycopg.Error:
            failed = 1
        assert failed or insert.table.rows() == [1, 2]


# What fails inside the block is swallowed though the loop is left after the block.
async def test_a_loop_that_is_left_after_the_block_loses_nothing(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async def store(pool: Any) -> str:
        async for attempt in pool.attempts():
            async with attempt as conn:
                await insert(conn, 1)
            return "stored"
        return "never"

    async with make(1) as pool:
        proxy.on(INSERT, CutBefore(RST))
        try:
            said = await store(pool)
        except psycopg.Error:
            said = "failed"
        assert said == "failed" or insert.table.rows() == [1]


# A loop of attempts that is used a second time has no rounds: its block is left out in silence.
async def test_a_loop_of_attempts_used_twice_is_refused(make: Any, insert: Insert) -> None:
    async with make(1) as pool:
        attempts = pool.attempts()

        async def store(number: int) -> None:
            async for attempt in attempts:
                async with attempt as conn:
                    await insert(conn, number)

        await store(1)
        with pytest.raises(TransactionMisuse):
            await store(2)


# -- what cannot be found out though it could be ---------------------------------------------------


# The resolver's own session is ended with 57P01: taken for a server that refuses to say who it is.
async def test_the_end_of_the_resolvers_session_is_no_answer(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(2) as pool:
        proxy.on(COMMITTED, CutBefore(RST))
        proxy.on(Message("client", "Query", contains=b"txid_status"), CutBefore(fatal("57P01")))
        await pool.run(insert, 1)
        assert insert.table.rows() == [1]


# Everybody waits for a row that the abandoned session has locked, and who could end it waits
# for a connection behind them.
async def test_who_resolves_does_not_queue_behind_those_it_holds_up(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    name = insert.table.name
    insert.table.execute(f"INSERT INTO {name} VALUES (0)")
    first = True
    async with make(2, 2) as pool:
        rule = proxy.on(COMMIT, Hold())
        old: list[int] = []

        async def update(conn: Any) -> None:
            await conn.execute(f"UPDATE {name} SET id = id + 1")

        async def hold(conn: Any) -> None:
            nonlocal first
            if first:
                first = False
                old.append(proxy.find(backend_pid=conn.info.backend_pid))
            await update(conn)

        holding = spawn(pool.run, hold, deadline=4)
        await eventually(lambda: rule.hits)
        others = [spawn(pool.run, update, deadline=8) for _ in range(4)]
        await sleep(0.2)
        proxy.cut(RST.one_sided(), link=old[0])
        try:
            await holding.result()  # CommitUnknown
        finally:
            rule.release()
            proxy.cut(RST)
            for other in others:
                try:
                    await other.result()
                except Exception:
                    pass


# -- slots and reasons ---------------------------------------------------------------------------


# A `judge` that returns what is no verdict: the connection is not given back.
async def test_a_judge_that_returns_nonsense_costs_no_slot(make: Any, insert: Insert) -> None:
    async def work(conn: Any) -> None:
        raise KeyError("mine")

    async with make(1, 1, judge=lambda failure, verdict: True) as pool:
        with pytest.raises(KeyError):
            await pool.run(work)
        await eventually(lambda: is_whole(pool, 1))


# A function that idles for too long would do so again: 25P03 is never repeated (the table), and
# is no news about the others. What the server said before it hung up is not read.
async def test_an_idle_transaction_that_was_ended_is_not_repeated(
    make: Any, insert: Insert
) -> None:
    async def work(conn: Any) -> None:
        await insert(conn, 1)
        await sleep(0.3)

    options = "-c idle_in_transaction_session_timeout=100"
    async with make(1, kwargs={"autocommit": True, "options": options}) as pool:
        with pytest.raises(psycopg.Error):
            await pool.run(work)
        assert insert.calls == 1


# An ordinary error's text, with the caller's data in it, is kept as the reason of a cut that
# followed: it shows in the snapshot, in events and logs.
async def test_the_reason_of_a_cut_tells_no_data(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async def work(conn: Any) -> None:
        try:
            await conn.execute("SELECT 'S3CRET'::int")
        except psycopg.Error:
            proxy.cut(RST)
            await sleep(0.1)
            raise

    async with make(1) as pool:
        with pytest.raises(psycopg.Error):
            await pool.run(work, attempts=1)
        assert "S3CRET" not in repr(pool.snapshot())


# What is stored comes back in the client's encoding, and is read as UTF-8.
async def test_a_response_is_read_in_the_clients_encoding(make: Any, insert: Insert) -> None:
    async def work(conn: Any) -> str:
        return "é"

    kwargs = {"autocommit": True, "client_encoding": "latin1"}
    async with make(1, kwargs=kwargs) as pool:
        key = Token("latin")
        insert.table.execute("DELETE FROM everpool.commits WHERE key = 'latin'")
        assert await pool.run(work, commit=key) == "é"
        assert await pool.run(work, commit=key) == "é"


# A backslash before "u0000" is text, and no NUL.
async def test_a_response_may_speak_of_nul(make: Any, insert: Insert) -> None:
    async def work(conn: Any) -> str:
        return r"\u0000"

    async with make(1) as pool:
        insert.table.execute("DELETE FROM everpool.commits WHERE key = 'nul'")
        assert await pool.run(work, commit=Token("nul")) == r"\u0000"


# Two at once under one key: the second meets the first at COMMIT, and gets what that returned
# although its attempts are spent. (The server's error would quote the key.)
async def test_who_meets_another_under_the_same_key_gets_its_response(
    make: Any, insert: Insert
) -> None:
    both = [Event(), Event()]

    async def work(conn: Any, me: int) -> int:
        both[me].set()
        await both[1 - me].wait()
        return me

    async with make(2) as pool:
        insert.table.execute("DELETE FROM everpool.commits WHERE key = 'S3CRET'")
        token = Token("S3CRET")
        assert "S3CRET" not in repr(token)
        workers = [spawn(pool.run, work, me, commit=token, attempts=1) for me in (0, 1)]
        first, second = [await worker.result() for worker in workers]
        assert first == second


if True:  # ASYNC
    # Cancelled while its COMMIT is looked into: the exception says nothing of what became of it,
    # and nobody looks any further.
    async def test_cancelled_while_it_is_looked_into_it_has_an_outcome(
        make: Any, proxy: FaultProxy, insert: Insert
    ) -> None:
        async with make(1, 1) as pool:
            proxy.on(COMMITTED, CutBefore(RST))
            looked = proxy.on(Message("client", "Query", contains=b"txid_status"), Hold())
            running = asyncio.create_task(pool.run(insert, 1))
            await eventually(lambda: looked.hits)
            running.cancel()
            looked.release()
            with pytest.raises(asyncio.CancelledError) as caught:
                await running
            assert caught.value.outcome is Outcome.UNKNOWN  # type: ignore[attr-defined]
