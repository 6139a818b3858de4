"""Pools for tests: pretended ones, whose health is as the test says, and real ones of both worlds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from math import inf
from typing import Any

from everpool import AsyncConnectionPool, ConnectionPool
from everpool.core.health import Condition, Health, Vitals, judge
from everpool.core.verdict import Trouble
from everpool.lab.loopthread import LoopThread

WELL = Vitals(
    condition=Condition.UP,
    since=100.0,
    trouble=None,
    error="",
    error_age=0.0,
    min_size=2,
    max_size=4,
    size=2,
    idle=2,
    lent=0,
    waiting=0,
    longest_wait=0.0,
    saturated=False,
    heard=3.0,
    late=0.0,
    cuts=0,
    cuts_lent=0,
)

SECRET = 'connection to "db-7.internal" as user "app" failed'

DOWN = {
    "condition": Condition.DOWN,
    "trouble": Trouble.GONE,
    "error": SECRET,
    "error_age": 0.5,
    "size": 0,
    "idle": 0,
}
SATURATED = {"saturated": True, "waiting": 3, "longest_wait": 2.0, "idle": 0, "lent": 4, "size": 4}
CLOSED = {"condition": Condition.CLOSED, "size": 0, "idle": 0}
NEW = {"condition": Condition.NEW, "size": 0, "idle": 0, "heard": inf}
STUCK = {"late": 31.0}


class Pretended:
    """A pool that is as it is told to be."""

    def __init__(self, name: str = "orders", **changes: Any) -> None:
        self.name = name
        self.become(**changes)

    def become(self, **changes: Any) -> None:
        self.vitals = replace(WELL, **changes)

    def health(self) -> Health:
        return judge(self.name, self.vitals)


class Threads:
    """Pools for threads, used from the test's thread."""

    def __init__(self) -> None:
        self._pools: list[ConnectionPool[Any]] = []

    def open(self, dsn: str, **settings: Any) -> ConnectionPool[Any]:
        pool = ConnectionPool(dsn, open=True, **settings)
        self._pools.append(pool)
        return pool

    def wait(self, pool: Any) -> None:
        pool.wait(10)

    def lend(self, pool: Any) -> Any:
        return pool.getconn()

    def give(self, pool: Any, conn: Any) -> None:
        pool.putconn(conn)

    def end(self, pool: Any) -> None:
        pool.close()

    def stop(self) -> None:
        for pool in self._pools:
            pool.close()


class Tasks:
    """Pools for asyncio in a loop that runs in another thread."""

    def __init__(self) -> None:
        self._pools: list[AsyncConnectionPool[Any]] = []
        self._loop = LoopThread("test-loop")

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop.loop).result(20)

    def block(self, seconds: float) -> None:
        """Let the loop stand still, from now on."""
        from time import sleep

        self._loop.loop.call_soon_threadsafe(sleep, seconds)

    def open(self, dsn: str, **settings: Any) -> AsyncConnectionPool[Any]:
        pool = AsyncConnectionPool(dsn, open=False, **settings)
        self._pools.append(pool)
        self.run(pool.open())
        return pool

    def wait(self, pool: Any) -> None:
        self.run(pool.wait(10))

    def lend(self, pool: Any) -> Any:
        return self.run(pool.getconn())

    def give(self, pool: Any, conn: Any) -> None:
        self.run(pool.putconn(conn))

    def end(self, pool: Any) -> None:
        self.run(pool.close())

    def stop(self) -> None:
        for pool in self._pools:
            self.run(pool.close())
        self._loop.stop()
