"""How long a ping may take before it tells something: TCP's retransmission estimate (RFC 6298)."""

from __future__ import annotations

# A quarter of a second is beyond any healthy round trip in one region and below what a caller
# notices; two seconds is the longest a single ping may keep a caller from a fresh connection.
LEAST = 0.25
MOST = 2.0


class RoundTrip:
    """Smoothed round-trip time and its variation, in seconds."""

    __slots__ = ("_backoff", "smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed = 0.0
        self.variation = 0.0
        self._backoff = 1.0

    def seed(self, took: float) -> None:
        """A guess from a connect, until there is a sample."""
        if not self.smoothed:
            self.sample(took)

    def lost(self) -> None:
        """A ping (or several at once) took too long: allow the next twice the time."""
        self._backoff = min(2 * self._backoff, MOST / LEAST)

    def sample(self, took: float) -> None:
        self._backoff = 1.0
        if not self.smoothed:
            self.smoothed, self.variation = took, took / 2
        else:
            self.variation += (abs(self.smoothed - took) - self.variation) / 4
            self.smoothed += (took - self.smoothed) / 8

    @property
    def usual(self) -> float:
        """What an answer takes at most, going by those that came."""
        return min(MOST, max(LEAST, self.smoothed + 4 * self.variation))

    @property
    def limit(self) -> float:
        """What the next ping is allowed."""
        return min(MOST, self._backoff * self.usual)
