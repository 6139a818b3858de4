"""From exceptions to failures, and back: what is judged, and what the caller is told."""

from __future__ import annotations

from typing import Any

import psycopg

from ..core.judgement import Failure, Phase
from ..core.outcome import Outcome
from ..errors import CommitRolledBack, CommitUnknown, TransactionMisuse
from ..text import printable
from .begin import Begun
from .flight import OK

# An error that wraps another that wraps another: more is a cycle, or a joke.
_DEEPEST = 10


def cause_of(ex: BaseException) -> psycopg.Error | None:
    """The database's error behind an exception: itself, or what it was raised from or beside."""
    error: BaseException | None = ex
    for _ in range(_DEEPEST):
        if error is None or isinstance(error, psycopg.Error):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def failure_of(
    ex: BaseException, pgconn: Any, phase: Phase, *, notice: str = "", read_only: bool = False
) -> Failure:
    """What is known of the failure that ended the work on a connection.

    :param notice: SQLSTATE of a warning that announced the connection's end.
    :param read_only: whether the caller has chosen a read-only transaction.
    """
    error = cause_of(ex)
    if error is None or not isinstance(ex, Exception):
        return Failure(phase)
    diag, lost = error.diag, pgconn.status != OK
    standby = None if lost else pgconn.parameter_status(b"in_hot_standby")
    return Failure(
        phase,
        error.sqlstate or "",
        lost=lost,
        fatal=diag.severity_nonlocalized in ("FATAL", "PANIC"),
        notice=notice,
        routine=diag.source_function or "",
        chosen=read_only or standby == b"off",
    )


def mark(ex: BaseException, outcome: Outcome, attempt: Any = None) -> None:
    """Tell an exception's catcher what became of the transaction.

    :param attempt: of whoever was interrupted: its outcome may become known later.
    """
    try:
        ex.outcome = outcome  # type: ignore[attr-defined]
        if attempt is not None and not isinstance(ex, Exception):
            ex.attempt = attempt  # type: ignore[attr-defined]
    except AttributeError:  # somebody's own, with slots
        pass


def unknown(begun: Begun, ask: Any, cause: BaseException) -> CommitUnknown:
    """What to raise while nobody knows."""
    known = {
        "process": begun.pid or None,
        "transaction": begun.xid,
        "token": begun.token or None,
    }
    names = ", ".join(f"{what} {name}" for what, name in known.items() if name)
    ex = CommitUnknown(
        "COMMIT was sent and its answer was lost: the transaction"
        f"{f' ({names})' if names else ''} may be committed or rolled back."
        " Do not simply repeat it; resolve() of this exception asks again"
    )
    ex.pid, ex.xid, ex.token = begun.pid, begun.xid, begun.token
    ex.incarnation = begun.incarnation
    ex._ask, ex._begun, ex.__cause__ = ask, begun, cause
    return ex


def swallowed() -> CommitRolledBack:
    return CommitRolledBack(
        "nothing was committed: a statement of the transaction had failed, and its error was"
        " caught inside. Let such an error out, or catch it around a savepoint"
        " (`with conn.transaction():`)"
    )


def misused(what: str, instead: str, outcome: Outcome) -> TransactionMisuse:
    ex = TransactionMisuse(f"{what}: {instead}")
    ex.outcome = outcome
    return ex


def brief(ex: BaseException) -> str:
    """An exception, safe to log."""
    return printable(told(ex))


def told(ex: BaseException) -> str:
    """What may be told of an exception: of a server's error code and primary message, no SQL."""
    if isinstance(ex, psycopg.Error):
        if ex.sqlstate:
            return f"{ex.sqlstate}: {ex.diag.message_primary or type(ex).__name__}"
        return str(ex)
    return f"{type(ex).__name__}: {ex}"
