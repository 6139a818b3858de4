"""What a survey does next: one pure decision, taken again whenever something happened.

Everything goes on at once. Busy probes are watched for their age from the beginning. Probes left
alone climb a ladder of idle times, all started together, so that it takes no longer than its
longest rung. Ends that are noticed give the cut exactly; the others only lie between a rung that
lived and one that died, so that gap is divided by as many probes as there is room for, until it
is narrow. One probe is kept by TCP keepalives alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from .evidence import SAME, STAGGER, Evidence, latest, read
from .ladder import FINE, LOWEST, division, ladder
from .observation import BUSY, IDLE, TCP, Limits, Observation

# A maximum age is known to this share of the longest time watched, and half of it at best.
PULSE = 1 / 40
PULSE_MOST = 5.0  # seconds: an answer more often than that tells nothing new

# Idle times are tried up to this share of a maximum age, so that age does not interfere.
CLEAR_OF_AGE = 0.95

# Where one has died, those that were left alone for so much longer are asked, to confirm it.
OVERDUE = 1.05

# After so many restarts in one survey the path is not at rest, and no figure would be right.
MOST_RESTARTS = 2


class Phase(Enum):
    OPENING = "opening"
    RESTING = "resting"  # nothing is under way on it
    ASKED = "asked"
    JUDGED = "judged"  # asked in vain: does anybody answer?
    CLOSING = "closing"


# Something is still to be expected of these.
_TELLING = frozenset({Phase.RESTING, Phase.ASKED, Phase.JUDGED})


@dataclass(slots=True)
class Probe:
    """A probe that runs. Times are seconds of the survey.

    :param rest: how long it is to be left alone; ``inf`` for one that is kept busy.
    :param began: when its connect began.
    :param quiet_since: when something last went over it.
    :param asked_at: when it was last asked.
    :param lived: the age at its last answer.
    """

    number: int
    kind: str
    rest: float
    began: float
    phase: Phase = Phase.OPENING
    quiet_since: float = 0.0
    asked_at: float = 0.0
    lived: float = 0.0


@dataclass(slots=True)
class Decision:
    """What to do now, by the numbers of probes, and when to decide again at the latest.

    :param open: kind and rest of each probe to open.
    :param expected: when the survey will be over, as far as can be told, in its seconds.
    """

    open: list[tuple[str, float]] = field(default_factory=list)
    ask: list[int] = field(default_factory=list)
    close: list[int] = field(default_factory=list)
    done: bool = False
    wake: float = inf
    expected: float = 0.0

    def ask_at(self, probe: Probe, due: float, now: float) -> None:
        """Ask it when that is due."""
        if now >= due:
            self.ask.append(probe.number)
        else:
            self.wake = min(self.wake, due)


def pulse(limits: Limits) -> float:
    """Seconds from one ping of a busy probe to the next."""
    return min(PULSE_MOST, PULSE * limits.max_idle)


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides.

    :param limits: how far it may go.
    :param deadline: when the budget ends, in seconds of the survey.
    :param tcp: whether there is TCP to keep alive: not on a Unix socket.
    """

    limits: Limits
    deadline: float
    tcp: bool = True

    def evidence(self, observations: Sequence[Observation], probes: Iterable[Probe]) -> Evidence:
        """What is proven by now."""
        alive = max((p.lived for p in probes), default=0.0)
        return read(observations, alive, self.limits.max_idle)

    def decide(
        self,
        observations: Sequence[Observation],
        probes: Sequence[Probe],
        now: float,
        *,
        stopping: bool = False,
    ) -> Decision:
        """What to do at the time ``now``.

        :param probes: all that run, those that are being closed included.
        :param stopping: open nothing more; ask whoever can be asked, and end.
        """
        decision = Decision(expected=now)
        running = [p for p in probes if p.phase is not Phase.CLOSING]
        evidence = self.evidence(observations, probes)
        if stopping or now >= self.deadline or len(evidence.restarts) >= MOST_RESTARTS:
            self._end(decision, running)
        else:
            _Step(self, decision, evidence, running, len(probes), now).take()
            decision.wake = min(decision.wake, self.deadline)
        for p in running:
            if p.kind == BUSY and p.phase is Phase.RESTING:
                decision.ask_at(p, p.asked_at + pulse(self.limits), now)
        return decision

    def _end(self, decision: Decision, running: Sequence[Probe]) -> None:
        """Ask those that were left alone: how long they lived is worth knowing."""
        waiting = [p for p in running if p.kind != BUSY]
        decision.ask += [p.number for p in waiting if p.phase is Phase.RESTING]
        decision.done = not any(p.phase in _TELLING for p in waiting)


