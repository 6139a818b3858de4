"""The world the tests under `tests/sync` run in: threads. Written by hand, the twin of `aio`."""

from __future__ import annotations

import ctypes
import inspect
import queue
import threading
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

from psycopg import Connection

__all__ = [
    "Event",
    "Queue",
    "Worker",
    "alive",
    "eventually",
    "gather",
    "interrupt",
    "is_async",
    "scalar",
    "sleep",
    "spawn",
]

is_async = False
sleep = time.sleep


class Event:
    """A flag to wait for. Waiting has a limit, so that a lost wake-up fails a test instead of hanging it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float = 10.0) -> None:
        if not self._event.wait(timeout):
            raise TimeoutError(f"the event was not set within {timeout} s")


class Queue:
    """An unbounded queue, with a limit on waiting."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, item: Any) -> None:
        self._queue.put(item)

    def get(self, timeout: float = 10.0) -> Any:
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"nothing came through the queue within {timeout} s") from None


class Worker:
    """A function that runs beside the test. `result` waits for it and returns, or raises, what it ended with."""

    def __init__(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

        def call() -> None:
            try:
                self._value = fn(*args, **kwargs)
            except BaseException as ex:
                self._error = ex

        self._thread = threading.Thread(
            target=call, daemon=True, name=f"test-{getattr(fn, '__name__', 'worker')}"
        )
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, timeout: float = 10.0) -> Any:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the worker was still running after {timeout} s")
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error
        return self._value


def interrupt(worker: Worker) -> None:
    """Raise KeyboardInterrupt in the worker, at its next step in Python. Tasks have no such thing.

    Not in one that has ended: its identity may be another thread's by now.
    """
    if worker.done:
        return
    ident = worker._thread.ident
    assert ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(KeyboardInterrupt)
    )


def spawn(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Worker:
    return Worker(fn, *args, **kwargs)


def gather(*workers: Worker, timeout: float = 20.0) -> list[Any]:
    """The results of all the workers, in their order; the first error is raised once all have ended."""
    deadline = monotonic() + timeout
    for worker in workers:
        worker._thread.join(max(0.0, deadline - monotonic()))
    return [worker.result(timeout=0.0) for worker in workers]


def alive(*workers: Worker) -> int:
    """How many of the workers are still running."""
    return sum(not worker.done for worker in workers)


def eventually(condition: Callable[[], Any], timeout: float = 5.0, every: float = 0.005) -> Any:
    """Wait until *condition* holds, and return what it returned."""
    deadline = monotonic() + timeout
    while True:
        if value := condition():
            return value
        assert monotonic() < deadline, (
            f"still not so after {timeout} s: {inspect.getsource(condition).strip()}"
        )
        time.sleep(every)


def scalar(conn: Connection[Any], query: str, *args: Any) -> Any:
    """The only value of the only row that *query* returns."""
    row = conn.execute(query, args or None).fetchone()
    assert row is not None
    return row[0]
