"""From the pool to its listeners, without the pool's ever waiting for one.

The pool *publishes* what has happened, in order, by appending to a bounded queue of each
listener that wants it. Each listener has a dispatcher of its own, which exists only while there
is something to deliver: a daemon thread for a plain function (in asyncio too: a function that
blocks must not block the loop), a task for a coroutine function. A listener that is slow loses
what its queue cannot hold, and the loss is counted; one that raises is told of in the log.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError, current_task
from collections import deque
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from sys import is_finalizing
from threading import RLock
from types import TracebackType
from typing import Any, Self, cast
from weakref import ref

from .core.events import Cut, Happening, Lent, Returned
from .logs import LogWriter
from .runtime.crew import Crew

logger = logging.getLogger("everpool.events")

# What a listener may be behind: a burst of deaths and their replacement in a large pool.
CAPACITY = 10_000

# Happenings remembered for people, newest last.
REMEMBERED = 200

Listener = Callable[[Any], None] | Callable[[Any], Awaitable[None]]

LOANS = (Lent, Returned)


class Subscription:
    """A listener's place at a pool. A context manager: leaving it ends the subscription.

    :ivar dropped: how many happenings were lost because the listener was too slow.
    :ivar failures: how many times it raised.
    """

    def __init__(self, hub: Hub, listener: Listener, kinds: tuple[type[Happening], ...]) -> None:
        self.listener = listener
        self.kinds = kinds
        self.dropped = 0
        self.failures = 0
        self._hub = ref(hub)
        self._queue: deque[Any] = deque()
        self._mutex = RLock()  # see `Hub`
        self._dispatcher: object | None = None  # who may deliver
        self._closed = False

    def close(self) -> None:
        """Hear nothing more. What is being delivered at this moment may still arrive."""
        self._closed = True
        self._queue.clear()
        hub = self._hub()
        if hub is not None:
            hub.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def wants_loans(self) -> bool:
        return any(issubclass(loan, self.kinds) for loan in LOANS)

    def wants(self, happening: Happening) -> bool:
        if self.kinds:
            return isinstance(happening, self.kinds)
        return not isinstance(happening, LOANS)

    def offer(self, happening: Any) -> None:
        """Queue it."""
        with self._mutex:
            if self._closed:
                return
            if len(self._queue) >= CAPACITY:
                self.dropped += 1
                return
            self._queue.append(happening)

    def claim(self, dispatcher: object) -> bool:
        """Let this dispatcher deliver, if there is something and nobody else does."""
        with self._mutex:
            if self._dispatcher is not None or not self._queue:
                return False
            self._dispatcher = dispatcher
            return True

    def disclaim(self, dispatcher: object) -> None:
        """This dispatcher has ended, or may not have been started: if it has, it ends."""
        with self._mutex:
            if self._dispatcher is dispatcher:
                self._dispatcher = None

    def next(self, dispatcher: object) -> Any:
        """The next to deliver; None if there is none, and then the dispatcher ends."""
        with self._mutex:
            if self._dispatcher is not dispatcher:
                return None
            if self._queue:
                return self._queue.popleft()
            self._dispatcher = None
            return None

    def rearm(self, hub: Hub) -> None:
        """In a forked child the dispatcher is gone, and a lock may be held by nobody."""
        self._hub = ref(hub)
        self._mutex = RLock()
        self._queue.clear()
        self._dispatcher = None

    def deliver(self, dispatcher: object, job: Any = None) -> None:
        """Call a plain function, until there is nothing left to tell it."""
        try:
            while (happening := self.next(dispatcher)) is not None:
                try:
                    cast(Callable[[Any], None], self.listener)(happening)
                except BaseException:  # a SystemExit too: the thread is the pool's, and must go on
                    self._failed(happening)
        finally:
            self.disclaim(dispatcher)

    async def deliver_async(self, dispatcher: object) -> None:
        """Call a coroutine function, until there is nothing left to tell it.

        What it waits for may be cancelled without its task being so.
        """
        while (happening := self.next(dispatcher)) is not None:
            try:
                await cast(Callable[[Any], Awaitable[None]], self.listener)(happening)
            except CancelledError:
                task = current_task()
                if task is None or task.cancelling():
                    raise
                self._failed(happening)
            except Exception:
                self._failed(happening)

    def _failed(self, happening: Any) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # the 1st, 2nd, 4th, 8th time
            logger.exception(
                "a listener raised, %s times so far, last for %s", self.failures, happening.name
            )


class Hub:
    """What a pool publishes to: the memory of the last happenings, the log, subscriptions."""

    def __init__(self, name: str) -> None:
        self.recent: deque[Happening] = deque(maxlen=REMEMBERED)
        self.cuts: deque[Cut] = deque(maxlen=REMEMBERED)
        self.subscriptions: tuple[Subscription, ...] = ()
        self._dropped_before = 0  # by subscriptions that have ended
        self._writer = LogWriter(name)
        self._scribe = Subscription(self, lambda line: line.write(), ())  # listens to the writer
        # Reentrant: a finalizer that runs amid publishing may end a subscription, or return a
        # connection.
        self._mutex = RLock()
        self._taking: Happening | None = None
        self._tasks: set[Any] = set()
        self._crew = Crew(f"{name}-listener", most=1 << 30)

    @property
    def wants_loans(self) -> bool:
        return any(subscription.wants_loans for subscription in self.subscriptions)

    @property
    def dropped(self) -> int:
        """How many happenings listeners have missed, since the beginning; never falls."""
        with self._mutex:
            return self._dropped_before + sum(s.dropped for s in self.subscriptions)

    def add(self, listener: Listener, kinds: tuple[Any, ...]) -> Subscription:
        if not callable(listener):
            raise TypeError(f"a listener must be a function, not {type(listener).__name__}")
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Happening)):
                raise TypeError(f"{kind!r} is no kind of happening: see everpool.events")
        subscription = Subscription(self, listener, kinds)
        with self._mutex:
            self.subscriptions = (*self.subscriptions, subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        with self._mutex:
            if subscription in self.subscriptions:
                self._dropped_before += subscription.dropped
            self.subscriptions = tuple(s for s in self.subscriptions if s is not subscription)

    def inherit(self, other: Hub) -> None:
        """In a forked child: the parent's listeners listen here too."""
        self.subscriptions = other.subscriptions
        for subscription in self.subscriptions:
            subscription.rearm(self)

    def publish(self, happenings: deque[Happening]) -> None:
        """Take all that has happened; `dispatch` delivers it.

        Several threads may come at once: what is told first stays first.
        """
        with self._mutex:
            while happenings:
                happening = happenings[0]
                if happening is self._taking:
                    return  # a finalizer: whoever it has interrupted goes on
                try:
                    self._taking = happening
                    self._take(happening)
                    happenings.popleft()
                finally:
                    self._taking = None

    def _take(self, happening: Happening) -> None:
        if not isinstance(happening, LOANS):
            self.recent.append(happening)
        self._writer.add(happening, happening.at)
        if isinstance(happening, Cut):
            self.cuts.append(happening)
        for subscription in self.subscriptions:
            if subscription.wants(happening):
                subscription.offer(happening)

    def dispatch(self, spawn: Callable[..., Any] | None) -> None:
        """Call the dispatchers that are needed: tasks (by ``spawn``), or threads, which `man` starts.

        Interrupted anywhere, it can be called again.
        """
        for subscription in self.subscriptions:
            self._dispatch(subscription, spawn)

    def _dispatch(self, subscription: Subscription, spawn: Callable[..., Any] | None) -> None:
        dispatcher = object()
        try:
            if not subscription.claim(dispatcher):
                return
            if spawn and is_async(subscription.listener):
                task = spawn(subscription.deliver_async, dispatcher)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                # It may be cancelled before its first step.
                task.add_done_callback(lambda _: subscription.disclaim(dispatcher))
            else:
                self._submit(subscription.deliver, dispatcher)
        except BaseException:
            subscription.disclaim(dispatcher)
            raise

    @property
    def short(self) -> bool:
        """Whether a thread has to be started, by `man`."""
        return self._crew.short

    def man(self) -> None:
        """Start the threads that are needed. See `Crew.man` for who may."""
        try:
            self._crew.man()
        except RuntimeError:
            pass  # the next turn tries again

    @property
    def log_due(self) -> float:
        """When `write` has lines to write."""
        return self._writer.due

    def write(self, now: float) -> None:
        """Write the lines of the log that are due, in the caller's thread."""
        with self._mutex:
            lines = self._writer.flush(now)
        for line in lines:
            line.write()

    def write_aside(self, now: float) -> None:
        """Write the lines of the log that are due, in a thread, one for all: a handler may block."""
        with self._mutex:
            for line in self._writer.flush(now):
                self._scribe.offer(line)
        self._dispatch(self._scribe, None)

    def _submit(self, call: Callable[..., None], *args: Any) -> None:
        try:
            self._crew.submit(call, *args)
        except RuntimeError:
            pass  # the interpreter is ending: nobody listens any more

    def dismiss(self) -> list[Any]:
        """Let the dispatchers end when they have delivered; return their threads and tasks."""
        if is_finalizing():
            return []  # the threads are frozen, perhaps with the lock in hand
        return [*self._crew.dismiss(), *self._tasks]


def is_async(listener: Listener) -> bool:
    """Whether a listener is a coroutine function, or an object that is called like one."""
    return iscoroutinefunction(listener) or iscoroutinefunction(
        getattr(listener, "__call__", None)  # noqa: B004
    )
