"""How much may be repeated: a budget of tokens, so that retries cannot make a storm.

A fixed number of retries multiplies the load exactly when everything fails. With a budget the
retries are a share of the successes, plus a reserve for a pool whose connections all die at
once: when nothing succeeds any more, at most twice that reserve is repeated. (Finagle, the AWS
SDKs and others do the same.)
"""

from __future__ import annotations

from collections.abc import Callable

# Retries earned by each success: 10 % more load at the most.
SHARE = 0.1

# Contention is no illness of the server's, and most of it is gone at the second attempt.
CONTENTION_SHARE = 1.0

# What successes have earned is kept for about so long, in seconds, and up to as much as the
# reserve: a steady share of failures is repeated as it comes, and no store of a thousand retries
# waits for the moment when everything fails.
LIFE = 10.0

# The reserve is at least so much, and comes back at this rate a second: for pools of little
# traffic, which earn nothing. Under load it is nothing beside the first attempts.
RESERVE = 10.0
TRICKLE = 0.1

# Pauses before retries are uniform between 0 and base · 2ⁿ, capped: full jitter.
BASE = 0.02
CAP = 1.0


class Budget:
    """One bucket. All times are seconds."""

    __slots__ = ("_at", "_earned", "_reserve", "_seen", "_share", "refused")

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._earned = 0.0  # by successes, less what was spent and what is too old
        self._seen = 0  # successes so far
        self._reserve = -1.0  # full; how much that is depends on the size of the pool
        self._at = now
        self.refused = 0

    def spend(self, now: float, size: float, successes: int) -> bool:
        """Take what one retry costs; False if there is not enough.

        :param size: the most connections that may die at once.
        :param successes: transactions that have succeeded since the budget was made.
        """
        # Counted without a lock: a late writer may set the count back.
        earned, self._seen = self._share * max(0, successes - self._seen), successes
        full = max(RESERVE, size)
        elapsed, self._at = max(0.0, now - self._at), now
        # No more than a burst: after busy hours, a storm would otherwise be repeated in full.
        self._earned = min(full, (self._earned + earned) * max(0.0, 1.0 - elapsed / LIFE))
        self._reserve = full if self._reserve < 0 else min(full, self._reserve + TRICKLE * elapsed)
        if self._earned >= 1.0:
            self._earned -= 1.0
        elif self._reserve >= 1.0:
            self._reserve -= 1.0
        else:
            self.refused += 1
            return False
        return True


def pause(number: int, random: Callable[[], float]) -> float:
    """Seconds to wait before the retry with this number; the first is 1."""
    return random() * min(CAP, BASE * 2.0 ** (number - 1))
