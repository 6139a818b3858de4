"""Which entries of the catalogue a measured path looks like."""

from __future__ import annotations

from math import inf, log

from ..core.environment import Environment
from .catalogue import entries
from .entry import Entry

# Timers run late and a measurement goes in steps, but 300 s and 350 s are two environments.
TOLERANCE = 1.1


def nearest(measured: Environment, most: int = 3) -> list[Entry]:
    """The entries that fit what was measured of a path, the best first.

    A path may have several things on it, so an entry need not explain all that was seen; but it
    must explain an end after a time if one was seen, and contradict nothing. An entry that would
    have cut sooner, or ends connections in another way, is left out.

    The distance grows by the difference of each time, 1 for a whole tolerance, and by 1 for each
    measured fact that the entry does not explain. Between equals the catalogue's order decides.

    :param measured: the facts of the path.
    :param most: how many entries to return.
    """
    found = [(_distance(measured, entry.facts), entry) for entry in entries().values()]
    fitting = [(distance, entry) for distance, entry in found if distance is not None]
    return [entry for _, entry in sorted(fitting, key=lambda pair: pair[0])[:most]]


def _distance(measured: Environment, facts: Environment) -> float | None:
    """``None`` where they contradict each other, or have nothing in common."""
    distance = 0.0
    timed = explained = alike = False
    for seen, known in (
        (measured.idle_cut, facts.idle_cut),
        (measured.max_age, facts.max_age),
    ):
        if seen is None:
            continue
        apart = log((known or inf) / seen, TOLERANCE) if seen < inf else 0.0
        if known is not None and (apart < -1 or known < seen == inf):
            return None
        if seen == inf:
            continue
        timed = True
        explained = explained or apart <= 1
        distance += min(1.0, abs(apart))
    for told, said in ((measured.kill, facts.kill), (measured.activity, facts.activity)):
        if told is None:
            continue
        if said is None:
            distance += 1
        elif told != said:
            return None
        else:
            alike = True
    return distance if explained or (alike and not timed) else None
