"""What is told, and what is not."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from everpool.core.health import Condition
from everpool.core.verdict import Trouble
from everpool.endpoints import Endpoints, Reply
from everpool.endpoints.payload import QUESTIONS

from .pools import CLOSED, DOWN, NEW, SATURATED, SECRET, STUCK, Pretended

WARNING = [
    (SATURATED, "saturated"),
    (DOWN, "down"),
    ({"condition": Condition.SUSPECT, "trouble": Trouble.SILENT}, "suspect"),
    ({"condition": Condition.RECOVERING}, "recovering"),
    ({"condition": Condition.PAUSED}, "paused"),
    ({"cuts": 3}, "cuts"),
    ({"heard": 91.0}, "stale"),
    ({"late": 6.0}, "late"),
    (STUCK, "stuck"),
]


def ask(question: Any, *pools: Pretended, **options: Any) -> tuple[Reply, dict[str, Any]]:
    reply = Endpoints(pools, **options).ask(question)  # type: ignore[arg-type]
    headers = dict(reply.headers)
    assert headers["Content-Type"] == "application/health+json"
    assert headers["Content-Length"] == str(len(reply.body))
    return reply, json.loads(reply.body)


@pytest.mark.parametrize("question", QUESTIONS)
def test_all_is_well(question: str) -> None:
    reply, body = ask(question, Pretended())
    assert reply.code == 200
    assert body["status"] == "pass"


@pytest.mark.parametrize(("changes", "code"), WARNING)
def test_readiness_warns_with_a_code_and_stays(changes: dict[str, Any], code: str) -> None:
    reply, body = ask("ready", Pretended(**changes))
    assert (reply.code, body) == (200, {"status": "warn", "code": code})


@pytest.mark.parametrize(
    ("question", "changes", "code", "retry_after"),
    [
        ("live", STUCK, "stuck", 5),
        ("ready", CLOSED, "closed", 0),
        ("ready", NEW, "new", 1),
        ("startup", NEW, "new", 1),
        ("startup", {**DOWN, "heard": float("inf"), "trouble": Trouble.REJECTED}, "rejected", 30),
        ("health", DOWN, "down", 1),
        ("health", CLOSED, "closed", 0),
        ("health", STUCK, "stuck", 5),
    ],
)
def test_what_fails_says_a_code_and_when_to_ask_again(
    question: str, changes: dict[str, Any], code: str, retry_after: int
) -> None:
    reply, body = ask(question, Pretended(**changes))
    assert reply.code == 503
    assert body == {"status": "fail", "code": code, "retry_after": retry_after}
    assert dict(reply.headers).get("Retry-After") == (str(retry_after) if retry_after else None)


@pytest.mark.parametrize("changes", [DOWN, SATURATED, CLOSED, {"cuts": 9}])
def test_liveness_never_looks_at_the_database(changes: dict[str, Any]) -> None:
    assert ask("live", Pretended(**changes))[1] == {"status": "pass"}


def test_a_start_is_a_start_before_the_first_connection() -> None:
    reply, body = ask("startup", Pretended(condition=Condition.STARTING))
    assert (reply.code, body) == (200, {"status": "warn", "code": "starting"})
    # Once it has begun, an outage does not undo it.
    assert ask("startup", Pretended(**DOWN))[1] == {"status": "pass"}


def test_the_report_has_the_shape_of_health_json() -> None:
    reply, body = ask("health", Pretended(cuts=3, cuts_lent=1), Pretended("bills"))
    assert reply.code == 200
    assert dict(reply.headers)["Cache-Control"] == "max-age=1"
    assert body["status"] == "warn"
    assert body["output"] == "orders: 3 connections cut within a minute, 1 of them in use"
    names = ["state", "connections", "queue", "evidence", "cuts", "background"]
    assert list(body["checks"]) == [f"{pool}:{n}" for pool in ("orders", "bills") for n in names]
    (cuts,) = body["checks"]["orders:cuts"]
    assert cuts["status"] == "warn"
    assert (cuts["observedValue"], cuts["observedUnit"]) == (3, "connections")
    assert cuts["output"].startswith("3 connections cut")
    (evidence,) = body["checks"]["bills:evidence"]
    assert (evidence["observedValue"], evidence["observedUnit"], evidence["age"]) == (3.0, "s", 3.0)
    assert "output" not in evidence
    (state,) = body["checks"]["bills:state"]
    since, now = (datetime.fromisoformat(check["time"]) for check in (state, cuts))
    assert (now - since).total_seconds() == pytest.approx(100.0, abs=0.1)


def test_two_pools_of_one_name_have_both_their_checks() -> None:
    _, body = ask("health", Pretended(), Pretended(cuts=3))
    assert [check["observedValue"] for check in body["checks"]["orders:cuts"]] == [0, 3]


def test_the_worst_pool_counts() -> None:
    assert ask("live", Pretended(), Pretended(**STUCK), Pretended())[0].code == 503
    assert ask("health", Pretended(), Pretended(**DOWN))[0].code == 503
    assert ask("ready", Pretended(), Pretended(**SATURATED))[1]["code"] == "saturated"


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("condition", [Condition.DOWN, Condition.SUSPECT, Condition.CLOSED])
def test_hosts_and_users_are_not_told(question: str, condition: Condition) -> None:
    reply, _ = ask(question, Pretended(**{**DOWN, "condition": condition}))
    assert b"db-7" not in reply.body
    assert b"app" not in reply.body.replace(b"application", b"")


def test_with_consent_all_is_told_also_when_it_fails() -> None:
    reply, body = ask("health", Pretended(**DOWN), details=True)
    assert reply.code == 503
    assert SECRET in body["checks"]["orders:state"][0]["output"]
    assert body["checks"]["orders:queue"][0]["output"] == "nobody waits"


def test_a_servers_text_is_cut_and_escaped() -> None:
    reply, _ = ask("health", Pretended(**{**DOWN, "error": "\x1b[2J\n" + 5000 * "é"}), details=True)
    assert len(reply.body) < 3000
    assert reply.body.isascii()
    assert all(byte >= 32 for byte in reply.body)


def test_the_validator_changes_with_what_happens_and_not_with_time() -> None:
    pool = Pretended()
    endpoints = Endpoints(pool)  # type: ignore[arg-type]

    def etag() -> str:
        return dict(endpoints.ask("health").headers)["ETag"]

    first = etag()
    pool.become(heard=4.0, since=200.0, late=0.1)
    assert etag() == first
    reply = endpoints.reply("GET", "/health", f'"other", {first}')
    assert (reply.code, reply.body) == (304, b"")
    assert dict(reply.headers) == {"Cache-Control": "max-age=1", "ETag": first}
    pool.become(lent=1, size=3)
    assert etag() != first
    assert endpoints.reply("GET", "/health", first).code == 200
    assert endpoints.reply("GET", "/ready", "*").code == 200


def test_what_cannot_be_answered_is_told_in_the_log_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Pretended()
    pool.health = lambda: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    reply = Endpoints(pool).reply("GET", "/live", "")  # type: ignore[arg-type]
    assert (reply.code, json.loads(reply.body)["code"]) == (500, "error")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("pools", "error"), [([], ValueError), (["x"], TypeError), ("x", TypeError)]
)
def test_what_is_no_pool_is_refused_at_once(pools: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="pool"):
        Endpoints(pools)
