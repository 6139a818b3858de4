"""Asking a server about queries in flight, on a connection beside the pool's.

The core decides when and about which (`everpool.core.inflight`). The connection is shared with other
pools (`side`), made and asked on by a job of the connectors, and kept for a while for the next
question.

It may have been made with another pool's user, database and password. It is used for one thing only,
to ask who the server is and which of its processes exist, and never lent. What it answers counts
only if that is certain to be the server of the queries in question: a pooler sends each database to
another. Otherwise the pool asks on one that is made as its own are. That nobody is there it only
concludes from connects of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from contextlib import ExitStack
from time import monotonic
from traceback import clear_frames
from typing import Any, ClassVar
from weakref import ref

import psycopg
from psycopg_pool.abc import ACT

from ..conninfo import prepare, way
from ..core import effects as order
from ..core.incarnation import Incarnation
from ..core.inflight import Inquiry, Sight
from ..core.policy import Policy
from ..core.slot import Slot, State
from ..core.verdict import nobody_answered
from ..identity import answer, question
from ..runtime import aio as rt
from ..watch import Link
from ..work.failing import told
from ..work.flight import demand
from .engine import ACTIVE, AsyncEngine
from .jobs import close_unowned
from .side import Side, join

logger = logging.getLogger("everpool")

# A connection kept from the last question may have been cut itself: then a new one decides.
KEPT_ANSWERS_WITHIN = 1.0

# Who waits for his turn waits so many times as long: the one before him may find that the connection
# was cut, and then makes a new one for all.
TURN = 1.5

# Between two attempts at a server that refuses, or a proxy that has none to forward to.
PAUSE = 0.25

Answer = tuple[Incarnation, frozenset[int]]


class Unreachable(Exception):
    """For as long as a connect may take, none could be made."""


class AsyncInFlight(AsyncEngine[ACT]):
    _inquiring: rt.Job | None
    _asking: Link | None  # the question under way
    _way: tuple[Hashable, ...]  # the places to look for a side connection; the last is its own

    def _assemble(self, policy: Policy) -> None:
        super()._assemble(policy)
        self._inquiring = self._asking = None
        self._way = ()

    # -- orders -------------------------------------------------------------------------------

    def _order_look(self, effect: order.LookInto) -> None:
        sights = _sights(effect.slots)
        with self._mutex:
            self._machine.looked(sights, monotonic())

    def _order_inquire(self, effect: order.Inquire) -> None:
        inquiry, background = effect.inquiry, self._background
        try:
            if background is None:
                raise RuntimeError("the pool was closed")
            self._inquiring = background.connect(_inquire_job, ref(self), inquiry)
        except RuntimeError:  # no thread for it
            with self._mutex:
                self._machine.unclear(inquiry, monotonic())

    def _order_dismiss(self, effect: order.Dismiss) -> None:
        job, self._inquiring = self._inquiring, None
        self._leave_side()
        with self._mutex:
            link = self._asking
        if link is not None:
            link.abort()  # our own question; another pool's is left alone
        if job is not None:
            job.stop()

    _ORDERS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        **AsyncEngine._ORDERS,
        order.LookInto: _order_look,
        order.Inquire: _order_inquire,
        order.Dismiss: _order_dismiss,
    }

    # -- the connection -----------------------------------------------------------------------

    async def _take_side(self, place: Hashable, inquiry: Inquiry, turn: ExitStack) -> Side | None:
        """The side connection of a place, or what is to become it, in our turn. None: unwanted.

        Whoever has it may wait for an answer that does not come: then one for this time.
        """
        side = self._machine.side or join(place, self)
        while self._share(side, inquiry):
            if await side.take(TURN * KEPT_ANSWERS_WITHIN, lambda: inquiry.done):
                turn.callback(side.give_back)
                return side
            self._leave_side()
            side = Side(None)
            side.pools.add(self)
        side.leave(self)
        return None

    def _share(self, side: Side, inquiry: Inquiry) -> bool:
        with self._mutex:
            if not inquiry.done:
                self._machine.side = side
            return not inquiry.done

    def _leave_side(self) -> None:
        with self._mutex:
            side, self._machine.side = self._machine.side, None
            self._way = ()
        if side is not None:
            side.leave(self)

    async def _ask_side(self, side: Side, inquiry: Inquiry, seconds: float) -> Answer:
        """Ask on a side connection, in our turn.

        :raises psycopg.Error, TimeoutError: there was no such answer; the connection is closed.
        """
        conn, link = side.conn, None
        found: Answer | None = None

        async def ask(conn: Any) -> None:
            nonlocal found
            found = await _ask(conn, [pid for pid in inquiry.loans.values() if pid])

        try:
            # None of the core's slots: nobody is told when it hangs up.
            link = self._watch.add(conn.pgconn.socket, Slot(0, monotonic(), 0))
            if type(conn).wait is rt.STOCK.wait:
                conn.wait = rt.interruptible_wait(conn, link)
            if type(conn).cancel_safe is rt.STOCK.cancel_safe:
                conn.cancel_safe = rt.brief_cancel(conn, link)
            with self._mutex:
                self._asking = link
            if inquiry.done:
                raise TimeoutError
            await self._bounded(ask, conn, link, monotonic() + seconds)
        finally:
            self._asking = None
            if link is not None:
                link.close()
            if found is None:
                side.drop()
        assert found is not None
        return found

    async def _ask_kept(self, side: Side, inquiry: Inquiry) -> Answer | None:
        """Ask on the connection kept from the last question. None: there is none any more."""
        if side.conn is not None:
            try:
                return await self._ask_side(side, inquiry, KEPT_ANSWERS_WITHIN)
            except (psycopg.Error, TimeoutError):
                pass
        return None

    def _conclude(self, inquiry: Inquiry, found: Answer | None, unreachable: bool) -> None:
        sights = _sights(inquiry.loans)
        machine = self._machine
        side = machine.side
        if side is not None and (side.conn is None or side.place is None):
            self._leave_side()
        with self._mutex:
            if machine.inquiry is inquiry:
                self._inquiring = None
            if unreachable:
                machine.unreachable(inquiry, sights, monotonic())
            elif found is not None:
                server, alive = found
                machine.answered(inquiry, alive, server, sights, monotonic())
            else:
                machine.unclear(inquiry, monotonic())
        self._perform()


def _sights(slots: Iterable[Slot]) -> dict[Slot, Sight]:
    """Look at loans: those that wait for an answer of which not a byte lies unread."""
    sights = {}
    for slot in slots:
        link = slot.link
        anchor = link and link.anchor  # None if it was closed meanwhile, by another thread
        conn = anchor and anchor()
        # Only read; the borrower makes the calls. It is kept up to date by what he reads.
        if slot.state is State.LENT and conn and conn.pgconn.transaction_status == ACTIVE:
            silence = link.peek()
            if silence > 0 and not link.unread():
                pid = conn.pgconn.backend_pid if slot.direct else 0
                sights[slot] = Sight(silence, pid)
    return sights


async def _inquire_job(pool_ref: ref[Any], inquiry: Inquiry, job: rt.Job) -> None:
    pool = pool_ref()
    if pool is None:
        return
    with pool._mutex:
        if inquiry.begun or inquiry.done:
            return  # ordered twice, after an interruption
        inquiry.begun = True
    del pool
    found, unreachable = None, False
    try:
        found = await _inquire(pool_ref, inquiry, job)
    except Unreachable:
        unreachable = True
    except Exception as ex:
        # Not its text: it may quote a conninfo.
        logger.debug("the server could not be asked about its queries: %s", type(ex).__name__)
    finally:
        pool = pool_ref()
        if pool is not None:
            pool._conclude(inquiry, found, unreachable)


async def _inquire(pool_ref: ref[Any], inquiry: Inquiry, job: rt.Job) -> Answer | None:
    """Ask the server. None: it is there, or may be.

    :raises Unreachable: it is not.
    :raises Exception: nothing was found out.
    """
    pool: Any
    stranger: Incarnation | None = None
    places = await _places(pool_ref)
    with ExitStack() as turn:
        for place in places:
            pool = pool_ref()
            side = pool and await pool._take_side(place, inquiry, turn)
            if side is None:
                return None
            found: Answer | None = await pool._ask_kept(side, inquiry)
            if found is None:
                del pool
                return await _ask_anew(pool_ref, side, places[-1], stranger, inquiry, job)
            stranger = found[0]
            if side.how == places[-1] or inquiry.concerns(stranger):
                return found
            pool._leave_side()
            pool._way = places[-1:]
            turn.close()
    return None


async def _ask_anew(
    pool_ref: ref[Any],
    side: Side,
    how: Hashable,
    stranger: Incarnation | None,
    inquiry: Inquiry,
    job: rt.Job,
) -> Answer | None:
    """Ask on a new side connection, in our turn. As `_inquire`.

    :param stranger: who answered on a connection made by others; he might have been another.
    """
    pool: Any = pool_ref()
    if pool is None:
        return None
    limit = monotonic() + pool._policy.connect_timeout
    while True:
        conn = None
        del pool
        try:
            conn = await _connect(pool_ref, job)
        except BaseException as ex:
            clear_frames(ex.__traceback__)  # as for the pool's own connections
            if not isinstance(ex, psycopg.Error) or not nobody_answered(told(ex)):
                raise
        pool = pool_ref()
        if pool is None or inquiry.done:
            close_unowned(conn)
            return None
        if conn is not None:
            conn._pool = None  # it goes quietly, with a forgotten pool
            side.made(conn, how, pool)
            found: Answer = await pool._ask_side(side, inquiry, pool._policy.callback_timeout)
            if found[0] == stranger:  # restarted, say: theirs will do from now on
                side.place = None
            return found
        if monotonic() >= limit:
            raise Unreachable
        await rt.sleep(PAUSE)


async def _places(pool_ref: ref[Any]) -> tuple[Hashable, ...]:
    """Where to look for a side connection. Who goes by the last of these connects as the pool does."""
    pool = pool_ref()
    if pool is None:
        return ()
    if pool._machine.side is None or not pool._way:  # forgotten by another thread, in between
        del pool
        connection_class, conninfo, kwargs = await _parameters(pool_ref)
        where: Hashable
        where, how = way(conninfo, kwargs)
        if True:  # ASYNC
            where = asyncio.get_running_loop(), where
        connect = getattr(connection_class.connect, "__func__", None)
        stock = connect is rt.STOCK.connect.__func__  # type: ignore[attr-defined]
        # Where another connect leads to, and by what, only that knows.
        places = where, (where, how if stock else pool_ref)
        pool = pool_ref()
        if pool is None:
            return ()
        pool._way = places
    return pool._way  # type: ignore[no-any-return]


async def _parameters(pool_ref: ref[Any]) -> tuple[Any, str, dict[str, Any]]:
    """The connection class, and what its ``connect`` gets: as for the pool's own.

    :raises ReferenceError: the pool is gone.
    """
    pool = pool_ref()
    if pool is None:
        raise ReferenceError
    connection_class, policy = pool.connection_class, pool._policy
    primary = pool._machine.wants_primary
    sources = pool.conninfo, pool.kwargs
    del pool
    conninfo = await rt.resolve(sources[0]) or ""
    kwargs = {**(await rt.resolve(sources[1]) or {}), "autocommit": True}
    return connection_class, prepare(conninfo, kwargs, policy, primary=primary), kwargs


async def _connect(pool_ref: ref[Any], job: rt.Job) -> Any:
    """Connect as the pool does, without its ``configure``.

    :raises psycopg.Error: it failed.
    """
    connection_class, conninfo, kwargs = await _parameters(pool_ref)
    return await rt.connect(lambda: connection_class.connect(conninfo, **kwargs), job)


async def _ask(conn: Any, pids: list[int]) -> Answer:
    """Ask a server who it is, and which of these processes exist.

    :raises psycopg.Error: it gives no such answer, or none at all.
    """
    listed = b",".join(b"%d" % pid for pid in pids)
    # The operator by its full name: on a shared connection, too, only the server answers, and not
    # who owns the database and put one of his own before it.
    activity = (
        b"SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid"
        b" OPERATOR(pg_catalog.=) ANY('{%b}'::int[])" % listed
    )
    pgconn = conn.pgconn
    async with conn.lock:
        results = await conn.wait(demand(pgconn, question(pgconn.server_version) + b";" + activity))
    found = results[1]
    alive = frozenset(int(found.get_value(row, 0)) for row in range(found.ntuples))
    return answer(results[0])[1], alive
