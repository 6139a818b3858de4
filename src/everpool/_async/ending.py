"""Ending the sessions of lost transactions that nobody tries again.

Where the path has cut a connection, the server may not know for long: its session sits there, idle
in its transaction, with all that it has locked. Who tries again ends it before anything else.
For all others it is done in the background, by one job for however many there are.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from psycopg_pool import PoolClosed

from ..runtime import aio as rt
from ..work.begin import Begun
from ..work.resolve import end_backend
from .resolving import ANSWER_WITHIN, PAUSE, PAUSE_MOST

if TYPE_CHECKING:
    from .working import AsyncWorking

logger = logging.getLogger("everpool")

# What could not be ended in so many seconds, an outage mostly, is left to the server.
END_WITHIN = 30.0


async def end_job(pool_ref: ref[Any], job: rt.Job) -> None:
    """End all that is left, and what comes in the meantime."""
    pause = PAUSE
    try:
        while (pool := pool_ref()) is not None:
            now = monotonic()
            with pool._mutex:
                pool._left = [each for each in pool._left if each[1] > now]
                left = pool._left.copy()
                if not left or pool._closed:
                    pool._ending.discard(job)  # who comes next begins another
                    return
                # Else each look would count as a request that was refused.
                hopeless = pool._machine.hopeless(now)
            if not hopeless and await _ended(pool, left):
                continue
            del pool
            await rt.sleep(pause)
            pause = min(2 * pause, PAUSE_MOST)
    except PoolClosed:
        pass
    finally:  # somebody cancels all tasks, say
        if (pool := pool_ref()) is not None:
            pool._ending.discard(job)


async def _ended(pool: AsyncWorking[Any], left: list[tuple[Begun, float]]) -> bool:
    try:
        await _end(pool, [begun for begun, _ in left], left[-1][1])
    except PoolClosed:
        raise
    except Exception as ex:
        why = getattr(ex, "sqlstate", None) or type(ex).__name__
        logger.info("pool %r: a lost transaction's session was not ended: %s", pool.name, why)
        return False
    done = set(left)
    with pool._mutex:
        pool._left = [each for each in pool._left if each not in done]
    return True


async def _end(pool: AsyncWorking[Any], left: list[Begun], until: float) -> None:
    # Before all who wait: perhaps for what these have locked.
    conn: Any = await pool._lend(until - monotonic(), first=True)

    async def end(conn: Any) -> None:
        async with conn.lock:
            for begun in left:
                await conn.wait(end_backend(conn.pgconn, begun))

    try:
        pool._ending_on = link = conn._slot.link
        if not pool._closed:
            await pool._bounded(end, conn, link, min(until, monotonic() + ANSWER_WITHIN))
    finally:
        pool._ending_on = None
        await pool._give_back(conn, conn._slot)