class _Step:
    """One decision in the making, while the survey goes on."""

    def __init__(
        self,
        planner: Planner,
        decision: Decision,
        evidence: Evidence,
        running: Sequence[Probe],
        places: int,
        now: float,
    ) -> None:
        self._decision = decision
        self._limits = planner.limits
        self._tcp_useful = planner.tcp
        self._ev = evidence
        self._busy = [p for p in running if p.kind == BUSY]
        self._idle = [p for p in running if p.kind == IDLE]
        self._tcp = [p for p in running if p.kind == TCP]
        self._room = self._limits.connections - places
        self._closing = places - len(running)
        self._now = now
        self._left = planner.deadline - now
        self._ceiling = self._limits.max_idle
        if evidence.age.found:
            self._ceiling = min(self._ceiling, CLEAR_OF_AGE * evidence.age.before)

    def take(self) -> None:
        decision, ev = self._decision, self._ev
        self._drop_useless()
        age, idle, activity = self._age_known(), self._idle_known(), self._activity_known()
        self._open_busy(0 if age and ev.age.found else 1 if age else 2 - len(ev.age.deaths))
        if not activity:
            self._open_tcp()
        # They divide a gap together, so they wait until there is room for all.
        if not (idle or self._idle or self._closing or ev.unexplained):
            rests = self._rests()
            idle = not rests and self._room > 0  # there is no time for any
            for rest in rests:
                self._open(IDLE, rest)
        if age and idle and activity and not ev.unexplained:
            decision.open.clear()
            decision.done = True
            return
        for p in (*self._idle, *self._tcp):
            if p.phase is Phase.RESTING:
                decision.ask_at(p, p.quiet_since + self._rest(p), self._now)
        decision.expected = max(
            [
                self._now,
                *(p.quiet_since + self._rest(p) for p in (*self._idle, *self._tcp)),
                *(self._now + rest for kind, rest in decision.open if kind != BUSY),
                *([] if age else [self._watched_until()]),
            ]
        )

    # -- what is known well enough ------------------------------------------------------------

    def _age_known(self) -> bool:
        age = self._ev.age
        if len(age.deaths) > 1:
            return True
        if self._busy:
            return not age.found and age.lived >= self._limits.max_idle
        # To learn more, a new one has to grow older than the eldest.
        target = SAME * age.died if age.found else age.lived
        return self._left <= target or (not age.found and age.lived >= self._limits.max_idle)

    def _idle_known(self) -> bool:
        idle = self._ev.idle
        if not idle.found:
            return min(self._ceiling, self._within()) <= FINE * idle.lived
        if self._ev.contradiction:
            return True
        if idle.times:
            return len(idle.times) > 1 or (not self._idle and self._left <= idle.died)
        narrow = idle.died <= FINE * idle.lived
        tiny = idle.died <= LOWEST * LOWEST * self._limits.max_idle
        return narrow or tiny or (not self._idle and self._left <= FINE * idle.lived)

    def _activity_known(self) -> bool:
        if not self._tcp_useful or self._ev.activity:
            return True
        if not self._ev.idle.found:
            return self._idle_known()  # there is no cut to hold off
        rest = OVERDUE * latest(self._ev.idle)
        return not self._tcp and rest > min(self._within(), self._room_before_age())

    def _room_before_age(self) -> float:
        return CLEAR_OF_AGE * self._ev.age.before if self._ev.age.found else inf

    def _within(self) -> float:
        """How long a probe may rest that is opened now; those that run may rest as they do."""
        return inf if self._idle else self._left

    # -- what to open -------------------------------------------------------------------------

    def _open(self, kind: str, rest: float) -> None:
        if self._room > 0:
            self._room -= 1
            self._decision.open.append((kind, rest))

    def _open_busy(self, wanted: int) -> None:
        """Keep so many; each is younger than the one before."""
        if len(self._busy) >= wanted:
            return
        after = self._now
        if self._busy:
            after = self._busy[-1].began + STAGGER * self._limits.max_idle
        if self._now >= after:
            self._open(BUSY, inf)
        else:
            self._decision.wake = min(self._decision.wake, after)
            self._room -= 1  # it comes later, and needs its place
        self._room -= max(0, wanted - len(self._busy) - 1)

    def _open_tcp(self) -> None:
        if self._tcp:
            return
        idle = self._ev.idle
        rest = OVERDUE * latest(idle) if idle.found else min(self._ceiling, self._left)
        self._open(TCP, rest)

    def _rests(self) -> list[float]:
        """How long the next probes are to be left alone."""
        idle = self._ev.idle
        if not idle.found:
            rests = ladder(idle.lived, min(self._ceiling, self._left), self._room)
        elif idle.times:
            rests = [min(OVERDUE * idle.died, self._ceiling)] * min(2, self._room)
        else:
            rests = division(idle.lived, idle.died, self._room)
        return [rest for rest in rests if rest <= self._left and self._teaches(rest)]

    # -- what runs ----------------------------------------------------------------------------

    def _drop_useless(self) -> None:
        """Close those that can tell nothing more: they would be killed, and only say so again."""
        useless = [
            p
            for p in self._idle
            if p.phase in (Phase.OPENING, Phase.RESTING) and not self._teaches(p.rest)
        ]
        self._decision.close += [p.number for p in useless]
        self._idle = [p for p in self._idle if p not in useless]

    def _teaches(self, rest: float) -> bool:
        """Whether it is worth knowing what becomes of a probe left alone for so long."""
        idle = self._ev.idle
        most = self._ceiling
        if not idle.times and len(idle.deaths) > 1:
            most = min(most, idle.died)  # what rests for longer has confirmed it
        return idle.lived < rest <= most

    def _rest(self, p: Probe) -> float:
        """How long a probe is really to be left alone, by what is known now."""
        return min(p.rest, OVERDUE * latest(self._ev.idle)) if self._ev.idle.found else p.rest

    def _watched_until(self) -> float:
        if not self._busy:
            return self._now + self._limits.max_idle
        goal = SAME * self._ev.age.died if self._ev.age.found else self._limits.max_idle
        return max(self._now, self._busy[0].began + goal)
