"""How a pool is: judged from numbers in memory, at the cost of reading them.

Nothing here borrows a connection, waits, or asks the database: a check that does fails just
when the pool is busy, and adds to the queue it reports on. Three questions, kept apart because
different answers follow from them:

* **live**: would a restart of this process help? Only its own background matters. A check that
  looks at the database would restart every process of a fleet when one database fails.
* **started**: is it worth asking the others yet?
* **ready**: shall this process get traffic? By default also while the database is away: all
  processes share the database, and if all leave at once, users get the balancer's error
  instead of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .verdict import Trouble


class Condition(Enum):
    """The state of a pool as a whole."""

    NEW = "new"  # not opened yet
    STARTING = "starting"  # opened, nothing has connected yet and nothing failed
    UP = "up"
    SUSPECT = "suspect"  # something is wrong, but there are connections
    DOWN = "down"  # nothing can be lent
    RECOVERING = "recovering"  # connecting again, fewer than min_size so far
    PAUSED = "paused"
    CLOSED = "closed"

    __hash__ = object.__hash__


class Status(Enum):
    """``application/health+json``'s three words."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"

    __hash__ = object.__hash__


# The background looks at the pool every five seconds at least. So much later it is in trouble,
# and so late it is dead or stuck: then a restart helps.
LATE = 5.0
DEAD_AFTER = 30.0

# Older than this, what we know of the database is stale: a pool that rests pings each of its
# connections every 45 s by default, and any return of a connection is news.
STALE_AFTER = 90.0

# Deaths within this time are worth a warning.
RECENT = 60.0

# The head of the queue has waited so long while every connection is in use: saturated.
SATURATED_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """The numbers a judgement stands on. All times are seconds *ago*, or durations.

    :param heard: since the server was last heard on any connection; inf if never.
    :param late: how late the background is; inf if it is gone though it should be there.
    :param longest_wait: how long the first in the queue has waited.
    :param cuts: connections that ended without our doing within the last minute, ``cuts_lent``
        those of them that somebody held.
    """

    condition: Condition
    since: float
    trouble: Trouble | None
    error: str
    error_age: float
    min_size: int
    max_size: int
    size: int
    idle: int
    lent: int
    waiting: int
    longest_wait: float
    saturated: bool
    heard: float
    late: float
    cuts: int
    cuts_lent: int


