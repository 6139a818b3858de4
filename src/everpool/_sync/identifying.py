# Generated from src/everpool/_async/identifying.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""Asking the server behind a new connection who it is, before anybody uses it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

from ..core.incarnation import Incarnation, Session
from ..identity import answer, question
from ..watch import MOST_NEWS

# Classes of SQLSTATE that speak of this moment, not of what the server can do: conflicts,
# resources, a promotion under way, an operator, the system.
_PASSING = ("40", "53", "55", "57", "58")


class CannotTell(Exception):
    """The server answered, but not to this question; ``for_good`` if it never will."""

    def __init__(self, for_good: bool) -> None:
        super().__init__()
        self.for_good = for_good


def ask(conn: Any) -> tuple[Session, Incarnation]:
    """Return the session and the incarnation of the server behind a connection at rest.

    One round trip, outside any transaction, autocommit or not. The user's handlers do not hear
    of it; notifications that come meanwhile are kept for the borrower.

    :raises CannotTell: there is a server, but it cannot tell.
    :raises psycopg.OperationalError: the connection is lost.
    """
    pgconn = conn.pgconn
    news = conn._slot.link.news
    handlers = pgconn.notice_handler, pgconn.notify_handler
    pgconn.notice_handler = None
    pgconn.notify_handler = lambda notify: news.append(notify) if len(news) < MOST_NEWS else None
    try:
        pgconn.send_query(question(pgconn.server_version))
        results = conn.wait(execute(pgconn))
    finally:
        pgconn.notice_handler, pgconn.notify_handler = handlers
    result = results[-1]
    if pgconn.status != ConnStatus.OK:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
        raise psycopg.OperationalError("the connection was lost")
    if result.status == ExecStatus.FATAL_ERROR:
        sqlstate = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")
        raise CannotTell(not sqlstate.startswith(_PASSING))
    try:
        return answer(result)
    except (TypeError, ValueError, psycopg.Error):
        raise CannotTell(True) from None  # something that answers whatever it is asked


def in_hot_standby(conn: Any) -> bool | None:
    """Whether the server is a standby, as it said itself last (0.08 µs, no round trip).

    None if it does not say: before PostgreSQL 14, and others.
    """
    said = conn.pgconn.parameter_status(b"in_hot_standby")
    return None if said is None else said == b"on"
