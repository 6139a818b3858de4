# Generated from src/everpool/_async/attempt.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""One attempt at a transaction: lend, begin, hand over, commit, and know what became of it."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool.abc import CT

from ..core.judgement import Meaning, Phase, Repeat
from ..core.outcome import Outcome
from ..errors import TransactionMisuse
from ..watch import DEAD
from ..work import token as tokens
from ..work.begin import Begun, Mode, begin
from ..work.chaos import Strike
from ..work.failing import OK, failure_of, mark, misused, swallowed, unknown
from ..work.flight import FATAL_ERROR, fly
from ..work.loops import comes_back
from ..work.resolve import end_backend

if TYPE_CHECKING:
    from .attempts import Attempts
    from .lease import Lease

IDLE, INTRANS = TransactionStatus.IDLE, TransactionStatus.INTRANS
INERROR = TransactionStatus.INERROR

# Connections that fail at BEGIN are replaced in silence, because nothing of the work has been
# sent; so many in a row are no accident.
MOST_BEGINS = 3

# The attempts that are under way here, in this task or thread.
_under_way: ContextVar[tuple[Attempt[Any], ...]] = ContextVar("under_way", default=())


class Attempt(Generic[CT]):
    """One attempt at a transaction; a context manager that gives the connection.

    The transaction is committed when the block ends, and rolled back if it ends with an
    exception. psycopg's ``conn.transaction()`` works inside, as savepoints; ``conn.commit()``
    and ``conn.rollback()`` are refused there, because the transaction ends with the block.

    :ivar number: 1 for the first attempt.
    :ivar outcome: what became of the transaction. Until the block has ended it is
        ``NOT_STARTED``, or ``ROLLED_BACK``: what it would be if nothing more happened.
    """

    # Defaults of the class: most attempts change few of them.
    outcome = Outcome.NOT_STARTED
    repeat = False  # whether the loop goes on
    _entered = False
    _lease: Lease[CT] | None = None
    _conn: Any = None
    _begun: Begun | None = None
    _since = 0.0
    _notice = ""  # SQLSTATE of a warning that announced the connection's end
    _local = False  # the server said that it did not wait for its standby
    _response: str | None = None
    _phase = Phase.WORK
    _tag = ""
    _strike: Strike | None = None

    def __init__(self, work: Attempts[CT], number: int) -> None:
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

    def __enter__(self) -> CT:
        if self._entered:
            raise misused(
                "an attempt can be entered once",
                "each round of `pool.attempts()` gives a new one",
                Outcome.NOT_STARTED,
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
                Outcome.NOT_STARTED,
            )
        try:
            self._open()
        except BaseException as ex:
            if isinstance(ex, Exception) or not hasattr(ex, "outcome"):
                mark(ex, Outcome.NOT_STARTED if self.number == 1 else Outcome.ROLLED_BACK)
            raise
        self.outcome = Outcome.ROLLED_BACK
        _under_way.set((*around, self))
        return self._conn  # type: ignore[no-any-return]

    def _open(self) -> None:
        """Get a connection and begin on it; one that fails at that is replaced."""
        pool, work = self._pool, self._work
        for count in range(1, MOST_BEGINS + 1):  # pragma: no branch
            timeout = work.patience()
            if pool._direct and timeout >= pool._patience:  # the hot path
                self._lease = lease = cast("Lease[CT]", pool.connection())
                conn: Any = lease.__enter__()
            else:
                self._lease = None
                conn = pool.getconn(timeout)
            try:
                begun = self._begin(conn)
            except BaseException as ex:
                failure = failure_of(ex, conn.pgconn, Phase.LENT)
                verdict = pool._judged(failure)
                pool._part_with(conn, ex, failure, verdict)
                over = failure.lost or verdict.meaning is Meaning.CONNECTION
                if not over or not work.affords(verdict, failure, ex, count):
                    raise
                continue
            conn.add_notice_handler(self._noted)
            conn._num_transactions += 1  # psycopg: no commit() and rollback() inside
            self._since = conn._slot.since
            self._conn, self._begun = conn, begun
            if pool._chaos is not None:
                self._strike = pool._chaos.draw()
                if self._strike is Strike.FIRST:
                    pool._chaos.cut(conn._slot, self._strike)
            return

    def _begin(self, conn: Any) -> Begun:
        pool, work, slot = self._pool, self._work, conn._slot
        known = slot.incarnation if slot.direct else None
        gen = begin(
            conn,
            work.how,
            known,
            ask=not pool._anonymous,
            check_table=not pool._tokens_work,
        )
        with conn.lock:
            if work.abandoned is not None:
                # What the lost attempt has locked is in the way, for as long as its server does
                # not know that it was abandoned.
                conn.wait(end_backend(conn.pgconn, work.abandoned))
                work.abandoned = None
            begun: Begun = conn.wait(gen)
        pool._anonymous |= begun.cannot_tell
        pool._tokens_work |= begun.mode is Mode.TOKEN
        return begun

    def _noted(self, diag: Any) -> None:
        """A notice: of an end that follows, or of a COMMIT that did not wait for its standby."""
        if diag.sqlstate in ("57P01", "57P02"):
            self._notice = diag.sqlstate
        # A warning of the user's own, raised while committing, has another origin.
        self._local |= diag.sqlstate == "01000" and diag.source_function in (
            None,
            "SyncRepWaitForLSN",
        )

    # -- ending -------------------------------------------------------------------------------

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # `return` inside the block does not come back to the loop, and cannot be repeated.
        loops = exc is not None or not self._work.inline or comes_back(sys._getframe(1))
        around = _under_way.get()
        rest = () if around == (self,) else tuple(other for other in around if other is not self)
        _under_way.set(rest)
        conn, self._conn = self._conn, None
        if conn._pool is not self._pool or conn._slot.since != self._since:
            raise misused(
                "the function gave its connection back to the pool",
                "leave that to the end of the block; nothing was committed by it",
                Outcome.ROLLED_BACK,
            ) from exc
        error = exc
        if exc is None:
            try:
                self._commit(conn)
            except BaseException as ex:
                error = ex
        self._detach(conn)
        try:
            if error is None:
                if self._lease is not None and self._pool._plain:  # the hot path
                    self._lease.__exit__(None, None, None)
                else:
                    self._pool.putconn(conn)
                self._work.succeeded()
                if self._begun is not None and not self._begun.read_only:
                    self._pool._writing()
                if self._begun is not None and self._begun.token:
                    self._pool._sweep()
                return False
            error = self._failed(conn, error, loops, ours=error is not exc)
        except BaseException as ex:
            self._interrupted(ex, error)
            raise
        if error is None:
            return True
        mark(error, self.outcome)
        if error is exc:
            return False
        raise error

    def _commit(self, conn: Any) -> None:
        """Commit, and look at all that is answered.

        :raises BaseException: it was not committed, or nobody knows.
        """
        pgconn, begun, chaos, strike = conn.pgconn, self._begun, self._pool._chaos, self._strike
        assert begun is not None
        self._check_can_commit(conn)
        if strike is Strike.BEFORE:
            chaos.cut(conn._slot, strike)
        # Where nothing can be in doubt, the answer will say it.
        if begun.mode is not Mode.NONE and conn._slot.link.peek() == DEAD:
            raise psycopg.OperationalError("the connection was lost before COMMIT was sent")
        statements = b"COMMIT"
        if begun.token and begun.stored is None:
            row = tokens.write(pgconn, begun.token, begun.key, self._response)
            statements = row + b";" + statements
        self._phase = Phase.COMMIT
        gen = fly(pgconn, statements)
        if strike in (Strike.DURING, Strike.AFTER):
            gen = chaos.commit(gen, conn._slot, strike)
        with conn.lock:
            results = conn.wait(gen)
        tags = [result.command_status for result in results]
        if b"COMMIT" not in tags:  # after it, whatever follows changes nothing
            for result in results:
                if result.status == FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result, encoding=pgconn._encoding)
            if b"ROLLBACK" not in tags:
                raise psycopg.OperationalError("COMMIT was answered with something else")
            self._tag = "ROLLBACK"
            raise swallowed()
        self.outcome = Outcome.COMMITTED_LOCALLY_ONLY if self._local else Outcome.COMMITTED

    def _check_can_commit(self, conn: Any) -> None:
        """
        :raises psycopg.Error: there is nothing that could be committed.
        """
        pgconn = conn.pgconn
        if conn._closed:
            raise misused(
                "the function closed its connection",
                "leave that to the pool; nothing was committed",
                Outcome.ROLLED_BACK,
            )
        if pgconn.status != OK:
            raise psycopg.OperationalError("the connection was lost before COMMIT was sent")
        status = pgconn.transaction_status
        if status == INERROR:
            self._tag = "ROLLBACK"
            raise swallowed()
        if status == IDLE:
            self._phase = Phase.COMMIT
            raise misused(
                "the function ended its transaction itself",
                "leave COMMIT and ROLLBACK to the end of the block; what was committed is not"
                " known, and nothing is repeated",
                Outcome.UNKNOWN,
            )
        if status != INTRANS or pgconn.pipeline_status != PipelineStatus.OFF:
            raise misused(
                "the function left a query running",
                "read its results, or end its COPY or pipeline, before it returns;"
                " nothing was committed",
                Outcome.ROLLED_BACK,
            )
        if conn._num_transactions != 1:
            raise misused(
                "the function left a `transaction()` block open",
                "end it before it returns; nothing was committed",
                Outcome.ROLLED_BACK,
            )

    def _detach(self, conn: Any) -> None:
        conn._num_transactions = 0
        conn.remove_notice_handler(self._noted)

    def _failed(
        self, conn: Any, error: BaseException, loops: bool, *, ours: bool
    ) -> BaseException | None:
        """Give the connection back, find out what is not known, and decide how to go on.

        :param loops: whether the block can be repeated.
        :param ours: whether the error was raised here, after the block.
        :returns: what to raise; None if the transaction is committed after all, or to be repeated.
        """
        pool, work, begun = self._pool, self._work, self._begun
        assert begun is not None
        failure = failure_of(
            error, conn.pgconn, self._phase, notice=self._notice, read_only=begun.read_only
        )
        lost = failure.lost or conn._slot.link.peek() == DEAD
        failure = replace(failure, lost=lost, tag=self._tag)
        verdict = pool._judged(failure)
        misuse = error if ours and isinstance(error, TransactionMisuse) else None
        # Before anything that may be interrupted.
        self.outcome = verdict.outcome if misuse is None else misuse.outcome
        pool._part_with(conn, error, failure, verdict)
        if misuse is not None:
            return misuse
        if verdict.outcome is Outcome.UNKNOWN:
            self.outcome = self._find_out(begun, isinstance(error, Exception))
            if self.outcome in (Outcome.COMMITTED, Outcome.COMMITTED_LOCALLY_ONLY):
                work.succeeded()
                return None
            if self.outcome is Outcome.ROLLED_BACK:
                verdict = pool._judged(replace(failure, phase=Phase.WORK))
            elif isinstance(error, Exception):
                return unknown(begun, pool._ask_again, error)
        if isinstance(error, Exception):
            if begun.key is not None and tokens.is_done_by_another(error):
                verdict = verdict.replace(repeat=Repeat.YES)  # and find what that one returned
            self.repeat = loops and work.affords(verdict, failure, error, self.number)
            if failure.lost:
                work.abandoned = begun
        return None if self.repeat else error

    def _interrupted(self, ex: BaseException, error: BaseException | None) -> None:
        """Somebody who was at the end of the transaction, or looking into it, waits no longer."""
        if self.outcome is Outcome.UNKNOWN and not isinstance(error, TransactionMisuse):
            assert self._begun is not None
            self.outcome = self._find_out(self._begun, False)
        mark(ex, self.outcome)

    def _find_out(self, begun: Begun, waits: bool) -> Outcome:
        """What became of a COMMIT without an answer; `waits` is False for who was interrupted."""
        if begun.mode is Mode.NONE:
            return Outcome.ROLLED_BACK  # it wrote nothing
        if begun.mode is Mode.OFF:
            return Outcome.UNKNOWN
        if waits:
            return self._pool._resolve(begun, self._work.until)
        self._pool._resolve_aside(begun, self)
        return Outcome.UNKNOWN
