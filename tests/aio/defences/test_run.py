"""Transactions that are repeated when that is safe, and committed once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import AsyncTransaction, IsolationLevel
from psycopg.errors import SerializationFailure, UniqueViolation

from everpool import (
    Chaos,
    CommitRolledBack,
    CommitUnknown,
    DeadlineExceeded,
    Outcome,
    PoolTimeout,
    Repeat,
    Token,
    TokenConflict,
    TokenTableMissing,
    TransactionMisuse,
)
from everpool.events import CommitResolved, Retried
from everpool.lab import (
    COMMIT,
    COMMITTED,
    FIN,
    RST,
    SILENCE,
    Answer,
    CutAfter,
    CutBefore,
    FaultProxy,
    Hold,
    Message,
    Style,
    fatal,
)
from everpool.lab.frames import error_response, ready_for_query
from everpool.work.chaos import Strike
from everpool.work.token import SWEEP
from tests.aio.defences.measure import is_whole
from tests.aio.defences.work import INSERT, Insert, Table
from tests.support.aio import Event, eventually, gather, scalar, sleep, spawn

pytestmark = pytest.mark.anyio

MODES = ("xid", "token")
# The question what became of a transaction, in either mode.
WHO = Message(
    "client",
    "Query",
    where=lambda frame: b"txid_status" in frame.body or b"'aborted'" in frame.body,
)
ROLLED_BACK = b"C\0\0\0\x0dROLLBACK\0"


def listen(pool: Any, *kinds: Any) -> list[Any]:
    heard: list[Any] = []
    pool.subscribe(heard.append, *kinds)
    return heard


# -- what it does --------------------------------------------------------------------------------


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("commit", ["xid", "token", "off"])
async def test_a_function_is_run_in_one_transaction(
    make: Any, insert: Insert, commit: str, autocommit: bool
) -> None:
    async with make(1, kwargs={"autocommit": autocommit}) as pool:
        assert await pool.run(insert, 1, commit=commit) == 1
        assert insert.table.rows() == [1]
        await eventually(lambda: is_whole(pool, 1))


async def test_what_the_function_raises_rolls_back_and_comes_through(
    make: Any, insert: Insert
) -> None:
    async def work(conn: Any) -> None:
        await insert(conn, 1)
        raise KeyError("mine")

    async with make(1) as pool:
        with pytest.raises(KeyError, match="mine") as caught:
            await pool.run(work)
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert insert.calls == 1
        assert insert.table.rows() == []
        assert await pool.run(insert, 2) == 2


async def test_an_error_of_the_works_own_is_raised_at_once(make: Any, insert: Insert) -> None:
    insert.table.execute(f"ALTER TABLE {insert.table.name} ADD PRIMARY KEY (id)")
    async with make(1) as pool:
        await pool.run(insert, 1)
        with pytest.raises(UniqueViolation) as caught:
            await pool.run(insert, 1)
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert insert.calls == 2
        await eventually(lambda: is_whole(pool, 1))


async def test_savepoints_work_inside(make: Any, insert: Insert) -> None:
    async def work(conn: Any) -> None:
        await insert(conn, 1)
        with pytest.raises(ZeroDivisionError):
            async with conn.transaction():
                await insert(conn, 2)
                raise ZeroDivisionError
        async with conn.transaction():
            await insert(conn, 3)

    async with make(1) as pool:
        await pool.run(work)
        assert insert.table.rows() == [1, 3]


async def test_the_transaction_has_the_settings_that_were_asked_for(make: Any) -> None:
    async def settings(conn: Any) -> tuple[str, str, str]:
        return (
            await scalar(conn, "SHOW transaction_isolation"),
            await scalar(conn, "SHOW transaction_read_only"),
            await scalar(conn, "SHOW transaction_deferrable"),
        )

    async with make(1) as pool:
        assert await pool.run(settings) == ("read committed", "off", "off")
        level = IsolationLevel.SERIALIZABLE
        asked = {"isolation_level": level, "read_only": True, "deferrable": True}
        assert await pool.run(settings, **asked) == ("serializable", "on", "on")


async def test_the_connections_own_settings_count_where_none_is_given(make: Any) -> None:
    async def configure(conn: Any) -> None:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        if conn.autocommit:
            await conn.set_autocommit(False)

    async def level(conn: Any) -> str:
        found = await scalar(conn, "SHOW transaction_isolation")
        assert isinstance(found, str)
        return found

    if True:  # ASYNC

        async def set_level(conn: Any) -> None:
            await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    else:

        def set_level(conn: Any) -> None:
            conn.isolation_level = IsolationLevel.REPEATABLE_READ

    async with make(1, configure=set_level, kwargs={}) as pool:
        assert await pool.run(level) == "repeatable read"
        assert await pool.run(level, isolation_level=IsolationLevel.SERIALIZABLE) == "serializable"


async def test_the_decorator(make: Any, table: Table) -> None:
    async with make(1) as pool:

        @pool.transactional(isolation_level=IsolationLevel.SERIALIZABLE)
        async def store(conn: Any, number: int, *, twice: bool = False) -> str:
            """Stores it."""
            await conn.execute(f"INSERT INTO {table.name} VALUES ({number})")
            return str(await scalar(conn, "SHOW transaction_isolation"))

        assert await store(4, twice=True) == "serializable"
        assert store.__doc__ == "Stores it."
        assert table.rows() == [4]
        with pytest.raises(TypeError, match="knows no timeout"):
            pool.transactional(timeout=3)


async def test_a_loop_of_attempts(make: Any, insert: Insert) -> None:
    async with make(1) as pool:
        async for attempt in pool.attempts():
            assert attempt.outcome is Outcome.NOT_STARTED
            async with attempt as conn:
                assert attempt.outcome is Outcome.ROLLED_BACK
                await insert(conn, 1)
        assert attempt.outcome is Outcome.COMMITTED
        assert insert.table.rows() == [1]


# -- repeated ------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [FIN, RST, fatal("57P01"), fatal("08P01")], ids=str)
async def test_a_transaction_whose_connection_is_cut_is_repeated(
    make: Any, proxy: FaultProxy, insert: Insert, style: Style
) -> None:
    async with make(2) as pool:
        heard = listen(pool, Retried)
        proxy.on(INSERT, CutBefore(style))
        assert await pool.run(insert, 1) == 1
        assert insert.calls == 2
        assert insert.table.rows() == [1]
        await eventually(lambda: heard)
        assert heard[0].attempt == 2
        await eventually(lambda: is_whole(pool, 2))


async def test_the_same_in_a_loop(make: Any, proxy: FaultProxy, insert: Insert) -> None:
    async with make(2) as pool:
        proxy.on(INSERT, CutBefore(RST))
        seen = []
        async for attempt in pool.attempts():
            seen.append(attempt)
            async with attempt as conn:
                await insert(conn, 1)
        assert [each.number for each in seen] == [1, 2]
        assert [each.outcome for each in seen] == [Outcome.ROLLED_BACK, Outcome.COMMITTED]
        assert insert.table.rows() == [1]


async def test_an_error_that_wraps_the_loss_is_understood(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async def work(conn: Any) -> None:
        try:
            await insert(conn, 1)
        except psycopg.Error:
            raise LookupError("the repository failed")  # noqa: B904

    async with make(1) as pool:
        proxy.on(INSERT, CutBefore(RST))
        await pool.run(work)
        assert insert.table.rows() == [1]


async def test_attempts_are_limited_and_the_error_says_so(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(2) as pool:
        proxy.on(INSERT, CutBefore(RST), times=None)
        with pytest.raises(psycopg.OperationalError) as caught:
            await pool.run(insert, 1, attempts=2)
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert insert.calls == 2
        assert caught.value.__notes__ == ["everpool: not repeated: attempt 2 of 2 failed"]


async def test_nothing_is_repeated_beyond_the_deadline(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async def work(conn: Any) -> None:
        await sleep(0.3)
        await insert(conn, 1)

    async with make(2) as pool:
        proxy.on(INSERT, CutBefore(RST), times=None)
        with pytest.raises(psycopg.OperationalError) as caught:
            await pool.run(work, attempts=100, deadline=0.3 + 0.25)
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert 1 <= insert.calls <= 2


async def test_contention_is_repeated_on_a_sound_connection(make: Any, insert: Insert) -> None:
    """Two transactions read what the other writes: one of them must fail."""
    both = [Event(), Event()]

    async def work(conn: Any, me: int) -> None:
        total = await scalar(conn, f"SELECT coalesce(sum(id), 0) FROM {insert.table.name}")
        both[me].set()
        await both[1 - me].wait()
        await insert(conn, total + 1)

    async with make(2) as pool:
        heard = listen(pool, Retried)
        level = IsolationLevel.SERIALIZABLE
        await gather(*[spawn(pool.run, work, me, isolation_level=level) for me in (0, 1)])
        assert insert.table.rows() == [1, 2]
        await eventually(lambda: heard)
        assert heard[0].why == "40001"
        assert not pool.snapshot().cuts


async def test_a_connection_that_fails_at_begin_is_replaced_in_silence(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(2) as pool:
        proxy.on(Message("client", "Query", contains=b"BEGIN"), CutBefore(RST))
        assert await pool.run(insert, 1) == 1
        assert insert.calls == 1


async def test_a_fatal_error_that_ends_nothing_costs_its_connection(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(1) as pool:
        words = error_response("58000", "server is down") + ready_for_query("I")
        proxy.on(INSERT, Answer(words))
        old = {link.number for link in proxy.links()}
        assert await pool.run(insert, 1) == 1
        assert insert.table.rows() == [1]
        await eventually(lambda: not old & {link.number for link in proxy.links()})


async def test_an_owner_may_judge_otherwise(make: Any, proxy: FaultProxy, insert: Insert) -> None:
    def judge(failure: Any, verdict: Any) -> Any:
        judged.append((failure.sqlstate, verdict.repeat))
        if failure.sqlstate == "23505":
            return verdict.replace(repeat=Repeat.YES)
        return verdict.replace(repeat=Repeat.NEVER)

    judged: list[Any] = []
    insert.table.execute(f"ALTER TABLE {insert.table.name} ADD PRIMARY KEY (id)")
    async with make(1, judge=judge) as pool:
        await pool.run(insert, 1)
        with pytest.raises(UniqueViolation):
            await pool.run(insert, 1, attempts=2)
        assert insert.calls == 3
        proxy.on(INSERT, CutBefore(RST))
        with pytest.raises(psycopg.OperationalError):
            await pool.run(insert, 2)
        assert insert.calls == 4
        assert ("23505", Repeat.NEVER) in judged


# -- the end of the transaction ------------------------------------------------------------------


# A message, what befalls it, and how often the work may be done: where COMMIT is delivered and the
# connection cut, the fence may still come first.
CUTS_AT_COMMIT: list[Any] = [
    (COMMIT, CutBefore(RST), {2}),
    (COMMIT, CutBefore(FIN), {2}),
    (COMMIT, CutAfter(RST), {1, 2}),
    (COMMIT, CutAfter(FIN), {1, 2}),
    (COMMIT, CutAfter(fatal("57P01")), {1, 2}),
    (COMMITTED, CutBefore(RST), {1}),
    (COMMITTED, CutBefore(fatal("57P01")), {1}),
    (COMMITTED, CutAfter(FIN), {1}),
    (COMMIT, Answer(error_response("08006", "server conn crashed?"), FIN), {2}),
    (COMMIT, Answer(error_response("08P01", "server conn crashed?"), FIN), {2}),
]


@pytest.mark.parametrize("commit", MODES)
@pytest.mark.parametrize(
    ("message", "action", "calls"),
    CUTS_AT_COMMIT,
    ids=[f"{'asked' if m is COMMIT else 'answered'}-{a}" for m, a, _ in CUTS_AT_COMMIT],
)
async def test_a_commit_without_an_answer_is_looked_into(
    make: Any,
    proxy: FaultProxy,
    insert: Insert,
    commit: Any,
    message: Any,
    action: Any,
    calls: set[int],
) -> None:
    async with make(2) as pool:
        rule = proxy.on(message, action)
        assert await pool.run(insert, 1, commit=commit) == 1
        assert rule.hits == 1
        assert insert.calls in calls
        assert insert.table.rows() == [1]


@pytest.mark.parametrize("commit", MODES)
async def test_a_commit_that_arrives_late_finds_itself_fenced(
    make: Any, proxy: FaultProxy, insert: Insert, commit: Any
) -> None:
    """COMMIT is under way in a proxy when its client gives up, and is delivered afterwards."""
    async with make(2) as pool:
        rule = proxy.on(COMMIT, Hold())

        async def cut() -> None:
            await eventually(lambda: rule.hits)
            held = next(i.number for i in proxy.links() if i.number == old.pop())
            proxy.cut(RST.one_sided(), link=held)

        async def work(conn: Any) -> int:
            old.append(proxy.find(backend_pid=conn.info.backend_pid))
            return await insert(conn, 1)

        old: list[int] = []
        cutting = spawn(cut)
        assert await pool.run(work, commit=commit) == 1
        await cutting.result()
        assert insert.calls == 2
        rule.release()
        await sleep(0.1)
        assert insert.table.rows() == [1]


@pytest.mark.parametrize("commit", MODES)
async def test_a_commit_in_the_middle_of_its_delivery_is_waited_for(
    make: Any, proxy: FaultProxy, insert: Insert, commit: Any
) -> None:
    """The server commits slowly (a trigger at COMMIT), and its client is gone."""
    insert.table.execute(
        f"""CREATE FUNCTION slow_{insert.table.name}() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.15); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {insert.table.name} DEFERRABLE
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_{insert.table.name}()"""
    )
    async with make(2) as pool:
        proxy.on(COMMIT, CutAfter(RST.one_sided()))
        assert await pool.run(insert, 1, commit=commit) == 1
        assert insert.table.rows() == [1]


@pytest.mark.parametrize("commit", MODES)
@pytest.mark.parametrize("action", [CutBefore(SILENCE), CutAfter(SILENCE)], ids=str)
async def test_a_commit_into_silence_is_looked_into_within_the_deadline(
    make: Any, proxy: FaultProxy, insert: Insert, commit: Any, action: Any, figure: Any
) -> None:
    """Half of the time is for the COMMIT, half for finding out."""
    async with make(2) as pool:
        proxy.on(COMMIT, action)
        start = monotonic()
        assert await pool.run(insert, 1, commit=commit, deadline=2.0) == 1
        figure("seconds until the transaction was over", monotonic() - start, 2.0)
        assert insert.table.rows() == [1]


async def test_a_deadline_in_the_work_ends_it_and_nothing_is_repeated(
    make: Any, proxy: FaultProxy, insert: Insert, figure: Any
) -> None:
    async with make(1) as pool:
        proxy.on(INSERT, CutBefore(SILENCE))
        start = monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await pool.run(insert, 1, deadline=0.4)
        figure("seconds until the work was ended", monotonic() - start, 0.4 + 0.25 + 0.1)
        assert caught.value.outcome is Outcome.ROLLED_BACK
        assert insert.calls == 1
        assert await pool.run(insert, 2) == 2
        with pytest.raises(DeadlineExceeded):
            await pool.run(insert, 3, deadline=1e-9)


@pytest.mark.parametrize("own", [False, True], ids=["", "getconn of its own"])
@pytest.mark.parametrize("deadline", [5.0, inf])
async def test_the_deadline_of_the_work_counts_not_the_pool_s(
    make: Any, own: bool, deadline: float
) -> None:
    """For the wait for a connection as for the work; without one of its own, the pool's does."""

    async def work(conn: Any) -> Any:
        return await scalar(conn, "SELECT 1 FROM pg_sleep(0.2)")

    async with make(1, deadline=0.1) as pool:
        if own:
            getconn = pool.getconn

            async def wrapper(timeout: float | None = None) -> Any:
                return await getconn(timeout)

            pool.getconn = wrapper
        assert await pool.run(work, deadline=deadline) == 1
        if not own:  # which cannot be told
            waiting = [spawn(pool.run, work, deadline=deadline) for _ in range(2)]
            assert await gather(*waiting) == [1, 1]
        with pytest.raises(DeadlineExceeded):
            await pool.run(work)


