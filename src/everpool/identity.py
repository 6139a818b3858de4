"""Asking a server who it is: the query, to be sent alone or with others, and its answer."""

from __future__ import annotations

from typing import Any

from .core.incarnation import Incarnation, Session

# `pg_control_checkpoint()` has the old timeline for half a second after a promotion; the name
# of the file that is being written has the new one at once. A standby writes none.
#
# Every name says that it is the server's own: who may create functions or operators in a schema
# of the search path must not be asked in its place.
SYSTEM = "(SELECT system_identifier FROM pg_catalog.pg_control_system())"
TIMELINE = (
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN '0' ELSE pg_catalog.substr("
    "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END"
)


def microseconds(moment: str) -> str:
    """SQL for a time in microseconds since 1970."""
    return f"(extract(epoch FROM {moment}) OPERATOR(pg_catalog.*) 1000000)::bigint"


def _made(view: str) -> bytes:
    started = microseconds("pg_catalog.pg_postmaster_start_time()")
    reset = f"(SELECT coalesce({microseconds('stats_reset')}, 0) FROM pg_catalog.{view})"
    pid = "pg_catalog.pg_backend_pid()"
    backend = (
        f"(SELECT {microseconds('backend_start')} FROM pg_catalog.pg_stat_get_activity({pid}))"
    )
    return f"SELECT {pid}, {backend}, {SYSTEM}, {TIMELINE}, {started}, {reset}".encode()


# SQLSTATEs, and classes of them, that say nothing of the query. (No SQLSTATE: the connection is lost.)
_PASSING = ("08", "40", "53", "55P03", "57")

_NEWER, _OLDER = _made("pg_stat_wal"), _made("pg_stat_bgwriter")


def question(server_version: int) -> bytes:
    """The query, for a server of this version (as in ``pgconn.server_version``)."""
    return _NEWER if server_version >= 140000 else _OLDER


def answer(result: Any) -> tuple[Session, Incarnation]:
    """The session, as the server knows it, and the server's incarnation.

    :param result: the query's `PGresult`, in text format.
    """
    pid, backend, system, timeline, started, reset = (result.get_value(0, i) for i in range(6))
    return (
        Session(int(pid), int(backend)),
        Incarnation(int(system), int(timeline, 16), int(started), int(reset)),
    )


def refuses(error: Any) -> bool:
    """Whether a server that answered the query with this error will never answer it: it lacks a
    function, or the right to call it is not given. A query that was cancelled, or whose session was
    ended, can be asked again.
    """
    return bool(error.sqlstate) and not error.sqlstate.startswith(_PASSING)
