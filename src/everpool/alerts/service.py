"""`Alerts`: the thread that listens to pools, judges, and hands notices to the senders."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Hashable, Iterable
from dataclasses import replace
from functools import partial
from math import isfinite
from threading import Event, Lock, Thread
from time import monotonic, time
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet, ref

from .. import AsyncConnectionPool, ConnectionPool
from ..events import (
    Closed,
    CommitResolved,
    Cut,
    Happening,
    Leaked,
    Learned,
    OpenFailed,
    QueueChanged,
    Recovered,
    ServerChanged,
    StateChanged,
    Subscription,
)
from .conditions import Condition, defaults
from .engine import Engine
from .judge import Judge
from .notice import Alert, Notice
from .sender import Sender, SinkState
from .sinks import Sink

logger = logging.getLogger("everpool.alerts")

Pool = ConnectionPool[Any] | AsyncConnectionPool[Any]

# What is evidence, or a reason to look at once.
_KINDS = (
    Closed,
    CommitResolved,
    Cut,
    Leaked,
    Learned,
    OpenFailed,
    QueueChanged,
    Recovered,
    ServerChanged,
    StateChanged,
)

# As often as the pools' own background looks. Most of what matters is told by happenings.
TICK = 5.0

# Happenings come in hundreds when a server dies; they are judged together.
GAP = 0.1

# Whoever restarts a process waits for it: a dead sink may not hold that up for longer.
CLOSE_TIMEOUT = 5.0


class Alerts:
    """Watches pools, and tells people through sinks when one needs them.

    A context manager; or call `start` and `close`. All its methods may be called from any
    thread, and none waits for a sink but `close`. Pools are held weakly: with the last of them
    closed or dropped, the alerts end too. A forked child sends nothing unless it calls `start`.

    Times are seconds.

    :param pools: pools of either kind, each with a name of its own.
    :param sinks: where to send notices: `Webhook`, `Alertmanager`, `Apprise` or your own `Sink`.
    :param conditions: what to look for; default: all of `everpool.alerts.conditions`.
    :param details: whether alerts carry what servers and libpq said, which may name hosts and
        users.
    :param source: who sends, as people know it; default: this machine's name and the process.
    :param group_wait: a notice waits so long for others to join it.
    :param group_interval: the least time between two notices.
    :param repeat_every: what still fires is told again after so long.
    :raises TypeError: an argument is of the wrong kind.
    :raises ValueError: two pools or conditions share a name, or a time is out of range.
    """

    def __init__(
        self,
        *pools: Pool,
        sinks: Iterable[Sink] = (),
        conditions: Iterable[Condition] | None = None,
        details: bool = False,
        source: str = "",
        group_wait: float = 5.0,
        group_interval: float = 60.0,
        repeat_every: float = 4 * 3600.0,
    ) -> None:
        for pool in pools:
            if not isinstance(pool, ConnectionPool | AsyncConnectionPool):
                raise TypeError(f"Alerts watches everpool's pools, not {type(pool).__name__}")
        self._sinks = tuple(sinks)
        for sink in self._sinks:
            if not callable(getattr(sink, "send", None)) or not hasattr(sink, "refresh"):
                kind = type(sink).__name__
                raise TypeError(f"a sink is a Webhook, Alertmanager or Apprise, not {kind}")
        self._conditions = defaults() if conditions is None else tuple(conditions)
        _unique("pools are named", [pool.name for pool in pools])
        _unique("conditions are named", [condition.name for condition in self._conditions])
        self._times = _times(
            group_wait=group_wait, group_interval=group_interval, repeat_every=repeat_every
        )
        self._details = details
        self._given_source = source
        self._pools: dict[Hashable, ref[Pool]] = {n: ref(pool) for n, pool in enumerate(pools)}
        self._subscriptions: list[Subscription] = []
        self._assemble()
        _all.add(self)

    def _assemble(self) -> None:
        """As new: nothing known, nothing running."""
        self._lock = Lock()  # over the judge, held for microseconds
        self._judge = Judge(self._conditions, Engine(**self._times, details=self._details))
        self._senders = [Sender(sink) for sink in self._sinks]
        self._refreshed = dict.fromkeys(range(len(self._senders)), monotonic())
        self._wake, self._stop = Event(), Event()
        self._thread: Thread | None = None
        self._run_id = secrets.token_hex(4)
        self._errors = 0
        self.source = self._given_source or f"{socket.gethostname()}:{os.getpid()}"

    # -- For people ------------------------------------------------------------------------

    def active(self) -> tuple[Alert, ...]:
        """What fires now, the worst first."""
        with self._lock:
            return self._judge.engine.firing()

    def pending(self) -> tuple[Alert, ...]:
        """What will fire if it lasts."""
        with self._lock:
            return self._judge.engine.pending()

    def sinks(self) -> tuple[SinkState, ...]:
        """How each sink fares."""
        return tuple(sender.state() for sender in self._senders)

    # -- Life ------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to watch; does nothing while watching. What was known before is forgotten."""
        if self._thread is not None and self._thread.is_alive() and not self._stop.is_set():
            return self
        for subscription in self._subscriptions:
            subscription.close()
        self._assemble()
        self._subscriptions = [
            pool.subscribe(partial(self._hear, key), *_KINDS)
            for key, weak in self._pools.items()
            if (pool := weak()) is not None
        ]
        for sender in self._senders:
            sender.start()
        self._thread = Thread(target=self._run, name="everpool-alerts", daemon=True)
        self._thread.start()
        return self

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Watch no more, and give what waits for delivery up to ``timeout`` to go out.

        Nothing is told as resolved: that this process ends mends no database. An Alertmanager
        lets the alerts end by itself some minutes later.
        """
        thread, until = self._thread, monotonic() + timeout
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []
        self._stop.set()
        self._wake.set()
        if thread is not None:
            thread.join(timeout)
        for sender in self._senders:
            sender.stop()
        for sender in self._senders:
            sender.join(max(0.0, until - monotonic()))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Alerts({len(self._pools)} pools, sinks={list(self._sinks)!r})"

    def _after_fork(self) -> None:
        """In a child there are no threads, and somebody else may hold the locks."""
        self._assemble()

    # -- Inside ----------------------------------------------------------------------------

    def _hear(self, key: Hashable, happening: Happening) -> None:
        if self._thread is None:  # a forked child inherits its parent's subscriptions
            return
        with self._lock:
            self._judge.hear(key, happening)
        self._wake.set()

    def _run(self) -> None:
        wake, stop = self._wake, self._stop
        try:
            while not stop.wait(GAP):
                wake.clear()
                pause = self._step()
                if pause is None:
                    break
                wake.wait(pause)
        finally:
            for sender in self._senders:
                sender.stop()

    def _step(self) -> float | None:
        """Look, judge and hand over; return how long to rest, or None if no pool is left."""
        try:
            if not self._look():
                return None
            now = monotonic()
            with self._lock:
                notice = self._judge.judge(now)
                present = self._judge.engine.present(now)
                due = self._judge.engine.due
            self._hand_over(notice, present, now)
            return max(0.0, min(due - monotonic(), TICK))
        except Exception:
            self._errors += 1
            if self._errors & (self._errors - 1) == 0:  # the 1st, 2nd, 4th, 8th time
                logger.exception("alerts could not be judged, %s times so far", self._errors)
            return TICK

    def _look(self) -> bool:
        """Take a snapshot of each pool; False if there is none any more."""
        left = False
        for key, weak in self._pools.items():
            pool = weak()
            snapshot = pool.snapshot() if pool is not None else None
            del pool
            with self._lock:
                if snapshot is None or snapshot.state == "closed":
                    self._judge.forget(key)
                else:
                    self._judge.look(key, snapshot)
                    left = True
        return left

    def _hand_over(self, notice: Notice | None, present: Notice, now: float) -> None:
        for number, sender in enumerate(self._senders):
            refresh = sender.sink.refresh
            if notice is None and refresh is None:
                continue
            if notice is None and not (
                present.firing and now >= self._refreshed[number] + (refresh or 0.0)
            ):
                continue
            self._refreshed[number] = now
            sender.put(
                replace(
                    notice or present,
                    id=f"{self._run_id}-{(notice or present).id}",
                    epoch=time() - monotonic(),
                    source=self.source,
                )
            )


def _unique(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two {what} {name!r}: alerts could not tell them apart")


def _times(**times: float) -> dict[str, float]:
    for name, value in times.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number of seconds, not {value!r}")
        if value < 0 or (value != value) or (name != "repeat_every" and not isfinite(value)):
            raise ValueError(f"{name} must be 0 or more seconds, not {value!r}")
    if times["group_interval"] <= 0:
        raise ValueError("group_interval must be more than 0 seconds: nothing else stops a flood")
    if times["repeat_every"] < times["group_interval"]:
        raise ValueError("repeat_every must not be less than group_interval")
    return times


_all: WeakSet[Alerts] = WeakSet()


def _after_fork() -> None:
    for alerts in list(_all):
        alerts._after_fork()


os.register_at_fork(after_in_child=_after_fork)
