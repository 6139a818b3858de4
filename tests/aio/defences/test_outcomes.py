"""What the errors of a ``connection()`` block say became of its transaction."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from everpool import Chaos, Outcome
from everpool.lab import COMMIT, COMMITTED, FIN, RST, Answer, CutAfter, CutBefore, FaultProxy, fatal
from everpool.lab.frames import error_response, ready_for_query
from everpool.work.chaos import Strike

from .work import INSERT, Insert

pytestmark = pytest.mark.anyio

NO_AUTOCOMMIT: dict[str, Any] = {}


async def leave(pool: Any, insert: Insert, number: int = 1) -> None:
    async with pool.connection() as conn:
        await insert(conn, number)


@pytest.mark.parametrize(
    ("message", "action", "outcome"),
    [
        (INSERT, CutBefore(RST), Outcome.ROLLED_BACK),
        (INSERT, CutAfter(FIN), Outcome.ROLLED_BACK),
        (INSERT, CutBefore(fatal("57P01")), Outcome.ROLLED_BACK),
        (COMMIT, CutBefore(RST), Outcome.UNKNOWN),
        (COMMIT, CutAfter(fatal("57P01")), Outcome.UNKNOWN),
        (COMMITTED, CutBefore(RST), Outcome.UNKNOWN),
        (COMMIT, Answer(error_response("08P01", "no") + ready_for_query("I")), Outcome.UNKNOWN),
    ],
    ids=[
        "reset before INSERT arrives",
        "closed after INSERT",
        "FATAL before INSERT arrives",
        "reset before COMMIT arrives",
        "FATAL after COMMIT",
        "reset before its answer arrives",
        "COMMIT refused",
    ],
)
async def test_a_cut_in_a_block(
    make: Any,
    proxy: FaultProxy,
    insert: Insert,
    message: Any,
    action: Any,
    outcome: Outcome,
) -> None:
    async with make(1, kwargs=NO_AUTOCOMMIT) as pool:
        proxy.on(message, action)
        with pytest.raises(psycopg.Error) as caught:
            await leave(pool, insert)
        assert caught.value.outcome is outcome  # type: ignore[attr-defined]


async def test_errors_of_ones_own_and_of_the_server(
    make: Any,
    insert: Insert,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = insert.table.name
    insert.table.execute(f"ALTER TABLE {name} ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    async with make(1, kwargs=NO_AUTOCOMMIT) as pool:
        await leave(pool, insert)
        with pytest.raises(psycopg.errors.UniqueViolation) as refused:  # by COMMIT
            await leave(pool, insert)
        assert refused.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        with pytest.raises(KeyError) as mine:
            async with pool.connection() as conn:
                await insert(conn, 2)
                raise KeyError
        assert mine.value.outcome is Outcome.ROLLED_BACK  # type: ignore[attr-defined]
        with pytest.raises(ZeroDivisionError) as bare:  # no transaction was open
            async with pool.connection():
                raise ZeroDivisionError
        assert not hasattr(bare.value, "outcome")
        async with pool.connection() as conn:  # as with psycopg_pool; but the log says so
            with pytest.raises(psycopg.Error):
                await conn.execute("SELECT 1/0")
        assert "nothing was committed" in caplog.text
    assert insert.table.rows() == [1]


async def test_a_cut_statement_that_commits_itself_is_in_doubt(
    make: Any,
    proxy: FaultProxy,
    insert: Insert,
) -> None:
    async with make(1) as pool:
        proxy.on(INSERT, CutAfter(RST))
        with pytest.raises(psycopg.OperationalError) as caught:
            await leave(pool, insert)
        assert caught.value.outcome is Outcome.UNKNOWN  # type: ignore[attr-defined]


@pytest.mark.parametrize("strike", list(Strike), ids=str)
async def test_chaos_cuts_blocks_too(
    make: Any,
    insert: Insert,
    strike: Strike,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chaos = Chaos(1.0)
    monkeypatch.setattr(chaos, "draw", lambda: strike)
    async with make(1, kwargs=NO_AUTOCOMMIT, chaos=chaos) as pool:
        with pytest.raises(psycopg.OperationalError) as caught:
            await leave(pool, insert)
        assert caught.value.outcome is Outcome.UNKNOWN  # type: ignore[attr-defined]
        assert insert.table.rows() == ([1] if strike is Strike.AFTER else [])
