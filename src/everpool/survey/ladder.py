"""The idle times worth trying, before anything is known and between two that are."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, log

# What middleboxes and poolers have by default, in seconds: Fly and HAProxy templates, Azure, Neon,
# AWS, Google VPC and nginx, Alibaba and Docker, Google NAT, the RDS proxy, Envoy and firewalls.
DOCUMENTED = (60.0, 240.0, 300.0, 350.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0)
JUST_ABOVE = 1.03

# The lowest rung, as a share of the longest: what lies below is found, but not at once.
LOWEST = 1 / 20

# Between two times that differ by less nothing is tried: their middle is within 3 % of the cut.
FINE = 1.06
STEP = 1.04  # what a division aims at, so that it need not be repeated for a little


def ladder(least: float, most: float, count: int) -> list[float]:
    """At most ``count`` idle times above ``least`` and up to ``most``, which is greater, ascending.

    The longest comes twice if there is room: what it alone finds is seen twice.
    """
    if count < 1:
        return []
    tops = [most] * (2 if count > 2 else 1)
    room = count - len(tops)
    low = max(least, LOWEST * most)
    marks = [low] if low > least else []  # what was survived already needs no trying
    marks += [JUST_ABOVE * cut for cut in DOCUMENTED if low < JUST_ABOVE * cut < most / FINE]
    rungs = _thinned(marks, room)
    more = min(room - len(rungs), _steps(low, most))
    return [*sorted([*rungs, *_between([low, *rungs, most], more)]), *tops]


def division(lived: float, died: float, count: int) -> list[float]:
    """At most ``count`` idle times between one that was survived and one that was not, ascending."""
    if count < 1:
        return []
    low = max(lived, LOWEST * died)
    lowest = [low] if low > lived else []
    room = count - len(lowest)
    return [*lowest, *_between([low, died], max(0, min(room, _steps(low, died))))]


def _steps(low: float, high: float) -> int:
    """How many times between the two are enough."""
    return max(0, ceil(log(high / low) / log(STEP)) - 1)


def _thinned(rungs: list[float], count: int) -> list[float]:
    """At most ``count`` of them, evenly chosen."""
    if len(rungs) <= count:
        return rungs
    return [rungs[(2 * i + 1) * len(rungs) // (2 * count)] for i in range(count)]


def _between(marks: list[float], count: int) -> list[float]:
    """``count`` times that divide the gaps between ``marks``, the widest ratio first."""
    gaps = [(low, high) for low, high in pairwise(marks) if high > low]
    pieces = [1] * len(gaps)

    def width(i: int) -> float:
        low, high = gaps[i]
        return float((high / low) ** (1 / pieces[i]))

    for _ in range(count):
        pieces[max(range(len(gaps)), key=width)] += 1
    return [
        low * (high / low) ** (step / parts)
        for (low, high), parts in zip(gaps, pieces, strict=True)
        for step in range(1, parts)
    ]
