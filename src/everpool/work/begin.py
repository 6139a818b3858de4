"""BEGIN, and what is learned in the same flight.

Who wants to know what became of a COMMIT must know, before it is sent, by which name the server
knows the transaction: its process id and start (to find it and end it), its number and the
server's incarnation (to ask about it), or a token of our own. All that the server has to tell
comes with the answer to BEGIN: no extra round trip (1.06 of the time of a one-row insert with
fsync on, loopback; with the incarnation 1.3, so that is asked once per connection, and with
each BEGIN only behind a pooler that changes the server under us).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from psycopg import IsolationLevel
from psycopg import errors as e

from ..core.incarnation import Incarnation
from ..identity import answer, question, refuses
from . import token as tokens
from .flight import FATAL_ERROR, fly, value
from .token import Stored, Token


class Mode(StrEnum):
    """How to find out what became of a COMMIT whose answer was lost."""

    NONE = "none"  # it wrote nothing
    OFF = "off"  # not by itself
    XID = "xid"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Begin:
    """How transactions are to begin. Where a setting is None, the connection's counts.

    :ivar key: the caller's idempotency key, if the mode is `TOKEN` and the caller gave one.
    """

    isolation_level: IsolationLevel | None
    read_only: bool | None
    deferrable: bool | None
    mode: Mode
    key: Token | None = None


@dataclass(slots=True)
class Begun:
    """A transaction that has begun, and the names by which it can be asked about.

    :ivar pid: process id of its backend, as the server knows it; 0 if that was not asked.
    :ivar begun: when it began by the server's clock, in microseconds since 1970: together with
        the process id it names this transaction and no other.
    :ivar xid: its 64-bit number; None in modes that do not need it, and on a standby.
    :ivar token: the token that its COMMIT writes; empty in other modes.
    :ivar stored: what was found under the caller's key: the work is done already.
    :ivar cannot_tell: the server refused to say who it is.
    :ivar waited: its COMMIT waited for a synchronous standby, and was not let wait: it is committed
        on this server only.
    """

    mode: Mode
    read_only: bool
    pid: int = 0
    begun: int = 0
    xid: int | None = None
    incarnation: Incarnation | None = None
    token: str = ""
    key: Token | None = None
    stored: Stored | None = None
    cannot_tell: bool = False
    waited: bool = False


_NAMES = b"SELECT pg_backend_pid(), (extract(epoch FROM now()) * 1000000)::bigint"
# By the name that all versions know.
_XID = b", txid_current()"


def begin(
    conn: Any, how: Begin, known: Incarnation | None, *, ask: bool, check_table: bool
) -> Generator[Any, Any, Begun]:
    """Begin a transaction.

    :param known: the server's incarnation, if it is known and cannot change under us.
    :param ask: whether to ask for it otherwise, where it is needed.
    :param check_table: whether to look if the table of tokens is there.
    :raises psycopg.Error: it was not begun; the connection is idle, or lost.
    """
    pgconn = conn.pgconn
    statement, read_only = _statement(conn, how)
    # A standby commits nothing, and gives no number.
    standby = _is_standby(pgconn)
    nothing = read_only or standby
    if known is not None and known.standby:
        known = None  # it is no life that anything is committed in
    found = Begun(Mode.NONE if nothing else how.mode, read_only, incarnation=known)
    mode = found.mode
    statements = [statement]
    asked = False
    if mode is not Mode.NONE:
        numbered = mode is not Mode.TOKEN
        statements.append(_NAMES + _XID if numbered else _NAMES)
        if asked := numbered and known is None and ask:
            statements.append(question(pgconn.server_version))
        if mode is Mode.TOKEN:
            found.token, found.key = tokens.fresh(), how.key
            if how.key is not None:
                statements.append(tokens.lookup(pgconn, how.key))
            elif check_table:
                statements.append(tokens.CHECK)
    results = yield from fly(pgconn, b";".join(statements))
    if results[-1].status == FATAL_ERROR:
        error = e.error_from_result(results[-1], encoding=pgconn._encoding)
        yield from fly(pgconn, b"ROLLBACK")
        if asked and len(results) == 3 and refuses(error):  # it was the question that failed
            again = yield from begin(conn, how, known, ask=False, check_table=check_table)
            again.cannot_tell = True
            return again
        raise (mode is Mode.TOKEN and tokens.unusable(error.sqlstate)) or error
    if standby and not read_only and not _is_standby(pgconn):
        # It was promoted since it was last heard, and says so with its first answer: what has
        # begun now can write.
        yield from fly(pgconn, b"ROLLBACK")
        return (yield from begin(conn, how, known, ask=ask, check_table=check_table))
    if mode is not Mode.NONE:
        found.pid, found.begun = int(value(results[1]) or 0), int(value(results[1], 1) or 0)
        if mode is not Mode.TOKEN:
            found.xid = int(value(results[1], 2) or 0)
        if asked:
            _, found.incarnation = answer(results[2])
        if found.key is not None:
            try:
                found.stored = tokens.stored(results[2], found.key)
            except e.Error:
                yield from fly(pgconn, b"ROLLBACK")
                raise
    return found


def _is_standby(pgconn: Any) -> bool:
    return bool(pgconn.parameter_status(b"in_hot_standby") == b"on")


def _statement(conn: Any, how: Begin) -> tuple[bytes, bool]:
    """BEGIN, and whether it is of a read-only transaction."""
    level = conn.isolation_level if how.isolation_level is None else how.isolation_level
    read_only = conn.read_only if how.read_only is None else how.read_only
    deferrable = conn.deferrable if how.deferrable is None else how.deferrable
    return _spelled(level, read_only, deferrable), bool(read_only)


@lru_cache(maxsize=256)
def _spelled(level: int | None, read_only: bool | None, deferrable: bool | None) -> bytes:
    parts = [b"BEGIN"]
    if level is not None:
        name = IsolationLevel(level).name
        parts.append(b"ISOLATION LEVEL " + name.replace("_", " ").encode())
    if read_only is not None:
        parts.append(b"READ ONLY" if read_only else b"READ WRITE")
    if deferrable is not None:
        parts.append(b"DEFERRABLE" if deferrable else b"NOT DEFERRABLE")
    return b" ".join(parts)
