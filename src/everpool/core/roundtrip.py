"""How long a ping may take before it tells something: TCP's retransmission estimate (RFC 6298)."""

from __future__ import annotations

# A quarter of a second is beyond any healthy round trip in one region and below what a caller
# notices; two seconds is the longest a single ping may keep a caller from a fresh connection.
LEAST = 0.25
MOST = 2.0


class RoundTrip:
    """Smoothed round-trip time and its variation, in seconds."""

    __slots__ = ("smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed = 0.0
        self.variation = 0.0

    def sample(self, took: float) -> None:
        if not self.smoothed:
            self.smoothed, self.variation = took, took / 2
        else:
            self.variation += (abs(self.smoothed - took) - self.variation) / 4
            self.smoothed += (took - self.smoothed) / 8

    @property
    def limit(self) -> float:
        return min(MOST, max(LEAST, self.smoothed + 4 * self.variation))
