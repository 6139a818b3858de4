# Generated from src/everpool/_async/sweeping.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Deleting the tokens that nobody can ask about any more."""

from __future__ import annotations

import logging
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from ..runtime import threads as rt
from ..work.flight import demand
from ..work.token import SWEEP, SWEPT_AT_ONCE

if TYPE_CHECKING:
    from .working import Working

logger = logging.getLogger("everpool")

# Between two sweeps of one pool, in seconds, on average: with tokens kept for days, the table is
# less than a hundredth larger than it needs to be.
EVERY = 3600.0

# A sweep takes so many bites at the most, each a transaction of its own, with a pause between.
MOST_BITES = 100
PAUSE = 0.1


def next_sweep(now: float) -> float:
    """When to sweep, in 0 to 2 hours: the pools of a fleet must not all do it at once."""
    return now + 2 * EVERY * random()


def sweep_job(pool_ref: ref[Any], job: rt.Job) -> None:
    for _ in range(MOST_BITES):
        pool = pool_ref()
        if pool is None:
            return
        try:
            more = _bite(pool)
        except (psycopg.Error, PoolTimeout, PoolClosed, TimeoutError) as ex:
            # Perhaps the role may not delete: somebody else will have to.
            why = getattr(ex, "sqlstate", None) or type(ex).__name__
            logger.info("pool %r: old tokens were not deleted: %s", pool.name, why)
            return
        del pool
        if not more:
            return
        rt.sleep(PAUSE)


def _bite(pool: Working[Any]) -> bool:
    """Delete some; whether there may be more."""
    conn: Any = pool._lend(None)
    more = False

    def delete(conn: Any) -> None:
        nonlocal more
        with conn.lock:
            results = conn.wait(demand(conn.pgconn, SWEEP))
        more = results[0].command_tuples == SWEPT_AT_ONCE

    try:
        limit = pool._policy.callback_timeout
        pool._bounded(delete, conn, conn._slot.link, monotonic() + limit)
    finally:
        pool._give_back(conn, conn._slot)
    return more
