"""From the health of pools to answers of HTTP, in the shape of ``application/health+json``.

The shape is that of an Internet-Draft that has expired (draft-inadarei-api-health-check), which
many tools read. Its ``checks`` are lists under ``"<pool>:<check>"``; ours have an ``age`` too,
the seconds since what they say was seen.

What fails says a code and when to ask again, and nothing more: who may ask is not known. The
reasons, hosts and users among them, are given with the owner's consent only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, get_args

from everpool.core.health import Check, Health, Status
from everpool.text import LONGEST_TEXT

__all__ = ["QUESTIONS", "Finding", "Question", "Reply", "brief", "find", "full", "refusal"]

Question = Literal["live", "ready", "startup", "health"]
QUESTIONS: tuple[Question, ...] = get_args(Question)

# Seconds after which asking again makes sense.
RETRY_AFTER = {
    "new": 1,  # the program is starting
    "down": 1,  # a pool tries every 0.8 s while anybody waits
    "rejected": 30,  # only a person can mend it; the pool tries every 30 s at most
    "stuck": 5,  # the background looks at everything so often
    "closed": 0,  # never: a closed pool stays closed
}

_CODES = {"queue": "saturated", "evidence": "stale", "cuts": "cuts"}
_BADNESS = {Status.PASS: 0, Status.WARN: 1, Status.FAIL: 2}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of HTTP: the status code, the headers, the body."""

    code: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """What a pool answers to a question.

    :param code: why not all is well, one word of a fixed set: a state of the pool (``"down"``,
        ``"closed"``, ``"new"``, ``"suspect"`` …), ``"saturated"``, ``"cuts"``, ``"stale"``,
        ``"late"``, ``"stuck"`` or ``"rejected"``. Means nothing if the status is pass.
    """

    status: Status
    code: str


def find(question: Question, health: Health) -> Finding:
    """What a pool answers to a question."""
    if question == "live":
        return Finding(health.live.status, _code(health, health.checks[-1]))
    if question == "startup":
        beginning = health.state.value in ("new", "starting")
        return Finding(health.started.status, health.state.value if beginning else "rejected")
    answer = health.ready if question == "ready" else health
    return Finding(answer.status, _code(health, _worst(health)))


def brief(findings: Sequence[Finding]) -> Reply:
    """The answer to a question, for all pools, at least one: the worst one counts."""
    worst = max(findings, key=_badness)
    if worst.status is Status.FAIL:
        return refusal(503, worst.code)
    body = {"status": worst.status.value}
    if worst.status is Status.WARN:
        body["code"] = worst.code
    return _reply(200, body, ("Cache-Control", "no-store"))


def full(healths: Sequence[Health], details: bool, now: float) -> Reply:
    """The whole report on all pools, at least one: it fails if one of them does.

    :param details: tell everything, hosts and users too, also when it fails.
    :param now: the time, in seconds since 1970.
    """
    worst = max(healths, key=_badness)
    failed = worst.status is Status.FAIL
    if failed and not details:
        return refusal(503, find("health", worst).code)
    checks: dict[str, list[dict[str, Any]]] = {}
    for health in healths:
        for check in health.checks:
            entry = _entry(check, details, now)
            checks.setdefault(f"{health.pool}:{check.name}", []).append(entry)
    body: dict[str, Any] = {"status": worst.status.value}
    if worst.status is not Status.PASS:
        body["output"] = f"{worst.pool}: {worst.why}"
    body["checks"] = checks
    cache = ("Cache-Control", "max-age=1"), ("ETag", _etag(healths))
    return _reply(503 if failed else 200, body, *cache)


def refusal(status: int, code: str, *headers: tuple[str, str]) -> Reply:
    """An answer that says a code, and for 503 when to ask again."""
    body: dict[str, Any] = {"status": "fail", "code": code}
    if status == 503:
        seconds = body["retry_after"] = RETRY_AFTER.get(code, 1)
        if seconds:
            headers = (*headers, ("Retry-After", str(seconds)))
    return _reply(status, body, ("Cache-Control", "no-store"), *headers)


def _reply(status: int, body: dict[str, Any], *headers: tuple[str, str]) -> Reply:
    data = json.dumps(body, allow_nan=False).encode()
    kind = ("Content-Type", "application/health+json"), ("X-Content-Type-Options", "nosniff")
    return Reply(status, (*kind, *headers, ("Content-Length", str(len(data)))), data)


def _badness(judged: Health | Check | Finding) -> int:
    return _BADNESS[judged.status]


def _worst(health: Health) -> Check:
    return max(health.checks, key=_badness)


def _code(health: Health, check: Check) -> str:
    if check.name == "background":
        return "stuck" if check.status is Status.FAIL else "late"
    return _CODES.get(check.name, health.state.value)


def _entry(check: Check, details: bool, now: float) -> dict[str, Any]:
    entry: dict[str, Any] = {"componentType": "datastore", "observedValue": check.value}
    if check.unit:
        entry["observedUnit"] = check.unit
    entry["status"] = check.status.value
    entry["time"] = _time(now - check.age)
    entry["age"] = round(check.age, 3)
    if details:
        entry["output"] = "; ".join(filter(None, (check.text, check.detail[:LONGEST_TEXT])))
    elif check.status is not Status.PASS:  # the draft leaves it out where all is well
        entry["output"] = check.text
    return entry


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _etag(healths: Sequence[Health]) -> str:
    """A weak validator: it changes when something happens, not because time goes by."""
    told = [
        (health.pool, check.name, check.status.value, "" if check.unit == "s" else check.value)
        for health in healths
        for check in health.checks
    ]
    return f'W/"{blake2b(repr(told).encode(), digest_size=8).hexdigest()}"'