async def test_a_commit_that_nobody_looks_into_is_unknown_until_asked(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(2) as pool:
        for message, became in ((COMMITTED, Outcome.COMMITTED), (COMMIT, Outcome.ROLLED_BACK)):
            proxy.on(message, CutBefore(RST))
            with pytest.raises(CommitUnknown, match=r"process \d+, transaction \d+") as caught:
                await pool.run(insert, 1, commit="off")
            unknown = caught.value
            assert unknown.outcome is Outcome.UNKNOWN
            assert unknown.xid
            assert isinstance(unknown.__cause__, psycopg.OperationalError)
            assert await unknown.resolve() is became
            assert unknown.outcome is became
        assert insert.calls == 2
        assert insert.table.rows() == [1]


async def test_a_commit_stays_unknown_when_the_server_is_gone(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async with make(1) as pool:
        proxy.on(COMMITTED, CutBefore(RST))

        async def work(conn: Any) -> None:
            await insert(conn, 1)
            proxy.refuse()

        with pytest.raises(CommitUnknown) as caught:
            await pool.run(work, deadline=0.5)
        proxy.heal()
        assert await caught.value.resolve() is Outcome.COMMITTED
        assert insert.calls == 1


async def test_the_table_of_a_refused_commit_is_clean(make: Any, insert: Insert) -> None:
    """A deferred constraint fails at COMMIT: a sure abort, and a sound connection."""
    name = insert.table.name
    insert.table.execute(f"ALTER TABLE {name} ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    async with make(1) as pool:
        for commit in ("xid", "token"):
            await pool.run(insert, 7, commit=commit) if commit == "xid" else None
            with pytest.raises(UniqueViolation) as caught:
                await pool.run(insert, 7, commit=commit)
            assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert insert.table.rows() == [7]
        assert not pool.snapshot().cuts


async def test_a_contention_found_at_commit_is_repeated(make: Any, insert: Insert) -> None:
    name = insert.table.name
    insert.table.execute(
        f"""CREATE SEQUENCE tries_{name};
        CREATE FUNCTION once_{name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
        IF nextval(''tries_{name}'') = 1 THEN
        RAISE EXCEPTION ''try again'' USING ERRCODE = ''40001''; END IF; RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER once AFTER INSERT ON {name} DEFERRABLE
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION once_{name}()"""
    )
    async with make(1) as pool:
        assert await pool.run(insert, 1) == 1
        assert insert.calls == 2
        insert.table.execute(f"ALTER SEQUENCE tries_{name} RESTART")
        async for attempt in pool.attempts():
            async with attempt as conn:
                await insert(conn, 2)
        assert attempt.number == 2
        assert insert.table.rows() == [1, 2]


async def test_a_commit_that_fails_at_a_return_is_raised_because_it_cannot_be_repeated(
    make: Any, insert: Insert
) -> None:
    name = insert.table.name
    insert.table.execute(
        f"""CREATE FUNCTION never_{name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
        RAISE EXCEPTION ''try again'' USING ERRCODE = ''40001''; END';
        CREATE CONSTRAINT TRIGGER never AFTER INSERT ON {name} DEFERRABLE
        INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION never_{name}()"""
    )

    async with make(1) as pool:

        async def returning() -> int | None:
            async for attempt in pool.attempts():
                async with attempt as conn:
                    return await insert(conn, 1)
            return None

        with pytest.raises(SerializationFailure) as caught:
            await returning()
        assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert insert.calls == 1


async def test_a_swallowed_error_is_no_success(make: Any, insert: Insert) -> None:
    async def work(conn: Any) -> str:
        await insert(conn, 1)
        try:
            await conn.execute("SELECT 1/0")
        except psycopg.Error:
            pass
        return "done"

    async with make(1) as pool:
        with pytest.raises(CommitRolledBack, match="caught inside") as caught:
            await pool.run(work)
        assert caught.value.outcome is Outcome.ROLLED_BACK
        assert insert.table.rows() == []
        await eventually(lambda: is_whole(pool, 1))


async def test_a_commit_answered_with_rollback_is_no_success(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    """As a server answers in a failed transaction; here a proxy that knows more than we do."""
    async with make(1) as pool:
        proxy.on(COMMIT, Answer(ROLLED_BACK + ready_for_query("I")))
        with pytest.raises(CommitRolledBack):
            await pool.run(insert, 1)


async def test_a_connection_lost_before_commit_is_a_sure_rollback(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    """The cut comes after the last answer, and has been seen when COMMIT would be sent."""

    async def work(conn: Any) -> None:
        await insert(conn, 1)
        if insert.calls == 1:
            proxy.cut(RST, link=proxy.find(backend_pid=conn.info.backend_pid))
            await sleep(0.05)

    async with make(2) as pool:
        heard = listen(pool, CommitResolved)
        commits = proxy.on(COMMIT, Hold(), skip=10**6, times=None)
        await pool.run(work)
        assert insert.calls == 2
        assert insert.table.rows() == [1]
        assert not heard
        commits.remove()


@pytest.mark.parametrize("read_only", [True, False])
async def test_what_the_server_says_as_it_ends_a_session_at_begin_is_what_the_caller_hears(
    make: Any, proxy: FaultProxy, read_only: bool
) -> None:
    begin = Message("client", "Query", where=lambda frame: frame.body.startswith(b"BEGIN"))
    proxy.on(begin, CutBefore(fatal("57P01")), times=None)
    async with make(1) as pool:
        with pytest.raises(psycopg.errors.AdminShutdown) as caught:
            await pool.run(scalar, "SELECT 1", read_only=read_only)
        assert caught.value.outcome is Outcome.NOT_STARTED  # type: ignore[attr-defined]


class _Pressed(BaseException):
    """A key, pressed just then."""


async def test_who_is_interrupted_at_the_last_step_of_the_beginning_can_begin_again(
    make: Any,
) -> None:
    class Interrupted:
        def __init__(self, real: Any) -> None:
            self.get, self._real = real.get, real

        def set(self, value: Any) -> None:
            self._real.set(value)
            patch.undo()
            raise _Pressed

    async with make(1) as pool:
        await pool.wait()
        module = f"{type(pool).__module__.rpartition('.')[0]}.attempt"
        patch = pytest.MonkeyPatch()
        patch.setattr(f"{module}._under_way", Interrupted(sys.modules[module]._under_way))  # type: ignore[attr-defined]
        with pytest.raises(_Pressed):
            await pool.run(scalar, "SELECT 1")
        assert await pool.run(scalar, "SELECT 1") == 1


async def test_a_read_only_transaction_has_nothing_to_lose(make: Any, proxy: FaultProxy) -> None:
    async def read(conn: Any) -> Any:
        calls.append(1)
        return await scalar(conn, "SELECT 42")

    calls: list[int] = []
    async with make(2) as pool:
        heard = listen(pool, CommitResolved)
        proxy.on(COMMIT, CutAfter(RST))
        assert await pool.run(read, read_only=True) == 42
        assert len(calls) == 2
        assert not heard


async def test_cancelled_in_its_commit_a_transaction_is_looked_into_aside(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    if True:  # ASYNC
        async with make(2) as pool:
            heard = listen(pool, CommitResolved)
            rule = proxy.on(COMMITTED, Hold())

            async def work() -> None:
                async for attempt in pool.attempts():
                    attempts.append(attempt)
                    async with attempt as conn:
                        await insert(conn, 1)

            attempts: list[Any] = []
            task = asyncio.create_task(work())
            await eventually(lambda: rule.hits)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.outcome is Outcome.UNKNOWN  # type: ignore[attr-defined]
            assert caught.value.attempt is attempts[0]  # type: ignore[attr-defined]
            await eventually(lambda: attempts[0].outcome is Outcome.COMMITTED)
            await eventually(lambda: heard)
            assert heard[0].outcome == "committed"
            assert insert.table.rows() == [1]


async def test_a_question_that_was_cancelled_is_asked_again(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    cancelled = error_response("57014", "canceling statement due to user request", severity="ERROR")
    async with make(2) as pool:
        proxy.on(COMMITTED, CutBefore(RST))
        rule = proxy.on(WHO, Answer(cancelled + ready_for_query()))
        assert await pool.run(insert, 1) == 1
        assert rule.hits == 1
        assert insert.table.rows() == [1]


@pytest.mark.parametrize("commit", MODES)
async def test_cancelled_while_it_asks_a_transaction_is_looked_into_aside(
    make: Any, proxy: FaultProxy, insert: Insert, commit: Any
) -> None:
    if True:  # ASYNC
        async with make(2) as pool:
            asked: list[Any] = []

            async def work() -> None:
                async for attempt in pool.attempts(commit=commit):
                    attempts.append(attempt)
                    async with attempt as conn:
                        await insert(conn, 1)
                        # Its answer is lost, and so is every way to ask.
                        proxy.on(COMMITTED, CutBefore(RST))
                        asked.append(proxy.on(WHO, Hold(), times=None))

            attempts: list[Any] = []
            task = asyncio.create_task(work())
            await eventually(lambda: asked and asked[0].hits)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.outcome is Outcome.UNKNOWN  # type: ignore[attr-defined]
            asked[0].release()
            await eventually(lambda: attempts[0].outcome is Outcome.COMMITTED)
            assert insert.table.rows() == [1]


# -- tokens and keys -----------------------------------------------------------------------------


async def test_a_key_is_used_once_and_gives_what_was_stored(make: Any, insert: Insert) -> None:
    key = f"order-{insert.table.name}"
    async with make(2) as pool:
        token = Token(key, "one of them")
        assert await pool.run(insert, 1, commit=token) == 1
        assert await pool.run(insert, 1, commit=token) == 1
        assert insert.calls == 1
        with pytest.raises(TokenConflict, match="different work") as caught:
            await pool.run(insert, 2, commit=Token(key, "two of them"))
        assert caught.value.outcome is Outcome.NOT_STARTED
        assert key not in str(caught.value)
        assert insert.table.rows() == [1]
        await eventually(lambda: is_whole(pool, 2))


async def test_a_key_used_by_two_at_once_is_used_once(make: Any, insert: Insert) -> None:
    both = [Event(), Event()]

    async def work(conn: Any, me: int) -> int:
        await insert(conn, me)
        both[me].set()
        await both[1 - me].wait()
        return me

    async with make(2) as pool:
        token = Token(f"order-{insert.table.name}")
        first, second = await gather(*[spawn(pool.run, work, me, commit=token) for me in (0, 1)])
        assert first == second
        assert insert.table.rows() == [first]


async def test_a_keys_response_survives_the_cut(
    make: Any, proxy: FaultProxy, insert: Insert
) -> None:
    async def work(conn: Any) -> dict[str, Any]:
        await insert(conn, 1)
        return {"it's": ["a\\b", None, 1.5], "ü": "✓"}

    async with make(2) as pool:
        token = Token(f"o'rder\\{insert.table.name}", "x")
        proxy.on(COMMITTED, CutBefore(RST))
        wanted = {"it's": ["a\\b", None, 1.5], "ü": "✓"}
        assert await pool.run(work, commit=token) == wanted
        assert await pool.run(work, commit=token) == wanted
        assert insert.table.rows() == [1]


async def test_what_cannot_be_stored_is_refused_before_anything_is_committed(
    make: Any, insert: Insert
) -> None:
    async def work(conn: Any) -> object:
        await insert(conn, 1)
        return object()

    async with make(1) as pool:
        with pytest.raises(TypeError, match="JSON"):
            await pool.run(work, commit=Token(f"order-{insert.table.name}"))
        assert insert.table.rows() == []


async def test_a_missing_table_is_told_before_the_function_is_called(
    make: Any, insert: Insert
) -> None:
    async with make(1, kwargs={"options": "-c role=pg_monitor"}) as pool:
        for commit in ("token", Token("order-1")):
            with pytest.raises(TokenTableMissing, match=r"everpool migrate") as caught:
                await pool.run(insert, 1, commit=commit)
            assert caught.value.outcome is Outcome.NOT_STARTED
        assert insert.calls == 0
        await eventually(lambda: is_whole(pool, 1))


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"attempts": 0}, "attempts=0: at least 1"),
        ({"attempts": 1.5}, "whole number"),
        ({"attempts": True}, "whole number"),
        ({"deadline": 0}, "deadline=0: must be more"),
        ({"deadline": "1"}, "number of seconds"),
        ({"commit": "twice"}, "commit='twice': must be"),
        ({"commit": None}, "commit=None: must be"),
        ({"isolation_level": 9}, "9"),
    ],
)
async def test_settings_that_cannot_be(
    make: Any, settings: Any, error: str, insert: Insert
) -> None:
    async with make(1) as pool:
        with pytest.raises((TypeError, ValueError), match=error):
            await pool.run(insert, 1, **settings)
        with pytest.raises((TypeError, ValueError), match=error):
            pool.attempts(**settings)
        assert insert.calls == 0


async def test_functions_that_cannot_be_run(make: Any, table: Table) -> None:
    if True:  # ASYNC

        def wrong(conn: Any) -> None:
            pass
    else:
        wrong: Any = asyncio.sleep

    def generator(conn: Any) -> Iterator[int]:
        yield 1

    async with make(1) as pool:
        for fn in (wrong, generator, 3, lambda conn: wrong(conn)):
            with pytest.raises(TypeError, match="function"):
                await pool.run(fn)
        await eventually(lambda: is_whole(pool, 1))


async def closes(conn: Any) -> None:
    await conn.close()


async def commits_in_words(conn: Any) -> None:
    await conn.execute("COMMIT")


async def begins_a_block(conn: Any) -> None:
    await AsyncTransaction(conn).__aenter__()


MISUSES = [
    (closes, "closed its connection", Outcome.ROLLED_BACK),
    (commits_in_words, "ended its transaction itself", Outcome.UNKNOWN),
    (begins_a_block, "block open", Outcome.ROLLED_BACK),
]


@pytest.mark.parametrize(
    ("work", "words", "outcome"), MISUSES, ids=[m[0].__name__ for m in MISUSES]
)
async def test_what_a_function_must_not_do(
    make: Any, work: Any, words: str, outcome: Outcome
) -> None:
    calls: list[int] = []

    async def misuse(conn: Any) -> None:
        calls.append(1)
        await work(conn)

    async with make(1) as pool:
        with pytest.raises(TransactionMisuse, match=words) as caught:
            await pool.run(misuse)
        assert caught.value.outcome is outcome
        assert len(calls) == 1
        await eventually(lambda: is_whole(pool, 1))


async def test_commit_and_rollback_are_refused_inside(make: Any, insert: Insert) -> None:
    async def commit(conn: Any) -> None:
        await insert(conn, 1)
        await conn.commit()

    async def rollback(conn: Any) -> None:
        await insert(conn, 1)
        await conn.rollback()

    async with make(1) as pool:
        for work in (commit, rollback):
            with pytest.raises(psycopg.ProgrammingError, match="forbidden") as caught:
                await pool.run(work)
            assert caught.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        assert insert.table.rows() == []
        await eventually(lambda: is_whole(pool, 1))


async def test_a_connection_given_back_by_the_function(make: Any, insert: Insert) -> None:
    async with make(1) as pool:

        async def gives_back(conn: Any) -> None:
            await insert(conn, 1)
            await pool.putconn(conn)

        with pytest.raises(TransactionMisuse, match="gave its connection back"):
            await pool.run(gives_back)
        assert insert.table.rows() == []
        await eventually(lambda: is_whole(pool, 1))


async def test_a_transaction_inside_another_of_the_same_pool_is_refused(
    make: Any, insert: Insert
) -> None:
    async with make(2) as pool, make(1) as other:

        async def nested(conn: Any) -> None:
            await insert(conn, 1)
            await pool.run(insert, 2)

        async def beside(conn: Any) -> None:
            await insert(conn, 3)
            await other.run(insert, 4)

        with pytest.raises(TransactionMisuse, match="under way here already"):
            await pool.run(nested)
        assert insert.table.rows() == []
        await pool.run(beside)
        await pool.run(insert, 5)
        assert insert.table.rows() == [3, 4, 5]


async def test_an_attempt_is_entered_once_and_must_be_entered(make: Any) -> None:
    async with make(1) as pool:
        with pytest.raises(TransactionMisuse, match="was not entered"):
            async for _ in pool.attempts():
                pass
        async for attempt in pool.attempts():
            async with attempt:
                pass
            with pytest.raises(TransactionMisuse, match="can be entered once"):
                async with attempt:
                    pass


async def test_without_a_connection_nothing_was_started(make: Any, insert: Insert) -> None:
    async with make(1, timeout=0.2) as pool:
        async with pool.connection():
            with pytest.raises(PoolTimeout) as caught:
                await pool.run(insert, 1)
        assert caught.value.outcome is Outcome.NOT_STARTED  # type: ignore[attr-defined]
        assert insert.calls == 0


async def test_what_a_lost_attempt_has_locked_does_not_hold_up_the_next(
    make: Any, proxy: FaultProxy, table: Table
) -> None:
    """The connection is cut, and its server does not know: the row stays locked, if nobody ends the old backend."""
    table.execute(f"INSERT INTO {table.name} VALUES (1)")
    calls: list[int] = []

    async def work(conn: Any) -> None:
        calls.append(1)
        await conn.execute(f"UPDATE {table.name} SET id = id + 1")
        if len(calls) == 1:
            proxy.cut(RST.one_sided(), link=proxy.find(backend_pid=conn.info.backend_pid))
            await conn.execute("SELECT 1")

    async with make(2) as pool:
        await pool.run(work, deadline=5)
        assert len(calls) == 2
        assert table.rows() == [2]


async def test_old_tokens_are_deleted_by_the_pool(make: Any, insert: Insert) -> None:
    insert.table.execute(
        "INSERT INTO everpool.commits (token, outcome, at) SELECT gen_random_uuid(), 'aborted',"
        " now() - interval '8 days' FROM generate_series(1, 1500)"
    )
    old = "SELECT count(*) FROM everpool.commits WHERE at < now() - interval '7 days'"
    async with make(1) as pool:
        pool._sweep_at = 0.0
        await pool.run(insert, 1, commit="token")
        await eventually(lambda: insert.table.execute(old).fetchone() == (0,))
        await pool.run(insert, 2, commit="token")
        assert pool._sweep_at > 0


def test_no_operator_of_somebody_s_own_says_which_tokens_are_old(table: Table, dsn: str) -> None:
    """A token that is gone would let its transaction be taken for one that was rolled back."""
    with psycopg.connect(dsn) as conn:
        conn.execute("CREATE FUNCTION always(uuid, uuid) RETURNS bool RETURN true")
        conn.execute("CREATE OPERATOR = (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = always)")
        insert = "INSERT INTO everpool.commits (token, outcome, at) VALUES (%s, 'committed', %s)"
        fresh, old = str(uuid4()), str(uuid4())
        conn.execute(insert, (fresh, datetime.now(UTC)))
        conn.execute(insert, (old, datetime.now(UTC) - timedelta(days=30)))
        conn.execute("SET LOCAL search_path = public, pg_catalog")
        conn.pgconn.exec_(SWEEP)
        left = {str(token) for (token,) in conn.execute("SELECT token FROM everpool.commits")}
        assert fresh in left and old not in left
        conn.rollback()


@pytest.mark.parametrize("strike", list(Strike), ids=str)
async def test_chaos_is_met_as_a_cut_would_be(
    make: Any, insert: Insert, strike: Strike, monkeypatch: pytest.MonkeyPatch
) -> None:
    chaos = Chaos(1.0, seed=1)
    strikes = [strike, None]
    monkeypatch.setattr(chaos, "draw", lambda: strikes.pop(0) if strikes else None)
    async with make(2, chaos=chaos) as pool:
        assert await pool.run(insert, 1) == 1
        assert insert.table.rows() == [1]
        again = strike in (Strike.FIRST, Strike.BEFORE)
        assert insert.calls == 2 if again else insert.calls in (1, 2)
        assert chaos.strikes[strike] == 1
        await eventually(lambda: pool.snapshot().cuts == {"chaos": 1})


async def test_chaos_is_the_same_for_the_same_seed() -> None:
    def drawn(seed: int) -> list[Any]:
        chaos = Chaos(0.3, seed)
        return [chaos.draw() for _ in range(1000)]

    assert drawn(7) == drawn(7) != drawn(8)
    struck = [strike for strike in drawn(7) if strike]
    assert 250 < len(struck) < 350
    assert all(struck.count(strike) > 40 for strike in Strike)
    with pytest.raises(ValueError, match=r"probability=1\.5"):
        Chaos(1.5)
