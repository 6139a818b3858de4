"""What a survey works with: its limits, its probes, and what it saw of each.

A *probe* is one connection with one purpose. It lives once: when it has answered the question it
was opened for, or has died, an `Observation` remains and it is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf, isfinite
from typing import Any, Self

from ..core.environment import FATAL, FIN, KILLS, RST

IDLE = "idle"  # left alone for its time, then asked
BUSY = "busy"  # pinged all the time, for as long as the survey watches: shows a maximum age
TCP = "tcp"  # only TCP keepalives, then asked: tells who counts packets from who counts bytes
KINDS = (IDLE, BUSY, TCP)

LIVED = "lived"
OUTAGE = "outage"  # no answer, but nothing else answered either: it tells nothing of the path
OUTCOMES = (LIVED, OUTAGE, *KILLS)

# Ends that are noticed when they happen, and so give their time exactly.
LOUD = frozenset({FIN, RST, FATAL})

# Two busy probes, of different ages, tell a maximum age from a restart; one counts TCP keepalives;
# one at least is left alone.
LEAST_CONNECTIONS = 4

# Enough for the 1200 s of Google's Cloud NAT, the longest cut common among routers, and for the
# rung just above it.
MAX_IDLE = 1250.0
CONNECTIONS = 12

# One pass over the ladder, one to refine, one more where the first was disturbed.
BUDGET_PASSES = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a survey may go.

    :param connections: the most connections that are ever open at once, at least 4.
    :param max_idle: the longest that a connection is left alone, and watched for its age, in
        seconds.
    :param budget: the most seconds that a run takes; ``None``: three times ``max_idle``.
    :raises ValueError: a limit is out of range.
    """

    connections: int = CONNECTIONS
    max_idle: float = MAX_IDLE
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.connections < LEAST_CONNECTIONS:
            raise ValueError(
                f"connections must be at least {LEAST_CONNECTIONS}, not {self.connections!r}"
            )
        for name in ("max_idle", "budget"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a number of seconds above 0, not {value!r}")

    @property
    def longest(self) -> float:
        """Seconds that a run takes at most."""
        return self.budget if self.budget is not None else BUDGET_PASSES * self.max_idle


@dataclass(frozen=True, slots=True)
class Observation:
    """What became of one probe. Times are seconds.

    :param kind: ``"idle"``, ``"busy"`` or ``"tcp"``.
    :param began: when it was opened, counted from the beginning of the survey.
    :param ended: when it answered for the last time, or was seen dead.
    :param quiet: how long it had been left alone by then.
    :param age: how old it was by then.
    :param lived: the age at which it was last known to be alive.
    :param outcome: ``"lived"``, a style of being cut as in `Environment`, or ``"outage"``: it did
        not answer, but nothing else did either.
    :param sqlstate, text: what was said, if anything was.
    """

    kind: str
    began: float
    ended: float
    quiet: float
    age: float
    lived: float
    outcome: str
    sqlstate: str = ""
    text: str = ""

    @classmethod
    def read(cls, data: Any) -> Self:
        """Take one from JSON.

        :raises ValueError: it is none.
        """
        if not isinstance(data, dict) or set(data) - {f.name for f in fields(cls)}:
            raise ValueError("an observation has other fields")
        for name in ("began", "ended", "quiet", "age", "lived"):
            value = data.get(name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value < inf
            ):
                raise ValueError(f"an observation's {name} is {value!r}, and no time")
        if data.get("kind") not in KINDS or data.get("outcome") not in OUTCOMES:
            raise ValueError("an observation is of an unknown kind or outcome")
        if not all(isinstance(data.get(name, ""), str) for name in ("sqlstate", "text")):
            raise ValueError("an observation's sqlstate or text is no text")
        return cls(**data)

    @property
    def died(self) -> bool:
        return self.outcome in KILLS

    @property
    def loud(self) -> bool:
        """Whether its end was noticed when it happened."""
        return self.outcome in LOUD
