"""From happenings and snapshots of several pools to notices. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..events import Happening
from ..snapshot import Snapshot
from .conditions import Condition, SlowWaits
from .engine import Engine
from .evidence import Evidence
from .notice import Notice


class Judge:
    """Keeps the evidence about each pool, and the alerts that follow from it."""

    def __init__(self, conditions: Iterable[Condition], engine: Engine) -> None:
        self.engine = engine
        self._conditions = tuple(conditions)
        self._span = max((c.within for c in conditions if isinstance(c, SlowWaits)), default=60.0)
        self._evidence: dict[Hashable, Evidence] = {}

    def hear(self, pool: Hashable, happening: Happening) -> None:
        self._of(pool).hear(happening)

    def look(self, pool: Hashable, snapshot: Snapshot) -> None:
        self._of(pool).look(snapshot)

    def forget(self, pool: Hashable) -> None:
        """The pool is no more."""
        self._evidence.pop(pool, None)
        self.engine.forget(pool)

    def judge(self, now: float) -> Notice | None:
        """Judge all pools that have been looked at; return the notice that is due."""
        for pool, evidence in self._evidence.items():
            if evidence.snapshot is None:
                continue
            name = evidence.snapshot.name
            for condition in self._conditions:
                finding = condition.judge(evidence, now)
                self.engine.update(now, pool, name, condition, finding)
        return self.engine.notice(now)

    def _of(self, pool: Hashable) -> Evidence:
        evidence = self._evidence.get(pool)
        if evidence is None:
            evidence = self._evidence[pool] = Evidence(self._span)
        return evidence
