"""What the tests of the defences measure with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from statistics import median
from time import monotonic
from typing import Any

import psycopg

from everpool.lab import Drop, FaultProxy, Message, Rule
from everpool.lab.frames import Frame
from tests.support.aio import scalar


async def bare_connect(dsn: str, times: int = 3) -> float:
    """How long a connect takes without any pool: the median of some."""
    took = []
    for _ in range(times):
        start = monotonic()
        conn = await psycopg.AsyncConnection.connect(dsn)
        took.append(monotonic() - start)
        await conn.close()
    return median(took)


async def request(pool: Any, timeout: float | None = None) -> tuple[float, float]:
    """Borrow a connection and use it; return when it was had, and the seconds that took."""
    start = monotonic()
    async with pool.connection(timeout) as conn:
        had = monotonic()
        assert await scalar(conn, "select 1") == 1
    return had, had - start


def states(pool: Any) -> Counter[str]:
    """How many of the pool's connections are in each state."""
    return Counter({name: count for name, count in pool.snapshot().slots.items() if count})


def at_rest(pool: Any) -> int:
    return states(pool)["idle"]


def cuts(pool: Any) -> dict[str, int]:
    return pool.snapshot().cuts  # type: ignore[no-any-return]


def is_whole(pool: Any, size: int) -> bool:
    """All the pool's connections rest, nothing else is there, and its books agree."""
    machine = pool._machine
    assert machine.counted == sum(
        slot.state.value not in ("corpse", "dead", "gone") for slot in machine.slots
    )
    return states(pool) == Counter(idle=size) and len(machine.idle) == size == machine.counted


async def best_of(measure: Callable[[], Awaitable[float]], most: float, times: int = 3) -> float:
    """Measure until the figure is at most *most*, but no more than some times; return the least.

    A busy machine is late now and then for reasons of its own. A pool that is late is late every time.
    """
    least = await measure()
    for _ in range(times - 1):
        if least <= most:
            break
        least = min(least, await measure())
    return least


class Pings:
    """Counts the empty queries that go through a proxy on each of its present connections."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.counts: Counter[int] = Counter()
        self._rules = [self._watch(proxy, link.number) for link in proxy.links()]

    def _watch(self, proxy: FaultProxy, number: int) -> Rule:
        def count(frame: Frame) -> bool:
            self.counts[number] += frame.body == b"\0"
            return False

        return proxy.on(Message("client", "Query", where=count), Drop(), link=number, times=None)

    def reset(self) -> None:
        self.counts.clear()


PING = Message("client", "Query", where=lambda frame: frame.body == b"\0")
