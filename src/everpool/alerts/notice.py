"""What a sink is given: alerts, and the notice that tells of several of them at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..text import printable
from ..words import duration

# A message on a telephone: what stands further down is not read at night.
MOST_IN_TEXT = 20

# A JSON body of some 60 kB at most. Only who watches a dozen pools and more gets there.
MOST_IN_JSON = 100

# Resolved alerts that wait for a dead sink. A pool has one alert of each condition at a time.
MOST_RESOLVED = 100


@dataclass(frozen=True, slots=True)
class Alert:
    """One condition of one pool that needs a person.

    :param condition: its stable name, such as ``"unreachable"``.
    :param severity: ``"critical"`` or ``"warning"``.
    :param title: the condition in a few words.
    :param summary: what is wrong, without hosts, users or a server's words.
    :param advice: what to do about it.
    :param detail: what was said, which may name hosts and users; empty unless the owner asked.
    :param started: when it began, seconds on the clock of the happenings (``time.monotonic``).
    :param ended: when it ended, or None.
    :param new: whether no notice has told of it before.
    """

    pool: str
    condition: str
    severity: str
    title: str
    summary: str
    advice: str
    detail: str
    started: float
    ended: float | None = None
    new: bool = True

    @property
    def key(self) -> tuple[str, str]:
        """What makes two alerts the same one: pool and condition."""
        return self.pool, self.condition


@dataclass(frozen=True, slots=True)
class Notice:
    """All that fires at one moment, and what has resolved since the notice before.

    :param id: the same however often its delivery is tried.
    :param at: when it was made, on the clock of the alerts.
    :param epoch: what to add to such a time for seconds since 1970.
    :param source: who sends it.
    :param repeated: nothing has changed since the notice before.
    """

    id: str
    at: float
    firing: tuple[Alert, ...]
    resolved: tuple[Alert, ...]
    repeated: bool = False
    epoch: float = 0.0
    source: str = ""

    @property
    def status(self) -> str:
        return "firing" if self.firing else "resolved"

    @property
    def severity(self) -> str:
        """The worst that fires; ``"resolved"`` if nothing does."""
        if not self.firing:
            return "resolved"
        return min(alert.severity for alert in self.firing)  # "critical" < "warning"

    def after(self, waiting: Notice) -> Notice:
        """This notice together with an older one that was not delivered yet."""
        new = {alert.key for alert in waiting.firing if alert.new}
        firing = tuple(replace(a, new=True) if a.key in new else a for a in self.firing)
        resolved = {(a.key, a.started): a for a in (*waiting.resolved, *self.resolved)}
        now = {alert.key for alert in firing}
        kept = [alert for alert in resolved.values() if alert.key not in now]
        return replace(
            self,
            firing=firing,
            resolved=tuple(kept[-MOST_RESOLVED:]),
            repeated=self.repeated and waiting.repeated,
        )

    def time(self, at: float) -> str:
        """A time of an alert in RFC 3339, UTC, to the millisecond."""
        text = datetime.fromtimestamp(at + self.epoch, UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")

    def title(self) -> str:
        """One line: how many fire, or which, and where."""
        shown = self.firing or self.resolved
        what = shown[0].title if len({alert.title for alert in shown}) == 1 else ""
        pools = sorted({alert.pool for alert in shown})
        where = f"pool {printable(pools[0])}" if len(pools) == 1 else f"{len(pools)} pools"
        count = f"{len(shown)} alerts"
        again = "still " if self.repeated and self.firing else ""
        return f"[{again}{self.severity}] {printable(self.source)}: {what or count}, {where}"

    def text(self) -> str:
        """What happened and what to do, in plain lines."""
        alerts = (*self.firing, *self.resolved)
        parts = [self._paragraph(alert) for alert in alerts[:MOST_IN_TEXT]]
        if len(alerts) > MOST_IN_TEXT:
            parts.append(f"… and {len(alerts) - MOST_IN_TEXT} more.")
        return "\n\n".join(parts)

    def _paragraph(self, alert: Alert) -> str:
        pool = printable(alert.pool)
        if alert.ended is not None:
            lasted = duration(max(0.0, alert.ended - alert.started))
            return f"RESOLVED: {alert.title}, pool {pool}. It lasted {lasted}."
        since = duration(max(0.0, self.at - alert.started))
        lines = [
            f"{alert.severity.upper()}: {alert.title}, pool {pool}, for {since}.",
            alert.summary,
            f"What to do: {alert.advice}",
        ]
        if alert.detail:
            lines.append(f"Details: {alert.detail}")
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """The body that a webhook gets; documented in docs/alerts.md, and it stays."""
        alerts = (*self.firing, *self.resolved)
        return {
            "version": 1,
            "id": self.id,
            "source": self.source,
            "status": self.status,
            "severity": self.severity,
            "repeated": self.repeated,
            "sent_at": self.time(self.at),
            "title": self.title(),
            "text": self.text(),
            "alerts": [self._entry(alert) for alert in alerts[:MOST_IN_JSON]],
            "omitted": max(0, len(alerts) - MOST_IN_JSON),
        }

    def _entry(self, alert: Alert) -> dict[str, Any]:
        return {
            "status": "firing" if alert.ended is None else "resolved",
            "pool": alert.pool,
            "condition": alert.condition,
            "severity": alert.severity,
            "title": alert.title,
            "summary": alert.summary,
            "advice": alert.advice,
            "detail": alert.detail,
            "started_at": self.time(alert.started),
            "ended_at": None if alert.ended is None else self.time(alert.ended),
            "new": alert.new,
        }
