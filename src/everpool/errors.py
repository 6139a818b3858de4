"""Exceptions. All derive from psycopg_pool's, so code that catches those keeps working."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from .core.outcome import Outcome

__all__ = [
    "CommitRolledBack",
    "CommitUnknown",
    "DeadlineExceeded",
    "PoolClosed",
    "PoolSaturated",
    "PoolTimeout",
    "PoolUnavailable",
    "Refused",
    "SettingWarning",
    "TokenConflict",
    "TokenTableMissing",
    "TooManyRequests",
    "TransactionMisuse",
]


class SettingWarning(UserWarning):
    """A setting that was given contradicts the environment that was given. It is kept."""

    __module__ = "everpool"


class Refused(Exception):
    """What every error of a request for a connection is, besides psycopg_pool's.

    :ivar code: for programs: ``"timeout"``, ``"saturated"``, ``"full"`` (``max_waiting``),
        ``"down"``, ``"rejected"`` or ``"closed"``.
    :ivar retry_after: seconds after which asking again makes sense; 0 if it never does.
    :ivar picture: the pool at that moment, in one line. It may name hosts and users.
    """

    __module__ = "everpool"

    code = ""
    retry_after = 0.0
    picture = ""
    outcome = Outcome.NOT_STARTED  # of the work: without a connection, there was none

    def explained(self, code: str, retry_after: float, picture: str) -> Refused:
        """Fill in what the attributes say; return the exception."""
        self.code, self.retry_after, self.picture = code, retry_after, picture
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return refused, (self.code, str(self), self.retry_after, self.picture)


class PoolUnavailable(Refused, PoolTimeout):
    """The database cannot be reached or rejects the pool's connections: waiting is no use.

    Raised at once, instead of after the timeout, while no connection exists and the server (or
    libpq) gave a reason that only a person can mend: a wrong password, a missing role or
    database, TLS refused. The pool goes on trying, ever more rarely, at most every 30 s.

    Under ``when_down="fail"`` also while the server is away.
    """

    __module__ = "everpool"


class PoolSaturated(Refused, PoolTimeout):
    """At the pace at which connections come back, the caller's turn would come too late.

    Raised at once, while every connection has been in use for a second or longer and the
    queue would need twice the time that the caller has.
    """

    __module__ = "everpool"


class DeadlineExceeded(psycopg.OperationalError, TimeoutError):
    """The work in hand was ended at its ``deadline``.

    :ivar outcome: what became of the transaction that was in hand: ``rolled_back``, or ``unknown``
        if its COMMIT was sent and got no answer. Outside of a transaction (``autocommit``) each
        statement stands for itself: ``unknown``, unless the server said that it was cancelled.
    """

    __module__ = "everpool"

    outcome = Outcome.ROLLED_BACK


_ENDED = {
    Outcome.NOT_STARTED: "nothing was begun",
    Outcome.ROLLED_BACK: "its transaction is rolled back",
    Outcome.UNKNOWN: "what it sent may have been committed: look before you repeat it",
}


def exceeded(pool: str, deadline: float, outcome: Outcome) -> DeadlineExceeded:
    """The exception for work that was ended at its deadline, in seconds."""
    error = DeadlineExceeded(
        f"pool {pool!r}: the work was not over within deadline={deadline:.3g} s and was ended;"
        f" {_ENDED[outcome]}"
    )
    error.outcome = outcome
    return error


class CommitUnknown(psycopg.OperationalError):
    """COMMIT was sent, its answer was lost, and what became of it could not be found out (yet).

    The transaction may be committed or rolled back; it must not simply be repeated.

    :ivar outcome: ``UNKNOWN``, until `resolve` finds out.
    :ivar pid: the process id of its backend; 0 if unknown.
    :ivar xid: its number, for ``pg_xact_status``; None if unknown. Only true in the
        ``incarnation`` of the server in which it was given.
    :ivar token: its token in ``everpool.commits``; empty in other modes.
    """

    __module__ = "everpool"

    outcome = Outcome.UNKNOWN
    pid = 0
    xid: int | None = None
    incarnation: Any = None
    token = ""
    _ask: Any = None  # the pool's way to ask, and what it asks about
    _begun: Any = None

    def resolve(self, timeout: float = 30.0) -> Any:
        """Try again to find out what became of the transaction, for at most ``timeout`` seconds.

        The transaction's backend is ended, if it still lives, so that the answer stays true.

        :returns: the `Outcome`, which is also kept in ``outcome``; an async pool's has to be
            awaited.
        """
        return self._ask(self, timeout)


class CommitRolledBack(psycopg.errors.TransactionRollback):
    """COMMIT was answered with ROLLBACK, or would have been: nothing was committed.

    A statement of the transaction had failed and its error was caught inside, which psycopg's
    own ``commit()`` passes over in silence. Catch such an error around a savepoint
    (``with conn.transaction():``), and what came before it can be committed.
    """

    __module__ = "everpool"

    outcome = Outcome.ROLLED_BACK


class TransactionMisuse(psycopg.ProgrammingError):
    """The program did inside a transaction of `run` or `attempts` what they must do, or began
    one inside another. It is not repeated; the message says what to do instead."""

    __module__ = "everpool"

    outcome = Outcome.ROLLED_BACK


class TokenConflict(psycopg.ProgrammingError):
    """An idempotency key was used before, for different work. Nothing was done."""

    __module__ = "everpool"

    outcome = Outcome.NOT_STARTED


class TokenTableMissing(psycopg.ProgrammingError):
    """The table of tokens does not exist, or may not be used. Nothing was done."""

    __module__ = "everpool"

    outcome = Outcome.NOT_STARTED


# Their names are those they are caught by.


class _Late(Refused, PoolTimeout):
    __module__, __qualname__ = "everpool", "PoolTimeout"


class _Full(Refused, TooManyRequests):
    __module__, __qualname__ = "everpool", "TooManyRequests"


class _Closed(Refused, PoolClosed):
    __module__, __qualname__ = "everpool", "PoolClosed"


for _class in (_Late, _Full, _Closed):
    _class.__name__ = _class.__qualname__

_CLASSES: dict[str, type[Refused]] = {
    "timeout": _Late,
    "saturated": PoolSaturated,
    "full": _Full,
    "down": PoolUnavailable,
    "rejected": PoolUnavailable,
    "closed": _Closed,
}


def refused(code: str, message: str, retry_after: float, picture: str) -> Refused:
    """The exception for a refusal of the core's."""
    return _CLASSES[code](message).explained(code, retry_after, picture)
