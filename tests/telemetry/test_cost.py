"""What a scrape costs, and that lending does not notice it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from everpool import ConnectionPool
from everpool.lab import PostgresServer
from everpool.telemetry.prometheus import register
from tests.support.figures import Figures


class Stopwatch:
    """A lock that notes how long it is held."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.held: list[float] = []

    def __enter__(self) -> None:
        self._lock.__enter__()
        self._since = perf_counter()

    def __exit__(self, *exc_info: Any) -> None:
        self.held.append(perf_counter() - self._since)
        self._lock.__exit__(*exc_info)


@pytest.fixture(scope="module")
def pool() -> Iterator[ConnectionPool[Any]]:
    """A pool of a hundred connections, all of them at rest."""
    with (
        PostgresServer({"max_connections": 110}) as server,
        ConnectionPool(server.dsn, min_size=100, max_size=100, name="large") as pool,
    ):
        pool.wait(30)
        yield pool


def usual(call: Callable[[], Any], times: int = 200) -> float:
    """How long a call takes, in microseconds: the median."""
    took = []
    for _ in range(times):
        began = perf_counter()
        call()
        took.append(perf_counter() - began)
    return 1e6 * median(took)


# Five times what a quiet machine of 2020 takes: these tests find a mistake in kind, not in speed.


def test_a_scrape(pool: ConnectionPool[Any], figure: Figures) -> None:
    registry = CollectorRegistry()
    register(pool, registry=registry)
    figure("snapshot of 100 connections, µs", usual(pool.snapshot), 1000)
    figure("collect, µs", usual(lambda: list(registry.collect())), 2000)
    figure("a scrape as text, µs", usual(lambda: generate_latest(registry)), 5000)


def test_the_lock_is_held_for_less_than_a_fifth_of_a_millisecond(
    pool: ConnectionPool[Any], figure: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Stopwatch(pool._mutex)
    monkeypatch.setattr(pool, "_mutex", watch)
    for _ in range(200):
        pool.snapshot()
    figure("lock held by a snapshot, µs", 1e6 * median(watch.held), 200)


def test_lending_while_scraped(pool: ConnectionPool[Any], figure: Figures) -> None:
    registry = CollectorRegistry()
    register(pool, registry=registry)

    def borrow() -> None:
        with pool.connection():
            pass

    alone = usual(borrow, 2000)
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(0.01):  # a hundred times a second; usual is four times a minute
            generate_latest(registry)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        scraped = usual(borrow, 2000)
    finally:
        stop.set()
        thread.join()
    figure("a checkout while scraped, times one alone", scraped / alone, 2.0)
