"""The world the tests under `tests/aio` run in: tasks. `threads` offers the same names for threads.

The tests are written once, against this module; the generated ones import its twin. So every name here means the same
there, and what is awaited here is a plain call there.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from psycopg import AsyncConnection

__all__ = [
    "Event",
    "Queue",
    "Worker",
    "alive",
    "eventually",
    "gather",
    "is_async",
    "scalar",
    "sleep",
    "spawn",
]

is_async = True
sleep = asyncio.sleep


class Event:
    """A flag to wait for. Waiting has a limit, so that a lost wake-up fails a test instead of hanging it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self, timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            await self._event.wait()


class Queue:
    """An unbounded queue, with a limit on waiting."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        self._queue.put_nowait(item)

    async def get(self, timeout: float = 10.0) -> Any:
        async with asyncio.timeout(timeout):
            return await self._queue.get()


class Worker:
    """A function that runs beside the test. `result` waits for it and returns, or raises, what it ended with."""

    def __init__(self, fn: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> None:
        async def call() -> Any:
            return await fn(*args, **kwargs)

        self._task = asyncio.create_task(call())

    @property
    def done(self) -> bool:
        return self._task.done()

    def cancel(self) -> None:
        """Cancel the task. Threads have no such thing: call this in the asynchronous branches only."""
        self._task.cancel()

    async def result(self, timeout: float = 10.0) -> Any:
        async with asyncio.timeout(timeout):
            return await self._task


def spawn(fn: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Worker:
    return Worker(fn, *args, **kwargs)


async def gather(*workers: Worker, timeout: float = 20.0) -> list[Any]:
    """The results of all the workers, in their order; the first error is raised once all have ended."""
    async with asyncio.timeout(timeout):
        await asyncio.wait([worker._task for worker in workers])
    return [await worker.result() for worker in workers]


def alive(*workers: Worker) -> int:
    """How many of the workers are still running."""
    return sum(not worker.done for worker in workers)


async def eventually(
    condition: Callable[[], Any], timeout: float = 5.0, every: float = 0.005
) -> Any:
    """Wait until *condition* holds, and return what it returned. It may be awaitable."""
    deadline = monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert monotonic() < deadline, (
            f"still not so after {timeout} s: {inspect.getsource(condition).strip()}"
        )
        await asyncio.sleep(every)


async def scalar(conn: AsyncConnection[Any], query: str, *args: Any) -> Any:
    """The only value of the only row that *query* returns."""
    cur = await conn.execute(query, args or None)
    row = await cur.fetchone()
    assert row is not None
    return row[0]
