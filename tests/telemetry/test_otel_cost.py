"""What OpenTelemetry costs: next to nothing where connections are lent, and a bounded share of a core behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any

import pytest

from everpool import ConnectionPool
from everpool.lab import PostgresServer
from everpool.telemetry.otel import instrument
from everpool.telemetry.otel.feeder import BUDGET
from tests.support.figures import Figures
from tests.support.threads import eventually
from tests.telemetry.otel import Meters, Tracing

# A round: long enough that the feeder has its turn.
SECONDS = 2.0


@pytest.fixture
def pool(server: PostgresServer) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(server.dsn, min_size=2, name="orders") as pool:
        pool.wait(10)
        yield pool


def checkout(pool: ConnectionPool[Any]) -> float:
    """Microseconds of one checkout, the mean of those of one round."""
    began, count = perf_counter(), 0
    while (elapsed := perf_counter() - began) < SECONDS:
        for _ in range(1000):
            with pool.connection():
                pass
        count += 1000
    return 1e6 * elapsed / count


def added(pool: ConnectionPool[Any], rounds: int, **options: Any) -> float:
    """Microseconds that a checkout takes longer when instrumented; rounds take turns."""
    without, with_ = [], []
    for _ in range(rounds):
        without.append(checkout(pool))
        done = instrument(pool, **options)
        with_.append(checkout(pool))
        done.close()
    return median(b - a for a, b in zip(without, with_, strict=True))


def test_metrics_add_nothing_to_a_checkout(pool: ConnectionPool[Any], figure: Figures) -> None:
    meters = Meters()
    figure("metrics on, µs more a checkout", added(pool, 3, meter_provider=meters.provider), 1.5)


def test_spans_add_what_the_sdk_takes(pool: ConnectionPool[Any], figure: Figures) -> None:
    tracing = Tracing()
    options = {"metrics": False, "traces": True, "tracer_provider": tracing.provider}
    figure("spans on, µs more a checkout", added(pool, 1, **options), 1000)  # for the record


def test_the_feeders_cpu_at_ten_thousand_checkouts_a_second(
    pool: ConnectionPool[Any], figure: Figures
) -> None:
    meters = Meters()
    with instrument(pool, meter_provider=meters.provider):
        feeder = next(t for t in threading.enumerate() if t.name == "everpool-otel")
        clock = time.pthread_getcpuclockid(feeder.ident or 0)
        used, began, count = time.clock_gettime(clock), monotonic(), 0
        while (elapsed := monotonic() - began) < 6:
            while count < 10_000 * elapsed:
                with pool.connection():
                    pass
                count += 1
            sleep(0.001)
        cpu = (time.clock_gettime(clock) - used) / elapsed
        rate = count / elapsed
        points = meters.points()
        told = sum(point.count for point in points.values() if hasattr(point, "bucket_counts"))
    figure("checkouts a second, in thousands, to be sure", 10 - rate / 1000, 3)
    figure("durations recorded a second", told / elapsed, 1.1 * BUDGET)
    figure("CPU of the feeder, % of a core", 100 * cpu, 20)


def test_a_feeder_at_rest(pool: ConnectionPool[Any], figure: Figures) -> None:
    meters = Meters()
    with instrument(pool, meter_provider=meters.provider):
        eventually(lambda: bool(meters.histogram("db.client.connection.create_time")), timeout=3)
        feeder = next(t for t in threading.enumerate() if t.name == "everpool-otel")
        clock = time.pthread_getcpuclockid(feeder.ident or 0)
        used = time.clock_gettime(clock)
        sleep(3)
        cpu = (time.clock_gettime(clock) - used) / 3
    figure("CPU of a feeder at rest, % of a core", 100 * cpu, 1)


def test_a_collection(pool: ConnectionPool[Any], figure: Figures) -> None:
    meters = Meters()
    took = []
    with instrument(pool, meter_provider=meters.provider):
        for _ in range(50):
            began = perf_counter()
            meters.metrics()
            took.append(perf_counter() - began)
    figure("a collection, ms", 1e3 * median(took), 50)
