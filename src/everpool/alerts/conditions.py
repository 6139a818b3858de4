"""What is worth waking a person for, and what to tell them.

Each condition looks at the evidence about one pool and finds something or nothing. How long it
must last before anybody is told, and how long it must be gone before it counts as resolved, are
its fields `after` and `clear`; all times are seconds. Defaults err towards silence: a pool that
mends itself within seconds is no reason to wake anybody.

A summary holds numbers and words of ours only. What a server or libpq said is in
`Finding.detail`, which is told only where the owner agrees.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from math import isfinite
from typing import ClassVar

from ..words import duration
from .evidence import Evidence
from .refusal import Refusal, refusal_of

CRITICAL, WARNING = "critical", "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition found: in our words, what to do, and in the server's words."""

    summary: str
    advice: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """:param after: it must have lasted so long before it fires.
    :param clear: it must be gone for so long before it is resolved.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[str] = WARNING

    after: float = 0.0
    clear: float = 60.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{type(self).__name__}: {each.name} must be a number")
            if not isfinite(value) or value < 0:
                raise ValueError(f"{type(self).__name__}: {each.name} must be 0 or more")

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        """What is wrong now, or None. There has been a `look` before."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ConnectionsCut(Condition):
    """At least `count` connections ended without our doing `within` so many seconds.

    One idle connection now and then is what the pool is for. Three in five minutes is a path
    that cuts, or a server that was restarted.
    """

    name = "connections_cut"
    title = "connections are being cut"

    count: int = 3
    within: float = 300.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        cuts = [cut for cut in evidence.cuts if cut.at > now - self.within]
        if len(cuts) < max(1, self.count):
            return None
        kinds = Counter(cut.cause.kind for cut in cuts).most_common(3)
        how = ", ".join(f"{count} by {kind}" for kind, count in kinds)
        lent = sum(cut.lent for cut in cuts)
        low, high = (duration(f(cut.silent_for for cut in cuts)) for f in (min, max))
        silent = low if low == high else f"{low} to {high}"
        return Finding(
            f"{len(cuts)} connections were cut within {duration(self.within)} ({how}), {lent} of"
            f" them in use, after {silent} of silence. The pool replaces them.",
            "Was the database or a proxy restarted? If not, something on the way cuts connections:"
            " if they had been silent for about the same time each, set keepalive well below that."
            + (" Work in the cut transactions failed: look for errors there." if lent else ""),
            str(cuts[-1].cause),
        )


@dataclass(frozen=True, kw_only=True)
class Unreachable(Condition):
    """Nothing can be lent because no connection can be opened.

    A failover takes half a minute and mends itself; what lasts longer needs somebody.
    """

    name = "unreachable"
    title = "database unreachable"
    severity = CRITICAL

    after: float = 30.0
    clear: float = 30.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        pool = evidence.snapshot
        assert pool is not None
        if pool.state != "down" or pool.trouble == "rejected":
            return None
        why, advice = _UNREACHABLE.get(pool.trouble or "", _UNREACHABLE["unreachable"])
        return Finding(
            f"No connection can be opened: {why}. {_callers(pool.waiting)}",
            f"{advice} The pool goes on trying and recovers within a second of the database.",
            pool.last_error or "",
        )


