"""What observations prove: how long connections live idle, how long at all, and who counts what.

A death must be explained before it tells something. Everything at one moment, whatever its age,
is a *restart* and tells nothing of the path; one alone, while others lived longer, is a *stray*. At
an age that a busy connection does not survive
either, it is *age*. Only at an age that a busy one has survived, it is *idleness*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import median

from ..core.environment import BYTES, FATAL, FIN, PACKETS, RST, RST_NEXT
from .observation import BUSY, IDLE, LIVED, TCP, Observation

# Ages that differ by less are the same: whatever cuts looks at its clock now and then only.
SAME = 1.04

# A single death counts for nothing where so many lived longer.
OUTVOTED = 2

# The second busy probe is younger than the first by this share of the longest time watched.
STAGGER = 0.1


@dataclass(frozen=True, slots=True)
class Cut:
    """What is known of one cut, in seconds.

    :param lived: the longest time that was survived, below ``died``.
    :param died: the shortest that was not; ``inf`` where nothing died.
    :param deaths: what was observed of it.
    """

    lived: float = 0.0
    died: float = inf
    deaths: tuple[Observation, ...] = ()

    @property
    def found(self) -> bool:
        return bool(self.deaths)

    @property
    def times(self) -> list[float]:
        """The times of the deaths that were noticed when they happened."""
        return [_clock(o) for o in self.deaths if o.loud]

    @property
    def value(self) -> float:
        """The best estimate."""
        return median(self.times) if self.times else (self.lived + self.died) / 2

    @property
    def before(self) -> float:
        """What is safe from it: where deaths were noticed when they happened, all up to them."""
        return min(self.times, default=self.lived)

    @property
    def style(self) -> str:
        """How it ends connections."""
        outcomes = [o.outcome for o in self.deaths]
        if RST in outcomes:
            # Who resets at once is now and then met in the middle of a ping.
            outcomes = [RST if outcome == RST_NEXT else outcome for outcome in outcomes]
        if FATAL in outcomes:
            # Who says why closes after that.
            outcomes = [FATAL if outcome == FIN else outcome for outcome in outcomes]
        return max(sorted(set(outcomes)), key=outcomes.count)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all observations together prove.

    :param restarts: when everything died at once, in seconds of the survey.
    :param age: deaths of busy connections, by age.
    :param idle: deaths of connections left alone, by the time they were.
    :param activity: ``"packets"``, ``"bytes"``, or ``None``: not known.
    :param unexplained: deaths of which it is not known whether they are of age or of idleness.
    :param contradiction: some lived longer than others that died: a cut that is not sharp.
    :param strays: deaths that stand alone against those that lived longer.
    """

    restarts: tuple[float, ...]
    age: Cut
    idle: Cut
    activity: str | None
    unexplained: tuple[Observation, ...]
    contradiction: bool
    strays: int


def read(observations: Sequence[Observation], alive: float, max_idle: float) -> Evidence:
    """Weigh what was observed.

    :param alive: the greatest age at which a probe that still runs has answered.
    :param max_idle: the longest that probes are left alone.
    """
    oldest = max((o.lived for o in observations), default=0.0)
    oldest = max(oldest, alive)
    restarts = _restarts(observations, oldest, max_idle)
    window = STAGGER / 2 * max_idle
    sound = [
        o
        for o in observations
        if not (o.died and any(o.began < at and o.ended >= at - window for at in restarts))
    ]
    age = _cut([o for o in sound if o.kind == BUSY], [o.lived for o in sound] + [alive])
    idle_deaths, waiting = _explained([o for o in sound if o.kind == IDLE], age, oldest)
    quiet = [o for o in sound if o.kind == IDLE and o.outcome == LIVED]
    strays = _strays(idle_deaths, quiet)
    idle = _cut([] if strays else idle_deaths, [o.quiet for o in quiet])
    tcp_deaths, tcp_waiting = _explained([o for o in sound if o.kind == TCP], age, oldest)
    return Evidence(
        restarts=tuple(restarts),
        age=age,
        idle=idle,
        activity=_activity(sound, tcp_deaths, idle),
        unexplained=(*waiting, *tcp_waiting),
        contradiction=any(o.quiet > SAME * idle.died for o in quiet),
        strays=strays,
    )


def _cut(group: Sequence[Observation], survived: Sequence[float]) -> Cut:
    deaths = tuple(o for o in group if o.died)
    died = min(map(_clock, deaths), default=inf)
    return Cut(max((time for time in survived if time < died), default=0.0), died, deaths)


def _clock(o: Observation) -> float:
    """The time that counts: a busy connection's age, of others how long they were left alone."""
    return o.age if o.kind == BUSY else o.quiet


def _restarts(observations: Sequence[Observation], oldest: float, max_idle: float) -> list[float]:
    """When everything died at once, in order; what lies close together is one."""
    busy = [o for o in observations if o.kind == BUSY and o.died]
    moments = [o.ended for o in busy if oldest >= SAME * o.age]  # others have survived that age
    for one, other in combinations(busy, 2):
        apart = abs(one.ended - other.ended)
        if apart < abs(one.age - other.age) and apart < STAGGER / 2 * max_idle:
            moments.append(min(one.ended, other.ended))
    found: list[float] = []
    for moment in sorted(moments):
        if not found or moment - found[-1] > STAGGER * max_idle:
            found.append(moment)
    return found


def _explained(
    group: Sequence[Observation], age: Cut, oldest: float
) -> tuple[list[Observation], list[Observation]]:
    """The deaths that are none of age, and those of which that is not known yet."""
    deaths = [o for o in group if o.died]
    proven = [o for o in deaths if oldest >= SAME * o.age]
    unknown = [] if age.found else [o for o in deaths if oldest < SAME * o.age]
    return proven, unknown


def _strays(deaths: Sequence[Observation], lived: Sequence[Observation]) -> int:
    if len(deaths) != 1:
        return 0
    longer = [o for o in lived if o.quiet > SAME * deaths[0].quiet]
    return int(len(longer) >= OUTVOTED)


def _activity(sound: Sequence[Observation], deaths: Sequence[Observation], idle: Cut) -> str | None:
    if not idle.found:
        return None
    if any(o.quiet >= idle.lived for o in deaths):
        return BYTES
    beyond = SAME * latest(idle)
    kept = any(o.kind == TCP and o.outcome == LIVED and o.quiet >= beyond for o in sound)
    return PACKETS if kept else None


def latest(cut: Cut) -> float:
    """The longest time after which this cut ended one that was noticed, or is known to have."""
    return max([cut.died, *cut.times])
