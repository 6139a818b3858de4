"""One attempt at a transaction: lend, begin, hand over, commit, and know what became of it."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import replace
from math import inf
from os import getpid
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool.abc import ACT

from ..core.deadlines import CANCEL_GRACE, Bound
from ..core.judgement import Failure, Meaning, Phase
from ..core.outcome import Outcome
from ..errors import TransactionMisuse
from ..watch import DEAD
from ..work import token as tokens
from ..work.begin import NONE, Begun, Mode, begin
from ..work.chaos import Strike
from ..work.failing import failure_of, mark, misused, swallowed, unknown
from ..work.flight import FATAL_ERROR, OK, fly
from ..work.loops import comes_back, place
from ..work.resolve import end_backend

if TYPE_CHECKING:
    from .attempts import AsyncAttempts
    from .lease import AsyncLease

IDLE, INTRANS = TransactionStatus.IDLE, TransactionStatus.INTRANS
INERROR, OFF = TransactionStatus.INERROR, PipelineStatus.OFF

# By names of our own: until Python 3.12 a look at an enum's member costs as much as a call.
NOT_STARTED, ROLLED_BACK, UNKNOWN = Outcome.NOT_STARTED, Outcome.ROLLED_BACK, Outcome.UNKNOWN
COMMITTED, COMMITTED_LOCALLY = Outcome.COMMITTED, Outcome.COMMITTED_LOCALLY_ONLY
LENT, WORK, COMMIT = Phase.LENT, Phase.WORK, Phase.COMMIT

# Connections that fail at BEGIN are replaced in silence, because nothing of the work has been
# sent; so many in a row are no accident.
MOST_BEGINS = 3

# The attempts that are under way here, in this task or thread.
_under_way: ContextVar[tuple[AsyncAttempt[Any], ...]] = ContextVar("under_way", default=())


class AsyncAttempt(Generic[ACT]):
    """One attempt at a transaction; a context manager that gives the connection.

    The transaction is committed when the block ends, and rolled back if it ends with an
    exception. psycopg's ``conn.transaction()`` works inside, as savepoints; ``conn.commit()``
    and ``conn.rollback()`` are refused there, because the transaction ends with the block.

    :ivar number: 1 for the first attempt.
    :ivar outcome: what became of the transaction. Until the block has ended it is
        ``NOT_STARTED``, or ``ROLLED_BACK``: what it would be if nothing more happened.
    """

    # Defaults of the class: most attempts change few of them.
    outcome = NOT_STARTED
    repeat = False  # whether the loop goes on
    _entered = False
    _lease: AsyncLease[ACT] | None = None
    _conn: Any = None
    _begun: Begun | None = None
    _since = 0.0
    _notice = ""  # SQLSTATE of a warning that announced the connection's end
    _response: str | None = None
    _phase = WORK
    _tag = ""
    _settled = False  # `outcome` is what became of it, or UNKNOWN
    _strike: Strike | None = None
    _bound: Bound | None = None  # the deadline of the loan

    def __init__(self, work: AsyncAttempts[ACT], number: int) -> None:
        self.number = number
        self._work = work
        self._pool = work.pool

    @property
    def entered(self) -> bool:
        return self._entered

    @property
    def stored(self) -> tokens.Stored | None:
        """What an earlier `run` under the same key returned: nothing is to be done any more."""
        return None if self._begun is None else self._begun.stored

    def keep(self, response: Any) -> None:
        """Store a response with the caller's key, if there is one.

        :raises TypeError: it cannot be stored as JSON.
        """
        if self._begun is not None and self._begun.key is not None:
            self._response = tokens.as_json(response)

    # -- beginning ----------------------------------------------------------------------------

    async def __aenter__(self) -> ACT:
        if self._entered:
            raise misused(
                "an attempt can be entered once",
                "each round of `pool.attempts()` gives a new one",
                NOT_STARTED,
            )
        self._entered = True
        around = _under_way.get()
        if around and any(
            other._pool is self._pool and other._conn is not None for other in around
        ):
            raise misused(
                f"a transaction of pool {self._pool.name!r} is under way here already",
                "hand its connection on, and use `conn.transaction()` for a part that may fail;"
                " a second transaction would be repeated with each attempt of the first",
                NOT_STARTED,
            )
        try:
            await self._open()
            self.outcome = ROLLED_BACK
            _under_way.set((*around, self))
            return self._conn  # type: ignore[no-any-return]
        except BaseException as ex:
            conn, self._conn = self._conn, None  # nothing is under way here
            if conn is not None:  # a key was pressed in the last moment
                self._interrupted(conn, ex)
            else:
                mark(ex, NOT_STARTED if self.number == 1 else ROLLED_BACK)
            self._work.end_abandoned()
            raise

    async def _open(self) -> None:
        """Get a connection and begin on it; one that fails at that is replaced."""
        pool, work = self._pool, self._work
        for count in range(1, MOST_BEGINS + 1):  # pragma: no branch
            if pool._direct and (work.until == inf or work.patience() >= pool._patience):
                lease: Any = pool.connection()  # the hot path
                self._lease = lease
                conn: Any = await lease.__aenter__()
            else:
                self._lease = None
                if pool._own_doors or not pool._limited:
                    conn = await pool.getconn(work.patience())
                else:  # the deadline of this work, not the pool's
                    conn = await pool._borrow(work.patience(), work.until - monotonic())
            try:
                slot = conn._slot
                self._since = slot.since
                if work.until < inf:
                    self._bound = pool._bind(slot, work.until)
                elif pool._limited:
                    pool._bind(slot, inf)  # the pool's, by somebody's own getconn
                if work.abandoned is not None:
                    await self._free(conn, work.abandoned)
                async with conn.lock:
                    self._begun = await conn.wait(begin(conn, work.how, slot, pool._learned))
                conn._notice_handlers.append(self._noted)
                conn._num_transactions = 1  # psycopg: no commit() and rollback() inside
                if pool._chaos is not None:
                    self._strike = pool._chaos.draw()
                    if self._strike is Strike.FIRST:
                        pool._chaos.cut(slot, self._strike)
                self._conn = conn
                return
            except BaseException as ex:
                self._detach(conn)
                failure = self._failure(conn, ex, LENT)
                verdict = pool._judged(failure)
                await pool._part_with(conn, ex, failure, verdict)
                if self._overdue:
                    raise work.exceeded(NOT_STARTED) from ex
                over = failure.lost or verdict.meaning in (Meaning.CONNECTION, Meaning.WRONG_ROLE)
                if not over or not work.affords(verdict, failure, ex, count):
                    raise

    async def _free(self, conn: Any, abandoned: Begun) -> None:
        """End the session of a lost attempt: what it has locked is in the way, for as long as its
        server does not know that it was abandoned."""
        async with conn.lock:
            await conn.wait(end_backend(conn.pgconn, abandoned))
        self._work.abandoned = None

    def _noted(self, diag: Any) -> None:
        """A notice: of an end that follows, or of a COMMIT that did not wait for its standby."""
        if diag.severity_nonlocalized == "FATAL" or diag.sqlstate in ("57P01", "57P02"):
            self._notice = diag.sqlstate or ""
        # A warning of the user's own, raised while committing, has another origin.
        origin = diag.source_function
        told = self._phase is COMMIT and diag.sqlstate == "01000" and origin is None
        if origin == "SyncRepWaitForLSN" or told:
            assert self._begun is not None
            self._begun.waited = True  # also if the answer is lost

    # -- ending -------------------------------------------------------------------------------

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        conn, error = self._conn, exc
        try:
            work = self._work
            # Who leaves the loop from inside the block, or after it, cannot be repeated.
            loops = not work.inline or comes_back(place(sys._getframe(1)), work.loop)
            around = _under_way.get()
            _under_way.set(
                () if around == (self,) else tuple(each for each in around if each is not self)
            )
            self._conn = None
            if conn._pool is not self._pool or conn._slot.since != self._since:
                self.outcome = UNKNOWN
                raise misused(
                    "the function gave its connection back to the pool",
                    "leave that to the end of the block; what was committed is not known",
                    UNKNOWN,
                ) from exc
            if exc is None:
                try:
                    await self._commit(conn)
                except BaseException as ex:
                    error = ex
            self._detach(conn)
            if error is None:
                if self._lease is not None and self._pool._plain:  # the hot path
                    await self._lease.__aexit__(None, None, None)
                else:
                    await self._pool.putconn(conn)
                self._succeeded()
                return False
            error = await self._failed(conn, error, loops, ours=error is not exc)
        except BaseException as ex:
            self._interrupted(conn, ex)
            raise
        if error is None:
            return True
        mark(error, self.outcome, self)
        if error is exc:
            return False
        raise error

    async def _commit(self, conn: Any) -> None:
        """Commit, and look at all that is answered.

        :raises BaseException: it was not committed, or nobody knows.
        """
        pgconn, begun, chaos, strike = conn.pgconn, self._begun, self._pool._chaos, self._strike
        assert begun is not None
        self._check_can_commit(conn)
        if strike is not None and strike is Strike.BEFORE:
            chaos.cut(conn._slot, strike)
        # Where nothing can be in doubt, the answer will say it.
        if begun.mode is not NONE and conn._slot.link.peek() == DEAD:
            pgconn.consume_input()  # what it said before it hung up
            pgconn.is_busy()
            raise psycopg.OperationalError("the connection was lost before COMMIT was sent")
        statements = b"COMMIT"
        if begun.token and begun.stored is None:
            row = tokens.write(pgconn, begun.token, begun.key, self._response)
            statements = row + b";" + statements
        if self._bound is not None:
            self._leave_time_to_ask(conn._slot)
        self._phase = COMMIT
        async with conn.lock:
            flight = fly(pgconn, statements)
            if strike is not None and strike in (Strike.DURING, Strike.AFTER):
                flight = chaos.commit(flight, conn._slot, strike)
            results = await conn.wait(flight)
        if not results or results[-1].command_status != b"COMMIT":
            self._check_tags(pgconn, results)
        self.outcome = COMMITTED_LOCALLY if begun.waited else COMMITTED
        self._settled = True

    def _check_tags(self, pgconn: Any, results: list[Any]) -> None:
        """
        :raises psycopg.Error: COMMIT was not done.
        """
        tags = [result.command_status for result in results]
        if b"COMMIT" in tags:
            return  # after it, whatever follows changes nothing
        for result in results:
            if result.status == FATAL_ERROR:
                raise psycopg.errors.error_from_result(result, encoding=pgconn._encoding)
        if b"ROLLBACK" not in tags:
            raise psycopg.OperationalError("COMMIT was answered with something else")
        self._tag = "ROLLBACK"
        raise swallowed()

    def _check_can_commit(self, conn: Any) -> None:
        """
        :raises psycopg.Error: there is nothing that could be committed.
        """
        pgconn, status = conn.pgconn, conn.pgconn.transaction_status
        if (
            status == INTRANS
            and pgconn.pipeline_status == OFF
            and conn._num_transactions == 1
            and not conn._closed
        ):
            return  # as nearly always
        if conn._closed:
            raise misused(
                "the function closed its connection",
                "leave that to the pool; nothing was committed",
                ROLLED_BACK,
            )
        if pgconn.status != OK:
            raise psycopg.OperationalError("the connection was lost before COMMIT was sent")
        if status == INERROR:
            self._tag = "ROLLBACK"
            raise swallowed()
        if status == IDLE:
            self._phase = COMMIT
            raise misused(
                "the function ended its transaction itself",
                "leave COMMIT and ROLLBACK to the end of the block; what was committed is not"
                " known, and nothing is repeated",
                UNKNOWN,
            )
        if status != INTRANS or pgconn.pipeline_status != OFF:
            raise misused(
                "the function left a query running",
                "read its results, or end its COPY or pipeline, before it returns;"
                " nothing was committed",
                ROLLED_BACK,
            )
        raise misused(
            "the function left a `transaction()` block open",
            "end it before it returns; nothing was committed",
            ROLLED_BACK,
        )

    def _leave_time_to_ask(self, slot: Any) -> None:
        """Of what is left of the deadline, half is for the COMMIT, and half for finding out what
        became of it.

        :raises DeadlineExceeded: nothing is left, and nothing was sent.
        """
        pool = self._pool
        if self._overdue:
            raise self._work.exceeded(ROLLED_BACK)
        now = monotonic()
        half = now + (self._work.until - now) / 2
        self._bound = pool._bind(slot, max(now, half - CANCEL_GRACE), committing=True)

    @property
    def _overdue(self) -> bool:
        return self._bound is not None and self._bound.overdue

    def _detach(self, conn: Any) -> None:
        conn._num_transactions = 0
        handlers = conn._notice_handlers
        if handlers and handlers[-1] == self._noted:
            handlers.pop()
        elif self._noted in handlers:  # before one that the work has left
            handlers.remove(self._noted)

    def _succeeded(self) -> None:
        pool, begun = self._pool, self._begun
        assert begun is not None
        self._work.failure = None  # and with it a cycle of references
        pool._successes += 1
        if begun.read_only:
            return
        pool._writing()
        if begun.token:
            pool._sweep()

    def _failure(self, conn: Any, error: BaseException, phase: Phase) -> Failure:
        """What is known of a failure on a connection that is ours."""
        begun, link = self._begun, conn._slot.link
        failure = failure_of(
            error,
            conn.pgconn,
            phase,
            notice=self._notice,
            read_only=begun is not None and begun.read_only,
        )
        lost = failure.lost or link is None or link.peek() == DEAD
        return replace(failure, lost=lost, tag=self._tag)

    async def _failed(
        self, conn: Any, error: BaseException, loops: bool, *, ours: bool
    ) -> BaseException | None:
        """Give the connection back, find out what is not known, and decide how to go on.

        :param loops: whether the block can be repeated.
        :param ours: whether the error was raised here, after the block.
        :returns: what to raise; None if the transaction is committed after all, or to be repeated.
        """
        pool, work, begun = self._pool, self._work, self._begun
        assert begun is not None
        failure = self._failure(conn, error, self._phase)
        verdict = pool._judged(failure)
        overdue = self._overdue and self._phase is WORK
        # Before anything that may be interrupted.
        self.outcome, self._settled = verdict.outcome, True
        if self._phase is COMMIT and not isinstance(error, Exception):
            verdict = verdict.replace(evict=True)  # its lock may never be released
        misuse = ours and isinstance(error, TransactionMisuse)
        if misuse:
            self.outcome = cast(TransactionMisuse, error).outcome
        elif self._phase is WORK and not verdict.evict and _ended(conn):
            # By a COMMIT or ROLLBACK of its own, before it failed.
            misuse, self.outcome = True, UNKNOWN
        await pool._part_with(conn, error, failure, verdict)
        if misuse:
            return error
        if self.outcome is UNKNOWN:
            if not isinstance(error, Exception):
                self._find_out_aside()
                return error
            self.outcome = await self._find_out(begun)
            if self.outcome in (COMMITTED, COMMITTED_LOCALLY):
                self._succeeded()
                return None
            if self.outcome is UNKNOWN:
                return unknown(begun, pool._ask_again, error)
            verdict = pool._judged(replace(failure, phase=WORK))
        if failure.lost:
            work.abandoned = begun
        if isinstance(error, Exception) and not overdue:
            if begun.key is not None and tokens.is_done_by_another(error):
                if work.met:
                    return tokens.met()  # not the server's error: that quotes the key
                self.repeat = work.met = True  # the next attempt finds what that one returned
            else:
                self.repeat = loops and work.affords(verdict, failure, error, self.number)
        if self.repeat:
            return None
        work.end_abandoned()
        return self._late(error) if overdue and isinstance(error, Exception) else error

    def _late(self, error: BaseException) -> BaseException:
        late = self._work.exceeded(ROLLED_BACK)
        late.__cause__ = error
        return late

    async def _find_out(self, begun: Begun) -> Outcome:
        """What became of a COMMIT without an answer."""
        if begun.mode is NONE:
            return ROLLED_BACK  # there was nothing to commit
        if begun.mode is Mode.OFF or getpid() != self._work.pid:
            return UNKNOWN
        return await self._pool._resolve(begun, self._work.until)

    def _find_out_aside(self) -> None:
        """Whoever was interrupted waits no longer; the log and this attempt will know."""
        begun = self._begun
        if begun is not None and begun.mode in (Mode.XID, Mode.TOKEN):
            self._pool._resolve_aside(begun, self)

    def _interrupted(self, conn: Any, ex: BaseException) -> None:
        """Something came between while the transaction was being ended, at whatever point."""
        pool = self._pool
        if self._phase is COMMIT and not self._settled:
            self.outcome = UNKNOWN  # it had been sent, or was about to be
        if conn is not None and conn._pool is pool and conn._slot.since == self._since:
            self._detach(conn)
            pool._discard(conn._slot, conn, "interrupted", returned=True)
        if self.outcome is UNKNOWN and not isinstance(ex, TransactionMisuse):
            self._find_out_aside()
        mark(ex, self.outcome, self)


def _ended(conn: Any) -> bool:
    return bool(conn.pgconn.transaction_status == IDLE)
