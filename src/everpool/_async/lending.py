"""Lending and returning, the long way: whatever the hot path leaves.

A connection is looked at before it is lent, pinged if it has been silent for too long, checked
if the user wants it; who finds none waits. One that comes back in a transaction is rolled
back, one that is broken or in use is discarded, and nothing is lost on the way, whatever
interrupts it.
"""

from __future__ import annotations

import logging
from time import monotonic
from types import TracebackType
from typing import Any, cast
from weakref import ref

import psycopg
from psycopg.pq import PipelineStatus
from psycopg_pool.abc import ACT

from .. import ping
from ..core.deadlines import Bound
from ..core.judgement import Phase, judge
from ..core.outcome import Outcome
from ..core.queue import Refusal
from ..core.slot import Slot, State
from ..core.verdict import Cause
from ..errors import DeadlineExceeded, Refused, exceeded, refused
from ..runtime import aio as rt
from ..text import printable
from ..watch import DEAD
from ..work.chaos import Strike
from ..work.failing import brief, failure_of, mark
from .engine import IDLE, INERROR, INTRANS, UNKNOWN
from .identifying import in_hot_standby
from .inflight import AsyncInFlight
from .jobs import reset_job

logger = logging.getLogger("everpool")

# Between two connections of one request that its ``check`` callback refused although they were
# new: without a pause, a callback that always fails would open connections as fast as it can.
CHECK_PAUSE = 0.05
CHECK_PAUSE_MOST = 0.8