_UNREACHABLE = {
    "unreachable": (
        "the server does not accept connections",
        "See whether the database runs, and whether its address, port and firewall are right.",
    ),
    "silent": (
        "attempts are not answered",
        "See whether the database's machine and the network to it are up: a firewall that drops"
        " packets looks like this too.",
    ),
    "too many connections": (
        "the server has no room for another",
        "See who holds the server's connections (pg_stat_activity), and compare max_size times"
        " the number of processes with the server's max_connections.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Saturated(Condition):
    """Every connection is in use, and the first caller in the queue has waited for a second.

    A burst drains in seconds; half a minute of it is a lack.
    """

    name = "saturated"
    title = "pool saturated"

    after: float = 30.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        pool = evidence.snapshot
        assert pool is not None
        if not pool.vitals.saturated or pool.state == "down":
            return None
        longest = duration(pool.vitals.longest_wait)
        return Finding(
            f"All {pool.max_size} connections are in use. {_callers(pool.waiting)}"
            f" The first has waited for {longest}.",
            "Look for slow queries and for transactions that wait for something else (locks, other"
            " services). If the database has room, raise max_size.",
        )


@dataclass(frozen=True, kw_only=True)
class SlowWaits(Condition):
    """`share` of the callers got their connection within less than `limit`, the others did not,
    among at least `requests` `within` so many seconds. Refused callers count as the slowest.

    Half a second is what a user notices; of fewer than 20 callers, 5 % is nobody.
    """

    name = "slow_waits"
    title = "callers wait long for connections"

    share: float = 0.95
    limit: float = 0.5
    requests: int = 20
    within: float = 60.0
    after: float = 60.0
    clear: float = 120.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError("SlowWaits: share must lie between 0 and 1, such as 0.95")

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        waits = evidence.recent_waits()
        slow = waits.quantile(self.share)
        if waits.count < max(1, self.requests) or slow <= self.limit:
            return None
        longer = "or longer " if slow >= waits.bounds[-1] else ""
        return Finding(
            f"One caller in {round(1 / (1 - self.share))} waited for {duration(slow)} {longer}to get"
            f" a connection, of {waits.count} within {duration(self.within)}.",
            "Look for slow queries and long transactions first; if connections are mostly lent for"
            " short times and the database has room, raise max_size, or min_size if they are being"
            " opened.",
        )


@dataclass(frozen=True, kw_only=True)
class Leak(Condition):
    """A connection has been lent for longer than the pool's `leak_after`, or one was dropped
    without being returned within the last `remember`."""

    name = "leak"
    title = "connections are not returned"

    remember: float = 600.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        pool = evidence.snapshot
        assert pool is not None
        limit = next((s.value for s in pool.settings if s.name == "leak_after"), 0.0)
        held = [c.since for c in pool.connections if c.state == "lent" and c.since >= limit > 0]
        dropped = sum(at > now - self.remember for at in evidence.dropped)
        found = []
        if held:
            found.append(
                f"{len(held)} of {pool.max_size} connections have been lent for longer than"
                f" {duration(limit)}, one for {duration(max(held))}."
            )
        if dropped:
            found.append(
                f"{dropped} connections were dropped without being returned within"
                f" {duration(self.remember)}; they were replaced."
            )
        if not found:
            return None
        return Finding(
            " ".join(found),
            "Look for code that calls getconn() without putconn(), or holds a connection while it"
            " waits for something else. A long job that is meant to be: raise leak_after. A restart"
            " of the process frees the connections for now.",
        )


@dataclass(frozen=True, kw_only=True)
class CommitUnknown(Condition):
    """Within the last `remember` a COMMIT got no answer, and no answer could be found.

    An hour, so that one message tells of all that one incident leaves behind.
    """

    name = "commit_unknown"
    title = "a transaction's outcome is unknown"
    severity = CRITICAL

    remember: float = 3600.0
    clear: float = 0.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        count = sum(at > now - self.remember for at in evidence.unknown)
        if not count:
            return None
        return Finding(
            f"{count} transactions may or may not have been committed, within the last"
            f" {duration(self.remember)}: their COMMIT got no answer, and none could be found.",
            "Compare what those transactions were to write with what is in the database. The"
            " program's log names them at the time of this alert. Resolved means only that there"
            " was no further one.",
        )


@dataclass(frozen=True, kw_only=True)
class OlderHistory(Condition):
    """Within the last `remember` the database went back to an older timeline: what was committed
    on the newer one is not there."""

    name = "older_history"
    title = "the database went back in time"
    severity = CRITICAL

    remember: float = 3600.0
    clear: float = 0.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        recent = [change for change in evidence.older if change.at > now - self.remember]
        if not recent:
            return None
        last = recent[-1]
        return Finding(
            f"Timeline {last.timeline} answers, after timeline {last.timeline_before} was not heard"
            " for a minute: what was committed since they parted is not there.",
            "After a restore from a backup this is what was wanted. If nobody restored anything,"
            " the name of the database may lead to an old primary: stop the writers, and ask"
            " whoever runs the database which server is the primary.",
        )


@dataclass(frozen=True, kw_only=True)
class Contradiction(Condition):
    """The owner's own setting stands against what the pool learned, and is kept."""

    name = "contradiction"
    title = "settings contradict what was learned"

    clear: float = 0.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        pool = evidence.snapshot
        assert pool is not None
        values = {setting.name: setting.value for setting in pool.settings}
        found = [
            learned
            for name, learned in evidence.contradictions.items()
            if values.get(name, learned.before) == learned.before  # has been changed since
        ]
        if not found:
            return None
        what = ", ".join(
            f"{x.setting} is set to {x.before:g} s and should be {x.after:g} s" for x in found
        )
        return Finding(
            f"The deaths of connections contradict the settings: {what}.",
            "Change the setting, or leave it out and let the pool follow what it learns. Until then"
            " connections go on being cut.",
            "; ".join(learned.why for learned in found),
        )


@dataclass(frozen=True, kw_only=True)
class _Refused(Condition):
    """The database, or libpq, refuses this configuration: only a person can help.

    Connections that exist may still work, for as long as they live.
    """

    severity = CRITICAL
    credentials: ClassVar[bool]

    # A rotation of passwords is over in seconds; attempts are up to 30 s apart by then.
    after: float = 10.0
    clear: float = 30.0

    def judge(self, evidence: Evidence, now: float) -> Finding | None:
        pool = evidence.snapshot
        assert pool is not None
        if pool.trouble != "rejected":
            return None
        text = evidence.rejection.text if evidence.rejection else pool.last_error or ""
        refusal: Refusal = refusal_of(text)
        if refusal.credentials is not self.credentials:
            return None
        size = pool.vitals.size
        left = f"{size} connections are left" if size else "there is no connection left"
        return Finding(f"{refusal.summary}; {left}. {_callers(pool.waiting)}", refusal.advice, text)


@dataclass(frozen=True, kw_only=True)
class CredentialsRefused(_Refused):
    """A certificate, a token, a password or TLS itself is refused, or has expired."""

    name = "credentials_refused"
    title = "certificate, token or password refused"
    credentials = True


@dataclass(frozen=True, kw_only=True)
class ConfigurationRefused(_Refused):
    """Refused for another reason: a missing database or role, pg_hba.conf, a mistaken setting."""

    name = "configuration_refused"
    title = "the database refuses this configuration"
    credentials = False


def _callers(waiting: int) -> str:
    if not waiting:
        return "Nobody waits."
    return "1 caller waits." if waiting == 1 else f"{waiting} callers wait."


def defaults() -> tuple[Condition, ...]:
    """All conditions, with their defaults."""
    return tuple(kind() for kind in KINDS)


KINDS: tuple[type[Condition], ...] = (
    ConnectionsCut,
    Unreachable,
    Saturated,
    SlowWaits,
    Leak,
    CommitUnknown,
    OlderHistory,
    Contradiction,
    CredentialsRefused,
    ConfigurationRefused,
)
