# Generated from src/everpool/_async/reporting.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""What a pool tells of itself: to listeners, to tracers, and to whoever asks how it is.

Nothing here lends, waits, or asks the database.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from math import inf
from time import monotonic, time
from typing import Any

import psycopg_pool
from psycopg_pool.abc import CT

from ..core.events import Happening
from ..core.health import Condition, Health, Vitals, judge
from ..core.policy import Policy
from ..snapshot import Snapshot
from ..subscriptions import Listener, Subscription, is_async
from .lending import Lending

Around = Callable[[], AbstractContextManager[Callable[[int], None]]]
"""See `ConnectionPool.trace`."""

# The names of the statistics.
_KEYS = psycopg_pool.ConnectionPool


class Reporting(Lending[CT]):
    _COUNTERS = (
        _KEYS._REQUESTS_NUM,
        _KEYS._REQUESTS_QUEUED,
        _KEYS._REQUESTS_WAIT_MS,
        _KEYS._REQUESTS_ERRORS,
        _KEYS._USAGE_MS,
        _KEYS._RETURNS_BAD,
        _KEYS._CONNECTIONS_NUM,
        _KEYS._CONNECTIONS_MS,
        _KEYS._CONNECTIONS_ERRORS,
        _KEYS._CONNECTIONS_LOST,
    )

    _around: Around | None = None
    _forgotten: dict[str, int]  # what `pop_stats` has told already
    _opened: bool

    def _read_fast_paths(self) -> None:
        """Find out what may be skipped when a connection is lent and returned."""
        raise NotImplementedError

    def subscribe(self, listener: Listener, *kinds: type[Happening]) -> Subscription:
        """Have happenings told, in their order, to a function that takes one.

        A plain function is called in a thread of its own, a coroutine function (of an async
        pool) in the event loop. The pool never waits for it: what it is too slow for is
        dropped and counted in the subscription, what it raises is logged.

        :param kinds: types out of `everpool.events`; default: all but `Lent` and `Returned`.
            Those two cost every checkout some microseconds while anybody subscribes to them.
        :returns: the subscription, a context manager; `Subscription.close` ends it.
        :raises TypeError: the listener is no function, or a kind none of happening.
        """
        if is_async(listener):
            raise TypeError("a coroutine function can only listen to an async pool")
        subscription = self._hub.add(listener, kinds)
        self._read_fast_paths()
        return subscription

    def trace(self, around: Around | None) -> None:
        """Have every request for a connection made inside a context; None ends that.

        For traces: the context is entered in the thread or task that asks, and left with what
        the request ends with. It costs every checkout some microseconds.

        :param around: called once for each request; returns a context manager that gives a
            function, which is called with the number of the connection that is lent. What they
            raise, the caller gets.
        :raises ValueError: the requests of this pool pass through another already.
        """
        if around is not None and self._around is not None:
            raise ValueError(f"pool {self.name!r} is traced already")
        self._around = around
        self._read_fast_paths()

    def health(self) -> Health:
        """How the pool is, and what follows. Reads memory only, from any thread; never waits.

        What is known of the database may be old when the pool rests; then the background
        pings one connection, however many ask.
        """
        now = monotonic()
        background = self._background
        if background is not None and self._machine.stale(now):
            self._probing = True
            background.nudge(now)
        return judge(self.name, self._vitals(now))

    def _vitals(self, now: float) -> Vitals:
        vitals = self._machine.vitals(now, self._late(now))
        if self._closed:
            condition = Condition.CLOSED if self._opened else Condition.NEW
            vitals = replace(vitals, condition=condition)
        elif self._background is None:  # in a forked child, until it uses the pool
            vitals = replace(vitals, condition=Condition.STARTING)
        return vitals

    def _late(self, now: float) -> float:
        """How late the background is, in seconds."""
        background = self._background
        if background is None:
            return 0.0
        if not background.alive:
            return inf
        return max(0.0, now - max(self._due, self._turned_at))

    def get_stats(self) -> dict[str, int]:
        """Counters and sizes, with psycopg_pool's keys."""
        forgotten = self._forgotten
        return {key: value - forgotten.get(key, 0) for key, value in self._count().items()}

    def _count(self) -> dict[str, int]:
        machine = self._machine
        waited = machine.waited + machine.waited_in_vain - machine.waited_alone
        return {
            _KEYS._POOL_MIN: machine.policy.min_size,
            _KEYS._POOL_MAX: machine.policy.max_size,
            _KEYS._POOL_SIZE: machine.counted,
            _KEYS._POOL_AVAILABLE: len(machine.idle),
            _KEYS._REQUESTS_WAITING: machine.waiting,
            _KEYS._REQUESTS_NUM: machine.requests,
            _KEYS._REQUESTS_QUEUED: machine.queued,
            _KEYS._REQUESTS_WAIT_MS: int(1000 * waited),
            _KEYS._REQUESTS_ERRORS: machine.errors,
            _KEYS._USAGE_MS: int(1000 * machine.used),
            _KEYS._RETURNS_BAD: machine.bad_returns,
            _KEYS._CONNECTIONS_NUM: machine.connects,
            _KEYS._CONNECTIONS_MS: int(1000 * machine.connecting),
            _KEYS._CONNECTIONS_ERRORS: machine.connect_errors,
            _KEYS._CONNECTIONS_LOST: machine.lost,
        }

    def pop_stats(self) -> dict[str, int]:
        """As `get_stats`; the counters begin anew."""
        with self._mutex:
            stats = self.get_stats()
            counts = self._count()
            self._forgotten = {key: counts[key] for key in self._COUNTERS}
        return stats

    def snapshot(self) -> Snapshot:
        """What the pool knows at this moment. Reads memory only; never waits."""
        machine, hub, now = self._machine, self._hub, monotonic()
        return Snapshot.of(self.name, machine, self._vitals, hub, self._mutex, now)

    @property
    def policy(self) -> Policy:
        """All settings as they were given, or follow from the environment, each with its reason:
        ``print(pool.policy.explain())``. What was learned since is in the `snapshot`."""
        return self._policy

    def findings(self) -> dict[str, Any]:
        """What the deaths of connections have taught, as plain data, to be saved as JSON.

        Another pool on the same path, in the next process, begins with it: ``learn=findings``.
        """
        with self._mutex:
            return self._findings()

    def _findings(self) -> dict[str, Any]:
        return {**self._machine.learner.save(monotonic()), "saved_at": time()}