@dataclass(frozen=True, slots=True)
class Check:
    """One piece of evidence.

    ``text`` is for people and for anybody; ``detail`` may name hosts and users. ``age`` is how
    old the evidence is, in seconds.
    """

    name: str
    status: Status
    value: float | str
    unit: str
    text: str
    age: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes or no to one of the three questions, how sure, and why."""

    status: Status
    why: str

    @property
    def ok(self) -> bool:
        return self.status is not Status.FAIL


@dataclass(frozen=True, slots=True)
class Health:
    """How a pool is. ``pool`` is its name, ``since`` the seconds it has been in its state."""

    pool: str
    status: Status
    state: Condition
    since: float
    why: str
    live: Answer
    started: Answer
    ready: Answer
    checks: tuple[Check, ...]


def judge(pool: str, vitals: Vitals) -> Health:
    """Judge a pool by its vitals: a pure function."""
    checks = (
        _state(vitals),
        _connections(vitals),
        _queue(vitals),
        _evidence(vitals),
        _cuts(vitals),
        _background(vitals),
    )
    worst = max(checks, key=lambda check: _BADNESS[check.status])
    return Health(
        pool=pool,
        status=worst.status,
        state=vitals.condition,
        since=vitals.since,
        why=worst.text if worst.status is not Status.PASS else "all is well",
        live=_live(checks[-1]),
        started=_started(vitals),
        ready=_ready(vitals, worst),
        checks=checks,
    )


_BADNESS = {Status.PASS: 0, Status.WARN: 1, Status.FAIL: 2}


def _state(vitals: Vitals) -> Check:
    condition = vitals.condition
    trouble = f": {vitals.trouble.value}" if vitals.trouble else ""
    status, text = {
        Condition.NEW: (Status.WARN, "the pool has not been opened"),
        Condition.STARTING: (Status.PASS, "connecting for the first time"),
        Condition.UP: (Status.PASS, "the database answers"),
        Condition.SUSPECT: (Status.WARN, f"connections are in doubt{trouble}"),
        Condition.DOWN: (Status.FAIL, f"the database cannot be reached{trouble}"),
        Condition.RECOVERING: (Status.WARN, "connecting again"),
        Condition.PAUSED: (Status.WARN, "the pool is paused"),
        Condition.CLOSED: (Status.FAIL, "the pool is closed"),
    }[condition]
    if condition is Condition.DOWN and vitals.error_age > STALE_AFTER:
        # A pool that nobody asks, and that need not be full, does not try. Were it held to be
        # down, a strict readiness would keep away the traffic that makes it try.
        status = Status.WARN
        text = f"the database could not be reached {vitals.error_age:.0f} s ago, untried since"
    detail = f"{vitals.error_age:.1f} s ago: {vitals.error}" if vitals.error else ""
    return Check("state", status, condition.value, "", text, vitals.since, detail)


def _connections(vitals: Vitals) -> Check:
    text = (
        f"{vitals.size} of {vitals.max_size} connections, {vitals.lent} lent, {vitals.idle} at rest"
    )
    return Check("connections", Status.PASS, vitals.size, "connections", text, 0.0)


def _queue(vitals: Vitals) -> Check:
    if not vitals.waiting:
        return Check("queue", Status.PASS, 0, "requests", "nobody waits", 0.0)
    text = f"{vitals.waiting} wait, the first for {vitals.longest_wait:.1f} s"
    if vitals.saturated:
        text = f"saturated: every connection is in use, {text}"
    status = Status.WARN if vitals.saturated else Status.PASS
    return Check("queue", status, vitals.waiting, "requests", text, 0.0)


def _evidence(vitals: Vitals) -> Check:
    heard = vitals.heard
    if heard == float("inf"):
        text, status = "the database has never been heard", Status.PASS
        return Check("evidence", status, "never", "", text, 0.0)
    text = f"the database was last heard {heard:.1f} s ago"
    stale = heard > STALE_AFTER and vitals.condition is Condition.UP and not vitals.lent
    status = Status.WARN if stale else Status.PASS
    return Check("evidence", status, round(heard, 3), "s", text, heard)


def _cuts(vitals: Vitals) -> Check:
    text = f"{vitals.cuts} connections cut within a minute"
    if vitals.cuts_lent:
        text += f", {vitals.cuts_lent} of them in use"
    # One idle connection cut now and then is what this pool is for.
    many = vitals.cuts >= max(2, vitals.min_size) or vitals.cuts_lent
    status = Status.WARN if many else Status.PASS
    return Check("cuts", status, vitals.cuts, "connections", text, 0.0)


def _background(vitals: Vitals) -> Check:
    late = vitals.late
    if late > DEAD_AFTER:
        gone = late == float("inf")
        text = "the pool's background is gone" if gone else f"stuck for {late:.0f} s"
        return Check("background", Status.FAIL, "gone" if gone else round(late, 1), "s", text, 0.0)
    text = f"{late:.1f} s late" if late > LATE else "on time"
    status = Status.WARN if late > LATE else Status.PASS
    return Check("background", status, round(late, 3), "s", f"the background is {text}", 0.0)


def _live(background: Check) -> Answer:
    return Answer(background.status, background.text)


def _started(vitals: Vitals) -> Answer:
    if vitals.condition is Condition.NEW:
        return Answer(Status.FAIL, "the pool has not been opened")
    if vitals.trouble is Trouble.REJECTED and vitals.heard == float("inf"):
        return Answer(Status.FAIL, "the database rejects this configuration")
    if vitals.condition is Condition.STARTING:
        return Answer(Status.WARN, "no connection has been made yet")
    return Answer(Status.PASS, "started")


def _ready(vitals: Vitals, worst: Check) -> Answer:
    if vitals.condition in (Condition.CLOSED, Condition.NEW):
        return Answer(Status.FAIL, _state(vitals).text)
    if worst.status is Status.PASS:
        return Answer(Status.PASS, "ready")
    return Answer(Status.WARN, worst.text)  # fails open
