"""The world of tasks: how to wait, wake, run and stop there. Twin of ``threads``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from psycopg import AsyncConnection, waiting
from psycopg import errors as e
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from ..core.queue import Refusal
    from ..core.slot import Slot
    from ..watch import Link, Watch

T = TypeVar("T")
logger = logging.getLogger("everpool")

Mutex = nullcontext[None]  # one loop, one thread: nothing to exclude
INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
STOPPED = asyncio.CancelledError
STOCK = AsyncConnection

# A query interrupted by its user: time to cancel it and read the rest, before the socket is
# shut down. Longer would keep the user waiting for a server that may not be there.
CANCEL_GRACE = 0.25

# A callback that does not wait on its connection is cancelled so long after its connection has
# been shut down: first the clean way, then this.
CANCEL_AFTER = 0.02


class Waiter:
    """One who waits for a connection. See ``core.queue.Waiter``.

    The deadline is the pool's to keep: one timer for all who wait.
    """

    __slots__ = ("_future", "deadline", "gone", "refusal", "since", "slot")

    def __init__(self, now: float, deadline: float) -> None:
        self.since = now
        self.deadline = deadline
        self.slot: Slot | None = None
        self.refusal: Refusal | None = None
        self.gone = False
        self._future = asyncio.get_running_loop().create_future()

    def wait(self) -> asyncio.Future[None]:
        """Sleep until woken."""
        return self._future

    def wake(self) -> None:
        _wake(self._future)


class Ear:
    """Waits for a socket to have something to read, or for somebody to ring: that ends it."""

    __slots__ = ("__weakref__", "_future", "rung")

    def __init__(self) -> None:
        self.rung = False
        self._future: asyncio.Future[None] | None = None

    async def listen(self, descriptor: int | None, timeout: float) -> None:
        """Wait at most ``timeout`` seconds."""
        if self.rung:
            return
        loop = asyncio.get_running_loop()
        self._future = future = loop.create_future()
        timer = loop.call_later(timeout, _wake, future) if timeout < float("inf") else None
        try:
            if descriptor is not None:
                loop.add_reader(descriptor, _wake, future)
            await future
        finally:
            self._future = None
            if descriptor is not None:
                loop.remove_reader(descriptor)
            if timer is not None:
                timer.cancel()

    def ring(self) -> None:
        self.rung = True
        if self._future is not None:
            _wake(self._future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Job:
    """A coroutine running as a task, which can be stopped."""

    def __init__(self, call: Callable[..., Coroutine[Any, Any, None]], args: Any) -> None:
        self.stopping = False
        self._running = False
        self.task = asyncio.get_running_loop().create_task(self._run(call, args))

    async def _run(self, call: Callable[..., Coroutine[Any, Any, None]], args: Any) -> None:
        self._running = True
        try:
            await call(*args, self)
        except Exception:
            logger.exception("everpool: background job failed")

    def stop(self) -> None:
        """Cancel it; a job that has not begun is stopped when it connects."""
        self.stopping = True
        if self._running:
            self.task.cancel()


class Crew:
    """Tasks that run jobs, at most ``most`` at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.tasks: set[asyncio.Task[None]] = set()
        self._queue: list[tuple[Any, Any]] = []

    def submit(self, call: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> Job | None:
        if len(self.tasks) >= self.most:
            self._queue.append((call, args))
            return None
        job = Job(call, args)
        self.tasks.add(job.task)
        job.task.add_done_callback(self._done)
        return job

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self._queue:
            call, args = self._queue.pop(0)
            self.submit(call, *args)

    def dismiss(self) -> list[asyncio.Task[None]]:
        return list(self.tasks)


class Background:
    """The watch as a reader of the event loop, and one timer. Holds the pool weakly."""

    def __init__(self, name: str, watch: Watch, pool: ref[Any]) -> None:
        self._watch = watch
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self.due = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._connectors = Crew(1 << 30)
        self._workers = Crew(1)

    def start(self, workers: int) -> None:
        self._workers.most = workers
        self._loop.add_reader(self._watch.fileno(), self._turn)
        self.alarm(0.0)

    def connect(self, call: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> Job | None:
        """Run a connect job."""
        return self._connectors.submit(call, *args)

    def work(self, call: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> Job | None:
        """Run a job of the returning side; at most ``workers`` at once."""
        return self._workers.submit(call, *args)

    def alarm(self, when: float) -> None:
        """Give the pool a turn at that time at the latest."""
        if when < self.due and not self._watch.closed:
            self.due = when
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, when - monotonic()), self._turn)

    def nudge(self, when: float) -> None:
        """As ``alarm``, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.alarm, when)
        except RuntimeError:
            pass  # the loop has been closed

    def rouse(self) -> None:
        """Give the pool a turn now, whatever became of an ``alarm`` that was interrupted."""
        self.due = float("inf")
        self.alarm(monotonic())

    @property
    def alive(self) -> bool:
        return not self._loop.is_closed()

    def stop(self) -> list[asyncio.Task[None]]:
        """End; return the tasks to wait for."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._watch.closed:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
        return self._connectors.dismiss() + self._workers.dismiss()

    def drop(self) -> None:
        """The pool is being collected, perhaps in another thread, perhaps after its loop."""
        if self._loop.is_closed():
            self._watch.close()
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = not self._loop.is_running()
        if here:
            self._cease()
        else:
            self._loop.call_soon_threadsafe(self._cease)

    def _cease(self) -> None:
        for task in self.stop():
            task.cancel()

    def _turn(self) -> None:
        pool = self._pool()
        if pool is None or pool._background is not self:
            self._cease()
            return
        if self._timer is not None:
            self._timer.cancel()
        self.due = float("inf")
        self.alarm(pool._turn(self._watch.wait(0)))


async def finish(tasks: list[asyncio.Task[None]], timeout: float) -> None:
    """Wait for tasks to end, ``timeout`` seconds in all; cancel those that do not."""
    tasks = [task for task in tasks if task is not asyncio.current_task()]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=max(0.0, timeout))
        for task in late:
            logger.warning("couldn't stop task %r within %s seconds", task.get_name(), timeout)
            task.cancel()


