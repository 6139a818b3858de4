"""When to open connections, and how many at once.

Three regimes:

* **growing**: demand opens up to ``max_connecting`` at once. Bursts of callers on a small pool
  finish in 0.4 of the time a one-at-a-time pool takes; beyond 16 at once little is gained.
* **slow start**, after deaths or an outage: one attempt alone, then the window grows by one
  with each success, which doubles it each round: 1, 2, 4, 8 … Twenty reconnects at once made
  the first of them take 6.7 times as long as a lone one.
* **trouble**: one attempt in flight. Waits between attempts are drawn from [0, cap) (full
  jitter), the cap doubling from 50 ms to 0.8 s while anybody waits and to 2 s while nobody
  does: with 0.8 s the first success comes within a second of the server's return, whatever
  the length of the outage; with 2 s that failed in 28 % of outages. When the server *rejects*
  us (password, database) the wait grows to 30 s, because providers lock out who insists.

A hung attempt must not stop recovery, and cannot always be stopped: past its *patience* it is
disowned (still counted, its late success still welcome) and one more may start. At most two
are outstanding in trouble: an old one with time for servers that wake slowly, and a young one
that is replaced each time its patience ends.
"""

from __future__ import annotations

from collections.abc import Callable

from .verdict import Trouble

FIRST_DELAY = 0.05
DELAY_WANTED = 0.8
DELAY_UNWANTED = 2.0
FIRST_DELAY_REJECTED = 1.0
DELAY_REJECTED = 30.0

# Patience with one attempt before another may start: four times what connects usually take
# (as for a ping), at least 0.8 s, so that recovery from silence keeps the pace of recovery
# from refusal; before the first success, when "usually" is unknown, 2 s.
PATIENCE_FACTOR = 4.0
PATIENCE_LEAST = 0.8
PATIENCE_UNKNOWN = 2.0

# A session that ends so soon after its login was no success: a pooler that has lost its server
# accepts logins and then hangs up. Without a pause a pool of ten made 380 logins a second.
# Long enough to catch that, short against a path that cuts every second, which is no illness of
# the server's.
YOUNG = 0.2

# Deaths so near each other are one: a pool that was filled at one moment dies at one moment.
ONE_DEATH = FIRST_DELAY

# Without a young death for so long, the next is the first again.
YOUNG_FORGOTTEN = 10.0


class Connector:
    __slots__ = (
        "_failed_at",
        "_failures",
        "_hurried",
        "_random",
        "_young",
        "_young_at",
        "down_since",
        "most",
        "not_before",
        "successes",
        "trouble",
        "typical",
        "window",
    )

    def __init__(self, most: int, random: Callable[[], float]) -> None:
        self.most = most  # attempts at once in good times
        self.window = 1  # attempts at once now; the very first goes alone
        self.trouble: Trouble | None = None
        self.down_since = 0.0  # when the trouble began
        self.not_before = 0.0  # when the next attempt may start
        self.typical: float | None = None  # smoothed seconds of a successful connect
        self.successes = 0
        self._failures = 0
        self._failed_at = 0.0
        self._hurried = False
        self._young = 0  # times that sessions died young, one after the other
        self._young_at = -YOUNG_FORGOTTEN
        self._random = random

    def permits(self, now: float, opening: int, disowned: int) -> int:
        """How many attempts may start now, given those in flight."""
        if self.trouble is None:
            return self.window - opening if now >= self.not_before else 0
        if now < self.not_before or opening or disowned > 1:
            return 0
        return 1

    @property
    def patience(self) -> float:
        """Seconds an attempt may take before it is disowned."""
        if self.typical is None:
            return PATIENCE_UNKNOWN
        return max(PATIENCE_LEAST, PATIENCE_FACTOR * self.typical)

    def succeeded(self, took: float) -> None:
        self.successes += 1
        self.typical = took if self.typical is None else self.typical * 0.875 + took * 0.125
        if self.trouble is not None:
            self.forgive()
        elif self.successes == 1:
            self.window = self.most  # nothing has died yet: the server is well
        self.window = min(self.window + 1, self.most)

    def forgive(self) -> None:
        """The trouble is over: begin with one attempt alone."""
        self.trouble = None
        self.not_before = 0.0
        self.window = 1

    def failed(self, now: float, trouble: Trouble, wanted: bool) -> float:
        """Note a failed attempt; return the seconds until the next may start."""
        self._begin(now, trouble)
        self._failures += 1
        self._failed_at = now
        self._hurried = wanted
        steps = 2.0 ** min(self._failures - 1, 16)
        if trouble is Trouble.REJECTED:
            cap = min(DELAY_REJECTED, FIRST_DELAY_REJECTED * steps)
            delay = cap * (0.5 + 0.5 * self._random())
        else:
            cap = min(DELAY_WANTED if wanted else DELAY_UNWANTED, FIRST_DELAY * steps)
            delay = cap * self._random()
        self.not_before = now + delay
        return delay

    def hung(self, now: float) -> None:
        """Note an attempt past its patience: silence, unless worse is known."""
        if self.trouble is None:
            self._begin(now, Trouble.SILENT)
            self.not_before = now

    def hurry(self, now: float) -> None:
        """Somebody began to wait: the longer cap no longer holds."""
        if self._hurried or self.trouble in (None, Trouble.REJECTED):
            return
        self._hurried = True
        soon = max(now, self._failed_at + DELAY_WANTED * self._random())
        self.not_before = min(self.not_before, soon)

    def wounded(self) -> None:
        """A connection died: what replaces it starts slowly."""
        self.window = 1

    def died_young(self, now: float) -> None:
        """A connection died at once: the first time its replacement is not delayed."""
        if now - self._young_at < ONE_DEATH:
            return
        self._young = 0 if now - self._young_at > YOUNG_FORGOTTEN else self._young + 1
        self._young_at = now
        if self._young and self.trouble is None:
            cap = min(DELAY_WANTED, FIRST_DELAY * 2.0 ** min(self._young - 1, 16))
            self.not_before = now + cap * (0.5 + 0.5 * self._random())

    def satisfied(self) -> None:
        """Nothing is short. If a connect has succeeded since the last death, all is well."""
        if self.window > 1:
            self.window = self.most

    def _begin(self, now: float, trouble: Trouble) -> None:
        if self.trouble is None:
            self.down_since = now
            self._failures = 0
        self.trouble = trouble
