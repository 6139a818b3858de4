"""What a pool knows, as plain data for the page: with the server's words, or without.

Without consent nothing is passed on that a server, libpq or the address of the database could
have put there. Not by searching texts for secrets: by building them from numbers and from our
own words. Times are seconds; moments are on the pool's clock (``time.monotonic``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from math import isfinite
from typing import Any

from ..core.health import RECENT, Health
from ..core.policy import Policy
from ..events import (
    Cause,
    Cut,
    Happening,
    Learned,
    Opened,
    OpenFailed,
    Retried,
    StateChanged,
    describe,
)
from ..snapshot import Death, Durations, SettingView, Snapshot
from ..text import printable
from ..words import duration, level

Json = dict[str, Any]

# All of a pool's settings that are fractional numbers are times.
_TIMES = frozenset(field.name for field in fields(Policy) if field.type == "float")


def pool_facts(snapshot: Snapshot, health: Health, earlier: Snapshot, details: bool) -> Json:
    """A pool at one moment; ``earlier`` is what the recent waits are counted from."""
    vitals = snapshot.vitals
    return {
        "name": printable(snapshot.name),
        "state": health.state.value,
        "status": health.status.value,
        "since": _finite(health.since),
        "why": health.why,
        "trouble": snapshot.trouble,
        "error": printable(snapshot.last_error or "") if details else "",
        "checks": [
            {
                "name": check.name,
                "status": check.status.value,
                "text": check.text,
                "detail": printable(check.detail) if details else "",
            }
            for check in health.checks
        ],
        "min_size": snapshot.min_size,
        "max_size": snapshot.max_size,
        "slots": {state: number for state, number in snapshot.slots.items() if number},
        "connections": [
            [
                view.number,
                view.state,
                round(snapshot.at - view.since, 4),
                round(snapshot.at - view.age, 4),
                round(view.silent_for, 1),
                _finite(round(view.expires_in, 1)),
            ]
            for view in snapshot.connections
        ],
        "waiting": snapshot.waiting,
        "longest_wait": round(vitals.longest_wait, 2),
        "saturated": vitals.saturated,
        "heard": _finite(round(vitals.heard, 1)),
        "round_trip": snapshot.round_trip,
        "requests": snapshot.requests,
        "refusals": dict(snapshot.refusals),
        "opened": snapshot.opened,
        "open_failed": snapshot.open_failed,
        "retired": dict(snapshot.retired),
        "cuts": dict(snapshot.cuts),
        "cuts_recent": vitals.cuts,
        "cuts_recent_seconds": RECENT,
        "path": _path(snapshot.deaths),
        "times": {
            name: _times(getattr(snapshot, name), getattr(earlier, name))
            for name in ("wait", "use", "connect")
        },
        "window": round(snapshot.at - earlier.at, 1),
    }


def happening_facts(sequence: int, happening: Happening, details: bool) -> Json:
    """One happening in plain words, at most 200 characters."""
    return {
        "id": sequence,
        "at": round(happening.at, 4),
        "name": happening.name,
        "number": getattr(happening, "number", None),
        "level": level(happening),
        "text": printable(describe(happening) if details else _without_words(happening)),
    } | _extra(happening)


def setting_facts(settings: Iterable[SettingView]) -> list[Json]:
    return [
        {
            "name": setting.name,
            "value": _text(setting.value),
            "unit": "s" if setting.name in _TIMES and isfinite(setting.value) else "",
            "origin": setting.origin,
            "why": setting.why,
        }
        for setting in settings
    ]


def _without_words(happening: Happening) -> str:
    """As `describe`, without what others said."""
    for kind, tell in _OWN_WORDS.items():
        if isinstance(happening, kind):
            return tell(happening)
    return describe(happening)


_OWN_WORDS: dict[type[Happening], Callable[[Any], str]] = {
    Cut: lambda cut: describe(replace(cut, cause=Cause(cut.cause.kind))),
    OpenFailed: lambda failed: (
        f"error connecting: {failed.trouble.value}, next attempt in {duration(failed.retry_in)}"
    ),
    Retried: lambda retried: f"attempt {retried.attempt} after {duration(retried.pause)}",
    Learned: lambda learned: describe(replace(learned, why="of what was observed")),
}


def _extra(happening: Happening) -> Json:
    """What the lanes are drawn by."""
    if isinstance(happening, Cut):
        return {
            "cause": happening.cause.kind,
            "silent_for": happening.silent_for,
            "age": happening.age,
        }
    if isinstance(happening, OpenFailed):
        return {"cause": happening.trouble.value}
    if isinstance(happening, Opened):
        return {"took": happening.took}
    if isinstance(happening, StateChanged):
        return {"before": happening.before, "after": happening.after}
    return {"age": happening.age} if hasattr(happening, "age") else {}


def _path(deaths: list[Death]) -> list[Json]:
    """What is known of cuts, by cause: how long the cut ones had been silent, and how old."""
    by_kind: dict[str, list[Death]] = {}
    for death in deaths:
        by_kind.setdefault(death.kind, []).append(death)
    return [
        {
            "cause": kind,
            "remembered": len(cuts),
            "lent": sum(cut.lent for cut in cuts),
            "silent": _range(cut.silent_for for cut in cuts),
            "age": _range(cut.age for cut in cuts),
            "ago": round(min(cut.ago for cut in cuts), 1),
        }
        for kind, cuts in by_kind.items()
    ]


def death_facts(death: Death, now: float) -> Json:
    """A cut connection, for those who were not told when it happened."""
    at = now - death.ago
    return {
        "number": death.number,
        "at": round(at, 4),
        "opened": round(at - death.age, 4),
        "silent_for": round(death.silent_for, 3),
        "cause": death.kind,
        "lent": death.lent,
    }


def _range(values: Iterable[float]) -> list[float]:
    values = list(values)
    return [round(min(values), 3), round(max(values), 3)]


def _times(now: Durations, earlier: Durations) -> Json:
    return {"recent": _quantiles(now.minus(earlier)), "all": _quantiles(now)}


def _quantiles(durations: Durations) -> Json:
    return {
        "count": durations.count,
        "p50": durations.quantile(0.50),
        "p95": durations.quantile(0.95),
        "p99": durations.quantile(0.99),
        "counts": durations.counts,
    }


def _text(value: Any) -> str:
    """A setting's value. None of the pool's settings is a secret."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value))


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if isfinite(value) else None
