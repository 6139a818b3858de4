"""Keeps one instance registered, and its status true to the health of its pools."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self
from weakref import ref

from .. import AsyncConnectionPool, ConnectionPool
from ..core.health import Answer, Condition, Health, Status
from ..events import (
    Closed,
    Cut,
    Happening,
    Paused,
    QueueChanged,
    Recovered,
    Resumed,
    Slept,
    StateChanged,
    Subscription,
)
from .agenda import Act, Agenda
from .http import Lost, RegistryError
from .instance import Instance, Registry, Report

logger = logging.getLogger("everpool.discovery")

Pool = ConnectionPool[Any] | AsyncConnectionPool[Any]

# What may change a status at once. What changes it by the passing of time (cuts that become old,
# say) is told with the next renewal.
_NEWS = (StateChanged, QueueChanged, Recovered, Cut, Paused, Resumed, Slept, Closed)

# A registry that does not answer is asked so long to take the registration back; then it lapses
# with its TTL. Orchestrators kill after ten seconds or more.
GRACE = 5.0

_BADNESS = {Status.PASS: 0, Status.WARN: 1, Status.FAIL: 2}


@dataclass(frozen=True, slots=True)
class Standing:
    """A registration at one moment.

    :param registered: whether the registry holds the instance registered, as far as can be
        known: it said so, less than a TTL ago.
    :param status: ``"pass"``, ``"warn"`` or ``"fail"`` as the registry was told last; empty if
        it was not.
    :param told_ago: seconds since it last answered; inf if it never did.
    :param failures: requests that failed since then.
    :param error: why the last one failed, in one line; empty if it did not.
    """

    registered: bool
    status: str
    told_ago: float
    failures: int
    error: str


class Registrar:
    """Registers an instance of a service, and pushes its status while its pools live.

    A context manager, also for ``async with``. All requests are made by one daemon thread. The
    pools are held weakly; when one of them is closed or gone, the registration is taken back.
    In a forked child it does nothing: what is registered there is the parent.

    :param registry: a `Consul` or an `Etcd`.
    :param instance: what to register.
    :param pools: whose health counts; the worst if there are several.
    :param by: ``"ready"``: whether to send traffic, which is yes, with a warning, also while
        the database is away, as it is away for all instances then. ``"health"``: fail while
        it is away, for services whose instances have different databases.
    :raises TypeError: there is no pool, or something that is none.
    :raises ValueError: ``by`` is neither.
    """

    def __init__(
        self,
        registry: Registry,
        instance: Instance,
        *pools: Pool,
        by: Literal["ready", "health"] = "ready",
    ) -> None:
        if not pools:
            raise TypeError("a registrar needs a pool")
        for pool in pools:
            if not isinstance(pool, (ConnectionPool, AsyncConnectionPool)):
                raise TypeError(f"a registrar needs pools, not {type(pool).__name__}")
        if by not in ("ready", "health"):
            raise ValueError(f"by must be 'ready' or 'health', not {by!r}")
        self._where = f"{instance.id!r} at {registry.shown}"
        self._entry = registry.entry(instance)
        self._agenda = Agenda(registry.ttl, random.random)
        self._bell = Event()
        self._pools = [ref(pool, _ring(self._bell)) for pool in pools]
        self._by = by
        self._report = Report(Status.FAIL, "", 0.0)
        self._error = ""
        self._heard_at = float("-inf")
        self._slept = self._closing = False
        self._pid = 0  # of the process in which it was started
        self._thread = Thread(target=self._run, daemon=True, name=f"everpool-{instance.name}")

    def start(self) -> Self:
        """Begin to register, in the background. Does nothing when it has begun.

        :raises RuntimeError: it was closed.
        """
        if self._closing:
            raise RuntimeError("a registrar cannot be started again")
        if not self._pid:
            self._pid = os.getpid()
            self._thread.start()
        return self

    def close(self, timeout: float = GRACE) -> None:
        """Take the registration back, and end.

        :param timeout: seconds to wait for that; afterwards it is still tried for a moment, in
            the background.
        """
        self._closing = True
        if self._is_ours:
            self._bell.set()
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    @property
    def standing(self) -> Standing:
        """How the registration stands. Asks nobody; never waits."""
        now, agenda = monotonic(), self._agenda
        told = agenda.told if self._is_ours else None
        return Standing(
            registered=told is not None and agenda.registered(now),
            status=told.value if told else "",
            told_ago=now - self._heard_at,
            failures=agenda.failures,
            error=self._error,
        )

    @property
    def _is_ours(self) -> bool:
        return os.getpid() == self._pid

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        subscriptions = [_subscribe(reference(), self._hear) for reference in self._pools]
        try:
            while True:
                self._bell.clear()
                self._look()
                now = monotonic()
                act = self._agenda.next(now)
                if act is Act.END:
                    return
                if act is None:
                    self._bell.wait(self._agenda.wake_at - now)
                else:
                    self._perform(act)
        finally:
            for subscription in subscriptions:
                if subscription is not None:
                    subscription.close()

    def _hear(self, happening: Happening) -> None:
        """Called by a pool's dispatcher, and in forked children too."""
        if self._is_ours:
            self._slept |= isinstance(happening, Slept)
            self._bell.set()

    def _look(self) -> None:
        """See what is to be told now."""
        now = monotonic()
        health = [_health(reference()) for reference in self._pools]
        known = [one for one in health if one is not None]
        if self._closing or len(known) < len(health):
            self._agenda.leave(now, GRACE)
        if known:
            answer = max((self._answer(one) for one in known), key=lambda a: _BADNESS[a.status])
            same = self._report.why and answer.status is self._report.status
            since = self._report.since if same else time.time()
            self._report = Report(answer.status, answer.why, since)
            self._agenda.want(answer.status)
        if self._slept:
            self._slept = False
            self._agenda.doubt(now)

    def _answer(self, health: Health) -> Answer:
        return health.ready if self._by == "ready" else Answer(health.status, health.why)

    def _perform(self, act: Act) -> None:
        report, agenda = self._report, self._agenda
        agenda.begin(act)
        try:
            if act is Act.REGISTER:
                self._entry.register(report)
            elif act is Act.REPORT:
                self._entry.report(report)
            else:
                self._entry.withdraw()
        except RegistryError as error:
            if act is Act.REPORT and isinstance(error, Lost):
                logger.warning("%s was lost (%s): registering anew", self._where, error)
                agenda.lost(monotonic())
            else:
                self._failed(act, str(error))
        except Exception as error:  # it must not end the thread; its text may hold anything
            self._failed(act, type(error).__name__)
        else:
            self._done(act, report)

    def _done(self, act: Act, report: Report) -> None:
        agenda, now = self._agenda, monotonic()
        before, status = agenda.told, report.status
        self._error, self._heard_at = "", now  # before others can see that it went well
        agenda.done(act, status, now)
        if act is Act.WITHDRAW:
            logger.info("%s is no longer registered", self._where)
        elif act is Act.REGISTER:
            logger.info("%s is registered: %s", self._where, status.value)
        elif before is not status:
            logger.info("%s is now: %s (%s)", self._where, status.value, report.why)

    def _failed(self, act: Act, error: str) -> None:
        # One line for an outage, however often it is tried; one for each other reason.
        if error != self._error:
            logger.warning("%s: could not %s: %s", self._where, act.value, error)
        self._error = error
        self._agenda.failed(monotonic())


def _ring(bell: Event) -> Callable[[Any], None]:
    return lambda reference: bell.set()


def _subscribe(pool: Pool | None, listener: Callable[[Happening], None]) -> Subscription | None:
    return None if pool is None else pool.subscribe(listener, *_NEWS)


def _health(pool: Pool | None) -> Health | None:
    """The health of a pool that still is one."""
    health = pool.health() if pool is not None else None
    return None if health is None or health.state is Condition.CLOSED else health
