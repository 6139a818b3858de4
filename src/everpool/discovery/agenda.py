"""What to do for a registration, and when: decisions only, with the time as an argument.

An `Agenda` is asked for the `next` act, told how it ended (`done`, `failed`, `lost`), and told
what is wanted (`want`, `doubt`, `leave`). Times are seconds on one clock that never jumps.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf

from ..core.health import Status


class Act(Enum):
    REGISTER = "register"
    REPORT = "report"
    WITHDRAW = "withdraw"
    END = "end"

    __hash__ = object.__hash__


# Two may get lost before the registration lapses.
BEATS_PER_TTL = 3

# So much earlier than it must a renewal may come, so that a fleet started at once spreads.
JITTER = 0.2

# Between two changes of status that are told. Each is a write that all members of a registry
# replicate and that wakes everybody who watches the service; routers act on what they hear about
# once a second or more slowly, so more would cost and change nothing. The first change after a
# quiet second is told at once.
MIN_GAP = 1.0

# The first pause after a failure is up to FIRST_PAUSE, the next up to twice as long, and so on.
FIRST_PAUSE = 0.5
# A thousand instances that wait up to so long knock at a registry that returns about 200 times a
# second. With short TTLs a third of the TTL: an absence shorter than the TTL then costs nobody
# the registration.
MAX_PAUSE = 10.0
# And never less: a refused connection takes microseconds, and chance may be small.
MIN_PAUSE = 0.1


class Agenda:
    """The duties of one registration.

    :param ttl: seconds after which the registry forgets what is not renewed.
    :param chance: gives random numbers from 0 to 1.
    """

    def __init__(self, ttl: float, chance: Callable[[], float]) -> None:
        self.ttl = ttl
        self.failures = 0  # since the last success
        self.told: Status | None = None  # what the registry was told last, if it is registered
        self._chance = chance
        self._wanted: Status | None = None
        self._tried = False  # the registry may know us, whether or not it said so
        self._told_at = -inf
        self._heard_at = -inf
        self._beat_at = -inf
        self._retry_at = -inf
        self._leave_by = inf

    def want(self, status: Status) -> None:
        """The registry shall know this status."""
        self._wanted = status

    def doubt(self, now: float) -> None:
        """Time may have passed unseen: look at once whether the registration still stands."""
        self._beat_at = now

    def leave(self, now: float, grace: float) -> None:
        """Take the registration back. Try for ``grace`` seconds, and at least once.

        Only once if the registry does not answer anyway: the registration lapses by itself.
        """
        if not self.leaving:
            well = self.told is not None and not self.failures
            self._leave_by = now + (grace if well else 0.0)
            self._retry_at = now  # a pause in the way of other acts is not for this one
            self.failures = 0

    @property
    def leaving(self) -> bool:
        return self._leave_by < inf

    def registered(self, now: float) -> bool:
        """Whether the registry still holds us registered, as far as we can know."""
        return self.told is not None and now < self._heard_at + self.ttl

    def next(self, now: float) -> Act | None:
        """What is due now; None if nothing is before `wake_at`."""
        act, at = self._plan()
        return act if at <= now else None

    @property
    def wake_at(self) -> float:
        return self._plan()[1]

    def _plan(self) -> tuple[Act, float]:
        if self.leaving:
            if not self._tried or (self.failures and self._retry_at > self._leave_by):
                return Act.END, -inf
            return Act.WITHDRAW, self._retry_at
        if self.told is None:
            return Act.REGISTER, self._retry_at
        due = self._beat_at
        if self._wanted is not self.told:
            due = min(due, self._told_at + MIN_GAP)
        return Act.REPORT, max(due, self._retry_at)

    def begin(self, act: Act) -> None:
        """The act is being carried out."""
        if act is Act.REGISTER:
            self._tried = True

    def done(self, act: Act, told: Status, now: float) -> None:
        """It was carried out; ``told`` is the status the registry knows by that."""
        self.failures = 0
        self._retry_at = -inf
        if act is Act.WITHDRAW:
            self._tried, self.told = False, None
            return
        if act is Act.REPORT and told is not self.told:
            self._told_at = now
        self.told, self._heard_at = told, now
        early = JITTER * self._chance()
        self._beat_at = now + self.ttl / BEATS_PER_TTL * (1 - early)

    def lost(self, now: float) -> None:
        """The registry does not know us: register anew.

        At once, as the agenda comes here once a beat or change of status at most.
        """
        self.told = None
        self.failures = 0
        self._retry_at = self._told_at = now

    def failed(self, now: float) -> None:
        """The registry is away, or refuses: try again after a while (full jitter)."""
        self.failures += 1
        most = min(MAX_PAUSE, self.ttl / BEATS_PER_TTL)
        limit = min(most, FIRST_PAUSE * 2 ** min(self.failures - 1, 10))
        self._retry_at = now + max(MIN_PAUSE, limit * self._chance())
