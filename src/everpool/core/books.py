"""The books: what a pool knows of itself as a whole.

Its state and since when, how it connects, what it has counted and how long things took, and one
line that says why somebody waits. The counters only ever grow.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from math import inf

from .connector import Connector
from .events import StateChanged
from .health import Condition
from .histogram import BRIEF, Histogram
from .policy import Policy
from .roundtrip import RoundTrip
from .slot import State
from .table import LENT, Table

# Who is refused is asked to come again no sooner: less would make a stampede of those refused.
LEAST_RETRY_AFTER = 0.1

# Deaths remembered to be counted: more within a minute is simply many.
MOST_RECENT_CUTS = 500


class Books(Table):
    __slots__ = (
        "_at_once",
        "_recovering",
        "bad_returns",
        "brief_uses",
        "brief_waits",
        "closed",
        "condition",
        "condition_since",
        "connect_errors",
        "connecting",
        "connector",
        "connects",
        "creations",
        "cuts",
        "cuts_lent",
        "errors",
        "heard_at",
        "last_error",
        "leaks",
        "lost",
        "most",
        "paused_at",
        "policy",
        "pooled",
        "queued",
        "rate",
        "recent_cuts",
        "refusals",
        "requests",
        "retired",
        "roundtrip",
        "used",
        "uses",
        "waited",
        "waited_alone",
        "waited_in_vain",
        "waits",
    )

    def __init__(self, policy: Policy, now: float, random: Callable[[], float]) -> None:
        super().__init__(now)
        self.policy = policy
        self.pooled = policy.pooled  # never changes; asked for at each return
        self.most = policy.most  # max_size, or no limit
        self.closed = False
        self.last_error: tuple[float, str] | None = None  # of the present trouble
        self.condition = Condition.STARTING
        self.condition_since = now
        self._recovering = False
        self.paused_at: float | None = None
        self.heard_at = -inf  # when the server was last heard, on any connection
        self.rate = 0.0  # connections returned in a second while callers wait; 0: unknown
        self.connector = Connector(self._most_at_once(), random)
        self.roundtrip = RoundTrip()
        self.requests = self.queued = self.errors = 0
        # Seconds: waited by those who were served, and by those who were not; held.
        self.waited = self.waited_in_vain = self.used = self.connecting = 0.0
        self.waited_alone = 0.0  # part of ``waited``: for a connection of one's own being opened
        self.connects = self.connect_errors = self.lost = self.bad_returns = 0
        self.refusals: Counter[str] = Counter()  # by the refusal's code
        self.retired: Counter[str] = Counter()  # connections we closed, by why
        self.cuts: Counter[str] = Counter()  # connections that ended by themselves, by cause
        self.cuts_lent = 0  # those of them that somebody held
        self.leaks = {"held": 0, "dropped": 0}
        self.recent_cuts: deque[tuple[float, bool]] = deque(maxlen=MOST_RECENT_CUTS)
        # How long callers waited that were served, how long they held, how long connects took.
        # What was brief is counted apart, on the hot path; those who never queued nowhere.
        self.waits, self.uses, self.creations = Histogram(), Histogram(), Histogram()
        self.brief_waits = self.brief_uses = 0
        self._at_once = 0

    # -- judging ------------------------------------------------------------------------------

    def _judge(self, now: float) -> None:
        """Has the state of the pool as a whole changed?"""
        condition = self._condition()
        if condition is not self.condition:
            before, self.condition, self.condition_since = self.condition, condition, now
            trouble = self.connector.trouble
            why = trouble.value if trouble else ""
            self._tell(StateChanged(now, before.value, condition.value, why))

    def _condition(self) -> Condition:
        if self.closed:
            return Condition.CLOSED
        if self.paused_at is not None:
            return Condition.PAUSED
        trouble, tally = self.connector.trouble, self.tally
        if trouble is None and not tally[State.SUSPECT] and not self._recovering:
            return Condition.UP if self.connector.successes else Condition.STARTING
        present = self._present()
        if trouble and not present:
            self._recovering = True
            return Condition.DOWN
        if trouble or tally[State.SUSPECT]:
            return Condition.SUSPECT
        if present >= self.policy.min_size and not (self.queue.live and not present):
            self._recovering = False
            return Condition.UP
        return Condition.RECOVERING

    def cuts_within(self, seconds: float, now: float) -> tuple[int, int]:
        """How many connections were cut lately, and how many of them were lent."""
        recent = [lent for at, lent in list(self.recent_cuts) if now - at <= seconds]
        return len(recent), sum(recent)

    # -- counting -----------------------------------------------------------------------------

    @property
    def returns(self) -> int:
        """How many loans have ended, since the beginning."""
        return self.brief_uses + sum(self.uses.counts)

    def _demand(self) -> int:
        """How many are to be served."""
        return self.queue.live if self.paused_at is None else 0

    def _served(self, waited: float) -> None:
        self.waited += waited
        if waited < BRIEF:
            self.brief_waits += 1
        else:
            self.waits.record(waited)

    def _held(self, held: float) -> None:
        self.used += held
        if held < BRIEF:
            self.brief_uses += 1
        else:
            self.uses.record(held)

    @property
    def waiting(self) -> int:
        """How many wait for a connection to come back, or for one that others want too.

        In a null pool, who waits for a connection of his own being opened is no queue.
        """
        own = 0 if self.pooled else self.tally[State.OPENING]
        return max(0, self.queue.live - own)

    def _excess(self) -> float:
        """How many must go after max_size was lowered."""
        return self.counted - self.tally[State.CLOSING] - self.most

    def _most_at_once(self) -> int:
        if self.pooled:
            return self.policy.max_connecting
        return self.policy.max_size or 1 << 30  # null pools: as many as may exist

    # -- telling ------------------------------------------------------------------------------

    def retry_after(self, now: float) -> float:
        """Seconds after which asking again makes sense."""
        connector = self.connector
        if connector.trouble is not None:
            wait = max(connector.not_before - now, 0.0) + (connector.typical or 0.0)
        else:
            wait = self.queue.live / self.rate if self.rate else 0.0
        return max(LEAST_RETRY_AFTER, wait)

    def picture(self, now: float) -> str:
        """One line that says why somebody waits."""
        slots = list(self.slots)  # in one step: the shells ask without their lock
        lent = [now - slot.since for slot in slots if slot.state is LENT]
        parts = [f"{self.counted} of {self.policy.max_size} connections"]
        if (paused_at := self.paused_at) is not None:
            parts.append(f"paused for {now - paused_at:.1f} s")
        if lent:
            parts.append(f"{len(lent)} lent, the longest for {max(lent):.1f} s")
        for state in (State.OPENING, State.TESTING, State.SUSPECT, State.RETURNING):
            if count := self.tally[state]:
                parts.append(f"{count} {state.value}")
        if hung := self.tally[State.DISOWNED]:
            parts.append(f"{hung} connecting for long without an answer")
        parts.append(f"{self.queue.live} waiting")
        if error := self.last_error:
            when, text = error
            parts.append(f"last connect error, {now - when:.1f} s ago: {text}")
        return ", ".join(parts)
