"""Whether the cost of a checkout grows with the pool, or with the crowd that waits."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Awaitable, Callable
from math import inf
from time import perf_counter, thread_time
from typing import Any

from . import cases_asyncio, cases_threads
from .harness import alternate, frozen_heap, private
from .setup import AsyncPool, Case, Figure, Setup, SyncPool

HELD = 4


def allow_files(count: int) -> None:
    """Raise the soft limit of open files; a pool may need two for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def sweep(pool: SyncPool, size: int, times: int) -> float:
    """Seconds per checkout and return when all are taken and all given back."""
    start = perf_counter()
    for _ in range(times):
        for conn in [pool.getconn() for _ in range(size)]:
            pool.putconn(conn)
    return (perf_counter() - start) / (size * times)


def by_size(setup: Setup) -> Figure:
    effort = setup.effort
    small, large = effort.sizes
    allow_files(4 * large + 256)
    # Nothing is said on these connections; with 1,000 of them the sweeps below would measure
    # how fast the server answers.
    unasked = {} if setup.ours is setup.theirs else {"verify_after": inf}
    with (
        cases_threads.opened(setup.ours, setup.dsn, large, **unasked) as many,
        cases_threads.opened(setup.ours, setup.dsn, small, **unasked) as few,
    ):
        figure = alternate(
            lambda: cases_threads.use(many, effort.loops),
            lambda: cases_threads.use(few, effort.loops),
            effort.rounds,
        ).best("µs")
        swept = alternate(
            lambda: sweep(many, large, 1),
            lambda: sweep(few, small, large // small),
            effort.slow_rounds,
        ).median("µs")
    return Figure(
        value=figure.value,
        ours=figure.ours,
        theirs=None,
        unit=figure.unit,
        statistic=figure.statistic,
        detail={
            "sizes": [small, large],
            "microseconds": [figure.theirs, figure.ours],
            "sweep_microseconds": [swept.theirs, swept.ours],
            "sweep_ratio": swept.value,
        },
    )


async def served(pool: AsyncPool) -> None:
    async with pool.connection():
        pass


async def hand_over(worker: Callable[..., Any], pool: AsyncPool, crowd: int) -> float:
    """Seconds per hand-over to a crowd of tasks that wait already."""
    held = [await pool.getconn() for _ in range(HELD)]
    everyone = asyncio.gather(*(worker(pool) for _ in range(crowd)))
    while pool.get_stats()["requests_waiting"] < crowd:
        await asyncio.sleep(0)

    async def begin() -> None:
        for conn in held:
            await pool.putconn(conn)

    return await _timed(begin, everyone, crowd)


async def woken(semaphore: asyncio.Semaphore) -> None:
    async with semaphore:
        pass


async def wake(crowd: int) -> float:
    """The same with a semaphore: what asyncio itself takes."""
    semaphore = asyncio.Semaphore(HELD)
    for _ in range(HELD):
        await semaphore.acquire()
    everyone = asyncio.gather(*(woken(semaphore) for _ in range(crowd)))
    await asyncio.sleep(0)

    async def begin() -> None:
        for _ in range(HELD):
            semaphore.release()

    return await _timed(begin, everyone, crowd)


async def _timed(begin: Callable[[], Awaitable[None]], everyone: Any, crowd: int) -> float:
    gc.collect()
    # CPU time: a round with 10,000 is too long to fall between other programs' turns.
    start = thread_time()
    await begin()
    await everyone
    return (thread_time() - start) / crowd


def by_waiters(setup: Setup) -> Figure:
    effort = setup.effort
    ours_at: dict[int, float] = {}
    theirs_at: dict[int, float] = {}
    asyncio_at: dict[int, float] = {}
    with (
        asyncio.Runner() as runner,
        cases_asyncio.opened(runner, setup.ours, setup.dsn, HELD) as ours,
        cases_asyncio.opened(runner, setup.theirs, setup.dsn, HELD) as theirs,
        frozen_heap(),
    ):
        served_ours, served_theirs = private(served), private(served)
        legs: list[tuple[dict[int, float], Callable[[int], Any]]] = [
            (ours_at, lambda crowd: hand_over(served_ours, ours, crowd)),
            (theirs_at, lambda crowd: hand_over(served_theirs, theirs, crowd)),
            (asyncio_at, wake),
        ]
        rounds = (effort.slow_rounds + 1) // 2
        for _ in range(rounds):
            for crowd in effort.waiters:
                for times, leg in legs:
                    taken = runner.run(leg(crowd))
                    times[crowd] = min(taken, times.get(crowd, taken))
    few, many = effort.waiters[0], effort.waiters[-1]

    def growth(times: dict[int, float]) -> float:
        return times[many] / times[few]

    def microseconds(times: dict[int, float]) -> dict[str, float]:
        return {str(crowd): seconds * 1e6 for crowd, seconds in times.items()}

    return Figure(
        value=growth(ours_at),
        ours=ours_at[many] * 1e6,
        theirs=theirs_at[many] * 1e6,
        unit="µs",
        statistic=f"best of {rounds}",
        detail={
            "microseconds": {
                "everpool": microseconds(ours_at),
                "psycopg_pool": microseconds(theirs_at),
                "semaphore": microseconds(asyncio_at),
            },
            "growth": {
                "everpool": growth(ours_at),
                "psycopg_pool": growth(theirs_at),
                "semaphore": growth(asyncio_at),
            },
        },
    )


CASES = (
    Case("size", "checkout at 1,000 connections over at 10", 1.20, by_size, "growth"),
    Case("waiters", "hand-over with 10,000 waiting over 100", 1.20, by_waiters, "growth"),
)
