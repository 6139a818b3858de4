# Generated from src/everpool/_async/jobs.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""What the background does for a pool: connect, reset, cancel, and what may call the user's code."""

from __future__ import annotations

import logging
from time import monotonic
from traceback import clear_frames
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..conninfo import prepare, session_attributes
from ..core.deadlines import CANCEL_GRACE
from ..core.slot import Slot, State
from ..runtime import threads as rt
from ..work.failing import brief

if TYPE_CHECKING:
    from .engine import Engine
    from .listening import Listening

logger = logging.getLogger("everpool")


def connect_job(pool_ref: ref[Engine[Any]], slot: Slot, job: rt.Job) -> None:
    """Make one connection.

    Holds the pool only where it needs it: a hung connect must not keep a forgotten pool alive.
    """
    conninfo: str = ""
    kwargs: dict[str, Any] = {}
    conn: Any = None
    try:
        pool = pool_ref()
        if pool is None:
            return
        with pool._mutex:
            wanted = slot.state in (State.OPENING, State.DISOWNED)
            if not wanted or pool._jobs.setdefault(slot, job) is not job:
                return  # ordered twice, after an interruption
        connection_class, policy = pool.connection_class, pool._policy
        sources = pool.conninfo, pool.kwargs
        del pool
        conninfo = rt.resolve(sources[0]) or ""
        kwargs = rt.resolve(sources[1]) or {}
        pool = pool_ref()
        if pool is None:
            return
        with pool._mutex:
            pool._machine.told_role(session_attributes(conninfo, kwargs), monotonic())
        how = prepare(conninfo, kwargs, policy, primary=pool._machine.wants_primary)
        del pool
        conn = rt.connect(lambda: connection_class.connect(how, **kwargs), job)
        pool = pool_ref()
        if pool is None or slot.state not in (State.OPENING, State.DISOWNED):
            close_unowned(conn)
        else:
            pool._join(slot, conn)
            pool._hint(conninfo, kwargs)
    except BaseException as ex:
        # psycopg leaves the socket of an unfinished connect in a reference cycle, open until
        # the next garbage collection: in a long outage they would add up.
        clear_frames(ex.__traceback__)
        pool = pool_ref()
        if slot.state in (State.OPENING, State.DISOWNED):  # else it is the pool's already
            close_unowned(conn)
            if pool is not None:
                pool._connect_failed(slot, job, ex, conninfo, kwargs)
        if not isinstance(ex, Exception):
            raise


def cancel_job(conn: Any, cancelling: rt.Waiter, job: rt.Job) -> None:
    """Ask the server to stop what a loan past its deadline is waiting for."""
    try:
        conn.cancel_safe(timeout=CANCEL_GRACE)
    except Exception as ex:
        logger.debug("a query past its deadline could not be cancelled: %s", brief(ex))
    finally:
        cancelling.gone = True
        cancelling.wake()


def reset_job(pool_ref: ref[Engine[Any]], slot: Slot, job: rt.Job) -> None:
    pool = pool_ref()
    if pool is not None:
        pool._reset_returned(slot)


def give_back_job(listening: Listening, job: rt.Job) -> None:
    listening.give_back()


def reconnect_failed_job(pool_ref: ref[Engine[Any]], job: rt.Job) -> None:
    pool: Any = pool_ref()
    if pool is not None:
        logger.warning(
            "reconnection attempt in pool %r failed after %s sec",
            pool.name,
            pool.reconnect_timeout,
        )
        pool.reconnect_failed()


def close_unowned(conn: Any) -> None:
    if conn is not None:
        conn._pool = None
        try:
            rt.close(conn)
        except Exception as ex:  # somebody's own close()
            logger.warning("error closing connection: %s", brief(ex))
