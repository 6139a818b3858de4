# Generated from src/everpool/_async/lease.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The hot path: ``with pool.connection() as conn``.

A class and not a generator, and the core's doors called directly: this is where a pool earns
its keep. What is not the common case leaves for the pool's own methods at once.
"""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

from psycopg.pq import TransactionStatus
from psycopg_pool.abc import CT

if TYPE_CHECKING:
    from ..core.slot import Slot
    from .pool import ConnectionPool

IDLE = TransactionStatus.IDLE


class Lease(Generic[CT]):
    """One loan of one connection, as a context manager."""

    __slots__ = ("_conn", "_pool", "_since", "_slot", "_timeout")

    def __init__(self, pool: ConnectionPool[CT], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout

    def __enter__(self) -> CT:
        pool = self._pool
        now = monotonic()
        conn: Any
        if not pool._direct:
            return self._enter()
        machine = pool._machine
        conn = None
        try:
            with pool._mutex:
                machine.requests += 1
                slot = machine.take(now)
                if slot is not None:
                    conn = slot.conn
                    slot.conn = None
        except BaseException:
            pool._recover()
            raise
        if slot is None:
            return self._enter_later(None, None, now)
        if now - slot.checked_at >= pool._peek_after:
            return self._enter_later(slot, conn, now)
        self._slot = slot
        self._since = now
        self._conn = conn
        conn._pool = pool
        return conn  # type: ignore[no-any-return]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pool = self._pool
        conn: Any = self._conn
        slot = self._slot
        if (
            not pool._plain
            or conn.pgconn.transaction_status != IDLE
            or conn._pipeline is not None
            or conn._tpc is not None
            or conn._pool is not pool
            or slot.since != self._since
        ):
            return pool._leave(conn, slot, self._since, exc_type, exc, traceback)
        now = monotonic()
        machine = pool._machine
        try:
            with pool._mutex:
                conn._pool = None
                slot.conn = conn
                waiter = machine.give(slot, now)
        except BaseException:
            pool._recover()
            raise
        if waiter is not None:
            waiter.wake()
        elif machine.effects:
            pool._perform()
        return None

    def _enter(self) -> CT:
        """The pool has something of its own in the way: a check, somebody's own getconn."""
        pool = self._pool
        conn: Any = pool.getconn(self._timeout)
        self._entered(conn, conn._slot)
        if pool._own_enter:
            try:
                conn.__enter__()
            except BaseException:
                pool.putconn(conn)
                raise
        return conn  # type: ignore[no-any-return]

    def _enter_later(self, slot: Slot | None, conn: Any, now: float) -> CT:
        """Nothing rests, or what rests must be looked at first."""
        slot, conn = self._pool._obtain(self._timeout, slot, conn, now)
        self._entered(conn, slot)
        return conn  # type: ignore[no-any-return]

    def _entered(self, conn: Any, slot: Slot) -> None:
        self._slot = slot
        self._since = slot.since
        self._conn = conn
