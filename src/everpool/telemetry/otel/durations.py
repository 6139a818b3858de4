"""From counts in buckets back to single durations, as OpenTelemetry wants them.

The pool keeps buckets and a sum. A histogram of OpenTelemetry takes one value at a time, so each
counted duration is told as a value that falls into the same bucket; the values are chosen so that
their sum is right as well.
"""

from __future__ import annotations

from ...snapshot import Durations

# How far above its lower bound the least value of a bucket lies, as a share of its width: a bound
# itself belongs to the bucket below.
LEAST_SHARE = 1e-6


class Ledger:
    """What of one of a pool's histograms has been told."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """The pool counts from zero: it is new, or it is a forked child's."""
        self._counts: list[int] = []
        self._sum = 0.0
        self._owed: list[float] = []  # parts of durations, by bucket, when sampled

    def advance(self, now: Durations) -> tuple[list[int], list[float]]:
        """Take what was counted since; return how many for each bucket, and their values.

        What of the sum does not fit the counts is told next time.
        """
        told = self._counts or [0] * len(now.counts)
        # An async pool is read while it counts: what seems to fall has not risen yet.
        counts = [max(0, a - b) for a, b in zip(now.counts, told, strict=True)]
        values = spread(now.bounds, counts, now.sum - self._sum)
        self._counts = [n + count for n, count in zip(told, counts, strict=True)]
        self._sum += sum(n * value for n, value in zip(counts, values, strict=True))
        return counts, values

    def sample(self, counts: list[int], share: float) -> list[int]:
        """As many of each bucket as their share: in the long run exactly, rare ones too."""
        self._owed = self._owed or [0.0] * len(counts)
        chosen = []
        for bucket, count in enumerate(counts):
            owed = self._owed[bucket] + count * share
            take = min(count, int(owed))
            self._owed[bucket] = owed - take
            chosen.append(take)
        return chosen


def spread(bounds: tuple[float, ...], counts: list[int], total: float) -> list[float]:
    """One value for each bucket, inside it, so that all durations together come to ``total``.

    The values lie at the same share of each bucket's width. The last bucket has no end: it
    counts as wide as its bound, and takes what the others cannot.
    """
    lows = (0.0, *bounds)
    highs = (*bounds, 2 * bounds[-1])
    least = sum(n * low for n, low in zip(counts, lows, strict=True))
    most = sum(n * high for n, high in zip(counts, highs, strict=True))
    share = (total - least) / (most - least) if most > least else 0.0
    share = min(max(share, LEAST_SHARE), 1.0)
    values = [min(low + share * (high - low), high) for low, high in zip(lows, highs, strict=True)]
    if counts[-1] and total > most:
        values[-1] += (total - most) / counts[-1]
    return values