class AsyncLending(AsyncInFlight[ACT]):
    _chaos: Any  # a `Chaos`, or None
    _check: Any
    _closed: bool
    _loans: bool  # whether somebody wants to hear of each loan

    # -- lending ------------------------------------------------------------------------------

    async def _obtain(
        self,
        timeout: float,
        deadline: float,
        slot: Slot | None,
        conn: Any,
        *,
        first: bool = False,
    ) -> tuple[Slot, Any]:
        """Get a connection that is fit to be lent, the long way: look, ping, queue, check.

        :param slot, conn: what has been taken already and must be looked at, or None.
        :param first: before all who wait, and however many do.
        """
        machine = self._machine
        began = monotonic()
        pause = CHECK_PAUSE
        waiter = None
        try:
            while True:
                now = monotonic()
                waiter = None
                if slot is not None and slot.state is not State.LENT:
                    slot = None  # found dead: the next one, at once
                if slot is None:
                    with self._mutex:
                        slot = None if machine.paused_at is not None else machine.take(now)
                        if slot is None:
                            waiter = rt.Waiter(now, deadline)
                            machine.acquire(waiter, now, limited=not first, first=first)
                        else:
                            conn, slot.conn = slot.conn, None
                if slot is not None and not self._fit(slot, conn, now):
                    if slot.state is not State.LENT:
                        continue
                    waiter = rt.Waiter(now, deadline)
                    with self._mutex:
                        slot.conn = conn
                        machine.doubt(slot, waiter, now, first=first)
                if waiter is not None:
                    slot, conn = await self._granted(waiter, timeout)
                    if slot is None:
                        continue
                assert slot is not None
                if self._check is None:
                    return slot, conn
                conn._pool = self
                if await self._checked(slot, conn, deadline):
                    return slot, conn
                if monotonic() >= deadline:
                    raise self._too_late(timeout)
                if slot.opened_at >= began:
                    await rt.sleep(min(pause, max(0.0, deadline - monotonic())))
                    pause = min(2 * pause, CHECK_PAUSE_MOST)
                slot = None
        except BaseException as ex:
            self._not_lent(waiter, ex)
            raise

    def _not_lent(self, waiter: rt.Waiter | None, ex: BaseException) -> None:
        """Something stopped one who wanted a connection: our refusal, or an interruption."""
        if not isinstance(ex, Refused):
            self._recover(waiter)

    def _fit(self, slot: Slot, conn: Any, now: float) -> bool:
        """Look at a connection that is about to be lent.

        False if it is dead (discarded already), has been silent for too long or has something to
        say (both still LENT).
        """
        policy = self._policy
        if now - slot.checked_at < policy.peek_after:
            return True
        silence = slot.link.peek()
        if silence == DEAD:
            with self._mutex:
                slot.conn = conn
                slot.since = slot.heard_at = now - slot.link.silence()
                self._machine.found_dead(slot, now)
            self._perform()
            return False
        slot.heard_at = now - silence
        # What came unasked may be the reason of an end that follows: a ping reads it.
        if silence >= policy.verify_after or slot.link.unread():
            return False
        slot.checked_at = now
        if slot.link.news:
            ping.pass_news(conn, slot.link)
        return True

    async def _granted(self, waiter: rt.Waiter, timeout: float) -> tuple[Slot | None, Any]:
        """Wait for what the core gives the waiter; None if that died on the way here."""
        machine, background = self._machine, self._background
        if machine.effects or (background and machine.next_wake < background.due):
            self._perform()
        try:
            await waiter.wait()
        except BaseException:
            with self._mutex:
                machine.abandon(waiter, monotonic())
            self._perform()
            raise
        try:
            slot = waiter.slot
            if slot is not None:
                conn, slot.conn, slot.waiter = slot.conn, None, None
                if slot.link.news:
                    ping.pass_news(conn, slot.link)
                if slot.state is State.LENT:
                    return slot, conn
                self._discard(slot, conn, "")
                return None, None
            with self._mutex:
                if waiter.refusal is None and waiter.slot is None:  # woke by itself: too late
                    machine.abandon(waiter, monotonic())
        except BaseException:
            with self._mutex:
                machine.abandon(waiter, monotonic())
            raise
        if waiter.slot is not None:  # granted at the last moment
            return await self._granted(waiter, timeout)
        raise self._refusal(waiter.refusal or machine.late(monotonic()), timeout)

    def _refusal(self, refusal: Refusal, timeout: float) -> Refused:
        """The exception for a refusal of the core's."""
        code, text = refusal.code, refusal.text
        message = {
            "timeout": f"couldn't get a connection after {timeout:.2f} sec: {text}",
            "saturated": f"the pool {self.name!r} is saturated: {text}",
            "full": f"the pool {self.name!r} has already {text}",
            "down": f"the pool {self.name!r} cannot connect: {text}",
            "rejected": f"the pool {self.name!r} cannot connect: {text}",
            "closed": f"the pool {self.name!r} is closed",
        }[code]
        picture = text if code == "timeout" else self._machine.picture(monotonic())
        return refused(code, message, refusal.retry_after, picture)

    def _too_late(self, timeout: float) -> Refused:
        self._machine.errors += 1
        self._machine.refusals["timeout"] += 1
        return self._refusal(self._machine.late(monotonic()), timeout)

    async def _checked(self, slot: Slot, conn: Any, deadline: float) -> bool:
        """Run the user's ``check``; discard the connection if it fails."""
        assert self._check is not None
        try:
            await self._bounded(self._check, conn, slot.link, deadline)
            return True
        except Exception as ex:
            logger.info("pool %r: connection failed check: %s", self.name, brief(ex))
            self._machine.lost += 1
            self._discard(slot, conn, "check failed")
            return False
        except BaseException:
            self._discard(slot, conn, "check interrupted")
            raise

    # -- deadlines ----------------------------------------------------------------------------

    def _bind(self, slot: Slot, until: float, *, committing: bool = False) -> Bound:
        """Have the work on a lent connection ended at a time of `time.monotonic`.

        :param committing: the work is a COMMIT, which is not cancelled: see `Bound`.

        What is returned tells, also after the connection was returned, whether it was ``overdue``.
        """
        with self._mutex:
            bound = self._machine.bind(slot, until)
            bound.committing = committing
        background = self._background
        if background is not None:
            background.alarm(until)
        return bound

    async def _unbind(self, bound: Bound) -> None:
        """The connection is about to be returned: its deadline concerns nobody else.

        A cancel request under way might hit the query of its next borrower, so it is waited for.
        """
        machine = self._machine
        while True:
            with self._mutex:
                cancelling = bound.cancelling
                if cancelling is not None and not cancelling.gone and bound.current:
                    if monotonic() >= bound.ends_at:
                        machine.end(bound, monotonic())
                else:
                    machine.unbind(bound.slot)
                    return
            if bound.ended:
                self._perform()
            else:
                await cancelling.wait()

    async def _leave_bound(
        self,
        conn: Any,
        bound: Bound,
        seconds: float,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End of a ``connection()`` block with a deadline.

        What comes after its deadline is rolled back, not committed.

        :param seconds: the deadline as it was given, for the message.
        :raises DeadlineExceeded: the work was not over in time.
        """
        slot, since = bound.slot, bound.since
        link = slot.link
        with self._mutex:
            overdue = bound.overdue
            bound.committing = exc is None and not overdue
        status = conn.pgconn.transaction_status
        returned = conn._pool is not self or slot.since != since
        if returned or not overdue:
            try:
                await self._leave(conn, slot, since, exc_type, exc, traceback)
            except Exception as ex:
                if returned or not bound.overdue:
                    raise
                raise exceeded(self.name, seconds, _outcome(link, status, ex)) from ex
            return
        if bound.ended:
            conn.pgconn.finish()  # over, and his: nothing more is sent on it, or told of it
        late = exceeded(self.name, seconds, _outcome(link, status, exc))
        await self._leave(conn, slot, since, type(late), late, traceback)
        if exc is None or isinstance(exc, Exception):
            raise late from exc

    # -- returning ----------------------------------------------------------------------------

    async def _leave(
        self,
        conn: Any,
        slot: Slot,
        since: float,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End of a ``connection()`` block, in all but the simplest case.

        What is raised, the block's own error too, is told what became of the transaction.
        """
        link, status, closed = slot.link, conn.pgconn.transaction_status, conn.closed
        error = exc
        try:
            if conn._pool is self and slot.since == since:
                sqlstate = getattr(exc, "sqlstate", None)
                if sqlstate and closed:
                    _note_cause(slot, exc)
                elif sqlstate == "25006":
                    self._wrong_role(slot, conn)
                if exc is None and status == INERROR:
                    logger.warning(
                        "pool %r: nothing was committed: a statement had failed, and its error was"
                        " caught inside the block",
                        self.name,
                    )
                if self._chaos is not None:
                    await self._strike(conn, slot, exc)
                await conn.__aexit__(exc_type, exc, traceback)
        except BaseException as ex:
            error = ex
            raise
        finally:
            if isinstance(error, DeadlineExceeded):
                pass  # who made it knew
            elif error is exc is not None:
                if status != IDLE or isinstance(exc, psycopg.Error):
                    mark(exc, _outcome(link, status, exc))
            elif error is not None:
                sent = status == INTRANS and not closed
                mark(error, _outcome_of_commit(conn, error) if sent else Outcome.ROLLED_BACK)
            if slot.since != since and conn._pool is self and slot.state is not State.GONE:
                raise ValueError(
                    f"can't return connection to pool {self.name!r}, it was returned before: {conn}"
                )
            await cast(Any, self).putconn(conn)  # perhaps somebody's own

    async def _strike(self, conn: Any, slot: Slot, exc: BaseException | None) -> None:
        """Perhaps cut the connection, as `Chaos` is asked to: at the end of the block, or of its
        COMMIT, so that what follows fails.

        :raises psycopg.OperationalError: the answer to COMMIT is lost.
        """
        strike = self._chaos.draw() if exc is None and slot.state is State.LENT else None
        if strike is Strike.AFTER:
            await conn.commit()
        if strike is not None:
            self._chaos.cut(slot, strike)
        if strike is Strike.AFTER:
            raise psycopg.OperationalError("the answer to COMMIT was lost")

    def _wrong_role(self, slot: Slot, conn: Any) -> None:
        """The server refused a statement because it is read-only (25006).

        It is not for being a standby if the caller wanted it so, or a server that knows says
        that it is none: a setting of the role or the database, a full disk.
        """
        machine = self._machine
        if conn.read_only or (in_hot_standby(conn) is False and not machine.pooler):
            return
        with self._mutex:
            if slot.state is State.LENT:
                machine.wrong_role(slot, monotonic())
        self._perform()

    def _writing(self) -> None:
        """The program is about to write through this pool."""
        machine = self._machine
        if not machine.claimed:
            with self._mutex:
                machine.claims_writes(monotonic())
            self._perform()

    async def _give_back(self, conn: Any, slot: Slot) -> None:
        since = slot.since
        try:
            await self._take_back(conn, slot)
        except BaseException:
            self._not_returned(conn, slot, since)
            raise

    def _not_returned(self, conn: Any, slot: Slot, since: float) -> None:
        """A return was interrupted, at whatever point: nobody comes for the connection again."""
        with self._mutex:
            if slot.since == since and slot.conn is None:
                conn._pool = None
                slot.conn = conn
                self._machine.discard(slot, monotonic(), "return interrupted")
        self._recover()

    async def _take_back(self, conn: Any, slot: Slot) -> None:
        conn._pool = None
        if self._loans:
            now = monotonic()
            with self._mutex:
                self._machine.returned(slot, now - slot.since, now)
        if slot.state is State.GONE:  # inherited across a fork
            rt.close(conn)
            return None
        bound = self._machine.bounds.get(slot) if self._machine.bounds else None
        if bound is not None and bound.ended:
            await self._unbind(bound)
            return self._discard(slot, conn, "", returned=True)
        pgconn = conn.pgconn
        status = pgconn.transaction_status
        if conn._num_transactions:
            logger.warning("discarding connection returned inside a transaction() block: %s", conn)
            self._machine.bad_returns += 1
            return self._discard(slot, conn, "returned in a block", returned=True)
        if status in (INTRANS, INERROR):
            if self._closed:  # nobody would end it on a silent path; the server does it as well
                return self._discard(slot, conn, "returned to a closed pool", returned=True)
            logger.warning("rolling back returned connection: %s", conn)
            status = await self._roll_back(conn, slot)
        if bound is not None:
            await self._unbind(bound)
        if status == UNKNOWN:
            if not self._closed:
                logger.warning("discarding closed connection: %s", conn)
            self._machine.bad_returns += 1
            return self._discard(slot, conn, "returned broken", returned=True)
        if status != IDLE or pgconn.pipeline_status != PipelineStatus.OFF:
            logger.warning("closing returned connection: %s", conn)
            return self._discard(slot, conn, "returned while in use", returned=True)
        now = monotonic()
        waiter: Any = None
        background = self._background
        try:
            with self._mutex:
                if self._reset is None or background is None or not self._machine.keeps():
                    slot.conn = conn
                    waiter = self._machine.give(slot, now)
                elif self._machine.work(slot, now):  # first: it must not rest without its reset
                    slot.conn = conn
                    background.work(reset_job, ref(self), slot)
        except RuntimeError as ex:  # no thread for the job
            logger.warning("pool %r: no reset: %s", self.name, brief(ex))
            return self._discard(slot, conn, "not reset", returned=True)
        if waiter is not None:
            waiter.wake()
        self._perform()
        return None

    async def _roll_back(self, conn: Any, slot: Slot) -> Any:
        """Roll back what is open on a connection; return its new status."""
        limit = self._policy.callback_timeout
        try:
            await self._bounded(_rollback, conn, slot.link, monotonic() + limit)
        except Exception as ex:
            logger.warning("rollback failed: %s. Discarding connection %s", brief(ex), conn)
            return UNKNOWN
        except BaseException:
            self._discard(slot, conn, "rollback interrupted", returned=True)
            raise
        return conn.pgconn.transaction_status

    def _discard(self, slot: Slot, conn: Any, why: str, *, returned: bool = False) -> None:
        """The owner gives up a connection that must not be lent again."""
        dead = conn.pgconn.transaction_status == UNKNOWN
        try:
            with self._mutex:
                conn._pool = None
                slot.conn = conn
                self._machine.discard(slot, monotonic(), why, dead=dead, returned=returned)
        except BaseException:
            with self._mutex:
                slot.conn = conn
                self._machine.discard(slot, monotonic(), why, dead=dead)
            self._recover()
            raise
        self._perform()


async def _rollback(conn: Any) -> None:
    await conn.rollback()


def _outcome(link: Any, status: int, error: BaseException | None) -> Outcome:
    """What became of the transaction of a block that ended with an error, or at its deadline.

    :param status: of the connection when its block was left, with *error*.
    """
    if link is None or link.doubtful:
        return Outcome.UNKNOWN
    if status == IDLE and _is_fatal(error):
        return Outcome.UNKNOWN  # a pooler's word, perhaps for the loss of its server in a COMMIT
    if getattr(error, "sqlstate", None) or status != IDLE:
        return Outcome.ROLLED_BACK
    return Outcome.UNKNOWN  # nothing was in hand, and what was before may be committed


def _note_cause(slot: Slot, error: Any) -> None:
    """Keep what a server said when it ended a connection; not what it said of a statement."""
    if _is_fatal(error):
        text = printable(error.diag.message_primary or "")
        slot.cause = Cause("FATAL", error.sqlstate or "", text)


def _is_fatal(error: Any) -> bool:
    diag = getattr(error, "diag", None)
    return diag is not None and diag.severity_nonlocalized in ("FATAL", "PANIC")


def _outcome_of_commit(conn: Any, error: BaseException) -> Outcome:
    """What became of a COMMIT that a block ended with, and that failed."""
    return judge(failure_of(error, conn.pgconn, Phase.COMMIT)).outcome
