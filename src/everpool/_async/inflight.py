"""Asking a server about queries in flight, on a connection beside the pool's.

The core decides when and about which (`everpool.core.inflight`). The connection is made by a job of
the connectors, and kept for a while for the next question. Whoever has it at the moment closes it:
the job while it asks, the pool between questions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from traceback import clear_frames
from typing import Any, ClassVar
from weakref import ref

import psycopg
from psycopg_pool.abc import ACT

from ..conninfo import prepare
from ..core import effects as order
from ..core.incarnation import Incarnation
from ..core.inflight import Inquiry, Sight
from ..core.policy import Policy
from ..core.slot import Slot, State
from ..core.verdict import nobody_answered
from ..identity import answer, question
from ..runtime import aio as rt
from ..watch import Link
from ..work.flight import demand
from .engine import ACTIVE, AsyncEngine, _close_unowned, _told

logger = logging.getLogger("everpool")

# A connection kept from the last question may have been cut itself: then a new one decides.
KEPT_ANSWERS_WITHIN = 1.0

# Between two attempts at a server that refuses, or a proxy that has none to forward to.
PAUSE = 0.25

Answer = tuple[Incarnation, frozenset[int]]


class Unreachable(Exception):
    """For as long as a connect may take, none could be made."""


class Side:
    """The connection beside the pool's. ``busy``: a job has it."""

    __slots__ = ("busy", "conn", "link", "slot")

    def __init__(self, conn: Any, link: Link, slot: Slot) -> None:
        self.conn = conn
        self.link = link
        self.slot = (
            slot  # none of the core's: whoever asks the link for one finds that it is OPENING
        )
        self.busy = True


class AsyncInFlight(AsyncEngine[ACT]):
    _side: Side | None
    _inquiring: rt.Job | None

    def _assemble(self, policy: Policy) -> None:
        super()._assemble(policy)
        self._side = self._inquiring = None

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
        self._part_with_side()
        if job is not None:
            job.stop()

    _ORDERS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        **AsyncEngine._ORDERS,
        order.LookInto: _order_look,
        order.Inquire: _order_inquire,
        order.Dismiss: _order_dismiss,
    }

    # -- the connection -----------------------------------------------------------------------

    def _keep_side(self, conn: Any, inquiry: Inquiry) -> Side | None:
        """Make a new connection the pool's, busy; None if it is not wanted any more."""
        slot = Slot(0, monotonic(), 0)
        link = self._watch.add(conn.pgconn.socket, slot)
        if type(conn).wait is rt.STOCK.wait:
            conn.wait = rt.interruptible_wait(conn, link)
        if type(conn).cancel_safe is rt.STOCK.cancel_safe:
            conn.cancel_safe = rt.brief_cancel(conn, link)
        conn._pool = None  # it goes quietly, with a forgotten pool
        side = Side(conn, link, slot)
        with self._mutex:
            if not inquiry.done:
                self._side = side
                self._machine.side_opened()
                return side
        link.close()
        return None

    def _part_with_side(self) -> None:
        """Close the connection, or have the job that uses it do so."""
        with self._mutex:
            side, self._side = self._side, None
            busy = side is not None and side.busy
        if side is not None:
            if busy:
                side.link.abort()
            else:
                self._close_side(side)

    def _close_side(self, side: Side) -> None:
        side.link.close()
        _close_unowned(side.conn)
        with self._mutex:
            self._machine.side_closed()

    async def _ask_side(self, side: Side, inquiry: Inquiry, seconds: float) -> Answer:
        """Ask on a connection that is ``busy`` for us.

        :raises psycopg.Error, TimeoutError: there was no such answer; the connection is closed.
        """
        found: Answer | None = None

        async def ask(conn: Any) -> None:
            nonlocal found
            found = await _ask(conn, [pid for pid in inquiry.loans.values() if pid])

        try:
            await self._bounded(ask, side.conn, side.link, monotonic() + seconds)
        finally:
            with self._mutex:
                if found is None and self._side is side:
                    self._side = None
                side.busy = False
                kept = self._side is side
            if not kept:
                self._close_side(side)
        assert found is not None
        return found

    def _take_side(self) -> Side | None:
        """The connection kept from the last question, busy."""
        with self._mutex:
            side = self._side
            if side is not None:
                side.busy = True
            return side

    def _conclude(self, inquiry: Inquiry, found: Answer | None, unreachable: bool) -> None:
        sights = _sights(inquiry.loans)
        machine = self._machine
        with self._mutex:
            if self._machine.inquiry is inquiry:
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
    pool: Any = pool_ref()
    if pool is None:
        return None
    found: Answer
    side = pool._take_side()
    if side is not None:
        try:
            found = await pool._ask_side(side, inquiry, KEPT_ANSWERS_WITHIN)
            return found
        except (psycopg.Error, TimeoutError):
            pass
    limit = monotonic() + pool._policy.connect_timeout
    while True:
        conn = None
        del pool
        try:
            conn = await _connect(pool_ref, job)
        except BaseException as ex:
            clear_frames(ex.__traceback__)  # as for the pool's own connections
            if not isinstance(ex, psycopg.Error) or not nobody_answered(_told(ex)):
                raise
        pool = pool_ref()
        if pool is None or inquiry.done:
            _close_unowned(conn)
            return None
        if conn is not None:
            side = pool._keep_side(conn, inquiry)
            if side is None:
                _close_unowned(conn)
                return None
            found = await pool._ask_side(side, inquiry, pool._policy.callback_timeout)
            return found
        if monotonic() >= limit:
            raise Unreachable
        await rt.sleep(PAUSE)


async def _connect(pool_ref: ref[Any], job: rt.Job) -> Any:
    """Connect as the pool does, without its ``configure``.

    :raises psycopg.Error: it failed.
    """
    pool = pool_ref()
    if pool is None:
        return None
    connection_class, policy = pool.connection_class, pool._policy
    primary = pool._machine.wants_primary
    sources = pool.conninfo, pool.kwargs
    del pool
    conninfo = await rt.resolve(sources[0]) or ""
    kwargs = {**(await rt.resolve(sources[1]) or {}), "autocommit": True}
    how = prepare(conninfo, kwargs, policy, primary=primary)
    return await rt.connect(lambda: connection_class.connect(how, **kwargs), job)


async def _ask(conn: Any, pids: list[int]) -> Answer:
    """Ask a server who it is, and which of these processes exist.

    :raises psycopg.Error: it gives no such answer, or none at all.
    """
    listed = b",".join(b"%d" % pid for pid in pids)
    activity = (
        b"SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid = ANY('{%b}'::int[])" % listed
    )
    pgconn = conn.pgconn
    async with conn.lock:
        results = await conn.wait(demand(pgconn, question(pgconn.server_version) + b";" + activity))
    found = results[1]
    alive = frozenset(int(found.get_value(row, 0)) for row in range(found.ntuples))
    return answer(results[0])[1], alive
