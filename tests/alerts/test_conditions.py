"""Each condition: what it finds, when it does not, and what it never tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from everpool.alerts import conditions as c
from everpool.alerts.evidence import MOST_REMEMBERED, Evidence
from everpool.alerts.refusal import refusal_of
from everpool.events import (
    Cause,
    CommitResolved,
    Cut,
    Leaked,
    Learned,
    OpenFailed,
    Recovered,
    ServerChanged,
    Trouble,
)
from everpool.snapshot import ConnectionView, Durations, SettingView
from tests.alerts.conftest import Picture

HOSTILE = 'connection to server at "db.intern.example", user "kim": p4ssw0rd select secret'


def cut(at: float, *, lent: bool = False, style: str = "FIN", silent: float = 350.0) -> Cut:
    return Cut(at, 1, Cause(style, "", HOSTILE), silent, 400.0, lent)


def found(condition: c.Condition, evidence: Evidence, now: float = 100.0) -> c.Finding:
    finding = condition.judge(evidence, now)
    assert finding is not None
    for word in ("db.intern", "kim", "p4ssw0rd", "select"):
        assert word not in finding.summary + finding.advice
    return finding


@pytest.fixture
def evidence(picture: Picture) -> Evidence:
    evidence = Evidence()
    evidence.look(picture.at(50.0))
    return evidence


def test_nothing_is_found_in_a_pool_that_is_well(picture: Picture, evidence: Evidence) -> None:
    evidence.look(picture.at(100.0))
    assert [x.name for x in c.defaults() if x.judge(evidence, 100.0)] == []


def test_names_are_unique_and_stay() -> None:
    assert [condition.name for condition in c.defaults()] == [
        "connections_cut",
        "unreachable",
        "saturated",
        "slow_waits",
        "leak",
        "commit_unknown",
        "older_history",
        "contradiction",
        "credentials_refused",
        "configuration_refused",
    ]


def test_cuts_count_within_their_window(evidence: Evidence) -> None:
    condition = c.ConnectionsCut(count=3, within=60.0)
    evidence.hear(cut(10.0))
    evidence.hear(cut(50.0, silent=348.0))
    evidence.hear(cut(60.0, lent=True))
    assert condition.judge(evidence, 69.0)
    assert condition.judge(evidence, 70.1) is None  # the first is a minute old
    text = found(condition, evidence, 61.0).summary
    assert "3 connections were cut within 60 s (3 by FIN), 1 of them in use" in text
    assert "after 348 s to 350 s of silence" in text


def test_a_storm_of_cuts_does_not_fill_the_memory(evidence: Evidence) -> None:
    for number in range(5 * MOST_REMEMBERED):
        evidence.hear(cut(float(number)))
    assert len(evidence.cuts) == MOST_REMEMBERED


@pytest.mark.parametrize("trouble", ["unreachable", "silent", "too many connections", None])
def test_unreachable(picture: Picture, evidence: Evidence, trouble: str | None) -> None:
    condition = c.Unreachable()
    evidence.look(picture.at(99.0, state="suspect", trouble=trouble))
    assert condition.judge(evidence, 100.0) is None
    evidence.look(picture.at(99.0, state="down", trouble=trouble, waiting=3, last_error=HOSTILE))
    finding = found(condition, evidence)
    assert "3 callers wait" in finding.summary
    assert finding.detail == HOSTILE


def test_rejected_is_not_unreachable(picture: Picture, evidence: Evidence) -> None:
    evidence.look(picture.at(99.0, state="down", trouble="rejected"))
    assert c.Unreachable().judge(evidence, 100.0) is None


def test_saturated_is_told_apart_from_down(picture: Picture, evidence: Evidence) -> None:
    vitals = {"saturated": True, "longest_wait": 4.0}
    evidence.look(picture.at(99.0, vitals, waiting=7))
    text = found(c.Saturated(), evidence).summary
    assert "All 4 connections are in use. 7 callers wait. The first has waited for 4.0 s." in text
    evidence.look(picture.at(99.0, vitals, state="down"))
    assert c.Saturated().judge(evidence, 100.0) is None


def waits(base: Durations, quick: int, slow: int) -> Durations:
    """`slow` waits took half a second to a second."""
    counts = list(base.counts)
    counts[0] += quick
    counts[base.bounds.index(1.0)] += slow
    return replace(base, counts=tuple(counts))


@pytest.mark.parametrize(
    ("quick", "slow", "expected"),
    [(90, 10, True), (97, 3, False), (15, 4, False), (0, 20, True)],
)
def test_slow_waits(
    picture: Picture, evidence: Evidence, quick: int, slow: int, expected: bool
) -> None:
    evidence.look(picture.at(100.0, wait=waits(picture.base.wait, quick, slow)))
    assert (c.SlowWaits().judge(evidence, 100.0) is not None) is expected


def test_slow_waits_of_long_ago_do_not_count(picture: Picture, evidence: Evidence) -> None:
    slow = waits(picture.base.wait, 0, 100)
    for now in range(51, 111, 5):
        evidence.look(picture.at(float(now), wait=slow))
    assert c.SlowWaits().judge(evidence, 106.0)
    for now in range(111, 131, 5):
        evidence.look(picture.at(float(now), wait=waits(slow, 30, 0)))
    assert c.SlowWaits().judge(evidence, 126.0) is None


def test_the_refused_are_the_slowest(picture: Picture, evidence: Evidence) -> None:
    refusals = {"timeout": 5, "saturated": 5, "full": 50, "gave up": 50}
    evidence.look(picture.at(100.0, wait=waits(picture.base.wait, 90, 0), refusals=refusals))
    text = found(c.SlowWaits(), evidence).summary
    assert text == (
        "One caller in 20 waited for 10 s or longer to get a connection, of 100 within 60 s."
    )


def test_who_waits_for_a_dead_database_is_not_slow(picture: Picture, evidence: Evidence) -> None:
    refusals = {"timeout": 100}
    evidence.look(picture.at(100.0, state="down", refusals=refusals))
    evidence.look(picture.at(101.0, refusals=refusals))
    assert c.SlowWaits().judge(evidence, 101.0) is None


def lent(since: float) -> ConnectionView:
    return ConnectionView(1, "lent", since, 900.0, since, 900.0)


def test_a_leak_lasts_while_the_connection_is_out(picture: Picture, evidence: Evidence) -> None:
    evidence.look(picture.at(100.0, connections=[lent(599.0), lent(1.0)]))
    assert c.Leak().judge(evidence, 100.0) is None
    evidence.look(picture.at(100.0, connections=[lent(601.0), lent(1.0)]))
    assert "1 of 4 connections have been lent" in found(c.Leak(), evidence).summary
    evidence.look(picture.at(101.0, connections=[lent(1.0)]))
    assert c.Leak().judge(evidence, 101.0) is None


def test_a_dropped_connection_is_remembered_for_a_while(evidence: Evidence) -> None:
    evidence.hear(Leaked(90.0, 1, 5.0, dropped=True))
    assert "1 connections were dropped" in found(c.Leak(), evidence).summary
    assert c.Leak().judge(evidence, 691.0) is None


def test_commit_unknown(evidence: Evidence) -> None:
    evidence.hear(CommitResolved(90.0, "committed", 0.1))
    assert c.CommitUnknown().judge(evidence, 100.0) is None
    evidence.hear(CommitResolved(95.0, "unknown", 0.1))
    assert found(c.CommitUnknown(), evidence)
    assert c.CommitUnknown().judge(evidence, 95.0 + 3601.0) is None


def test_an_older_history_is_told_and_a_promotion_is_not(evidence: Evidence) -> None:
    evidence.hear(ServerChanged(90.0, 7, 1, 7, 2, "promotion"))
    assert c.OlderHistory().judge(evidence, 100.0) is None
    evidence.hear(ServerChanged(95.0, 7, 3, 7, 2, "older timeline"))
    assert "Timeline 2 answers, after timeline 3" in found(c.OlderHistory(), evidence).summary
    assert c.OlderHistory().judge(evidence, 95.0 + 3601.0) is None


def test_a_contradiction_lasts_until_the_setting_is_changed(
    picture: Picture, evidence: Evidence
) -> None:
    base = [s for s in picture.base.settings if s.name != "keepalive"]
    evidence.look(
        picture.at(99.0, settings=[*base, SettingView("keepalive", 300.0, "given", "given")])
    )
    evidence.hear(Learned(90.0, "keepalive", 300.0, 200.0, HOSTILE, contradicts=False))
    assert c.Contradiction().judge(evidence, 100.0) is None
    evidence.hear(Learned(90.0, "keepalive", 300.0, 200.0, HOSTILE, contradicts=True))
    finding = found(c.Contradiction(), evidence)
    assert "keepalive is set to 300 s and should be 200 s" in finding.summary
    evidence.look(
        picture.at(99.0, settings=[*base, SettingView("keepalive", 100.0, "changed", "changed")])
    )
    assert c.Contradiction().judge(evidence, 100.0) is None


REFUSALS = [
    ("certificate", 'connection to server at "x", port 5432 failed: SSL error: certificate verify'
     " failed"),
    ("certificate", "SSL error: sslv3 alert certificate expired"),
    ("certificate", "SSL error: tlsv1 alert unknown ca"),
    ("certificate", "FATAL:  connection requires a valid client certificate"),
    ("certificate", 'server certificate for "a" does not match host name "b"'),
    ("tls", "server does not support SSL, but SSL was required"),
    ("token", 'FATAL:  PAM authentication failed for user "app"'),
    ("token", "FATAL:  The access token has expired"),
    ("token", 'FATAL:  Cloud SQL IAM user authentication failed for user "app"'),
    ("password expired", "FATAL:  your password has expired"),
    ("password", 'FATAL:  password authentication failed for user "ssl_token"'),
    ("password", "fe_sendauth: no password supplied"),
    ("password", "FATAL:  SASL authentication failed"),
    ("other", 'FATAL:  database "tokens" does not exist'),
    ("other", 'FATAL:  role "certificate" does not exist'),
    ("other", 'FATAL:  no pg_hba.conf entry for host "::1", user "a", database "b", SSL off'),
    ("other", 'invalid port number: "x"'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), REFUSALS)
def test_refusals_are_told_apart(kind: str, text: str) -> None:
    refusal = refusal_of(text)
    assert refusal.kind == kind
    assert refusal.credentials is (kind != "other")


@pytest.mark.parametrize(("kind", "text"), REFUSALS)
def test_one_of_the_two_refusals_fires(
    picture: Picture, evidence: Evidence, kind: str, text: str
) -> None:
    both: tuple[Any, Any] = c.CredentialsRefused(), c.ConfigurationRefused()
    evidence.hear(OpenFailed(90.0, 1, Trouble.REJECTED, text, 5.0))
    assert not any(condition.judge(evidence, 100.0) for condition in both)  # the pool is up
    evidence.look(picture.at(100.0, trouble="rejected"))
    right, wrong = both if kind != "other" else both[::-1]
    assert found(right, evidence).detail == text
    assert wrong.judge(evidence, 100.0) is None


def test_a_refusal_from_before_the_alerts_began(picture: Picture, evidence: Evidence) -> None:
    evidence.hear(OpenFailed(90.0, 1, Trouble.REJECTED, 'database "x" does not exist', 5.0))
    evidence.hear(Recovered(91.0, 1.0))
    evidence.look(picture.at(100.0, trouble="rejected", last_error="password expired"))
    assert found(c.CredentialsRefused(), evidence)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_time_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="Unreachable: after must be 0 or more"):
        c.Unreachable(after=value)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="ConnectionsCut: count must be a number"):
        c.ConnectionsCut(count="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        c.SlowWaits(share=95)
