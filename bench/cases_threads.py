"""The comparisons that need threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from .harness import alternate, private
from .setup import Case, Figure, Library, Setup, SyncPool
from .slow import SlowConnect, slow_connection

CONTENDED_ON = 4
CONTENDERS = 16
MOST_CONNECTS = 16


@contextmanager
def opened(library: Library, dsn: str, size: int, **settings: Any) -> Iterator[SyncPool]:
    """A pool of `size` connections, all of them open."""
    with library.threads(dsn, min_size=size, max_size=size, open=False, **settings) as pool:
        pool.wait(timeout=120)
        yield pool


def use(pool: SyncPool, loops: int) -> float:
    """Seconds per checkout and return, nobody else being there."""
    start = perf_counter()
    for _ in range(loops):
        with pool.connection():
            pass
    return (perf_counter() - start) / loops


def uncontended(setup: Setup) -> Figure:
    effort = setup.effort
    with opened(setup.ours, setup.dsn, 4) as ours, opened(setup.theirs, setup.dsn, 4) as theirs:
        use_ours, use_theirs = private(use), private(use)
        return alternate(
            lambda: use_ours(ours, effort.loops),
            lambda: use_theirs(theirs, effort.loops),
            effort.rounds,
        ).best("µs")


def use_for(pool: SyncPool, seconds: float) -> float:
    """Seconds per checkout and return, over a fixed time."""
    count = 0
    start = now = perf_counter()
    while now - start < seconds:
        for _ in range(25):
            with pool.connection():
                pass
        count += 25
        now = perf_counter()
    return (now - start) / count


@contextmanager
def computing() -> Iterator[None]:
    """A thread that wants the interpreter all the time."""
    stop = False

    def compute() -> None:
        number = 0
        while not stop:
            number = (number * 1103515245 + 12345) & 0x7FFFFFFF

    thread = threading.Thread(target=compute, name="bench-computing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()


def busy_neighbour(setup: Setup) -> Figure:
    effort = setup.effort
    with opened(setup.ours, setup.dsn, 4) as ours, opened(setup.theirs, setup.dsn, 4) as theirs:
        use_ours, use_theirs = private(use_for), private(use_for)
        with computing():
            return alternate(
                lambda: use_ours(ours, effort.turn),
                lambda: use_theirs(theirs, effort.turn),
                2 * effort.slow_rounds,
            ).quartile("µs")


def take_rested(pool: SyncPool, size: int, rest: float) -> float:
    """Seconds to take one of the connections of `pool`, all having rested."""
    taken = [pool.getconn() for _ in range(size)]
    for conn in taken:
        conn.execute("SELECT 1")
    for conn in taken:
        pool.putconn(conn)
    time.sleep(rest)
    leases = []
    start = perf_counter()
    for _ in range(size):
        lease = pool.connection()
        lease.__enter__()
        leases.append(lease)
    elapsed = perf_counter() - start
    for lease in leases:
        lease.__exit__(None, None, None)
    return elapsed / size


def validated(setup: Setup) -> Figure:
    effort = setup.effort
    # autocommit: the queries before the round leave no transaction, and psycopg_pool's check
    # need not switch it on and off. It favours psycopg_pool, by little.
    kwargs = {"autocommit": True}
    check = setup.theirs.threads.check_connection
    checks = {"check": check} if setup.ours is setup.theirs else {}
    with (
        opened(setup.ours, setup.dsn, effort.rested, kwargs=kwargs, **checks) as ours,
        opened(setup.theirs, setup.dsn, effort.rested, kwargs=kwargs, check=check) as theirs,
    ):
        take_ours, take_theirs = private(take_rested), private(take_rested)
        return alternate(
            lambda: take_ours(ours, effort.rested, effort.rest),
            lambda: take_theirs(theirs, effort.rested, effort.rest),
            2 * effort.slow_rounds,
        ).best("µs")


def take_turns(pool: SyncPool, loops: int, barrier: threading.Barrier, ends: list[float]) -> None:
    barrier.wait()
    for _ in range(loops):
        with pool.connection():
            time.sleep(0)
    ends.append(perf_counter())


def contend(worker: Any, pool: SyncPool, threads: int, loops: int) -> float:
    """Seconds per checkout with more threads than connections."""
    begin = 0.0

    def mark() -> None:
        nonlocal begin
        begin = perf_counter()

    ends: list[float] = []
    barrier = threading.Barrier(threads, action=mark)
    workers = [
        threading.Thread(target=worker, args=(pool, loops, barrier, ends), daemon=True)
        for _ in range(threads)
    ]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    return (max(ends) - begin) / (threads * loops)


def contended(setup: Setup) -> Figure:
    loops = setup.effort.per_thread
    with (
        opened(setup.ours, setup.dsn, CONTENDED_ON) as ours,
        opened(setup.theirs, setup.dsn, CONTENDED_ON) as theirs,
    ):
        worker_ours, worker_theirs = private(take_turns), private(take_turns)
        return alternate(
            lambda: contend(worker_ours, ours, CONTENDERS, loops),
            lambda: contend(worker_theirs, theirs, CONTENDERS, loops),
            setup.effort.slow_rounds,
        ).median("µs")


def burst_once(setup: Setup, library: Library, slow: SlowConnect) -> float:
    """Seconds until a crowd that came at once is served, by a new pool."""
    effort = setup.effort
    begin = 0.0

    def mark() -> None:
        nonlocal begin
        begin = perf_counter()

    barrier = threading.Barrier(effort.callers, action=mark)
    ends: list[float] = []

    def caller(pool: SyncPool) -> None:
        barrier.wait()
        with pool.connection():
            time.sleep(effort.hold)
        ends.append(perf_counter())

    with library.threads(
        setup.dsn,
        connection_class=slow_connection(slow, effort.connect),
        min_size=effort.warm,
        max_size=effort.most,
        open=False,
    ) as pool:
        pool.wait(timeout=120)
        callers = [
            threading.Thread(target=caller, args=(pool,), daemon=True)
            for _ in range(effort.callers)
        ]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
    if len(ends) != effort.callers:
        raise RuntimeError(f"{effort.callers - len(ends)} callers were not served")
    return max(ends) - begin


def burst(setup: Setup) -> Figure:
    ours, theirs = SlowConnect(), SlowConnect()
    rounds = alternate(
        lambda: burst_once(setup, setup.ours, ours),
        lambda: burst_once(setup, setup.theirs, theirs),
        setup.effort.bursts,
    )
    return rounds.median("s", void=ours.beyond(MOST_CONNECTS), most_connects_at_once=ours.most)


CASES = (
    Case("uncontended-threads", "checkout, uncontended, threads", 0.28, uncontended),
    Case("busy-neighbour", "the same beside a CPU-bound thread", 0.50, busy_neighbour),
    Case("validated-threads", "validated checkout, threads", 0.05, validated),
    Case("contended-threads", "16 threads on 4 connections", 0.65, contended),
    Case("burst-threads", "100 callers at once on 4 of 50, threads", 0.45, burst),
)
