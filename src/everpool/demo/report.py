"""The numbers of a run, as they are printed and as ``--json`` gives them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import psycopg
import psycopg_pool

import everpool
from everpool.demo.contestants import MAX_SIZE, MIN_SIZE, TIMEOUT
from everpool.demo.lane import AGE_CUT, IDLE_CUT, WORKERS, View
from everpool.demo.run import Moment

__all__ = ["Numbers", "as_json", "count", "everpool_held"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What came of one pool. The fields are explained in :mod:`everpool.demo`."""

    requests: int
    answered: int
    failed: int
    cut_in_hand: int
    unfinished: int
    longest_unfinished: float
    typical: float
    p99: float
    slowest: float
    errors: list[dict[str, Any]]
    opened: int
    cut: dict[str, int]
    noted: dict[str, int] | None

    @property
    def cuts(self) -> int:
        """How many connections were cut."""
        return sum(self.cut.values())


def count(view: View) -> Numbers:
    """Count what is in *view*."""
    outcomes = Counter(seen.outcome for seen in view.requests)
    errors = Counter(
        seen.error for seen in view.requests if seen.error and seen.outcome == "failed"
    )
    reasons = Counter(reason for _, reason in view.cuts)
    times = sorted(
        (view.at if seen.ended is None else seen.ended) - seen.due for seen in view.requests
    )
    waiting = [view.at - seen.due for seen in view.requests if seen.ended is None]
    return Numbers(
        requests=len(view.requests),
        answered=outcomes["ok"],
        failed=outcomes["failed"],
        cut_in_hand=outcomes["in hand"],
        unfinished=outcomes["pending"],
        longest_unfinished=round(max(waiting, default=0.0), 4),
        typical=_percentile(times, 0.5),
        p99=_percentile(times, 0.99),
        slowest=_percentile(times, 1.0),
        errors=[
            {"class": name, "text": text, "count": number}
            for (name, text), number in errors.most_common()
        ],
        opened=view.opened,
        cut={reason: reasons[reason] for reason in ("idle", "age")},
        noted=dict(view.own.cuts) if view.own else None,
    )


def everpool_held(moment: Moment) -> bool:
    """Tell whether everpool answered every request, save those no pool can help."""
    numbers = [count(view) for view in moment.views if view.own is not None]
    return all(each.failed == each.unfinished == 0 for each in numbers)


def as_json(moment: Moment) -> dict[str, Any]:
    """Return the object that :mod:`everpool.demo` describes."""
    return {
        "seconds": moment.plan.seconds,
        "took": round(moment.at, 2),
        "seed": moment.plan.seed,
        "silent": moment.plan.silent,
        "versions": {
            "everpool": everpool.__version__,
            "psycopg": psycopg.__version__,
            "psycopg_pool": psycopg_pool.__version__,
            "postgresql": moment.postgresql,
            "python": platform.python_version(),
        },
        "proxy": {"idle_cut": IDLE_CUT, "age_cut": AGE_CUT},
        "settings": {
            "min_size": MIN_SIZE,
            "max_size": MAX_SIZE,
            "timeout": TIMEOUT,
            "workers": WORKERS,
        },
        "pools": {view.contestant.key: asdict(count(view)) for view in moment.views},
    }


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The least of the values that *share* of them do not exceed."""
    return round(ordered[max(0, ceil(share * len(ordered)) - 1)], 4) if ordered else 0.0
