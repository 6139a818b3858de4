"""A path to a database, and a survey of it, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

from everpool.core.environment import PACKETS, RST_NEXT, SILENCE
from everpool.survey.books import Books
from everpool.survey.observation import BUSY, LOUD, OUTAGE, TCP, Limits, Observation
from everpool.survey.plan import Phase, Planner, Probe


@dataclass
class Path:
    """What cuts connections, and how late we hear of things."""

    idle: float = inf
    age: float = inf
    style: str = "fin"
    age_style: str = ""
    activity: str = "bytes"
    sweep: float = 0.0  # it looks at its clocks so often
    delay: float = 0.001  # of connects, answers and news
    restarts: tuple[float, ...] = ()
    restart_style: str = "fin"
    outage: tuple[float, float] = (inf, inf)

    def end_of(self, probe: Probe) -> tuple[float, str]:
        """When a probe that is left alone from now on is cut, and how."""
        idle = self.idle
        if probe.kind == TCP and self.activity == PACKETS:
            idle = inf
        ends = [
            (self._swept(probe.quiet_since + idle), self.style),
            (self._swept(probe.began + self.age), self.age_style or self.style),
            *((at, self.restart_style) for at in self.restarts if at > probe.began),
        ]
        return min(ends)

    def _swept(self, at: float) -> float:
        if not self.sweep or at == inf:
            return at
        return self.sweep * -(-at // self.sweep)


@dataclass
class Run:
    """What came of a survey."""

    books: Books
    took: float
    most_open: int
    opened: int = 0
    notes: list[str] = field(default_factory=list)


def survey(
    path: Path,
    limits: Limits,
    earlier: Sequence[Observation] = (),
    *,
    ping_limit: float = 5.0,
    until: float = inf,
) -> Run:
    """Survey a path; ``until`` is when it is interrupted."""
    began = max((o.ended for o in earlier), default=0.0)
    now = began
    books = Books(earlier)
    planner = Planner(limits, now + limits.longest - ping_limit)
    events: list[tuple[float, int, str, Probe]] = []
    order = count()
    most_open = opened = 0
    steps = 0

    def at(when: float, what: str, probe: Probe) -> None:
        heappush(events, (when, next(order), what, probe))

    while True:
        steps += 1
        assert steps < 5_000, "the plan goes round in circles"
        while events and events[0][0] <= now:
            _, _, what, probe = heappop(events)
            if probe.number not in books.probes:
                continue
            if what == "gone":
                books.gone(probe)
            elif probe.phase is Phase.CLOSING:
                continue
            elif what == "opened":
                books.opened(probe, now)
                _watch(path, probe, at)
            elif what == "loud":
                when, style = path.end_of(probe)
                if now >= when and style in LOUD:
                    books.ended(probe, now, style)
                    at(now + path.delay, "gone", probe)
            elif what == "answer":
                books.answered(probe, now)
                if probe.phase is Phase.CLOSING:
                    at(now + path.delay, "gone", probe)
                else:
                    _watch(path, probe, at)
            elif what == "reset":
                books.ended(probe, now, RST_NEXT)
                at(now + path.delay, "gone", probe)
            elif what == "lost":
                down, up = path.outage
                books.ended(probe, now, OUTAGE if down <= now < up else SILENCE)
                at(now + path.delay, "gone", probe)
        decision = planner.decide(
            books.observations, list(books.probes.values()), now, stopping=now >= until
        )
        if decision.done:
            break
        for number in decision.close:
            books.dropped(books.probes[number])
            at(now + path.delay, "gone", books.probes[number])
        for number in dict.fromkeys(decision.ask):
            probe = books.probes[number]
            if probe.phase is not Phase.RESTING:
                continue
            when, style = path.end_of(probe)
            books.asked(probe, now)
            down, up = path.outage
            if down <= now < up:
                at(now + ping_limit, "lost", probe)
            elif now < when:
                at(now + path.delay, "answer", probe)
            elif style == RST_NEXT:
                at(now + path.delay, "reset", probe)
            elif style == SILENCE:
                at(now + ping_limit, "lost", probe)
            else:
                at(now + path.delay, "loud", probe)
        for kind, rest in decision.open:
            probe = books.open(kind, rest, now)
            opened += 1
            at(now + path.delay, "opened", probe)
        most_open = max(most_open, len(books.probes))
        now = max(
            now, min([decision.wake, until if until > now else inf, *(e[0] for e in events[:1])])
        )
    for probe in list(books.probes.values()):
        if probe.kind == BUSY and probe.phase in (Phase.RESTING, Phase.ASKED):
            books.finish(probe)
    return Run(books, now - began, most_open, opened)


def _watch(path: Path, probe: Probe, at) -> None:  # type: ignore[no-untyped-def]
    when, style = path.end_of(probe)
    if style in LOUD and when < inf:
        at(when + path.delay, "loud", probe)
