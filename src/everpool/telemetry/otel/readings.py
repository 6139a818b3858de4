"""What is read of a snapshot when somebody collects: names, units, and where the value is.

``db.client.connection.*`` are OpenTelemetry's, from the semantic conventions 1.44; ``everpool.*``
are ours, for what has no convention. The conventions' three histograms are at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ...snapshot import Snapshot
from .._metrics import CAUSES, CODES, CONDITIONS, REASONS, TROUBLES, counts, one_of

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
HISTOGRAM = "everpool.histogram"

Points = Iterable[tuple[float, Mapping[str, str]]]
"""Values, each with the attributes it has besides the pool's name."""

# Who nobody borrowed is idle, also while it is pinged or in doubt. One that is dead, or being
# opened or closed, is no connection.
_STATES = {"idle": ("idle", "testing", "suspect"), "used": ("lent", "returning")}


@dataclass(frozen=True, slots=True)
class Reading:
    """An instrument that is read, and how."""

    kind: Literal["counter", "up_down_counter", "gauge"]
    name: str
    unit: str
    description: str
    read: Callable[[Snapshot], Points]


def _one(value: float) -> Points:
    return [(value, {})]


def _idle_min(snapshot: Snapshot) -> Points:
    return _one(snapshot.min_size)


def _by(attribute: str, numbers: Mapping[str, float]) -> Points:
    return [(number, {attribute: key}) for key, number in numbers.items()]


def _count(snapshot: Snapshot) -> Points:
    slots = snapshot.slots
    return [(sum(slots[slot] for slot in ours), {STATE: state}) for state, ours in _STATES.items()]


def _keeps(snapshot: Snapshot) -> bool:
    """Whether the pool keeps connections at rest: a null pool does not."""
    return any(setting.name == "pooled" and setting.value for setting in snapshot.settings)


def _idle_max(snapshot: Snapshot) -> Points:
    return _one(snapshot.max_size if _keeps(snapshot) else 0)


def _max(snapshot: Snapshot) -> Points:
    return _one(snapshot.max_size) if snapshot.max_size else []  # 0: a null pool without limit


def _round_trip(snapshot: Snapshot) -> Points:
    return _one(snapshot.round_trip) if snapshot.round_trip else []


READINGS = (
    Reading(
        "up_down_counter",
        "db.client.connection.count",
        "{connection}",
        "The number of connections that are currently in state described by the `state` attribute.",
        _count,
    ),
    Reading(
        "up_down_counter",
        "db.client.connection.idle.max",
        "{connection}",
        "The maximum number of idle open connections allowed.",
        _idle_max,
    ),
    Reading(
        "up_down_counter",
        "db.client.connection.idle.min",
        "{connection}",
        "The minimum number of idle open connections allowed.",
        _idle_min,
    ),
    Reading(
        "up_down_counter",
        "db.client.connection.max",
        "{connection}",
        "The maximum number of open connections allowed.",
        _max,
    ),
    Reading(
        "up_down_counter",
        "db.client.connection.pending_requests",
        "{request}",
        "The number of current pending requests for an open connection.",
        lambda s: _one(s.waiting),
    ),
    Reading(
        "counter",
        "db.client.connection.timeouts",
        "{timeout}",
        "The number of connection timeouts that have occurred trying to obtain a connection from"
        " the pool.",
        lambda s: _one(s.refusals.get("timeout", 0)),
    ),
    Reading(
        "up_down_counter",
        "everpool.state",
        "1",
        "1 for the state that the pool is in, 0 for all others.",
        lambda s: _by("everpool.state", one_of(CONDITIONS, s.state)),
    ),
    Reading(
        "up_down_counter",
        "everpool.trouble",
        "1",
        "1 for why no connection can be opened now; all are 0 if there is no reason.",
        lambda s: _by("everpool.trouble", one_of(TROUBLES, s.trouble)),
    ),
    Reading(
        "counter",
        "everpool.requests",
        "{request}",
        "How many connections have been asked for.",
        lambda s: _one(s.requests),
    ),
    Reading(
        "counter",
        "everpool.refusals",
        "{request}",
        "Requests that ended without a connection, by why.",
        lambda s: _by("everpool.refusal.code", counts(CODES, s.refusals)),
    ),
    Reading(
        "gauge",
        "everpool.queue.longest_wait",
        "s",
        "For how long the first in the queue has waited.",
        lambda s: _one(s.vitals.longest_wait),
    ),
    Reading(
        "counter",
        "everpool.connection.opened",
        "{connection}",
        "Connections opened.",
        lambda s: _one(s.opened),
    ),
    Reading(
        "counter",
        "everpool.connection.open_failures",
        "{attempt}",
        "Attempts to connect that failed.",
        lambda s: _one(s.open_failed),
    ),
    Reading(
        "counter",
        "everpool.connection.cuts",
        "{connection}",
        "Connections that ended without the pool's doing, by cause.",
        lambda s: _by("everpool.cut.cause", counts(CAUSES, s.cuts)),
    ),
    Reading(
        "counter",
        "everpool.connection.cuts_lent",
        "{connection}",
        "Those of them that somebody held: work was interrupted.",
        lambda s: _one(s.cuts_lent),
    ),
    Reading(
        "counter",
        "everpool.connection.retirements",
        "{connection}",
        "Connections that the pool closed, by why.",
        lambda s: _by("everpool.retirement.reason", counts(REASONS, s.retired)),
    ),
    Reading(
        "counter",
        "everpool.connection.leaks",
        "{loan}",
        "Loans longer than leak_after (held), and connections never returned (dropped).",
        lambda s: _by("everpool.leak.kind", s.leaks),
    ),
    Reading(
        "gauge",
        "everpool.connection.round_trip",
        "s",
        "Smoothed round-trip time to the database; missing until it is known.",
        _round_trip,
    ),
    Reading(
        "gauge",
        "everpool.background.late",
        "s",
        "How late the pool's background is; infinite if it is gone.",
        lambda s: _one(s.vitals.late),
    ),
    Reading(
        "counter",
        "everpool.happening.dropped",
        "{happening}",
        "Happenings that listeners missed because they were too slow.",
        lambda s: _one(s.dropped),
    ),
)

# Which of a snapshot's durations; the histogram's name and description.
HISTOGRAMS = (
    ("connect", "db.client.connection.create_time", "The time it took to create a new connection."),
    (
        "wait",
        "db.client.connection.wait_time",
        "The time it took to obtain an open connection from the pool.",
    ),
    (
        "use",
        "db.client.connection.use_time",
        "The time between borrowing a connection and returning it to the pool.",
    ),
)
