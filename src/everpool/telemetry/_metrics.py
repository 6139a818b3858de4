"""The metrics as a table: what each is called, what it means, and where a snapshot has it.

The sum over a metric's label values means something, wherever there is a label: connections by
state add up to what ``max_size`` limits, discards to all connections that ended. Label values
are words of everpool's own; a server's text, a user, a host or a statement never becomes one.

Values that may come up stand at zero from the start. A series that begins at one has no rise
that Prometheus could see, and its first cut would not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from ..core.health import Condition, Status, judge
from ..core.verdict import Trouble
from ..snapshot import Durations, Snapshot

# What a reader returns: a number, numbers by label value, or a histogram.
Reading = float | Mapping[str, float] | Durations

# How connections are counted: by the states in which they hold a place below max_size. A lent one
# that is being reset after its return is still in use, and so is a place that a hung attempt holds.
_STATES = {
    "idle": ("idle",),
    "used": ("lent", "returning"),
    "opening": ("opening", "disowned"),
    "testing": ("testing",),
    "suspect": ("suspect",),
    "closing": ("closing",),
}

_LENDING = (Condition.UP.value, Condition.SUSPECT.value, Condition.RECOVERING.value)

CODES = ("timeout", "saturated", "full", "down", "rejected", "closed", "gave up")

# Of the SQLSTATEs those that end connections every day: a shutdown, a crash, a server on its way
# up or down, an idle limit of a session and of a transaction, a pooler's farewell.
CAUSES = (
    *(
        "FIN",
        "RST",
        "silence",
        "error",
        "demoted",
        "misuse",
        "deadline",
        "FATAL",
        "FATAL of another kind",
    ),
    *(f"FATAL {code}" for code in ("57P01", "57P02", "57P03", "57P05", "25P03", "08P01")),
)
REASONS = (
    *("max_lifetime", "max_idle", "drained", "resized", "pool closed"),
    *("returned broken", "dropped without being returned", "unusable"),
)


@dataclass(frozen=True, slots=True)
class Metric:
    """``label`` is the name of the one label that it has besides ``pool``, or empty."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    label: str
    read: Callable[[Snapshot], Reading]


def one_of(choices: tuple[str, ...], chosen: str | None) -> dict[str, float]:
    """A state set: 1 for what is the case, 0 for the rest."""
    return {choice: float(choice == chosen) for choice in choices}


def counts(known: tuple[str, ...], *counted: Mapping[str, int]) -> dict[str, float]:
    total = Counter(dict.fromkeys(known, 0))
    for counts in counted:
        for value, count in counts.items():
            total[value or "unusable"] += count  # an empty label is none
    return dict(total)


def _connections(snapshot: Snapshot) -> dict[str, float]:
    slots = snapshot.slots
    return {word: sum(slots[state] for state in states) for word, states in _STATES.items()}


CONDITIONS = tuple(condition.value for condition in Condition)
TROUBLES = tuple(trouble.value for trouble in Trouble)
_STATUSES = tuple(status.value for status in Status)

METRICS = (
    Metric(
        "everpool_up",
        "gauge",
        "Whether connections can be lent: 1 in the states up, suspect and recovering.",
        "",
        lambda s: float(s.state in _LENDING),
    ),
    Metric(
        "everpool_state",
        "gauge",
        "The pool's state: 1 for the one it is in, 0 for the others.",
        "state",
        lambda s: one_of(CONDITIONS, s.state),
    ),
    Metric(
        "everpool_trouble",
        "gauge",
        "Why no connection can be opened now: 1 for the reason; all are 0 if there is none.",
        "trouble",
        lambda s: one_of(TROUBLES, s.trouble),
    ),
    Metric(
        "everpool_health",
        "gauge",
        "The pool's health: 1 for its status, 0 for the others.",
        "status",
        lambda s: one_of(_STATUSES, judge(s.name, s.vitals).status.value),
    ),
    Metric(
        "everpool_connections",
        "gauge",
        "Connections that hold a place below max_size, by what they are doing.",
        "state",
        _connections,
    ),
    Metric(
        "everpool_connections_max",
        "gauge",
        "The setting max_size; +Inf for a null pool without a limit.",
        "",
        lambda s: s.max_size or inf,
    ),
    Metric(
        "everpool_connections_min",
        "gauge",
        "The setting min_size.",
        "",
        lambda s: s.min_size,
    ),
    Metric(
        "everpool_requests_waiting",
        "gauge",
        "Callers that wait for a connection now.",
        "",
        lambda s: s.waiting,
    ),
    Metric(
        "everpool_longest_wait_seconds",
        "gauge",
        "How long the first of them has waited.",
        "",
        lambda s: s.vitals.longest_wait,
    ),
    Metric(
        "everpool_saturated",
        "gauge",
        "1 while every connection is in use and the first caller has waited for a second.",
        "",
        lambda s: float(s.vitals.saturated),
    ),
    Metric(
        "everpool_requests_total",
        "counter",
        "Connections asked for.",
        "",
        lambda s: s.requests,
    ),
    Metric(
        "everpool_requests_refused_total",
        "counter",
        "Requests that ended without a connection, by why.",
        "code",
        lambda s: counts(CODES, s.refusals),
    ),
    Metric(
        "everpool_checkout_timeouts_total",
        "counter",
        "Those of them whose time was up (code timeout).",
        "",
        lambda s: s.refusals.get("timeout", 0),
    ),
    Metric(
        "everpool_wait_seconds",
        "histogram",
        "How long callers waited who got a connection, at once or later.",
        "",
        lambda s: s.wait,
    ),
    Metric(
        "everpool_use_seconds",
        "histogram",
        "How long connections were held, by loan.",
        "",
        lambda s: s.use,
    ),
    Metric(
        "everpool_connect_seconds",
        "histogram",
        "How long it took to open a connection, from the decision until it was usable.",
        "",
        lambda s: s.connect,
    ),
    Metric(
        "everpool_connect_errors_total",
        "counter",
        "Attempts to connect that failed.",
        "",
        lambda s: s.open_failed,
    ),
    Metric(
        "everpool_cuts_total",
        "counter",
        "Connections that ended without the pool's doing, by what ended them.",
        "cause",
        lambda s: counts(CAUSES, s.cuts),
    ),
    Metric(
        "everpool_cuts_lent_total",
        "counter",
        "Those of them that somebody held: work was interrupted.",
        "",
        lambda s: s.cuts_lent,
    ),
    Metric(
        "everpool_discarded_total",
        "counter",
        "Connections that ended: cut, by the cause, or closed by the pool, by why.",
        "reason",
        lambda s: counts((*CAUSES, *REASONS), s.cuts, s.retired),
    ),
    Metric(
        "everpool_leaks_total",
        "counter",
        "Loans longer than leak_after (held), and connections never returned (dropped).",
        "kind",
        lambda s: s.leaks,
    ),
    Metric(
        "everpool_background_late_seconds",
        "gauge",
        "How late the pool's background is; +Inf if it is gone.",
        "",
        lambda s: s.vitals.late,
    ),
    Metric(
        "everpool_last_heard_seconds",
        "gauge",
        "How long ago the server was last heard on any connection; +Inf if never.",
        "",
        lambda s: s.vitals.heard,
    ),
    Metric(
        "everpool_round_trip_seconds",
        "gauge",
        "Smoothed round-trip time to the server; 0 if not yet known.",
        "",
        lambda s: s.round_trip,
    ),
    Metric(
        "everpool_happenings_dropped_total",
        "counter",
        "Happenings that listeners missed because they were too slow.",
        "",
        lambda s: s.dropped,
    ),
)
