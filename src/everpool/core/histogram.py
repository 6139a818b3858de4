"""How long things take: counts in buckets, because a sum hides the slow ones."""

from __future__ import annotations

from bisect import bisect_left

# Upper bounds in seconds, those that OpenTelemetry advises for the duration of database calls;
# for waiting and holding it advises none.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

# What is shorter is counted on the hot path, without a call.
BRIEF = BOUNDS[0]


class Histogram:
    """Durations in seconds. ``counts`` has a last element for what exceeds all bounds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def record(self, seconds: float) -> None:
        """A bucket holds what is as long as its bound, or shorter."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds
