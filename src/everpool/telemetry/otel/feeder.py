"""Feeds the histograms in the background: nothing is recorded where connections are lent.

Recording one duration costs OpenTelemetry's SDK several times what a checkout costs the pool, and
a histogram has no form that is read when somebody collects. So the pools count in buckets of
their own, and one thread for all of them tells what was added, every second.

A thread, and not the callbacks of a collection: those come in one burst a minute, or while
Prometheus waits for an answer, and OpenTelemetry does not promise that a callback may record.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from opentelemetry.metrics import Histogram

from ...snapshot import Durations, Snapshot
from .durations import Ledger

if TYPE_CHECKING:
    from .instruments import Pool

logger = logging.getLogger("everpool.telemetry")

# How far the histograms may be behind, in seconds. Collections are 5 to 60 s apart.
INTERVAL = 1.0

# With recording at 5 to 10 µs, a slice holds the interpreter for a millisecond at most, less than
# the 5 ms for which any thread may; and the pauses between slices bound the whole to 5,000 durations
# a second, 3 to 5 % of one core. What is beyond is sampled.
SLICE = 100
PAUSE = 0.02
BUDGET = int(INTERVAL / PAUSE) * SLICE


@dataclass(slots=True)
class Track:
    """One kind of duration of one pool, and the histogram that is told of it.

    :ivar kind: the snapshot's name for it.
    :ivar left_out: how many durations were not recorded because there were too many.
    """

    kind: str
    name: str
    histogram: Histogram
    ledger: Ledger = field(default_factory=Ledger)
    left_out: int = 0

    def read(self, snapshot: Snapshot) -> tuple[list[int], list[float]]:
        durations: Durations = getattr(snapshot, self.kind)
        return self.ledger.advance(durations)


class Source:
    """One pool that is told of: wait, use and connect times."""

    def __init__(self, pool: Pool, attributes: dict[str, str], tracks: list[Track]) -> None:
        self.pool = ref(pool)
        self.attributes = attributes
        self.tracks = tracks


class Feeder:
    """The thread, the pools it reads, and what it has to record.

    There is a thread only while there are pools that are in use.
    """

    def __init__(self) -> None:
        self._mutex = Lock()
        self._sources: list[Source] = []
        self._pending: deque[tuple[Track, Source, float, int]] = deque()
        self._ending: Event | None = None  # the running thread's, to end it
        self._failures = 0

    @property
    def running(self) -> bool:
        return self._ending is not None

    def add(self, source: Source) -> None:
        with self._mutex:
            self._sources.append(source)
            self._begin()

    def remove(self, source: Source) -> None:
        """Record what there is of this pool, and read it no more."""
        self.feed(source)
        with self._mutex:
            self._sources = [other for other in self._sources if other is not source]
            self._end_if_idle()

    def feed(self, source: Source) -> None:
        """Record what there is of this pool now, in the caller's thread: at most ``BUDGET``
        durations, some tens of milliseconds."""
        pool = source.pool()
        if pool is not None:
            self._plan([(source, pool.snapshot())])
        while self._record():
            pass

    def _begin(self) -> None:
        if self._ending is None and self._sources:
            self._ending = Event()
            Thread(
                target=self._run, args=(self._ending,), name="everpool-otel", daemon=True
            ).start()

    def _end_if_idle(self) -> None:
        if not self._sources and self._ending is not None:
            self._ending.set()
            self._ending = None

    def _run(self, ending: Event) -> None:
        due = monotonic() + INTERVAL
        while not ending.wait(due - monotonic()):
            now = monotonic()
            due = now + INTERVAL
            try:
                self._plan(self._read())
            except Exception:
                self._failed()
            while self._record():
                now += PAUSE
                ending.wait(now - monotonic())  # not at all when it is late, or is to end

    def _read(self) -> list[tuple[Source, Snapshot]]:
        """Look at each pool; forget those that are gone."""
        with self._mutex:
            sources = list(self._sources)
        found, gone = [], []
        for source in sources:
            pool = source.pool()
            if pool is None:
                gone.append(source)
                continue
            snapshot = pool.snapshot()
            found.append((source, snapshot))
            if snapshot.state == "closed" and not snapshot.slots["lent"]:
                gone.append(source)  # nothing is added any more
        with self._mutex:
            self._sources = [source for source in self._sources if source not in gone]
            self._end_if_idle()
        return found

    def _plan(self, found: Iterable[tuple[Source, Snapshot]]) -> None:
        """Decide what to record: all, or as much as the budget allows.

        The budget is shared out evenly, beginning with who needs least: of the few connects none is
        left out because there were many checkouts.
        """
        with self._mutex:
            news = [
                (source, track, *track.read(snapshot))
                for source, snapshot in found
                for track in source.tracks
            ]
            news.sort(key=lambda one: sum(one[2]))
            room = BUDGET
            for done, (source, track, counts, values) in enumerate(news):
                allowed, demand = room // (len(news) - done), sum(counts)
                chosen = counts
                if demand > allowed:
                    chosen = track.ledger.sample(counts, allowed / demand)
                    track.left_out += demand - sum(chosen)
                room -= sum(chosen)
                for count, value in zip(chosen, values, strict=True):
                    if count:
                        self._pending.append((track, source, value, count))

    def _record(self) -> bool:
        """Record one slice; False if that was all."""
        with self._mutex:
            room = SLICE
            while self._pending and room:
                track, source, value, count = self._pending.popleft()
                now = min(count, room)
                room -= now
                if count > now:
                    self._pending.appendleft((track, source, value, count - now))
                try:
                    for _ in range(now):
                        track.histogram.record(value, source.attributes)
                except Exception:
                    self._failed()
            return bool(self._pending)

    def _failed(self) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th time
            logger.exception("recording durations failed, %s times so far", self._failures)

    def after_fork(self) -> None:
        """In a forked child the thread is gone, and the pools count from zero."""
        self._mutex = Lock()
        self._pending.clear()
        self._ending = None
        for source in self._sources:
            pool: Any = source.pool()
            if pool is not None and not pool.closed:  # a closed one's counts stay
                for track in source.tracks:
                    track.ledger.restart()
                    track.left_out = 0
        self._begin()


FEEDER = Feeder()

os.register_at_fork(after_in_child=FEEDER.after_fork)