async def linger(listeners: list[Any], timeout: float) -> None:
    """Give listeners in tasks the time to hear the last of it; the loop waits for no threads."""
    me = asyncio.current_task()
    tasks = [task for task in listeners if isinstance(task, asyncio.Task) and task is not me]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)


def spawn(call: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> asyncio.Task[None]:
    """Start a listener's coroutine as a task."""
    return asyncio.get_running_loop().create_task(call(*args))


sleep = asyncio.sleep


def seize(lock: Any) -> bool:
    """Take a connection's lock if it is free."""
    return _at_once(lock.acquire())


def close(conn: Any) -> None:
    """Close a connection that is ours."""
    if type(conn).close is AsyncConnection.close:
        _at_once(conn.close())  # it waits for nothing
    else:
        task = asyncio.get_running_loop().create_task(_close_own_way(conn))
        _closing.add(task)
        task.add_done_callback(_closing.discard)


async def _close_own_way(conn: Any) -> None:
    try:
        await conn.close()
    except Exception as ex:
        logger.warning("error closing connection: %s", type(ex).__name__)


_closing: set[asyncio.Task[None]] = set()


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Run a coroutine if it needs not wait; False if it would."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    coroutine.close()
    return False


async def resolve(value: Any) -> Any:
    """The value, or what it returns when called, or awaited."""
    if callable(value):
        value = value()
        if isawaitable(value):
            value = await value
    return value


async def connect(call: Callable[[], Coroutine[Any, Any, T]], job: Job) -> T:
    """Make a connect that ``job.stop`` can end."""
    if job.stopping:
        raise asyncio.CancelledError
    return await call()


async def bounded(call: Callable[..., Any], conn: Any, deadline: float) -> None:
    """Make the call, and cancel it soon after its deadline if nothing else has ended it."""
    async with asyncio.timeout(max(0.0, deadline + CANCEL_AFTER - monotonic())):
        await call(conn)


def interruptible_wait(conn: Any, link: Link) -> Callable[..., Any]:
    """A ``Connection.wait`` that ends soon when its user is cancelled.

    psycopg's own gives the server five seconds to cancel and five more to answer; over a
    silent path a cancelled task is then gone after ten seconds.
    """
    weak = ref(conn)

    async def wait(gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        conn = weak()
        if conn is None:
            raise e.OperationalError("the connection is closed")
        try:
            return await waiting.wait_async(
                gen, conn.pgconn.socket, interval=interval, timeout=timeout
            )
        except INTERRUPTS:
            if conn.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await _stop_query(conn, gen, interval, link)
            raise

    return wait


async def _stop_query(conn: Any, gen: Any, interval: float, link: Link) -> None:
    deadline = monotonic() + CANCEL_GRACE
    try:
        await conn.cancel_safe(timeout=CANCEL_GRACE)
        left = max(0.01, deadline - monotonic())
        await waiting.wait_async(gen, conn.pgconn.socket, interval=interval, timeout=left)
    except e.QueryCanceled:
        pass  # as asked
    except BaseException:
        link.abort()
