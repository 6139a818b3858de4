"""What being watched costs: everpool with everything that listens, beside everpool without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

from . import cases_asyncio, cases_threads
from .harness import Rounds, alternate, private
from .setup import Case, Figure, Setup

SCRAPE_EVERY = 1.0


class Nobody:
    """A sink of alerts that keeps nothing."""

    refresh = None

    def send(self, notice: Any) -> None: ...


@contextmanager
def watched(pool: Any) -> Iterator[None]:
    """Metrics for Prometheus, scraped; metrics for OpenTelemetry; alerts; a listener."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from prometheus_client import CollectorRegistry, generate_latest

    from everpool.alerts import Alerts
    from everpool.telemetry.otel import instrument
    from everpool.telemetry.prometheus import Collector

    registry, reader, stop = CollectorRegistry(), InMemoryMetricReader(), Event()
    registry.register(Collector(pool))

    def scrape() -> None:
        while not stop.wait(SCRAPE_EVERY):
            generate_latest(registry)
            reader.collect()

    with ExitStack() as stack:
        stack.enter_context(pool.subscribe(lambda happening: None))
        stack.enter_context(instrument(pool, meter_provider=MeterProvider([reader])))
        stack.enter_context(Alerts(pool, sinks=[Nobody()]))
        thread = Thread(target=scrape, name="bench-scrape", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def more(rounds: Rounds) -> Figure:
    """The difference of the best rounds, in µs."""
    watched, alone = 1e6 * min(rounds.ours), 1e6 * min(rounds.theirs)
    return Figure(
        value=watched - alone,
        ours=watched,
        theirs=None,
        unit="µs",
        statistic=f"best of {len(rounds.ours)}",
        detail={"unwatched": alone},
    )


def threads(setup: Setup) -> Figure:
    effort, opened = setup.effort, cases_threads.opened
    with (
        opened(setup.ours, setup.dsn, 4) as one,
        opened(setup.ours, setup.dsn, 4) as other,
        watched(one),
    ):
        use_one, use_other = private(cases_threads.use), private(cases_threads.use)
        return more(
            alternate(
                lambda: use_one(one, effort.loops),
                lambda: use_other(other, effort.loops),
                effort.rounds,
            )
        )


def tasks(setup: Setup) -> Figure:
    effort, opened = setup.effort, cases_asyncio.opened
    with (
        asyncio.Runner() as runner,
        opened(runner, setup.ours, setup.dsn, 4) as one,
        opened(runner, setup.ours, setup.dsn, 4) as other,
        watched(one),
    ):
        use_one, use_other = private(cases_asyncio.use), private(cases_asyncio.use)
        return more(
            alternate(
                lambda: runner.run(use_one(one, effort.loops)),
                lambda: runner.run(use_other(other, effort.loops)),
                effort.rounds,
            )
        )


CASES = (
    Case("watched-threads", "checkout while watched, threads", 1.5, threads, "µs more"),
    Case("watched-asyncio", "checkout while watched, asyncio", 1.5, tasks, "µs more"),
)
