"""What callers were told, and what the tables say: the checker."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from threading import Lock
from typing import Any

from everpool import Outcome

from .deeds import BALANCE
from .faults import Kind

__all__ = ["Books", "History", "Told", "counted", "money"]

SLOW = 5.0  # seconds: longer than any outage here

# Seconds after its deadline by which a caller is free: what the pool says, and what a machine may
# take that runs some forty busy threads, a proxy and two servers beside them.
LATE = 0.25 + 0.5

COMMITTED = frozenset((Outcome.COMMITTED, Outcome.COMMITTED_LOCALLY_ONLY))
NOTHING = frozenset((Outcome.ROLLED_BACK, Outcome.NOT_STARTED))


@dataclass(slots=True)
class Told:
    """What the caller of one deed was told in the end.

    :ivar lane: the lane's name.
    :ivar outcome: None if an exception had none.
    :ivar first: what was said first, if that was unknown and asked again.
    :ivar how: the class of the exception, if there was one.
    :ivar keyed: it had an idempotency key, and perhaps a twin.
    :ivar overdue: for how many seconds, after its deadline, the caller was not free yet.
    """

    lane: str
    work: int
    outcome: Outcome | None
    began: float
    at: float
    kind: Kind | None = None
    tries: int = 0
    first: Outcome | None = None
    how: str = ""
    keyed: bool = False
    overdue: float = -inf

    @property
    def early(self) -> bool:
        """It was told that time is up, and it was not."""
        return self.how in ("DeadlineExceeded", "PoolTimeout") and self.overdue < 0


@dataclass(frozen=True, slots=True)
class History:
    """The promotion of a standby that had not got everything.

    :ivar since: from here on, the new primary could be asked.
    :ivar until: from here on, no session is left on the old primary; all told before that
        was told by it.
    :ivar rows: rows of the ledger on the old primary, which was started again to be asked.
    """

    since: float
    until: float
    rows: Mapping[int, int]


@dataclass(slots=True)
class Books:
    """All that was told, and the problems found."""

    told: list[Told] = field(default_factory=list)
    problems: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    _seen: int = 0
    _lock: Lock = field(default_factory=Lock)

    def note(self, told: Told) -> None:
        with self._lock:
            self.told.append(told)

    def fresh(self) -> list[Told]:
        """What was told since this was last called."""
        with self._lock:
            seen, self._seen = self._seen, len(self.told)
            return self.told[seen:]

    def check(
        self, tolds: Iterable[Told], rows: Mapping[int, int], history: History | None
    ) -> None:
        """Compare what was told with rows of the ledger, by work, as they are now."""
        by_work: dict[int, list[Told]] = defaultdict(list)
        for told in tolds:
            by_work[told.work].append(told)
        for work, twins in by_work.items():
            outcomes = {told.outcome for told in twins}
            found, problems = rows.get(work, 0), self.problems[work]
            if found > 1:
                problems.add("doubled")
            if found and outcomes <= NOTHING:
                problems.add("false")
            if not found and outcomes & COMMITTED:
                problems.add(_lost(twins, history))
            if history is not None and all(told.at < history.since for told in twins):
                before = history.rows.get(work, 0)
                if before > 1:
                    problems.add("doubled")
                if before and outcomes <= NOTHING:
                    problems.add("false")
            if not problems:
                del self.problems[work]


def _lost(twins: list[Told], history: History | None) -> str:
    if history is None:
        return "lost"
    claims = [told for told in twins if told.outcome in COMMITTED]
    known = history.rows.get(claims[0].work, 0)
    by_history = known and all(told.at < history.until for told in claims)
    return "lost by history" if by_history else "lost"


def counted(tolds: Iterable[Told], problems: Mapping[int, set[str]]) -> Counter[str]:
    """Counts of outcomes and problems."""
    counts: Counter[str] = Counter()
    for told in tolds:
        counts["transactions"] += 1
        counts[_word(told)] += 1
        counts["repeated"] += told.tries > 1
        counts["asked again"] += told.first is not None
        counts["slow"] += told.at - told.began > SLOW
        counts["late"] += told.overdue > LATE
        counts["early"] += told.early
        counts.update(problems.get(told.work, ()))
    return counts


def _word(told: Told) -> str:
    if told.outcome is None:
        return "without outcome"
    if told.outcome in COMMITTED:
        return "committed"
    return "not committed" if told.outcome in NOTHING else "unknown"


def money(conn: Any) -> list[str]:
    """What does not add up between the ledger, the accounts and the counters."""
    wrong = []
    for what, query in _SUMS.items():
        row = conn.execute(query.format(balance=BALANCE)).fetchone()
        if row[0]:
            wrong.append(f"{what}: {row[0]}")
    return wrong


_SUMS = {
    "accounts whose balance is not what the ledger says": """
SELECT count(*) FROM accounts AS a LEFT JOIN (
 SELECT id, sum(amount) AS change FROM (
  SELECT source AS id, -amount AS amount FROM ledger WHERE counter IS NULL
  UNION ALL SELECT target, amount FROM ledger WHERE counter IS NULL) AS moves
 GROUP BY id) AS l USING (id)
WHERE a.balance <> {balance} + coalesce(l.change, 0)""",
    "money made or lost": "SELECT sum(balance) - {balance}::bigint * count(*) FROM accounts",
    "counters that are not what the ledger says": """
SELECT count(*) FROM counters AS c LEFT JOIN (
 SELECT counter AS id, count(*) AS n FROM ledger WHERE counter IS NOT NULL GROUP BY counter
) AS l USING (id) WHERE c.n <> coalesce(l.n, 0)""",
}
