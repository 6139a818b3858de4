"""What a pool knows at one moment, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Any

from .core.events import Cut, Happening
from .core.health import Vitals
from .core.histogram import BOUNDS
from .core.machine import Machine
from .core.policy import Policy
from .core.slot import Slot, State

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
    """A setting, and where it came from: ``"default"``, ``"given"`` or ``"changed"`` (at run
    time)."""

    name: str
    value: Any
    origin: str


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
    :param cuts: how many connections ended without our doing, by cause.
    :param retired: how many the pool closed, by why.
    :param deaths: the last cuts, oldest first.
    :param wait: how long callers waited who got a connection.
    :param use: how long connections were lent.
    :param connect: how long connecting took.
    :param happenings: the last happenings, oldest first.
    :param dropped: happenings that listeners missed because they were too slow.
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
    retired: dict[str, int]
    deaths: list[Death]
    wait: Durations
    use: Durations
    connect: Durations
    happenings: list[Happening]
    dropped: int
    settings: list[SettingView]
    vitals: Vitals

    @staticmethod
    def of(
        name: str, machine: Machine, vitals: Vitals, hub: Hub, changed: set[str], now: float
    ) -> Snapshot:
        trouble = machine.connector.trouble
        slots = dict.fromkeys((state.value for state in State), 0)
        connections = []
        for slot in list(machine.slots):
            slots[slot.state.value] += 1
            connections.append(_view(slot, now))
        waits = list(machine.waits.counts)
        waits[0] += machine.brief_waits + machine.waits_none()
        uses = list(machine.uses.counts)
        uses[0] += machine.brief_uses
        creations = machine.creations
        return Snapshot(
            name=name,
            at=now,
            state=vitals.condition.value,
            trouble=trouble.value if trouble else None,
            min_size=machine.policy.min_size,
            max_size=machine.policy.max_size,
            slots=slots,
            connections=connections,
            waiting=machine.queue.live,
            round_trip=machine.roundtrip.smoothed,
            last_error=machine.last_error[1] if trouble and machine.last_error else None,
            requests=machine.requests,
            refusals=dict(machine.refusals),
            opened=machine.connector.successes,
            open_failed=machine.connect_errors,
            cuts=dict(hub.cut_counts),
            retired=dict(machine.retired),
            deaths=[_death(cut, now) for cut in list(hub.cuts)],
            wait=Durations(BOUNDS, tuple(waits), machine.waited),
            use=Durations(BOUNDS, tuple(uses), machine.used),
            connect=Durations(BOUNDS, tuple(creations.counts), creations.sum),
            happenings=list(hub.recent),
            dropped=sum(subscription.dropped for subscription in hub.subscriptions),
            settings=_settings(machine.policy, changed),
            vitals=vitals,
        )


def _view(slot: Slot, now: float) -> ConnectionView:
    return ConnectionView(
        number=slot.number,
        state=slot.state.value,
        since=now - slot.since,
        age=now - slot.opened_at,
        silent_for=now - max(slot.heard_at, slot.since if slot.state is State.IDLE else -inf),
        expires_in=slot.expires_at - now,
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


def _settings(policy: Policy, changed: set[str]) -> list[SettingView]:
    found = []
    for field in fields(policy):
        value = getattr(policy, field.name)
        origin = "default" if value == field.default else "given"
        found.append(SettingView(field.name, value, "changed" if field.name in changed else origin))
    return found
