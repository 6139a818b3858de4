# Generated from src/everpool/_async/pool.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The connection pool people call: psycopg_pool's class, on everpool's engine."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_origin
from warnings import warn
from weakref import WeakSet

import psycopg_pool
from psycopg import Connection
from psycopg_pool.abc import (
    CT,
    ConnectFailedCB,
    ConnectionCB,
    ConninfoParam,
    KwargsParam,
)

from .. import fork
from ..core import policy as defaults
from ..core.environment import Environment
from ..core.learn import checked
from ..core.policy import build, check_sizes
from ..core.slot import State
from ..errors import PoolClosed, SettingWarning, refused
from ..runtime import threads as rt
from ..subscriptions import Hub
from .lease import BoundLease, Lease
from .working import Judge, Working

if TYPE_CHECKING:
    from ..environments import Path
    from ..work.chaos import Chaos

logger = logging.getLogger("everpool")

_new = object.__new__

# A pool that is being closed waits so long for its listeners to hear of it.
LISTENERS_GRACE = 1.0


def _facts(environment: Path) -> tuple[Environment, ...]:
    if environment is None:
        return ()
    from ..environments import resolve  # the catalogue takes its time to load

    return resolve(environment)


class _Setting:
    """A setting that may be changed while the pool runs, as an attribute, as in psycopg_pool."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, pool: Any, owner: type | None = None) -> Any:
        return self if pool is None else getattr(pool._policy, self.name)

    def __set__(self, pool: Any, value: Any) -> None:
        pool._set(self.name, value)


class _View:
    """A name inside psycopg_pool that others read; what its base class assigns is dropped."""

    def __init__(self, read: Any) -> None:
        self.read = read

    def __get__(self, pool: Any, owner: type | None = None) -> Any:
        return self if pool is None else self.read(pool)

    def __set__(self, pool: Any, value: Any) -> None:
        pass


class ConnectionPool(Working[CT], psycopg_pool.ConnectionPool[CT]):
    """A connection pool that takes it for granted that any connection can be cut at any moment.

    All parameters of `psycopg_pool.ConnectionPool` are honoured, with the same defaults.
    These are everpool's own; times are seconds, ``inf`` switches a defence off:

    :param keepalive: ping each idle connection after so long a silence. Default 45; must be
        less than the shortest idle cut on the way to the database.
    :param verify_after: before lending a connection not heard from for so long, ping it.
    :param peek_after: before lending a connection whose socket has not been looked at for so
        long, look (no round trip).
    :param watch: replace connections as soon as they hang up, not when they are wanted.
    :param environment: what is on the path to the database: a name out of `everpool.environments`
        (``everpool environments`` lists them), an `Environment` of your own, or several. Settings
        that you have not given follow from it; ``pool.policy.explain()`` says how. One that you
        have given and that contradicts it is kept, with a `SettingWarning`. Name all that you
        know of: what is left out counts as harmless.
    :param learn: infer from the deaths of connections what cuts them, and follow it with
        ``keepalive`` and ``max_lifetime`` where you have not given them. False does not; what
        `findings` of another pool returned begins with what that one knew; None, with nothing.
    :param max_connecting: connection attempts in flight at once.
    :param connect_timeout: limit of one attempt, for each host, where neither the conninfo nor
        the environment sets ``connect_timeout``. Default 10.
    :param callback_timeout: limit of one ``configure`` or ``reset`` callback, and of the
        rollback of a connection returned in a transaction.
    :param tcp_settings: add ``keepalives_idle=30 keepalives_interval=10 keepalives_count=3
        tcp_user_timeout=30000`` to each connect over TCP, except those that conninfo,
        environment or service file set.
    :param leak_after: tell (once) of a connection that has been lent for so long. Default 600.
    :param deadline: end the work of a borrower that is not over so long after it asked for the
        connection; see `connection`. Default: never.
    :param watch_queries: when a query in flight has heard nothing for so long, ask the server, on
        one connection beside the pool's, whether anybody still works on it, and end it if not. Such
        a connection does not count towards ``max_size``. Default: never.
    :param when_down: what callers get while nothing can be lent because the database cannot be
        reached: ``"wait"`` until their timeout (the default), or ``"fail"``, `PoolUnavailable`
        with the cause, as soon as an attempt to connect has failed.
    :param judge: ``judge(failure, verdict)``, called with each `Failure` of a transaction of
        `run` or `attempts` and the `Verdict` that the pool came to. What it returns, usually
        ``verdict.replace(repeat=…)``, is followed; None leaves it so. What became of the
        transaction is no matter of opinion, and one in doubt is never repeated.
    :param chaos: a `Chaos`, for tests: the pool cuts its own connections.

    :raises ValueError: a setting is out of range, or two explicit ones contradict each other.
    :raises TypeError: a setting is of the wrong kind, or unknown.
    """

    timeout = _Setting()
    max_waiting = _Setting()
    max_lifetime = _Setting()
    max_idle = _Setting()
    reconnect_timeout = _Setting()
    num_workers = _Setting()
    deadline = _Setting()

    # What others read of psycopg_pool's inside, as views.
    _pool = _View(lambda pool: deque(slot.conn for slot in pool._machine.idle))
    _waiting = _View(lambda pool: deque(pool._machine.queue.waiting()))
    _nconns = _View(lambda pool: pool._machine.counted)

    _pooled = True

    def __init__(
        self,
        conninfo: ConninfoParam = "",
        *,
        connection_class: type[CT] = cast(type[CT], Connection),
        kwargs: KwargsParam | None = None,
        min_size: int = defaults.MIN_SIZE,
        max_size: int | None = None,
        open: bool | None = None,
        configure: ConnectionCB[CT] | None = None,
        check: ConnectionCB[CT] | None = None,
        reset: ConnectionCB[CT] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = defaults.TIMEOUT,
        max_waiting: int = defaults.MAX_WAITING,
        max_lifetime: float = defaults.MAX_LIFETIME,
        max_idle: float = defaults.MAX_IDLE,
        reconnect_timeout: float = defaults.RECONNECT_TIMEOUT,
        reconnect_failed: ConnectFailedCB | None = None,
        num_workers: int = defaults.NUM_WORKERS,
        keepalive: float = defaults.KEEPALIVE,
        verify_after: float = defaults.VERIFY_AFTER,
        peek_after: float = defaults.PEEK_AFTER,
        watch: bool = True,
        learn: bool | Mapping[str, Any] | None = True,
        environment: Path = None,
        max_connecting: int = defaults.MAX_CONNECTING,
        connect_timeout: float = defaults.CONNECT_TIMEOUT,
        callback_timeout: float = defaults.CALLBACK_TIMEOUT,
        tcp_settings: bool = True,
        leak_after: float = defaults.LEAK_AFTER,
        deadline: float = defaults.DEADLINE,
        watch_queries: float = defaults.WATCH_QUERIES,
        when_down: Literal["wait", "fail"] = "wait",
        judge: Judge | None = None,
        chaos: Chaos | None = None,
    ) -> None:
        self._closed = True
        self._judge = judge
        self._chaos = chaos
        self._lessons = None
        if learn is None:
            learn = True  # nothing was found yet
        if not isinstance(learn, bool):
            self._lessons = self._usable_findings(learn)
        policy = build(
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            reconnect_timeout=reconnect_timeout,
            num_workers=num_workers,
            keepalive=keepalive,
            verify_after=verify_after,
            peek_after=peek_after,
            watch=watch,
            learn=learn is not False,
            max_connecting=max_connecting,
            connect_timeout=connect_timeout,
            callback_timeout=callback_timeout,
            tcp_settings=tcp_settings,
            leak_after=leak_after,
            deadline=deadline,
            watch_queries=watch_queries,
            when_down=when_down,
            pooled=self._pooled,
            environment=_facts(environment),
        )
        for contradiction in policy.contradictions:
            warn(contradiction, SettingWarning, stacklevel=2 if self._pooled else 3)
        self._hinted = environment is not None
        self._assemble(policy)
        super().__init__(
            conninfo,
            connection_class=connection_class,
            kwargs=kwargs,
            min_size=policy.min_size,
            max_size=policy.max_size,
            open=False,
            configure=configure,
            check=check,
            reset=reset,
            name=name,
            close_returns=close_returns,
            timeout=policy.timeout,
            max_waiting=policy.max_waiting,
            max_lifetime=policy.max_lifetime,
            max_idle=policy.max_idle,
            reconnect_timeout=policy.reconnect_timeout,
            reconnect_failed=reconnect_failed,
            num_workers=policy.num_workers,
        )
        self._reconnect_failed = reconnect_failed
        self._hub = Hub(self.name)
        self._ears: WeakSet[rt.Ear] = WeakSet()  # of those who listen for notifications
        self._forgotten: dict[str, int] = {}  # what `pop_stats` has told already
        self._read_fast_paths()
        if open is None:
            open = self._open_implicit = True
        if open:
            self._open()

    def _usable_findings(self, findings: Any) -> Mapping[str, Any] | None:
        """Findings that can be used; a pool must not fail for the lack of them."""
        try:
            return checked(findings)
        except ValueError as ex:
            warn(f"learn: {ex}", SettingWarning, stacklevel=3 if self._pooled else 4)
            return None

    def __del__(self) -> None:
        background = getattr(self, "_background", None)
        if background is not None:
            self._background = None
            background.drop()
            self._hub.dismiss()

    def _set(self, name: str, value: Any) -> None:
        """Change one setting."""
        if not hasattr(self, "_hub"):
            return  # psycopg_pool's own constructor sets what the policy has already
        self._change({name: value}, stacklevel=4)
        self._read_fast_paths()

    def _change(self, values: dict[str, Any], stacklevel: int) -> None:
        before = self._policy.contradictions
        self._policy = policy = self._policy.changed(**values)
        for contradiction in policy.contradictions:
            if contradiction not in before:
                warn(contradiction, SettingWarning, stacklevel=stacklevel)
        with self._mutex:
            self._machine.change(policy, monotonic())
        self._perform()

    def _read_fast_paths(self) -> None:
        """Find out what may be skipped when a connection is lent and returned.

        One at a time: what has been read must not be older than what it is written over.
        """
        with self._reading:
            stock, connection = ConnectionPool, Connection
            chosen: Any = get_origin(self.connection_class) or self.connection_class
            doors = (type(self).getconn, type(self).putconn) == (stock.getconn, stock.putconn)
            doors = doors and not {"getconn", "putconn"} & vars(self).keys()
            self._own_doors = not doors
            self._own_enter = chosen.__enter__ is not connection.__enter__
            plain_exit = (chosen.__exit__, chosen.commit, chosen.rollback) == (
                connection.__exit__,
                connection.commit,
                connection.rollback,
            )
            in_use = not self._closed and not self._open_implicit and self._policy.timeout > 0
            in_use = in_use and not self._forked  # the first use opens it anew
            in_use = in_use and self._machine.paused_at is None and self._around is None
            self._loans = self._hub.wants_loans
            doors = doors and not self._loans
            self._limited = self._policy.deadline < inf
            # What takes part in every loan and every return.
            extra = self._limited or self._chaos is not None
            ordinary = not extra and self._check is None and not self._own_enter
            self._direct = in_use and doors and ordinary
            self._plain = doors and plain_exit and self._reset is None and not extra
            self._peek_after = self._policy.peek_after
            self._patience = self._policy.timeout

    # -- opening and closing ------------------------------------------------------------------

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the pool: begin to connect, and serve.

        :param wait: wait for ``min_size`` connections, at most ``timeout`` seconds; see `wait`.
        :raises PoolClosed: the pool has been closed; a closed pool cannot be opened again.
        """
        with self._lock:
            self._open()
        if wait:
            self.wait(timeout=timeout)

    def _open(self) -> None:
        if not self._closed:
            return
        self._check_open()
        self._closed = False
        self._opened = True
        self._start()
        fork.register(self)
        self._read_fast_paths()

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool: refuse those who wait and those who come, close what rests.

        Connections now lent are closed when they are returned.

        :param timeout: seconds to wait for the background to end.
        """
        if self._closed:
            return
        self._closed = True
        self._direct = False
        stopping = self._stop()
        with self._mutex:
            ears = list(self._ears)
        for ear in ears:
            ear.ring()
        listeners = self._hub.dismiss()
        rt.finish(stopping, timeout)
        rt.linger(listeners, min(timeout, LISTENERS_GRACE))

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until ``min_size`` connections are ready.

        :raises PoolTimeout: they are not after ``timeout`` seconds, or cannot become so
            (`PoolUnavailable`, at once); the pool is closed then.
        """
        self._usable()
        now = monotonic()
        waiter = rt.Waiter(now, now + timeout)
        try:
            with self._mutex:
                self._machine.wait_until_full(waiter, now)
            self._perform()
            waiter.wait()
        finally:
            with self._mutex:
                self._machine.lose_hope(waiter)
        refusal = waiter.refusal
        if refusal is None and waiter.gone:
            logger.info("pool %r is ready to use", self.name)
            return
        if refusal is None:
            refusal = self._machine.late(monotonic())
        self.close()
        if refusal.code == "timeout":
            message = f"pool initialization incomplete after {timeout} sec: {refusal.text}"
            raise refused("timeout", message, refusal.retry_after, refusal.text)
        raise self._refusal(refusal, timeout)

    def __enter__(self) -> Self:
        self._open_implicit = False
        self.open()
        self._read_fast_paths()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    # -- lending ------------------------------------------------------------------------------

    def connection(  # type: ignore[override]
        self, timeout: float | None = None, *, deadline: float | None = None
    ) -> AbstractContextManager[CT]:
        """Context manager to borrow a connection.

        As in psycopg_pool: wait at most ``timeout`` seconds (default: the pool's); on leaving,
        commit, or roll back after an error, and return the connection.

        All that is raised when none can be had is `Refused`, and tells when asking again makes
        sense.

        :param deadline: seconds from this call until all must be over: the wait for the
            connection, the block and its commit (default: the pool's). Then a query in flight
            is cancelled; 0.25 s later at most, at once if no query is in flight, the
            connection is shut down and its place is free. That ends what the block waits for on
            its connection. What else it does is not interrupted, and not committed.
        :raises PoolTimeout: no connection could be had in time; the message says why.
        :raises PoolSaturated: the queue is so long that it could not be had in time.
        :raises PoolUnavailable: the database rejects the pool's connections, or cannot be
            reached (under ``when_down="fail"``).
        :raises TooManyRequests: ``max_waiting`` callers are waiting already.
        :raises PoolClosed: the pool is not open.
        :raises DeadlineExceeded: on leaving the block, also if it caught the error: it was not
            over in time. ``outcome`` tells what became of its transaction.
        """
        if deadline is not None or self._limited:
            return self._bound_lease(timeout, deadline)
        lease = _new(Lease)
        lease._pool = self
        lease._timeout = timeout
        return lease

    def _bound_lease(
        self, timeout: float | None, deadline: float | None
    ) -> AbstractContextManager[CT]:
        lease = _new(BoundLease)
        lease._pool = self
        lease._timeout = timeout
        lease._deadline = self._policy.deadline if deadline is None else deadline
        lease._until = monotonic() + lease._deadline
        return lease

    if TYPE_CHECKING:
        # Subclasses written for psycopg_pool override it without ``deadline``, and may.
        def getconn(self, timeout: float | None = None, *_: Any, **deadline: Any) -> CT: ...

    else:

        def getconn(self, timeout: float | None = None, *, deadline: float | None = None) -> CT:
            """Borrow a connection; it must be returned with `putconn`. Raises as `connection`.

            :param deadline: as for `connection`; but nobody raises DeadlineExceeded: the calls on
                the connection fail.
            """
            return self._borrow(timeout, deadline)

    def _borrow(self, timeout: float | None, deadline: float | None) -> CT:
        if deadline is None:
            deadline = self._policy.deadline
        until = monotonic() + deadline
        around = self._around
        if around is None:
            return self._lend(timeout, until)
        conn: Any = None
        try:
            with around() as told:
                conn = self._lend(timeout, until)
                told(conn._slot.number)
        except BaseException:
            if conn is not None:
                self._give_back(conn, conn._slot)
            raise
        return cast(CT, conn)

    def _lend(self, timeout: float | None, until: float = inf, *, first: bool = False) -> CT:
        """Lend a connection whose work must be over at ``until``, a time of `time.monotonic`.

        :param first: before all others who wait.
        """
        self._usable()
        self._machine.requests += 1
        if timeout is None:
            timeout = self._policy.timeout
        asked_at = monotonic()
        timeout = min(timeout, until - asked_at)
        if timeout <= 0:
            raise self._too_late(timeout)
        slot, conn = self._obtain(timeout, asked_at + timeout, None, None, first=first)
        conn._pool = self
        if until < inf:
            self._bind(slot, until)
        if self._loans:
            with self._mutex:
                self._machine.lent(slot, asked_at, slot.since)
            self._perform()
        return cast(CT, conn)

    def putconn(self, conn: CT) -> None:
        """Return a connection borrowed with `getconn`.

        :raises ValueError: it does not belong to this pool, or has been returned before.
        """
        self._check_pool_putconn(conn)
        self._give_back(conn, conn._slot)  # type: ignore[attr-defined]

    def _usable(self) -> None:
        """Check that the pool is open, and open it in a forked child.

        :raises PoolClosed: the pool is not open.
        :raises RuntimeError: it belongs to another event loop.
        """
        try:
            self._check_open_getconn()
        except PoolClosed as ex:
            raise refused("closed", str(ex), 0.0, str(ex)) from None
        if self._forked:
            with self._lock:
                if self._forked:
                    self._start()
        if not self._direct:
            self._read_fast_paths()

    # -- the owner's orders -------------------------------------------------------------------

    def check(self) -> None:
        """Test all connections at rest now, and replace those that fail."""
        self._usable()
        now = monotonic()
        waiter = rt.Waiter(now, inf)
        with self._mutex:
            self._machine.wait_until_tested(waiter, now)
        self._perform()
        waiter.wait()

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the size of the pool.

        :raises ValueError: the sizes are no possible range.
        """
        if max_size is None:
            max_size = min_size
        check_sizes(min_size, max_size, self._pooled)
        logger.info("resizing %r to min_size=%s max_size=%s", self.name, min_size, max_size)
        self._min_size, self._max_size = min_size, max_size
        self._change({"min_size": min_size, "max_size": max_size}, stacklevel=3)

    def drain(self) -> None:
        """Replace all connections: those at rest now, those lent when they are returned."""
        with self._mutex:
            self._machine.drain(monotonic())
        self._perform()

    def pause(self) -> None:
        """Lend nothing until `resume`: who comes waits, within his timeout; what returns rests.

        For work on the database that must not be disturbed, and cannot disturb.
        """
        with self._mutex:
            self._machine.pause(monotonic())
        self._read_fast_paths()
        self._perform()

    def resume(self) -> None:
        """End a `pause`."""
        with self._mutex:
            self._machine.resume(monotonic())
        self._read_fast_paths()
        self._perform()

    # -- fork ---------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """In a forked child: bury what was inherited; start anew on first use."""
        if self._background is None:
            return
        sockets = []
        for slot in self._machine.slots:
            conn = slot.conn or (slot.link and slot.link.anchor and slot.link.anchor())
            if conn and not conn.closed:
                sockets.append(conn.pgconn.socket)
            slot.state, slot.since = State.GONE, -inf  # what the child holds it only closes
            if slot.link:
                slot.link.anchor = None
        side = self._machine.side  # others that share it bury it too
        if side is not None and side.conn is not None and not side.conn.closed:
            sockets.append(side.conn.pgconn.socket)
        fork.bury(self._watch, sockets)
        self._lessons = self._findings()  # without the lock: it may be held by nobody
        self._assemble(self._policy)
        parents, self._hub = self._hub, Hub(self.name)
        self._hub.inherit(parents)
        self._forgotten = {}
        self._direct = False
        self._forked = True
        self._lock = type(self._lock)()  # another thread may have held it
