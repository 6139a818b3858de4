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

from psycopg_pool.abc import CT

from ..runtime import threads as rt

if TYPE_CHECKING:
    from .pool import ConnectionPool


class Lease(Generic[CT]):
    """One loan of one connection, as a context manager."""

    __slots__ = ("_conn", "_pool", "_since", "_slot", "_timeout")

    # No __init__: `connection()` fills in what it knows, at three quarters of the price.
    _pool: ConnectionPool[CT]
    _timeout: float | None

    def __enter__(self) -> CT:
        pool = self._pool
        now = monotonic()
        if not pool._direct or self._timeout is not None:
            return self._enter()
        machine = pool._machine
        conn: Any = None
        waiter: Any = None
        try:
            with pool._mutex:
                machine.requests += 1
                slot = machine.take(now)
                if slot is None:
                    waiter = rt.Waiter(now, now + pool._patience)
                    machine.acquire(waiter, now)
                else:
                    conn = slot.conn
                    slot.conn = None
            if slot is None:
                slot, conn = pool._granted(waiter, pool._patience)
                if slot is None:
                    slot, conn = pool._obtain(pool._patience, waiter.deadline, None, None)
            elif now - slot.checked_at >= pool._peek_after and not pool._fit(slot, conn, now):
                slot, conn = pool._obtain(pool._patience, now + pool._patience, slot, conn)
            self._slot = slot
            self._since = slot.since
            self._conn = conn
            conn._pool = pool
            return conn  # type: ignore[no-any-return]
        except BaseException as ex:
            pool._not_lent(waiter, ex)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not a coroutine: in the common case there is nothing to wait for.
        pool = self._pool
        conn: Any = self._conn
        slot = self._slot
        since = self._since
        try:
            if (
                not pool._plain
                or conn.pgconn.transaction_status  # other than IDLE, which is 0
                or conn._pipeline is not None
                or conn._tpc is not None
                or exc is not None  # 25006 in autocommit: see `_leave`
                or slot.since != since  # returned before
            ):
                return pool._leave(conn, slot, since, exc_type, exc, traceback)
            now = monotonic()
            machine = pool._machine
            with pool._mutex:
                conn._pool = None
                slot.conn = conn
                waiter = machine.give(slot, now)
            if waiter is not None:
                waiter.wake()
            elif machine.effects:
                pool._perform()
        except BaseException:
            pool._not_returned(conn, slot, since)
            raise

    def _enter(self) -> CT:
        """Something stands in the way: a timeout, a check, somebody's own getconn."""
        pool = self._pool
        conn: Any = pool.getconn(self._timeout)
        self._slot = conn._slot
        self._since = conn._slot.since
        self._conn = conn
        if pool._own_enter:
            try:
                conn.__enter__()
            except BaseException:
                pool.putconn(conn)
                raise
        return conn  # type: ignore[no-any-return]


class BoundLease(Lease[CT]):
    """A loan with a deadline: always the long way."""

    __slots__ = ("_bound", "_deadline", "_until")

    _deadline: float  # seconds, as it was given
    _until: float

    def __enter__(self) -> CT:
        pool = self._pool
        timeout = pool.timeout if self._timeout is None else self._timeout
        self._timeout = min(timeout, self._until - monotonic())
        conn = self._enter()
        self._bound = pool._bind(self._slot, self._until)
        return conn

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return self._pool._leave_bound(
            self._conn, self._bound, self._deadline, exc_type, exc, traceback
        )
