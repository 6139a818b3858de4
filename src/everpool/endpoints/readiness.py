"""Whether a process gets traffic while its database is away.

By default it does. All processes of a fleet share the database: if each leaves when the database
goes, no process is left, and users get the balancer's error instead of the program's. So
readiness warns and stays.

Who knows better (another site with a database of its own stands by, say) may be strict. Then a
process leaves when its pool has been down for a while, seen by several looks, and after a wait
of its own by chance, so that a fleet does not leave in one moment. A saturated pool never makes
it leave: the others would get its load and follow.

Pure: the time and the chance come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from everpool.core.health import Condition, Health, Status

__all__ = ["Readiness", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pool stands. ``out``: it keeps its process from being ready.

    ``since``, ``looks`` and ``hold`` are about what speaks against that: when it began, in how
    many looks in a row it was seen, and how many seconds it must last.
    """

    out: bool = False
    since: float = 0.0
    looks: int = 0
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """When readiness fails. Times are seconds.

    :param strict: fail while the database is away. Without it the rest has no effect, and only
        a pool that is not open fails.
    :param after: leave when the pool has been down for so long. The default outlasts a failover
        of most managed databases' proxies and any restart of a pooler.
    :param spread: and at most so much longer, by chance, drawn anew for each outage.
    :param looks: and only if so many looks in a row saw it, so that one bad moment is not enough.
    :param back_after: come back when it has not been down for so long, and for ``looks`` looks.
        Without a spread: who comes back alone gets the load of all.
    :raises ValueError: a number is negative, or ``looks`` less than 1.
    """

    strict: bool = False
    after: float = 10.0
    spread: float = 30.0
    looks: int = 3
    back_after: float = 5.0

    def __post_init__(self) -> None:
        for name in ("after", "spread", "back_after"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if self.looks < 1:
            raise ValueError("looks must be 1 or more")

    def look(
        self, standing: Standing, health: Health, now: float, random: Callable[[], float]
    ) -> Standing:
        """Look at a pool once; return where it stands then.

        :param now: on any clock that only goes forward, the same at each look.
        :param random: a number from 0 to 1, drawn once for each outage.
        """
        if not self.strict or is_down(health) is standing.out:
            return Standing(standing.out) if standing.looks else standing
        if standing.looks:
            since, looks, hold = standing.since, standing.looks + 1, standing.hold
        elif standing.out:
            since, looks, hold = now, 1, self.back_after
        else:
            since, looks, hold = now - health.since, 1, self.after + self.spread * random()
        if looks >= self.looks and now - since >= hold:
            return Standing(not standing.out)
        return Standing(standing.out, since, looks, hold)


def is_down(health: Health) -> bool:
    """Whether nothing can be lent because connecting fails, as far as the pool knows now."""
    return health.state is Condition.DOWN and health.checks[0].status is Status.FAIL
