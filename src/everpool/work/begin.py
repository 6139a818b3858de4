"""BEGIN, and what is learned in the same flight.

Who wants to know what became of a COMMIT must know, before it is sent, by which name the server
knows the transaction: its process id and start (to find it and end it), its number and the
server's incarnation (to ask about it), or a token of our own. All that the server has to tell
comes with the answer to BEGIN: no extra round trip. What cannot change under a connection, the
session and the server's incarnation, is asked once, when it is opened; only behind a pooler,
which changes the server under us, with each BEGIN. (Of a one-row insert with fsync on, on the
loopback, the number takes 0.02 ms, a name for the transaction 0.04 more, the incarnation 0.1.)
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from psycopg import IsolationLevel
from psycopg import errors as e

from ..core.incarnation import Incarnation, Session
from ..core.slot import Slot
from ..identity import answer, microseconds, question, refuses
from . import token as tokens
from .flight import FATAL_ERROR, OK, answered, check_session, fly, value
from .token import Stored, Token


class Mode(StrEnum):
    """How to find out what became of a COMMIT whose answer was lost."""

    NONE = "none"  # it can write nothing
    OFF = "off"  # not by itself
    XID = "xid"
    TOKEN = "token"


# By a name of our own: until Python 3.12 a look at an enum's member costs as much as a call.
NONE, BY_TOKEN = Mode.NONE, Mode.TOKEN


class Learned:
    """What transactions have found out about a pool's servers, so that none asks again.

    :ivar anonymous: the server refused to say who it is.
    :ivar table: the table of tokens is there.
    """

    __slots__ = ("anonymous", "table")

    def __init__(self) -> None:
        self.anonymous = self.table = False


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


class Begun:
    """A transaction that has begun, and the names by which it can be asked about.

    :ivar pid: process id of its backend, as the server knows it; 0 if that was not asked.
    :ivar session: its session, if that is ours alone; otherwise
    :ivar begun: when it began by the server's clock, in microseconds since 1970: together with
        the process id it names this transaction and no other.
    :ivar xid: its 64-bit number; None in modes that do not need it, and on a standby.
    :ivar token: the token that its COMMIT writes; empty in other modes.
    :ivar stored: what was found under the caller's key: the work is done already.
    :ivar waited: its COMMIT waited for a synchronous standby, and was not let wait: it is committed
        on this server only.
    """

    # Defaults of the class: no mode needs all of them, and this is made for each transaction.
    pid = 0
    session: Session | None = None
    begun = 0
    xid: int | None = None
    incarnation: Incarnation | None = None
    token = ""
    key: Token | None = None
    stored: Stored | None = None
    waited = False

    def __init__(self, mode: Mode, read_only: bool, session: Session | None) -> None:
        self.mode = mode
        self.read_only = read_only
        if session is not None:
            self.session, self.pid = session, session.pid


_NAMES = (f"SELECT pg_catalog.pg_backend_pid(), {microseconds('pg_catalog.now()')}").encode()
# By the name that all versions know.
_XID = b"pg_catalog.txid_current()"

_CAN_WRITE = b"SELECT pg_catalog.current_setting('transaction_read_only')"


def begin(
    conn: Any, how: Begin, slot: Slot, learned: Learned, promoted: bool = False
) -> Generator[Any, Any, Begun]:
    """Begin a transaction.

    :param slot: the connection's: it knows the server's incarnation, if that cannot change under
        us, and the session, if that is the connection's own.
    :param promoted: the server is no standby, whatever it, or a pooler, said last.
    :raises psycopg.Error: it was not begun; the connection is idle, or lost.
    :raises ValueError: there is a key, which a read-only transaction cannot write.
    """
    pgconn = conn.pgconn
    statement, read_only = _statement(
        conn.isolation_level if how.isolation_level is None else how.isolation_level,
        conn.read_only if how.read_only is None else how.read_only,
        conn.deferrable if how.deferrable is None else how.deferrable,
    )
    if read_only:
        if how.key is not None:  # the connection's own: run() refuses its parameter
            raise ValueError(
                "an idempotency key has to be written, and the connection is read-only"
                " (conn.read_only): pass read_only=False, or leave out the Token"
            )
        results = yield from fly(pgconn, statement)
        if results[-1].status == FATAL_ERROR:
            check_session(pgconn, results)
            yield from _demand(pgconn, results)
        return Begun(NONE, True, slot.session)
    standby = not promoted and pgconn.parameter_status(b"in_hot_standby") == b"on"
    session, known = slot.session, slot.incarnation if slot.direct else None
    if known is not None and known.standby:
        known = None  # it is no life that anything is committed in
    mode = NONE if standby else how.mode
    found = Begun(mode, False, session)
    found.incarnation = known
    if standby:
        results = yield from answered(pgconn, statement + b";" + _CAN_WRITE)
        yield from _demand(pgconn, results)
        if value(results[1]) == "off":
            # It has been promoted. A session at rest does not hear of that before it asks.
            yield from fly(pgconn, b"ROLLBACK")
            return (yield from begin(conn, how, slot, learned, promoted=True))
        if how.key is not None:
            yield from fly(pgconn, b"ROLLBACK")
            raise e.ReadOnlySqlTransaction(
                "an idempotency key has to be written, and the server is a standby; nothing was"
                " done: repeat it on the primary (target_session_attrs=read-write finds it)"
            )
        return found
    asked = known is None and not learned.anonymous
    numbered = mode is not BY_TOKEN
    statements = [statement]
    if session is None:
        statements.append(_NAMES + b", " + _XID if numbered else _NAMES)
    elif numbered:
        statements.append(b"SELECT " + _XID)
    named = len(statements)  # where the next answer will be
    if asked:
        statements.append(question(pgconn.server_version))
    if mode is BY_TOKEN:
        found.token, found.key = tokens.fresh(), how.key
        if how.key is not None:
            statements.append(tokens.lookup(how.key))
        elif not learned.table:
            statements.append(tokens.CHECK)
    results = yield from fly(pgconn, b";".join(statements))
    if results[-1].status == FATAL_ERROR or pgconn.status != OK:
        check_session(pgconn, results)
        try:
            yield from _demand(pgconn, results)
        except e.Error as error:
            if asked and len(results) == named + 1 and refuses(error):
                learned.anonymous = True  # it was the question that failed
                return (yield from begin(conn, how, slot, learned, promoted))
            raise (mode is BY_TOKEN and tokens.unusable(error.sqlstate)) or error from None
    if found.token:
        learned.table = True
    if session is None:
        found.pid, found.begun = int(value(results[1]) or 0), int(value(results[1], 1) or 0)
    if numbered:
        found.xid = int(results[1].get_value(0, 0 if session is not None else 2))
    if asked:
        _, found.incarnation = answer(results[named])
    if found.key is not None:
        try:
            found.stored = tokens.stored(results[-1], found.key)
        except e.Error:
            yield from fly(pgconn, b"ROLLBACK")
            raise
    return found


def _demand(pgconn: Any, results: list[Any]) -> Generator[Any, Any, None]:
    """
    :raises psycopg.Error: one of the results is an error; the transaction has been rolled back.
    """
    if results[-1].status == FATAL_ERROR:
        error = e.error_from_result(results[-1], encoding=pgconn._encoding)
        yield from fly(pgconn, b"ROLLBACK")
        raise error


@lru_cache(maxsize=256)
def _statement(
    level: int | None, read_only: bool | None, deferrable: bool | None
) -> tuple[bytes, bool]:
    """BEGIN, and whether it is of a read-only transaction."""
    parts = [b"BEGIN"]
    if level is not None:
        name = IsolationLevel(level).name
        parts.append(b"ISOLATION LEVEL " + name.replace("_", " ").encode())
    if read_only is not None:
        parts.append(b"READ ONLY" if read_only else b"READ WRITE")
    if deferrable is not None:
        parts.append(b"DEFERRABLE" if deferrable else b"NOT DEFERRABLE")
    return b" ".join(parts), bool(read_only)
