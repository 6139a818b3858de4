"""The world of threads: how to wait, wake, run and stop there. Twin of ``aio``."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable
from sys import is_finalizing
from time import monotonic
from time import sleep as sleep
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from psycopg import Connection, waiting
from psycopg import errors as e
from psycopg.pq import TransactionStatus

from ..watch import Bell
from .crew import Crew, Stopped
from .crew import Job as Job

if TYPE_CHECKING:
    from ..core.queue import Refusal
    from ..core.slot import Slot
    from ..watch import Link, Watch

T = TypeVar("T")
logger = logging.getLogger("everpool")

Mutex = threading.Lock
INTERRUPTS = (KeyboardInterrupt, SystemExit)
STOCK = Connection
STOPPED = Stopped

# The system starts no more threads: somebody else's have to end first, which takes a while.
AFTER_REFUSED = 1.0

# In milliseconds: poll takes no more than an int.
LONGEST_POLL = 1e9

# A query interrupted by its user: time to cancel it and read the rest, before the socket is
# shut down. Longer would keep the user waiting for a server that may not be there.
CANCEL_GRACE = 0.25


class Waiter:
    """One who waits for a connection. See ``core.queue.Waiter``.

    A lock of its own, released to wake: cheaper than a condition, and woken outside the
    pool's lock.
    """

    __slots__ = ("_sleep", "deadline", "gone", "refusal", "since", "slot")

    def __init__(self, now: float, deadline: float) -> None:
        self.since = now
        self.deadline = deadline
        self.slot: Slot | None = None
        self.refusal: Refusal | None = None
        self.gone = False
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def wait(self) -> None:
        """Sleep until woken, or until the deadline."""
        remaining = max(0.0, self.deadline - monotonic())
        self._sleep.acquire(timeout=min(remaining, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        try:
            self._sleep.release()
        except RuntimeError:
            pass  # woken twice: an interruption elsewhere made the pool tell all again


class Ear:
    """Waits for a socket to have something to read, or for somebody to ring: that ends it."""

    __slots__ = ("__weakref__", "_bell", "rung")

    def __init__(self) -> None:
        self.rung = False
        self._bell = Bell()

    def listen(self, descriptor: int | None, timeout: float) -> None:
        """Wait at most ``timeout`` seconds."""
        poll = select.poll()
        poll.register(self._bell.descriptor, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        poll.poll(min(1000 * timeout, LONGEST_POLL))

    def ring(self) -> None:
        self.rung = True
        self._bell.ring()  # nobody reads it: from now on nobody waits


class Background:
    """The thread that waits on the watch and gives the pool its turns. Holds it weakly."""

    def __init__(self, name: str, watch: Watch, pool: ref[Any]) -> None:
        self._watch = watch
        self._pool = pool
        self.due = 0.0
        self._connectors = Crew(f"{name}-connect", most=1 << 30)
        self._workers = Crew(f"{name}-worker", most=1)
        self._thread = threading.Thread(target=self._run, name=f"{name}-watch", daemon=True)

    def start(self, workers: int) -> None:
        self._workers.most = workers
        self._thread.start()

    def connect(self, call: Callable[..., None], *args: Any) -> Job:
        """Run a connect job; each has a thread."""
        return self._submit(self._connectors, call, *args)

    def work(self, call: Callable[..., None], *args: Any) -> Job:
        """Run a job of the returning side; at most ``workers`` at once."""
        return self._submit(self._workers, call, *args)

    def _submit(self, crew: Crew, call: Callable[..., None], *args: Any) -> Job:
        job = crew.submit(call, *args)
        if crew.short:
            self.rouse()
        return job

    def alarm(self, when: float) -> None:
        """Give the pool a turn at that time at the latest."""
        if when < self.due:
            self.due = when
            if threading.get_ident() != self._thread.ident:
                self._watch.ring()  # in its own turn the thread is awake

    def nudge(self, when: float) -> None:
        """As ``alarm``."""
        self.alarm(when)

    def rouse(self) -> None:
        """Wake the thread, whatever became of an ``alarm`` that was interrupted."""
        if threading.get_ident() != self._thread.ident:
            self._watch.ring()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> list[threading.Thread]:
        """End; return the threads to join."""
        self.due = 0.0
        self._watch.ring()
        return [self._thread, *self._connectors.dismiss(), *self._workers.dismiss()]

    def drop(self) -> None:
        """The pool is being collected: end, and wait for the watching thread."""
        if is_finalizing():
            return  # the threads are frozen, and the process is about to go
        self.stop()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join(1.0)

    def _man(self) -> float:
        """Give the crews the threads they need; return when to try again."""
        try:
            self._connectors.man()
            self._workers.man()
        except RuntimeError as ex:
            logger.warning("everpool: no thread for a job that waits: %s", ex)
            return monotonic() + AFTER_REFUSED
        return float("inf")

    def _run(self) -> None:
        watch, pool_ref = self._watch, self._pool
        try:
            while True:
                ready = watch.wait(max(0.0, min(self.due - monotonic(), 60.0)))
                pool = pool_ref()
                if pool is None or pool._background is not self:
                    return
                self.due = float("inf")
                next_turn = pool._turn(ready)
                del pool
                self.due = min(self.due, next_turn, self._man())
        finally:
            watch.close()


def finish(tasks: list[threading.Thread], timeout: float) -> None:
    """Wait for threads to end, ``timeout`` seconds in all."""
    deadline = monotonic() + timeout
    for thread in tasks:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                logger.warning("couldn't stop thread %r within %s seconds", thread.name, timeout)


def linger(listeners: list[threading.Thread], timeout: float) -> None:
    """Give listeners the time to hear the last of it; who needs more is left to himself."""
    deadline = monotonic() + timeout
    for thread in listeners:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - monotonic()))


spawn = None  # listeners are plain functions here


def seize(lock: Any) -> bool:
    """Take a connection's lock if it is free."""
    return bool(lock.acquire(blocking=False))


