"""Asking what became of a COMMIT without an answer, until it is known or time is up."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from psycopg_pool import PoolClosed

from ..core.outcome import Outcome
from ..runtime import aio as rt
from ..work.begin import Begun
from ..work.resolve import resolve

if TYPE_CHECKING:
    from .working import AsyncWorking

logger = logging.getLogger("everpool")

# Without a deadline of the caller's: a failover takes so long.
RESOLVE_FOR = 30.0

# Between two questions: a backend that was ended is gone within some milliseconds; a server that
# is not there is asked for by the pool, at its own pace.
PAUSE = 0.01
PAUSE_MOST = 0.25

# The first question has to be answered soon, and the connection is ours: what is silent for so
# long is not the way to an answer.
ANSWER_WITHIN = 5.0


async def find_out(pool: AsyncWorking[Any], begun: Begun, until: float) -> Outcome:
    """What became of a transaction; ``UNKNOWN`` if nobody can tell by then."""
    pause = PAUSE
    while monotonic() < until:
        try:
            outcome = await _ask(pool, begun, until)
        except PoolClosed:
            break
        except Exception as ex:  # whatever it is, the caller must hear what is known
            why = getattr(ex, "sqlstate", None) or type(ex).__name__
            logger.info("pool %r: no answer yet about a COMMIT: %s", pool.name, why)
            outcome = None
        if outcome is not None:
            return outcome
        await rt.sleep(min(pause, max(0.0, until - monotonic())))
        pause = min(2 * pause, PAUSE_MOST)
    return Outcome.UNKNOWN


async def _ask(pool: AsyncWorking[Any], begun: Begun, until: float) -> Outcome | None:
    conn: Any = await pool._lend(until - monotonic(), first=True)
    found: Outcome | None = None

    async def ask(conn: Any) -> None:
        nonlocal found
        async with conn.lock:
            found = await conn.wait(resolve(conn, begun))

    try:
        deadline = min(until, monotonic() + ANSWER_WITHIN)
        await pool._bounded(ask, conn, conn._slot.link, deadline)
    finally:
        await pool._give_back(conn, conn._slot)
    return found


async def resolve_job(pool_ref: ref[Any], begun: Begun, attempt: Any, job: rt.Job) -> None:
    """For somebody who was interrupted and waits no longer: the attempt will know, and the log."""
    pool = pool_ref()
    if pool is not None:
        attempt.outcome = await pool._resolve(begun, monotonic() + RESOLVE_FOR)
