"""All rounds of a run, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic

from .arena import Plan, play
from .lanes import LANES, LaneSpec
from .report import Report

__all__ = ["Progress", "Torture", "torture"]

_DEEDS = 1250  # of one lane in one round: some ten seconds
_STRUCK = 0.16  # share of the deeds that a fault is planned for


@dataclass(frozen=True)
class Torture:
    """What is to be done.

    :ivar transactions: of everpool's pools; psycopg_pool gets as many as one of these.
    :ivar mode: ``"xid"``, ``"token"`` or ``"all"``.
    :ivar seconds: no round begins after this; ``inf`` for no limit.
    """

    transactions: int
    seed: int
    mode: str
    naive: bool
    seconds: float

    @property
    def specs(self) -> tuple[LaneSpec, ...]:
        return tuple(
            spec
            for spec in LANES
            if (spec.mode and self.mode in ("all", spec.mode)) or (not spec.mode and self.naive)
        )

    def plans(self) -> list[Plan]:
        """The rounds. Each is made from the seed and its number alone."""
        specs = self.specs
        lanes = sum(bool(spec.mode) for spec in specs)
        rounds = max(1, ceil(self.transactions / (_DEEDS * lanes)))
        deeds = ceil(self.transactions / (rounds * lanes))
        many = deeds >= _DEEDS / 2
        return [
            Plan(
                seed=self.seed,
                number=number,
                specs=specs,
                deeds=deeds,
                faults=round(_STRUCK * deeds),
                kills=2 if many else 1,
                crashes=2 if many else 1,
                promotion=True,
            )
            for number in range(1, rounds + 1)
        ]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: deeds of all lanes."""

    done: int
    total: int
    report: Report


def torture(plan: Torture, show: Callable[[Progress], None]) -> Report:
    """Play all rounds.

    :raises everpool.lab.BinariesNotFound: there is no PostgreSQL on this machine.
    :raises everpool.lab.ServerError: it does not start.
    """
    report = Report(plan.seed)
    plans = plan.plans()
    each = plans[0].deeds * len(plans[0].specs)
    began = monotonic()
    for index, round_plan in enumerate(plans):
        before = index * each

        def tell(done: int, before: int = before) -> None:
            show(Progress(before + done, each * len(plans), report))

        report.add(play(round_plan, tell))
        report.took = monotonic() - began
        tell(each)
        if report.took > plan.seconds:
            break
    return report
