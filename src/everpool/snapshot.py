"""What a pool knows at one moment, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from .core.events import Cut, Happening
from .core.health import Vitals
from .core.histogram import BOUNDS
from .core.learn import Belief
from .core.machine import Machine
from .core.policy import SETTINGS, Policy
from .core.slot import State

if TYPE_CHECKING:
    from .subscriptions import Hub


@dataclass(frozen=True, slots=True)
class Death:
    """One connection that ended without our doing. Times are seconds.

    ``cause`` has the server's words in it, ``kind`` is the same without them.
    """

    number: int
    ago: float
    cause: str
    kind: str
    silent_for: float
    age: float
    lent: bool


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """One connection. Times are seconds.

    :param state: see `everpool.core.slot`.
    :param since: how long it has been in this state.
    :param age: since it was opened; of one being opened, since the attempt began.
    :param silent_for: since the server was last heard on it, as far as the pool knows.
    :param expires_in: until its lifetime ends.
    """

    number: int
    state: str
    since: float
    age: float
    silent_for: float
    expires_in: float


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations in seconds, since the pool was opened.

    :param bounds: upper bounds of the buckets; the last one, ``inf``, is left out.
    :param counts: how many fell into each bucket, one more than there are bounds.
    :param sum: of all durations.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """An estimate, linear within the bucket; 0 if nothing was counted.

        What lies beyond the last bound is reported as that bound.
        """
        rank, below, low = share * self.count, 0, 0.0
        for high, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= rank:
                return low + (high - low) * (rank - below) / count
            below, low = below + count, high
        return low if self.count else 0.0

    def minus(self, earlier: Durations) -> Durations:
        """What was counted since an earlier snapshot of the same pool."""
        counts = tuple(a - b for a, b in zip(self.counts, earlier.counts, strict=True))
        return Durations(self.bounds, counts, self.sum - earlier.sum)


@dataclass(frozen=True, slots=True)
class SettingView:
    """A setting as it is followed now, where it came from, and why it is so.

    ``origin`` is ``"default"``, ``"given"``, ``"environment"``, ``"changed"`` (at run time) or
    ``"learned"``.
    """

    name: str
    value: Any
    origin: str
    why: str


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the deaths of connections have taught. Times are seconds.

    :param fact: ``"idle_cut"`` or ``"max_age"``.
    :param value: after so long a silence, or life, connections are cut.
    :param kind: how, as in `Death.kind`.
    :param deaths: how many connections it stands on, at ``events`` separate moments or more, the
        first of them ``first_ago``, the last ``last_ago``.
    :param outlived: how often a connection has lived beyond it since.
    :param followed: whether the pool's own setting yields to it.
    """

    fact: str
    value: float
    kind: str
    deaths: int
    events: int
    outlived: int
    first_ago: float
    last_ago: float
    followed: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pool at one moment. Durations are seconds, counters begin with the pool and only grow.

    :param at: when it was taken, on the clock of the happenings (``time.monotonic``).
    :param state: a value of `everpool.events.Condition`.
    :param trouble: why no connection can be opened now (``"unreachable"``, ``"silent"``,
        ``"too many connections"``, ``"rejected"``), or None.
    :param slots: how many connections are in each state.
    :param connections: each of them.
    :param waiting: how many callers wait; the first of them for ``vitals.longest_wait``.
    :param round_trip: smoothed round-trip time; 0 if not yet known.
    :param last_error: the last failed connect, if the pool cannot connect now. May name hosts.
    :param requests: how many connections have been asked for.
    :param refusals: requests that ended without, by why: ``"timeout"``, ``"saturated"``,
        ``"full"``, ``"down"``, ``"rejected"``, ``"closed"``, ``"gave up"`` (by the caller).
    :param opened, open_failed: attempts to connect that succeeded and failed.
    :param cuts: how many connections ended without our doing, by cause; ``cuts_lent`` of them
        while somebody held them.
    :param leaks: how many loans lasted longer than ``leak_after`` (``"held"``), and how many
        connections were dropped without being returned (``"dropped"``).
    :param deadlines: loans whose deadline came: their query was cancelled and the connection came
        back (``"cancelled"``), or the connection was ended under its borrower (``"ended"``).
    :param side_connections: how many the pool uses, for ``watch_queries``, beside those that
        ``max_size`` limits: 0 or 1. Pools on one host share one, and each reports it: the sum over
        pools says nothing.
    :param retired: how many the pool closed, by why.
    :param deaths: the last cuts, oldest first.
    :param wait: how long callers waited who got a connection.
    :param use: how long connections were lent.
    :param connect: how long connecting took.
    :param happenings: the last happenings, oldest first.
    :param dropped: happenings that listeners missed because they were too slow.
    :param learned: what the deaths of connections have taught.
    :param experiments: how often the pool has left a connection to be cut, to see whether what
        it learned still holds.
    :param settings: all of the pool's settings.
    :param vitals: the numbers that the pool's health is judged by.
    """

    name: str
    at: float
    state: str
    trouble: str | None
    min_size: int
    max_size: int
    slots: dict[str, int]
    connections: list[ConnectionView]
    waiting: int
    round_trip: float
    last_error: str | None
    requests: int
    refusals: dict[str, int]
    opened: int
    open_failed: int
    cuts: dict[str, int]
    cuts_lent: int
    leaks: dict[str, int]
    deadlines: dict[str, int]
    side_connections: int
    retired: dict[str, int]
    deaths: list[Death]
    wait: Durations
    use: Durations
    connect: Durations
    happenings: list[Happening]
    dropped: int
    learned: list[Lesson]
    experiments: int
    settings: list[SettingView]
    vitals: Vitals

    @staticmethod
    def of(
        name: str,
        machine: Machine,
        vitals: Callable[[float], Vitals],
        hub: Hub,
        mutex: AbstractContextManager[Any],
        now: float,
    ) -> Snapshot:
        """Read a pool. Its lock is held only while what must agree is copied: lending waits."""
        with mutex:
            seen = vitals(now)
            trouble, last_error = machine.connector.trouble, machine.last_error
            rows = [
                (
                    slot.number,
                    slot.state,
                    slot.since,
                    slot.opened_at,
                    slot.heard_at,
                    slot.expires_at,
                )
                for slot in list(machine.slots)
            ]
            waits, uses = list(machine.waits.counts), list(machine.uses.counts)
            waits[0] += machine.brief_waits + machine.waits_none()
            uses[0] += machine.brief_uses
            creations = tuple(machine.creations.counts)
            sums = machine.waited, machine.used, machine.creations.sum
            waiting, requests = machine.queue.live, machine.requests
            refusals, retired = dict(machine.refusals), dict(machine.retired)
            cuts, cuts_lent, leaks = dict(machine.cuts), machine.cuts_lent, dict(machine.leaks)
            deadlines, side_connections = dict(machine.deadlines), machine.side_connections
            policy, experiments = machine.policy, machine.experiments
            followed = {"keepalive": machine.keepalive, "max_lifetime": machine.lifetime}
            idle_cut, max_age = machine.beliefs()
            beliefs = (("idle_cut", idle_cut, "keepalive"), ("max_age", max_age, "max_lifetime"))
            opened, open_failed = machine.connector.successes, machine.connect_errors
        slots = dict.fromkeys((state.value for state in State), 0)
        for row in rows:
            slots[row[1].value] += 1
        return Snapshot(
            name=name,
            at=now,
            state=seen.condition.value,
            trouble=trouble.value if trouble else None,
            min_size=machine.policy.min_size,
            max_size=machine.policy.max_size,
            slots=slots,
            connections=[_view(*row, now) for row in rows],
            waiting=waiting,
            round_trip=machine.roundtrip.smoothed,
            last_error=last_error[1] if last_error else None,
            requests=requests,
            refusals=refusals,
            opened=opened,
            open_failed=open_failed,
            cuts=cuts,
            cuts_lent=cuts_lent,
            leaks=leaks,
            deadlines=deadlines,
            side_connections=side_connections,
            retired=retired,
            deaths=[_death(cut, now) for cut in list(hub.cuts)],
            wait=Durations(BOUNDS, tuple(waits), sums[0]),
            use=Durations(BOUNDS, tuple(uses), sums[1]),
            connect=Durations(BOUNDS, creations, sums[2]),
            happenings=list(hub.recent),
            dropped=hub.dropped,
            learned=[
                _lesson(fact, belief, followed[name] < getattr(policy, name), now)
                for fact, belief, name in beliefs
                if belief is not None
            ],
            experiments=experiments,
            settings=_settings(policy, followed),
            vitals=seen,
        )


def _view(
    number: int,
    state: State,
    since: float,
    opened_at: float,
    heard_at: float,
    expires_at: float,
    now: float,
) -> ConnectionView:
    return ConnectionView(
        number=number,
        state=state.value,
        since=now - since,
        age=now - opened_at,
        silent_for=now - max(heard_at, since if state is State.IDLE else -inf),
        expires_in=expires_at - now,
    )


def _death(cut: Cut, now: float) -> Death:
    return Death(
        number=cut.number,
        ago=now - cut.at,
        cause=str(cut.cause),
        kind=cut.cause.kind,
        silent_for=cut.silent_for,
        age=cut.age,
        lent=cut.lent,
    )


def _lesson(fact: str, belief: Belief, followed: bool, now: float) -> Lesson:
    return Lesson(
        fact=fact,
        value=belief.value,
        kind=belief.style,
        deaths=belief.deaths,
        events=belief.events,
        outlived=belief.outlived,
        first_ago=now - belief.since,
        last_ago=now - belief.last_at,
        followed=followed,
    )


def _settings(policy: Policy, followed: dict[str, float]) -> list[SettingView]:
    found = []
    for name in SETTINGS:
        value, reason = getattr(policy, name), policy.reason(name)
        if followed.get(name, value) != value:
            why = f"learned: see Snapshot.learned; {value:g} s before"
            found.append(SettingView(name, followed[name], "learned", why))
        else:
            found.append(SettingView(name, value, reason.origin, reason.why))
    return found
