"""The comparisons that need an event loop.

Both pools live on one loop, which runs during the rounds only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, thread_time
from typing import Any

from .harness import alternate, private
from .setup import AsyncPool, Case, Figure, Library, Setup
from .slow import SlowConnect, slow_async_connection

CONTENDED_ON = 4
CONTENDERS = 64
MOST_CONNECTS = 16


@contextmanager
def opened(
    runner: asyncio.Runner, library: Library, dsn: str, size: int, **settings: Any
) -> Iterator[AsyncPool]:
    """A pool of `size` connections on the loop of `runner`, all of them open."""

    async def open_pool() -> AsyncPool:
        pool = library.tasks(dsn, min_size=size, max_size=size, open=False, **settings)
        await pool.open(wait=True, timeout=120)
        return pool

    pool = runner.run(open_pool())
    try:
        yield pool
    finally:
        runner.run(pool.close())


async def use(pool: AsyncPool, loops: int) -> float:
    """Seconds per checkout and return, nobody else being there."""
    start = perf_counter()
    for _ in range(loops):
        async with pool.connection():
            pass
    return (perf_counter() - start) / loops


def uncontended(setup: Setup) -> Figure:
    effort = setup.effort
    with (
        asyncio.Runner() as runner,
        opened(runner, setup.ours, setup.dsn, 4) as ours,
        opened(runner, setup.theirs, setup.dsn, 4) as theirs,
    ):
        use_ours, use_theirs = private(use), private(use)
        return alternate(
            lambda: runner.run(use_ours(ours, effort.loops)),
            lambda: runner.run(use_theirs(theirs, effort.loops)),
            effort.rounds,
        ).best("µs")


async def take_rested(pool: AsyncPool, size: int, rest: float) -> float:
    """Seconds to take one of the connections of `pool`, all having rested."""
    taken = [await pool.getconn() for _ in range(size)]
    for conn in taken:
        await conn.execute("SELECT 1")
    for conn in taken:
        await pool.putconn(conn)
    await asyncio.sleep(rest)
    leases = []
    start = perf_counter()
    for _ in range(size):
        lease = pool.connection()
        await lease.__aenter__()
        leases.append(lease)
    elapsed = perf_counter() - start
    for lease in leases:
        await lease.__aexit__(None, None, None)
    return elapsed / size


def validated(setup: Setup) -> Figure:
    effort = setup.effort
    kwargs = {"autocommit": True}  # for the reason given with the threads
    check = setup.theirs.tasks.check_connection
    checks = {"check": check} if setup.ours is setup.theirs else {}
    size = effort.rested
    with (
        asyncio.Runner() as runner,
        opened(runner, setup.ours, setup.dsn, size, kwargs=kwargs, **checks) as ours,
        opened(runner, setup.theirs, setup.dsn, size, kwargs=kwargs, check=check) as theirs,
    ):
        take_ours, take_theirs = private(take_rested), private(take_rested)
        return alternate(
            lambda: runner.run(take_ours(ours, size, effort.rest)),
            lambda: runner.run(take_theirs(theirs, size, effort.rest)),
            2 * effort.slow_rounds,
        ).best("µs")


async def take_turns(pool: AsyncPool, loops: int) -> None:
    for _ in range(loops):
        async with pool.connection():
            await asyncio.sleep(0)


async def contend(worker: Any, pool: AsyncPool, tasks: int, loops: int) -> float:
    """CPU seconds per checkout with more tasks than connections."""
    start = thread_time()
    await asyncio.gather(*(worker(pool, loops) for _ in range(tasks)))
    return (thread_time() - start) / (tasks * loops)


def contended(setup: Setup) -> Figure:
    effort = setup.effort
    with (
        asyncio.Runner() as runner,
        opened(runner, setup.ours, setup.dsn, CONTENDED_ON) as ours,
        opened(runner, setup.theirs, setup.dsn, CONTENDED_ON) as theirs,
    ):
        worker_ours, worker_theirs = private(take_turns), private(take_turns)
        return alternate(
            lambda: runner.run(contend(worker_ours, ours, CONTENDERS, effort.per_task)),
            lambda: runner.run(contend(worker_theirs, theirs, CONTENDERS, effort.per_task)),
            5 * effort.slow_rounds,
        ).best("µs")


async def burst_once(setup: Setup, library: Library, slow: SlowConnect) -> float:
    """Seconds until a crowd that came at once is served, by a new pool."""
    effort = setup.effort

    async def caller(pool: AsyncPool) -> None:
        async with pool.connection():
            await asyncio.sleep(effort.hold)

    async with library.tasks(
        setup.dsn,
        connection_class=slow_async_connection(slow, effort.connect),
        min_size=effort.warm,
        max_size=effort.most,
        open=False,
    ) as pool:
        await pool.wait(timeout=120)
        start = perf_counter()
        await asyncio.gather(*(caller(pool) for _ in range(effort.callers)))
        return perf_counter() - start


def burst(setup: Setup) -> Figure:
    ours, theirs = SlowConnect(), SlowConnect()
    rounds = alternate(
        lambda: asyncio.run(burst_once(setup, setup.ours, ours)),
        lambda: asyncio.run(burst_once(setup, setup.theirs, theirs)),
        setup.effort.bursts,
    )
    return rounds.median("s", void=ours.beyond(MOST_CONNECTS), most_connects_at_once=ours.most)


CASES = (
    Case("uncontended-asyncio", "checkout, uncontended, asyncio", 0.14, uncontended),
    Case("validated-asyncio", "validated checkout, asyncio", 0.05, validated),
    Case("contended-asyncio", "64 tasks on 4 connections", 0.20, contended),
    Case("burst-asyncio", "100 callers at once on 4 of 50, asyncio", 0.45, burst),
)
