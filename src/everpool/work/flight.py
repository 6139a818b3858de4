"""One message of the simple protocol and all that is answered to it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from psycopg import errors as e
from psycopg import generators
from psycopg.pq import ConnStatus, ExecStatus

FATAL_ERROR, OK = ExecStatus.FATAL_ERROR, ConnStatus.OK

Flight = Generator[Any, Any, list[Any]]


def fly(pgconn: Any, statements: bytes) -> Flight:
    """Send statements in one message, in one write; what it gives returns their results, errors
    among them.

    The simple protocol, because every pooler understands it, and because the server reads the
    whole message before it executes the first statement: either all of it arrives or nothing.

    :raises psycopg.OperationalError: the connection was lost before the end of the answer. Where
        the server said why, that is the last of the results instead.
    """
    pgconn.send_query(statements)
    flight: Flight = generators.execute(pgconn)
    return flight


def answered(pgconn: Any, statements: bytes) -> Flight:
    """As `fly`, for who wants an answer: the end of the session is none, and is raised.

    :raises psycopg.Error: the session has ended, or the connection was lost.
    """
    results = yield from fly(pgconn, statements)
    check_session(pgconn, results)
    return results


def check_session(pgconn: Any, results: list[Any]) -> None:
    """
    :raises psycopg.Error: the session has ended, or the connection was lost.
    """
    error = None
    if results[-1].status == FATAL_ERROR:
        error = e.error_from_result(results[-1], encoding=pgconn._encoding)
        if error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
            raise error
    if pgconn.status != OK:
        raise error or e.OperationalError("the connection was lost")


def demand(pgconn: Any, statements: bytes) -> Flight:
    """As `fly`; an error of the server's is raised.

    :raises psycopg.Error: the first error among the results.
    """
    results = yield from fly(pgconn, statements)
    for result in results:
        if result.status == FATAL_ERROR:
            raise e.error_from_result(result, encoding=pgconn._encoding)
    return results


def value(result: Any, column: int = 0) -> str | None:
    """A value of the only row of a result, as text; None for NULL or no row."""
    if not result.ntuples:
        return None
    raw = result.get_value(0, column)
    return None if raw is None else raw.decode()
