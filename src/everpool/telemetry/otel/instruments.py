"""The instruments on one meter provider, which tell of all pools that are entered.

One set for all pools, because OpenTelemetry ignores the callbacks of an instrument that is made a
second time, and has no way to take one back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import Lock
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from ... import AsyncConnectionPool, ConnectionPool, __version__
from ...core.histogram import BOUNDS
from ...events import Closed, CommitResolved, Condition, Happening, Subscription
from ...snapshot import Snapshot
from .feeder import FEEDER, Source, Track
from .readings import HISTOGRAM, HISTOGRAMS, POOL_NAME, READINGS, SCHEMA_URL, Reading

Pool = ConnectionPool[Any] | AsyncConnectionPool[Any]

# One snapshot serves all instruments of a collection, which takes some milliseconds.
SAME_COLLECTION = 1.0


class Entry:
    """One pool, told of through the instruments. Holds it weakly."""

    def __init__(self, pool: Pool, tracks: list[Track]) -> None:
        self.attributes = {POOL_NAME: pool.name}
        self.source = Source(pool, self.attributes, tracks)
        self.told = False  # whether it is told of now
        self.subscription: Subscription | None = None
        self.rearm()

    def rearm(self) -> None:
        """At first, and in a forked child, where another thread may have held the lock."""
        self._mutex = Lock()
        self._snapshot: Snapshot | None = None
        self._readers: set[str] = set()

    def snapshot(self, reader: str) -> Snapshot | None:
        """The same for all instruments of one collection; a new one for who has read it."""
        pool = self.source.pool()
        if pool is None:
            return None
        with self._mutex:
            known = self._snapshot
            if known is None or reader in self._readers or monotonic() - known.at > SAME_COLLECTION:
                self._snapshot = known = pool.snapshot()
                self._readers.clear()
            self._readers.add(reader)
            return known


class Instruments:
    """All instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        self._entries: WeakKeyDictionary[Pool, Entry] = WeakKeyDictionary()
        self._mutex = Lock()
        meter = provider.get_meter("everpool", __version__, SCHEMA_URL)
        for reading in READINGS:
            create = getattr(meter, f"create_observable_{reading.kind}")
            create(
                reading.name,
                callbacks=[self._callback(reading)],
                unit=reading.unit,
                description=reading.description,
            )
        meter.create_observable_counter(
            "everpool.durations.left_out",
            callbacks=[self._left_out],
            unit="{duration}",
            description="Durations that a histogram misses, because there were too many to record"
            " them all.",
        )
        self._happenings = meter.create_counter(
            "everpool.happening.count", unit="{happening}", description="Happenings, by name."
        )
        self._histograms = [
            (
                kind,
                name,
                meter.create_histogram(
                    name,
                    unit="s",
                    description=description,
                    explicit_bucket_boundaries_advisory=list(BOUNDS),
                ),
            )
            for kind, name, description in HISTOGRAMS
        ]

    def enter(self, pool: Pool) -> Entry:
        """Tell of a pool from now on; what it has counted so far is told too.

        :raises ValueError: it is told of already, or another of the same name is.
        """
        with self._mutex:
            for other, entry in list(self._entries.items()):
                if not entry.told or other.name != pool.name:
                    continue
                if other is pool:
                    raise ValueError(f"the metrics of pool {pool.name!r} are told already")
                if other.snapshot().state != Condition.CLOSED.value:
                    raise ValueError(
                        f"two pools are named {pool.name!r}: their metrics could not be told apart"
                    )
                entry.told = False
            entry = self._entries.get(pool) or Entry(
                pool, [Track(kind, name, histogram) for kind, name, histogram in self._histograms]
            )
            self._entries[pool] = entry
            entry.told = True
        entry.subscription = pool.subscribe(self._listener(entry))
        FEEDER.add(entry.source)
        return entry

    def leave(self, entry: Entry) -> None:
        """Tell of a pool no more; what it has counted so far is recorded first."""
        entry.told = False
        if entry.subscription is not None:
            entry.subscription.close()
        FEEDER.remove(entry.source)

    def rearm(self) -> None:
        """In a forked child another thread may have held the locks."""
        self._mutex = Lock()
        for entry in self._entries.values():
            entry.rearm()

    def _listener(self, entry: Entry) -> Callable[[Happening], None]:
        def listen(happening: Happening) -> None:
            attributes = {**entry.attributes, "everpool.happening.name": happening.name}
            if isinstance(happening, CommitResolved):
                attributes["everpool.commit.outcome"] = happening.outcome
            self._happenings.add(1, attributes)
            if isinstance(happening, Closed):  # it may be collected before the next interval
                FEEDER.feed(entry.source)

        return listen

    def _told(self) -> list[Entry]:
        with self._mutex:
            return [entry for entry in self._entries.values() if entry.told]

    def _callback(self, reading: Reading) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> list[Observation]:
            found = []
            for entry in self._told():
                snapshot = entry.snapshot(reading.name)
                if snapshot is not None:
                    for value, extra in reading.read(snapshot):
                        found.append(Observation(value, {**entry.attributes, **extra}))
            return found

        return observe

    def _left_out(self, options: CallbackOptions) -> list[Observation]:
        return [
            Observation(track.left_out, {**entry.attributes, HISTOGRAM: track.name})
            for entry in self._told()
            for track in entry.source.tracks
        ]


_all: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()
_mutex = Lock()
_globals: list[Instruments] = []  # the global provider's, if they have been made


def instruments_of(provider: MeterProvider | None) -> Instruments:
    """The instruments on a meter provider; None for the global one.

    Until the application sets the global provider, there is a stand-in for it, which hands its
    instruments on: they stay the ones that count.
    """
    current = metrics.get_meter_provider()
    with _mutex:
        if provider is not None and provider is not current:
            return _all.get(provider) or _make(provider)
        if not _globals:
            _globals.append(_all.get(current) or _make(current))
        return _globals[0]


def _make(provider: MeterProvider) -> Instruments:
    instruments = _all[provider] = Instruments(provider)
    return instruments


def _after_fork() -> None:
    global _mutex
    _mutex = Lock()
    for instruments in _all.values():
        instruments.rearm()


os.register_at_fork(after_in_child=_after_fork)
