"""Noticing that this process stood still."""

from __future__ import annotations

import time

# A difference that no correction of the clocks explains.
LEAST_GAP = 1.0

# A turn so late means that the process was stopped or starved; the background never sleeps
# longer than five seconds, so by then much may have happened unseen.
LATE = 5.0


def time_awake_or_not() -> float:
    """Seconds on a clock that goes on while this machine is suspended, where the system has one."""
    return time.monotonic() + _suspended()


class SuspendClock:
    """Compares the monotonic clock, which stops in suspend, with one that does not."""

    def __init__(self) -> None:
        self._offset = _suspended()

    def gap(self, now: float, due: float) -> float | None:
        """Seconds slept unseen since the last call; 0.0 for merely late; None for neither.

        :param now: the monotonic time.
        :param due: when this call was due.
        """
        offset = _suspended()
        gap, self._offset = offset - self._offset, offset
        if gap > LEAST_GAP:
            return gap
        return 0.0 if now - due > LATE else None


if hasattr(time, "CLOCK_BOOTTIME"):

    def _suspended() -> float:
        """Seconds this machine has been suspended since it started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()

else:  # pragma: no cover

    def _suspended() -> float:
        """Unknown here; only lateness is noticed."""
        return 0.0
