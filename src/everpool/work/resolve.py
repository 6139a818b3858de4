"""What became of a transaction whose COMMIT was sent and never answered.

Asked on another connection, and in such a way that the answer stays true: a COMMIT may still be
under way in some proxy, so "in progress" is not an answer but a task. The old backend is ended
first; then, what it had not begun to commit it never will.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from psycopg import errors as e

from ..core.outcome import Outcome
from ..identity import answer, microseconds, question, refuses
from . import token as tokens
from .begin import Begun, Mode
from .flight import FATAL_ERROR, answered, value

# A fence that meets the transaction itself, in the middle of its COMMIT, waits so long for it
# before its backend is ended: more than any flush takes on a disk that works.
LOCK_TIMEOUT = 0.25

_END = (
    "SELECT wait_event, pg_catalog.pg_terminate_backend(pid)"
    " FROM pg_catalog.pg_stat_get_activity(%d) WHERE"
    f" {microseconds('{}')} OPERATOR(pg_catalog.=) %d"
    " AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()"
)
_END_SESSION = _END.format("backend_start").encode()
_END_TRANSACTION = _END.format("xact_start").encode()

Asked = Generator[Any, Any, Outcome | None]


def resolve(conn: Any, begun: Begun) -> Asked:
    """Ask once. None: not decided yet, or not by this server; ask again soon.

    :raises psycopg.OperationalError: the connection was lost, or a reason not to be had soon.
    """
    by = _by_token if begun.mode is Mode.TOKEN else _by_number
    outcome = yield from by(conn.pgconn, begun)
    if outcome is Outcome.COMMITTED and begun.waited:
        return Outcome.COMMITTED_LOCALLY_ONLY
    return outcome


def _by_number(pgconn: Any, begun: Begun) -> Asked:
    """By `txid_status`, which is only true within one incarnation of the server.

    Of another: a number not given yet, or given to what was aborted, cannot be that of a durable
    commit, which would show. "Committed" may be somebody else's.
    """
    if begun.xid is None or begun.incarnation is None:
        return Outcome.UNKNOWN
    status = b"SELECT pg_catalog.txid_status('%d'::bigint)" % begun.xid
    results = yield from answered(pgconn, question(pgconn.server_version) + b";" + status)
    if len(results) < 2:
        error = e.error_from_result(results[0], encoding=pgconn._encoding)
        if refuses(error):
            return Outcome.UNKNOWN
        raise error
    _, now = answer(results[0])
    if now.standby:
        return None
    if now.system != begun.incarnation.system:
        return Outcome.UNKNOWN
    if now.timeline < begun.incarnation.timeline:
        return None  # an old primary, which has not seen it
    same = now == begun.incarnation
    if results[1].status == FATAL_ERROR:
        error = e.error_from_result(results[1], encoding=pgconn._encoding)
        if error.sqlstate == "22023" and not same:  # "is in the future"
            return Outcome.ROLLED_BACK
        raise error
    match value(results[1]):
        case "aborted":
            return Outcome.ROLLED_BACK
        case "committed" if same:
            return Outcome.COMMITTED
        case "in progress" if same:
            yield from end_backend(pgconn, begun)
            return None
    return Outcome.UNKNOWN


def _by_token(pgconn: Any, begun: Begun) -> Asked:
    if tokens.age(begun.token) > tokens.KEPT:
        return Outcome.UNKNOWN  # what was known of it may have been deleted
    results = yield from answered(
        pgconn, tokens.fence(begun.token, begun.incarnation, LOCK_TIMEOUT)
    )
    if results[-1].status == FATAL_ERROR:
        error = e.error_from_result(results[-1], encoding=pgconn._encoding)
        yield from answered(pgconn, b"ROLLBACK")
        if error.sqlstate == "55P03":  # it holds its token: it is committing
            yield from end_backend(pgconn, begun)
            return None
        if error.sqlstate == "25006":
            return None  # a standby
        raise error
    decided = value(results[-2])
    if decided == "committed":
        return Outcome.COMMITTED
    if decided != "aborted":
        return None  # another server, or one with an older history: it cannot know
    yield from end_backend(pgconn, begun)  # its locks are in the way of who tries again
    return Outcome.ROLLED_BACK


def end_backend(pgconn: Any, begun: Begun) -> Generator[Any, Any, None]:
    """End the backend of a transaction, if it is still there. Only that one: a process id may
    have been given again, but not together with the moment the session, or behind a pooler, whose
    sessions are not ours alone, the transaction began."""
    if not begun.pid:
        return
    results = yield from answered(
        pgconn,
        _END_TRANSACTION % (begun.pid, begun.begun)
        if begun.session is None
        else _END_SESSION % (begun.pid, begun.session.started),
    )
    if results[0].status != FATAL_ERROR:  # it may be somebody else's: a superuser's, say
        begun.waited |= value(results[0]) == "SyncRep"
