"""Pools as metrics for Prometheus.

::

    from everpool.telemetry import prometheus
    from prometheus_client import start_http_server

    pool = ConnectionPool(conninfo, name="orders")
    prometheus.register(pool)
    start_http_server(9100, addr="127.0.0.1")

A scrape reads a pool's snapshot: it borrows no connection, sends no query and changes nothing.
Nothing is counted twice on the way of a checkout; the pool counts for itself anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import psycopg

import everpool

from ..core.health import Condition
from ..snapshot import Durations, Snapshot
from ._metrics import METRICS, Metric

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client import Metric as Family
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
    )
    from prometheus_client.registry import Collector as Base
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'{error.name} is needed here: pip install "everpool[prometheus]"', name=error.name
    ) from None

__all__ = ["Collector", "register"]

Pool = everpool.ConnectionPool[Any] | everpool.AsyncConnectionPool[Any]

_OPTIONS = ("labels",)

_FAMILIES = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}

# A label of the user's must not hide one of ours.
_TAKEN = {"pool", "le", *(metric.label for metric in METRICS if metric.label)}
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*").fullmatch


class Collector(Base):
    """Reads pools when Prometheus asks. Register it with a registry, or let `register` do it.

    Pools are held weakly: one that is no longer referenced ends, and its series with it. A pool
    that was closed is told of, in the state ``closed``, until then or until another pool of its
    name is added.

    :param pools: pools of any of the four classes, of different names.
    :param labels: labels, with constant values, that all series get besides ``pool``; say
        ``{"worker": os.getpid()}``, where many processes answer at one address.
    :raises ValueError: two pools have the same name, or a label cannot be used.
    :raises TypeError: what is given is no pool of everpool's, or an option unknown.
    """

    def __init__(
        self, *pools: Pool, labels: Mapping[str, object] | None = None, **unknown: object
    ) -> None:
        for option in unknown:
            raise TypeError(f"unknown option {option!r}; allowed: {', '.join(_OPTIONS)}")
        self.labels = {name: str(value) for name, value in (labels or {}).items()}
        for name in self.labels:
            if name in _TAKEN or not _LABEL(name):
                taken = ", ".join(sorted(_TAKEN))
                raise ValueError(f"no label can be {name!r}: use letters, digits, _; not {taken}")
        self._mutex = Lock()
        self._pools: list[ref[Pool]] = []
        self.add(*pools)

    def add(self, *pools: Pool) -> None:
        """Read these pools too; a pool that is there already is not added again.

        :raises ValueError: another pool has the same name and is not closed: their series could
            not be told apart.
        """
        for pool in pools:
            if not isinstance(pool, everpool.ConnectionPool | everpool.AsyncConnectionPool):
                raise TypeError(f"{type(pool).__name__} is no pool of everpool's")
            with self._mutex:
                kept = []
                for other in self._living():
                    if other is pool:
                        continue
                    if other.name == pool.name:
                        if other.health().state is not Condition.CLOSED:
                            raise ValueError(f"two pools are named {pool.name!r}: set name=…")
                        continue
                    kept.append(ref(other))
                self._pools = [*kept, ref(pool)]

    def describe(self) -> list[Family]:
        """The names of all metrics, so that a registry refuses a second collector beside this
        one, and finds what a scraper asks for by name."""
        return [_family(metric, []) for metric in METRICS] + [_build_info()]

    def collect(self) -> Iterator[Family]:
        """All metrics of all pools, as they are now."""
        # No lock: the list is replaced, never changed, and a fork may find any lock held.
        snapshots = [pool.snapshot() for pool in self._living()]
        names = ["pool", *self.labels]
        for metric in METRICS:
            family = _family(metric, [*names, metric.label] if metric.label else names)
            for snapshot in snapshots:
                self._fill(family, metric, snapshot)
            yield family
        yield _build_info()

    def _living(self) -> list[Pool]:
        return [pool for pool in (reference() for reference in self._pools) if pool is not None]

    def _fill(self, family: Any, metric: Metric, snapshot: Snapshot) -> None:
        labels = [snapshot.name, *self.labels.values()]
        reading = metric.read(snapshot)
        if isinstance(reading, Durations):
            family.add_metric(labels, buckets=_buckets(reading), sum_value=reading.sum)
        elif isinstance(reading, Mapping):
            for value, number in reading.items():
                family.add_metric([*labels, value], number)
        else:
            family.add_metric(labels, reading)


def register(*pools: Pool, registry: CollectorRegistry = REGISTRY, **options: Any) -> Collector:
    """Have a registry tell of pools. Called again, it adds to the registry's `Collector`.

    :param options: as for `Collector`, in the first call for a registry.
    :raises ValueError: as `Collector`, or the registry's collector has other labels.
    """
    with _mutex:
        collector = _collectors.get(registry)
        if collector is None:
            collector = Collector(*pools, **options)
            registry.register(collector)
            _collectors[registry] = collector
            return collector
        wanted = Collector(**options).labels
        if options and wanted != collector.labels:
            raise ValueError(f"the pools of this registry have the labels {collector.labels}")
        collector.add(*pools)
        try:
            registry.register(collector)  # it may have been taken out
        except ValueError:
            pass  # it is there
        return collector


_mutex = Lock()
_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()


def _family(metric: Metric, labels: list[str]) -> Family:
    family: Family = _FAMILIES[metric.kind](metric.name, metric.meaning, labels=labels)
    return family


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    """Prometheus counts what is as long as a bound or shorter: buckets hold those below too."""
    bounds = [*map(floatToGoString, durations.bounds), "+Inf"]
    buckets, below = [], 0
    for bound, count in zip(bounds, durations.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    return buckets


def _build_info() -> Family:
    versions = {
        "version": everpool.__version__,
        "psycopg": psycopg.__version__,
        "libpq": str(psycopg.pq.version()),
        "implementation": psycopg.pq.__impl__,
    }
    return InfoMetricFamily("everpool_build", "The versions in use.", value=versions)
