"""A round trip without a blocked thread, and the reading of a connection's last words.

``send`` puts an empty query on the wire, ``collect`` reads what came back; between the two
nobody waits on this connection. Both worlds use the same code. The caller owns the connection
(its slot says so) and holds ``conn.lock`` from ``send`` until the answer is in, so that a
borrower who still uses a connection it has returned cannot mix its bytes with ours.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus

from .core.verdict import Cause
from .text import LONGEST_TEXT, printable
from .watch import DEAD, MOST_NEWS, MOST_VERDICTS, Link

_OK = ConnStatus.OK
_EMPTY_QUERY = ExecStatus.EMPTY_QUERY
_FATAL_ERROR = ExecStatus.FATAL_ERROR
_IDLE = TransactionStatus.IDLE

# What a dying connection may still hold: the answer to a ping, a reason, a loss.
MOST_RESULTS = 4

# More bytes of a message than are shown of it.
MOST_BYTES = 4 * (LONGEST_TEXT + 1)

# Reads until the end must have been met: it has been seen already, or libpq has given up.
MOST_READS = 16


class Answer(Enum):
    NONE_YET = "none yet"
    PONG = "pong"
    DEAD = "dead"


def send(conn: Any, link: Link) -> bool:
    """Send a ping; False if libpq says that the connection is over."""
    pgconn = conn.pgconn
    _divert(pgconn, link)
    link.verdicts.clear()
    link.pinging = True
    try:
        # What came unasked is read first: after the query it would be taken for the answer.
        pgconn.consume_input()
        pgconn.is_busy()
        pgconn.send_query(b"")
        pgconn.flush()
        link.listen(True)
    except (psycopg.Error, OSError):
        return False
    return True


def collect(conn: Any, link: Link) -> Answer:
    """Read what has arrived since the ping was sent."""
    pgconn = conn.pgconn
    try:
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                break
            link.answered |= result.status == _EMPTY_QUERY
            if result.status == _FATAL_ERROR:
                note(link, result)
        else:
            # An end that came together with data has been announced already, and is not again.
            return Answer.DEAD if link.peek() == DEAD else Answer.NONE_YET
    except psycopg.Error:
        return Answer.DEAD
    # Any other answer was not ours, and ours would be taken for that of the next borrower.
    if not link.answered or pgconn.status != _OK or pgconn.transaction_status != _IDLE:
        return Answer.DEAD
    while (notify := pgconn.notifies()) is not None:
        _keep(link.news, notify, MOST_NEWS)
    _finish(pgconn, link)
    link.listen(False)
    return Answer.PONG


def pass_news(conn: Any, link: Link) -> None:
    """Hand over the notifications that pings have read, in the borrower's thread."""
    news, link.news = link.news, []
    handler = conn.pgconn.notify_handler
    for notify in news:
        if handler:
            handler(notify)


def last_words(conn: Any, link: Link) -> Cause:
    """Read why a dead connection ended. Nobody uses it any more.

    A reason that came together with the answer to the last ping has been read already, and counts.
    """
    ending = link.ending()
    pgconn = conn.pgconn
    if not link.pinging:
        _divert(pgconn, link)
    reading = ending != "error"  # a peer that has not hung up might talk for ever
    for _ in range(MOST_READS):
        if not reading:
            break
        # The first read may succeed although the end has been seen: it brings the reason. And
        # one that fails may have brought it: what has been read is still there to be parsed.
        try:
            pgconn.consume_input()
        except psycopg.Error:
            reading = False
        try:
            for _ in range(MOST_RESULTS):  # a broken connection invents results without end
                if pgconn.is_busy() or (result := pgconn.get_result()) is None:
                    break
                if result.status == _FATAL_ERROR:
                    note(link, result)
        except psycopg.Error:
            reading = False
    _finish(pgconn, link)
    return _cause(link, ending)


def give_up(conn: Any, link: Link) -> None:
    """Stop waiting for the answer to a ping: the connection is to be closed."""
    if link.pinging:
        _finish(conn.pgconn, link)


def _divert(pgconn: Any, link: Link) -> None:
    """Let notices come to us: the user's handlers must not run in the pool's background."""
    link.saved_handler = pgconn.notice_handler
    link.answered = False
    pgconn.notice_handler = lambda result: note(link, result)


def _finish(pgconn: Any, link: Link) -> None:
    pgconn.notice_handler = link.saved_handler
    link.saved_handler = None
    link.pinging = False


def note(link: Link, result: Any) -> None:
    """Keep what a server said: it may be why the connection ends."""

    def field(which: DiagnosticField) -> str:
        # Server text is hostile: it can come from anybody on the path, before TLS.
        raw = result.error_field(which)
        return printable(raw[:MOST_BYTES].decode("utf-8", "replace")) if raw else ""

    severity = field(DiagnosticField.SEVERITY_NONLOCALIZED) or field(DiagnosticField.SEVERITY)
    verdict = severity, field(DiagnosticField.SQLSTATE), field(DiagnosticField.MESSAGE_PRIMARY)
    _keep(link.verdicts, verdict, MOST_VERDICTS)


def _keep(kept: list[Any], item: Any, most: int) -> None:
    """Keep the last ones: a server may send without end."""
    kept.append(item)
    if len(kept) > most:
        del kept[0]


def _cause(link: Link, ending: str) -> Cause:
    """The last word that explains an end: a FATAL, or a crash's warning (57P01, 57P02)."""
    for severity, sqlstate, text in reversed(link.verdicts):
        if severity in ("FATAL", "PANIC", "ERROR") or sqlstate.startswith("57P"):
            return Cause("FATAL", sqlstate, text)
    return Cause(ending)
