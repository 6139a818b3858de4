"""One connection of the pool, while it listens for notifications.

It never leaves autocommit, because what is sent here goes past psycopg's cursors; so there is
nothing to restore but the channels and the handlers.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import generators, sql
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from .. import ping
from ..clock import time_awake_or_not
from ..core.verdict import Cause
from ..errors import PoolClosed, PoolTimeout, TooManyRequests
from ..inbox import Inbox
from ..work.failing import brief
from .engine import IDLE

ACTIVE = TransactionStatus.ACTIVE

# For a second connection, by which a pooler's mode is found out.
PROOF_PATIENCE = 1.0

NEEDS_A_SESSION = (
    "LISTEN needs a session of its own: the server answers, but notifications do not come"
    " through. That is a pooler in transaction mode (PgBouncer: pool_mode). Listen with a pool"
    " that connects to the server itself, or to the pooler in session mode"
)


class NoAnswer(Exception):
    """The server does not answer, or its notification does not come, within the limit."""


# What a connection may end with.
FAILURES = (psycopg.Error, OSError, NoAnswer)


class AsyncListening:
    """A borrowed connection, from LISTEN to its return or its end.

    :ivar proven: notifications come through: no pooler is on the way that would keep them.
    """

    def __init__(
        self, pool: Any, conn: Any, channels: tuple[str, ...], private: str, limit: float, ear: Any
    ) -> None:
        self._pool = pool
        self._conn = conn
        self._slot = slot = conn._slot
        self._limit = limit  # seconds that an answer may take
        self._ear = ear
        self._inbox = Inbox(channels, private)
        slot.leaked = slot.since  # it is meant to be held for long
        self._before = self._inbox.attach(conn, slot.link)
        self.proven = False

    # -- hearing ------------------------------------------------------------------------------

    async def begin(self) -> None:
        """LISTEN, and hear of a notification of our own.

        :raises FAILURES: also `psycopg.NotSupportedError`, behind a pooler in transaction mode.
        """
        conn, inbox = self._conn, self._inbox
        listen = "".join(f"LISTEN {name}; " for name in self._names(inbox.channels))
        text = f"SELECT pg_listening_channels(); {listen}LISTEN {inbox.private}; {inbox.expect()}"
        rows = (await self._query(conn, text, self._limit))[0]
        encoding = conn.info.encoding
        for row in range(rows.ntuples):
            inbox.others.add((rows.get_value(row, 0) or b"").decode(encoding))
        await self._answered()

    async def beat(self) -> None:
        """Prove the way there and back: all that was sent before this call has come after it.

        :raises FAILURES: as `begin`.
        """
        await self._query(self._conn, self._inbox.expect(), self._limit)
        await self._answered()

    async def wait(self, timeout: float) -> None:
        """Take in what has arrived, or what arrives within ``timeout`` seconds.

        :raises FAILURES: the connection has ended. What came with that has been taken in.
        """
        self._read()
        if not self._inbox.notes and timeout > 0:
            await self._ear.listen(self._conn.pgconn.socket, timeout)
            self._read()

    def collect(self) -> list[psycopg.Notify]:
        """What has been taken in since the last call."""
        notes, self._inbox.notes = self._inbox.notes, []
        return notes

    def _read(self) -> None:
        """Take in what has arrived. The last of it may come together with the end."""
        pgconn = self._conn.pgconn
        try:
            pgconn.consume_input()
        finally:
            while (note := pgconn.notifies()) is not None:
                pgconn.notify_handler(note)

    async def _answered(self) -> None:
        """Wait for our own notification; behind a pooler, for one that another has sent."""
        if not await self._arrives():
            if self.proven:
                raise NoAnswer
            raise psycopg.NotSupportedError(NEEDS_A_SESSION)
        # A pooler gives its clients process numbers of its own. In transaction mode it may well
        # pass what we send to ourselves to the very server connection that listens, and its
        # answer to us: that proves nothing. What another sends while we rest does.
        if self._inbox.sender == self._conn.pgconn.backend_pid:
            self.proven = True
        if self.proven or self._ear.rung or not await self._notified_by_another():
            return
        if not await self._arrives():
            raise psycopg.NotSupportedError(NEEDS_A_SESSION)
        self.proven = True

    async def _arrives(self) -> bool:
        """Wait for the notification that is expected, as long as an answer may take."""
        deadline = time_awake_or_not() + self._limit
        while True:
            self._read()
            left = deadline - time_awake_or_not()
            if self._inbox.sender is not None or self._ear.rung:
                return True
            if left <= 0:
                return False
            await self._ear.listen(self._conn.pgconn.socket, left)

    async def _notified_by_another(self) -> bool:
        """Send the notification that is expected on another connection; False if there is none."""
        pool = self._pool
        if pool._policy.max_size == 1:
            return False
        try:
            other = await pool.getconn(timeout=PROOF_PATIENCE)
        except (PoolTimeout, TooManyRequests, PoolClosed):
            return False
        try:
            await self._query(other, self._inbox.expect(), self._limit)
            return True
        except FAILURES:
            return False
        finally:
            await pool.putconn(other)

    async def _query(self, conn: Any, text: str, limit: float) -> list[Any]:
        """Send statements in one message, past psycopg's cursors, and return their results.

        :raises NoAnswer: there is none within ``limit`` seconds.
        """
        pgconn = conn.pgconn
        async with conn.lock:
            pgconn.send_query(text.encode(conn.info.encoding))
            try:
                results: list[Any] = await conn.wait(generators.execute(pgconn), timeout=limit)
            except psycopg.Error:
                if pgconn.transaction_status == ACTIVE:
                    raise NoAnswer from None
                raise
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                ping.note(conn._slot.link, result)
                raise error_from_result(result, encoding=conn.info.encoding)
        return results

    def _names(self, channels: tuple[str, ...]) -> list[str]:
        return [sql.Identifier(name).as_string(self._conn) for name in channels]

    # -- ending -------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self._conn is None

    @property
    def idle(self) -> bool:
        """Whether the server has answered all, and the connection is there."""
        return self._conn is not None and self._conn.pgconn.transaction_status == IDLE

    def give_up(self, ex: BaseException) -> str:
        """The connection is of no use any more; return why, in one line."""
        conn, slot = self._conn, self._slot
        pgconn, link = conn.pgconn, slot.link
        self._detach()
        why = "given up by a listener"
        if isinstance(ex, NoAnswer):
            why = f"no answer to a listener within {self._limit:g} s"
            slot.cause = Cause("silence")
            link.abort()
            try:
                pgconn.consume_input()  # libpq notices
            except psycopg.Error:
                pass
        elif pgconn.status != ConnStatus.OK and link is not None:
            with link.mutex:
                if slot.cause is None:
                    slot.cause = ping.last_words(conn, link)
            why = str(slot.cause)
        elif isinstance(ex, psycopg.Error):
            why = brief(ex)
        self._pool._discard(slot, conn, why, returned=True)
        return why

    async def give_back(self) -> None:
        """Return the connection as it was, within the time that a ping may take."""
        conn, pool, inbox = self._conn, self._pool, self._inbox
        if conn is None:
            return
        try:
            if not pool._closed:
                mine = tuple(name for name in inbox.channels if name not in inbox.others)
                names = [*self._names(mine), inbox.private]
                text = "; ".join(f"UNLISTEN {name}" for name in names)
                await self._query(conn, text, pool._machine.roundtrip.limit)
        except FAILURES as ex:
            self.give_up(ex)
        except BaseException as ex:
            self.give_up(ex)
            raise
        else:
            self._detach()
            await pool.putconn(conn)

    def _detach(self) -> None:
        pgconn = self._conn.pgconn
        pgconn.notify_handler, pgconn.notice_handler = self._before
        self._conn = None
