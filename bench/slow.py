"""Connections that take longer to open, and a count of how many open at the same time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


class SlowConnect:
    """Counts the connects under way, over all pools that use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def beyond(self, limit: int) -> str | None:
        """A complaint if more than `limit` were under way at once, else None."""
        if self.most <= limit:
            return None
        return f"{self.most} connects at once, at most {limit} are allowed"


def slow_connection(slow: SlowConnect, delay: float) -> type[psycopg.Connection[Any]]:
    """A connection class that waits `delay` seconds before it connects."""

    class SlowConnection(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            with slow.counted():
                time.sleep(delay)
                return super().connect(conninfo, **kwargs)

    return SlowConnection


def slow_async_connection(slow: SlowConnect, delay: float) -> type[psycopg.AsyncConnection[Any]]:
    """The same for asyncio."""

    class SlowAsyncConnection(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
            with slow.counted():
                await asyncio.sleep(delay)
                return await super().connect(conninfo, **kwargs)

    return SlowAsyncConnection