def close(conn: Any) -> None:
    """Close a connection that is ours."""
    conn.close()


def resolve(value: Any) -> Any:
    """The value, or what it returns when called."""
    return value() if callable(value) else value


def connect(call: Callable[[], T], job: Job) -> T:
    """Make a connect that ``job.stop`` can end."""
    try:
        return job.interruptible(call)
    except Stopped as ex:
        # psycopg leaves the half-made connection in its frames, to be found by the collector.
        clear_frames(ex.__traceback__)
        raise


def bounded(call: Callable[..., Any], conn: Any, deadline: float) -> None:
    """Make the call. What bounds it is the shutdown of its socket; see the shell."""
    call(conn)


def interruptible_wait(conn: Any, link: Link) -> Callable[..., Any]:
    """A ``Connection.wait`` that ends soon when its user interrupts it.

    psycopg's own gives the server five seconds to cancel and five more to answer; over a
    silent path that is ten seconds of a key press ignored.
    """
    weak = ref(conn)

    def wait(gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        conn = weak()
        if conn is None:
            raise e.OperationalError("the connection is closed")
        try:
            return waiting.wait(gen, conn.pgconn.socket, interval=interval, timeout=timeout)
        except INTERRUPTS:
            if conn.pgconn.transaction_status == TransactionStatus.ACTIVE:
                _stop_query(conn, gen, interval, link)
            raise

    return wait


def _stop_query(conn: Any, gen: Any, interval: float, link: Link) -> None:
    deadline = monotonic() + CANCEL_GRACE
    try:
        conn.cancel_safe(timeout=CANCEL_GRACE)
        left = max(0.01, deadline - monotonic())
        waiting.wait(gen, conn.pgconn.socket, interval=interval, timeout=left)
    except e.QueryCanceled:
        pass  # as asked
    except BaseException:
        link.abort()
