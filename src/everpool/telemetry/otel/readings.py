"""What is read of a snapshot when somebody collects: names, units, and where the value is.

``db.client.connection.*`` are OpenTelemetry's, from the semantic conventions 1.44; ``everpool.*``
are ours, for what has no convention. The conventions' three histograms are at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from ...events import Condition
from ...snapshot import Snapshot

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


def _by(attribute: str, counts: Mapping[str, int]) -> Points:
    return [(count, {attribute: key}) for key, count in counts.items()]


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


def _state(snapshot: Snapshot) -> Points:
    return [
        (int(state.value == snapshot.state), {"everpool.state": state.value}) for state in Condition
    ]


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
        lambda snapshot: _one(snapshot.waiting),
    ),
    Reading(
        "counter",
        "db.client.connection.timeouts",
        "{timeout}",
        "The number of connection timeouts that have occurred trying to obtain a connection from"
        " the pool.",
        lambda snapshot: _one(snapshot.refusals.get("timeout", 0)),
    ),
    Reading(
        "up_down_counter",
        "everpool.state",
        "1",
        "1 for the state that the pool is in, 0 for all others.",
        _state,
    ),
    Reading(
        "counter",
        "everpool.requests",
        "{request}",
        "How many connections have been asked for.",
        lambda snapshot: _one(snapshot.requests),
    ),
    Reading(
        "counter",
        "everpool.refusals",
        "{request}",
        "Requests that ended without a connection, by why.",
        lambda snapshot: _by("everpool.refusal.code", snapshot.refusals),
    ),
    Reading(
        "gauge",
        "everpool.queue.longest_wait",
        "s",
        "For how long the first in the queue has waited.",
        lambda snapshot: _one(snapshot.vitals.longest_wait),
    ),
    Reading(
        "counter",
        "everpool.connection.opened",
        "{connection}",
        "Connections opened.",
        lambda snapshot: _one(snapshot.opened),
    ),
    Reading(
        "counter",
        "everpool.connection.open_failures",
        "{attempt}",
        "Attempts to connect that failed.",
        lambda snapshot: _one(snapshot.open_failed),
    ),
    Reading(
        "counter",
        "everpool.connection.cuts",
        "{connection}",
        "Connections that ended without the pool's doing, by cause.",
        lambda snapshot: _by("everpool.cut.cause", snapshot.cuts),
    ),
    Reading(
        "counter",
        "everpool.connection.retirements",
        "{connection}",
        "Connections that the pool closed, by why.",
        lambda snapshot: _by("everpool.retirement.reason", snapshot.retired),
    ),
    Reading(
        "gauge",
        "everpool.connection.round_trip",
        "s",
        "Smoothed round-trip time to the database; missing until it is known.",
        lambda snapshot: _one(snapshot.round_trip) if 0 < snapshot.round_trip < inf else [],
    ),
    Reading(
        "counter",
        "everpool.happening.dropped",
        "{happening}",
        "Happenings that listeners missed because they were too slow.",
        lambda snapshot: _one(snapshot.dropped),
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
