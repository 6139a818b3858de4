"""What follows from the observations: cuts in seconds, an environment, settings, a line of Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import floor, inf, isfinite, log10
from typing import Any

from ..core.environment import FATAL, SILENCE, Environment
from ..core.policy import Policy, build
from .evidence import Cut, latest, read
from .ladder import DOCUMENTED
from .observation import IDLE, LIVED, OUTAGE, Limits, Observation

# A time that was measured is late by what it takes to notice; the setting is a little below.
BELOW, ABOVE = 0.98, 1.005

# A gap so wide tells no figure: what was survived is all that can be relied on.
VAGUE = 1.2

DAY = 86400.0
FIGURES = (*DOCUMENTED, DAY)


@dataclass(frozen=True, slots=True)
class Found:
    """A cut. Times are seconds.

    :param value: the best estimate.
    :param figure: what to tell a pool: a round figure where the measurement allows for one, and
        the longest time survived where it tells no figure.
    :param least, most: the real one lies between these.
    :param kill: how connections are ended, as in `Environment`.
    :param sqlstate, text: what was said, if anything was.
    :param count: how many connections were seen to end so.
    """

    value: float
    figure: float
    least: float
    most: float
    kill: str
    sqlstate: str
    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a survey found. Times are seconds.

    :param idle: the idle cut; ``None``: none was met up to ``idle_survived``.
    :param age: the maximum age; ``None``: none was met up to ``age_survived``.
    :param activity: ``"packets"``: TCP keepalives hold the idle cut off; ``"bytes"``: only a ping
        does; ``None``: not known.
    :param sharp: nothing lived clearly longer than something that was cut.
    :param unexplained: after how long connections ended of which it is not known whether they had
        been idle or old for too long.
    :param restarts: how often everything ended at one moment.
    :param strays: how many ended alone, while others lived longer.
    :param outages: how many connections did not answer while nothing else did.
    :param silent: how many were lost in silence: the server may not know of it for a while.
    :param environments: what follows for a pool: nothing, or one thing on the path, or two that
        end connections in different ways.
    """

    idle: Found | None
    age: Found | None
    activity: str | None
    idle_survived: float
    age_survived: float
    sharp: bool
    unexplained: tuple[float, ...]
    restarts: int
    strays: int
    outages: int
    silent: int
    environments: tuple[Environment, ...]

    @property
    def policy(self) -> Policy:
        """The settings of a pool in that environment, each with its reason."""
        return build(environment=self.environments)

    @property
    def measured(self) -> Environment | None:
        """The path as one thing, to be compared with what is known."""
        first = self.idle or self.age
        if first is None:
            return None
        return Environment(
            idle_cut=self.idle.figure if self.idle else None,
            max_age=self.age.figure if self.age else None,
            kill=first.kill,
            activity=self.activity,
            name="the path",
        )


def find(observations: Sequence[Observation], limits: Limits) -> Findings:
    """What the observations tell."""
    evidence = read(observations, 0.0, limits.max_idle)
    idle, age = _found(evidence.idle), _found(evidence.age)
    lived = [o.quiet for o in observations if o.kind == IDLE and o.outcome == LIVED]
    return Findings(
        idle=idle,
        age=age,
        activity=evidence.activity,
        idle_survived=max(lived, default=0.0) if idle is None else evidence.idle.lived,
        age_survived=evidence.age.lived,
        sharp=not evidence.contradiction,
        unexplained=tuple(sorted(o.quiet for o in evidence.unexplained)),
        restarts=len(evidence.restarts),
        strays=evidence.strays,
        outages=sum(o.outcome == OUTAGE for o in observations),
        silent=sum(o.outcome == SILENCE for o in observations),
        environments=_environments(idle, age, evidence.activity),
    )


def _found(cut: Cut) -> Found | None:
    if not cut.found:
        return None
    if cut.times:
        least, most = min(cut.times), latest(cut)
        figure = _figure(BELOW * least, ABOVE * most, cut.value)
    else:
        least, most = cut.lived, cut.died
        vague = most > VAGUE * least > 0
        figure = least if vague else _figure(least, most, cut.value)
    said = [o for o in cut.deaths if o.outcome == FATAL]
    spoken = max(said, key=lambda o: [s.sqlstate for s in said].count(o.sqlstate), default=None)
    return Found(
        value=cut.value,
        figure=figure,
        least=least,
        most=most,
        kill=cut.style,
        sqlstate=spoken.sqlstate if spoken else "",
        text=spoken.text if spoken else "",
        count=len(cut.deaths),
    )


def _figure(least: float, most: float, value: float) -> float:
    """The figure that somebody may have set: documented, or the one with the fewest digits."""
    known = [figure for figure in FIGURES if least <= figure <= most]
    if known:
        return min(known, key=lambda figure: abs(figure - value))
    for digits in range(3):
        step = 10.0 ** (floor(log10(most)) - digits)
        figure = round(value / step) * step
        for candidate in (figure, figure - step, figure + step):
            if least <= candidate <= most and candidate > 0:
                return float(f"{candidate:.6g}")
    return float(f"{value:.4g}")


def _environments(
    idle: Found | None, age: Found | None, activity: str | None
) -> tuple[Environment, ...]:
    if idle and age and idle.kill == age.kill:
        return (Environment(idle.figure, age.figure, idle.kill, activity, name="the path"),)
    found = []
    if idle:
        found.append(Environment(idle.figure, None, idle.kill, activity, name="the path"))
    if age:
        # Where the path as a whole has an idle cut, it is the other's; else nobody's is known.
        rest = inf if idle else None
        found.append(Environment(rest, age.figure, age.kill, name="the path"))
    return tuple(found)


def python(environments: Sequence[Environment]) -> str:
    """A line of Python that makes a pool for this path."""
    if not environments:
        return "ConnectionPool(conninfo)"
    calls = ", ".join(map(_call, environments))
    return (
        f"ConnectionPool(conninfo, environment={calls if len(environments) == 1 else f'[{calls}]'})"
    )


def _call(environment: Environment) -> str:
    words = []
    for field in fields(environment):
        value: Any = getattr(environment, field.name)
        if value is None or field.name == "name":
            continue
        if isinstance(value, str):
            shown = f'"{value}"'
        else:
            shown = f"{value:g}" if isfinite(value) else f'float("{value}")'
        words.append(f"{field.name}={shown}")
    return f"Environment({', '.join(words)})"


def fits(findings: Findings, facts: Environment) -> bool:
    """Whether an entry of the catalogue explains all that was measured, to within its accuracy."""
    measured = findings.measured
    if measured is None or facts.sleeps_after is not None or facts.kill != measured.kill:
        return False
    if findings.activity and facts.activity != findings.activity:
        return False
    return _same(findings.idle, facts.idle_cut, findings.idle_survived) and _same(
        findings.age, facts.max_age, findings.age_survived
    )


def _same(found: Found | None, known: float | None, survived: float) -> bool:
    if found is None:  # beyond what was survived there may be anything
        return (known or inf) > survived
    return known is not None and BELOW * found.least <= known <= found.most / BELOW
