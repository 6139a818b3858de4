"""What a pool knows at one moment, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic

from .core.events import Cut
from .core.machine import Machine
from .core.slot import State


@dataclass(frozen=True, slots=True)
class Death:
    """One connection that ended without our doing. Times are seconds."""

    ago: float
    cause: str
    silent_for: float
    age: float
    lent: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pool at one moment.

    :param state: ``"up"``, or why no connection can be opened (``"unreachable"``,
        ``"silent"``, ``"too many connections"``, ``"rejected"``), or ``"closed"``.
    :param slots: how many connections are in each state (`everpool.core.slot`).
    :param waiting: how many callers wait.
    :param round_trip: smoothed round-trip time, in seconds; 0 if not yet known.
    :param last_error: the last failed connect, if the pool cannot connect now.
    :param cuts: how many connections ended without our doing, by cause, since opening.
    :param deaths: the last of them, oldest first.
    """

    name: str
    state: str
    min_size: int
    max_size: int
    slots: dict[str, int]
    waiting: int
    round_trip: float
    last_error: str | None
    cuts: dict[str, int]
    deaths: list[Death]

    @staticmethod
    def of(
        name: str, machine: Machine, cuts: Iterable[tuple[float, Cut]], counts: Counter[str]
    ) -> Snapshot:
        now = monotonic()
        trouble = machine.connector.trouble
        slots = dict.fromkeys((state.value for state in State), 0)
        for slot in list(machine.slots):
            slots[slot.state.value] += 1
        return Snapshot(
            name=name,
            state="closed" if machine.closed else trouble.value if trouble else "up",
            min_size=machine.policy.min_size,
            max_size=machine.policy.max_size,
            slots=slots,
            waiting=machine.queue.live,
            round_trip=machine.roundtrip.smoothed,
            last_error=machine.last_error[1] if trouble and machine.last_error else None,
            cuts=dict(counts),
            deaths=[
                Death(now - when, str(cut.cause), cut.silent_for, cut.age, cut.lent)
                for when, cut in list(cuts)
            ],
        )
