"""The settings that follow from facts, and what contradicts them."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from everpool.core.environment import Environment
from everpool.core.policy import SETTINGS, Policy, build

NLB = Environment(
    idle_cut=350, max_age=inf, kill="rst-next", activity="packets", failover="cut", name="aws-nlb"
)
PROXY = Environment(
    idle_cut=1800,
    max_age=86400,
    kill="fin",
    activity="bytes",
    failover="kept",
    name="aws-rds-proxy",
)
UNKNOWN = Environment(name="alibaba-rds-proxy")
SLEEPER = Environment(idle_cut=inf, kill="fatal", sleeps_after=300, name="neon")
FLY = Environment(idle_cut=60, max_age=600, kill="rst", activity="bytes", name="fly-postgres")
AURORA = Environment(idle_cut=inf, failover="lost", kill="fin", name="aws-aurora")


def line(policy: Policy, name: str) -> str:
    (found,) = (text for text in policy.explain().splitlines() if text.startswith(f"{name} "))
    return found


class TestFacts:
    @pytest.mark.parametrize("name", ["idle_cut", "max_age", "sleeps_after"])
    @pytest.mark.parametrize("value", [0, -1, nan, 5e-324, 10**400])
    def test_times_are_positive(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{name} must be between .* not {value}"):
            Environment(**{name: value})

    @pytest.mark.parametrize("name", ["idle_cut", "max_age", "sleeps_after"])
    @pytest.mark.parametrize("value", ["350", True, [1]])
    def test_times_are_numbers(self, name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=f"{name} must be a number of seconds"):
            Environment(**{name: value})

    @pytest.mark.parametrize(
        ("name", "known"), [("kill", "rst-next"), ("activity", "bytes"), ("failover", "lost")]
    )
    def test_choices_are_named(self, name: str, known: str) -> None:
        assert getattr(Environment(**{name: known}), name) == known
        with pytest.raises(ValueError, match=f"{name} must be one of .*{known}.*, not 'shot'"):
            Environment(**{name: "shot"})

    @pytest.mark.parametrize("value", ["", 7, "x\x1b[31m", "a\nb"])
    def test_a_name_is_a_text(self, value: Any) -> None:
        with pytest.raises(ValueError, match="name must be a printable text"):
            Environment(name=value)


class TestKeepalive:
    def test_the_issue_s_own_example(self) -> None:
        policy = build(environment=[NLB])
        assert policy.keepalive == 140
        assert line(policy, "keepalive") == "keepalive 140 s: 0.4 × the 350 s idle cut of aws-nlb"

    def test_the_shortest_cut_of_a_path_counts(self) -> None:
        assert build(environment=[PROXY, NLB]) == build(environment=[NLB, PROXY])
        assert "aws-nlb" in line(build(environment=[PROXY, NLB]), "keepalive")

    def test_however_long_the_cut_news_is_never_old(self) -> None:
        policy = build(environment=[PROXY])
        assert policy.keepalive == 140
        assert "1800 s, of aws-rds-proxy" in line(policy, "keepalive")

    def test_what_is_not_known_gets_the_default(self) -> None:
        policy = build(environment=[UNKNOWN])
        assert policy.keepalive == 45 and policy.reason("keepalive").origin == "default"
        assert "the idle cut of alibaba-rds-proxy is not known" in line(policy, "keepalive")
        both = build(environment=[UNKNOWN, NLB])
        assert both.keepalive == 45 and "aws-nlb would allow 140 s" in line(both, "keepalive")

    def test_a_short_cut_wins_over_what_is_not_known(self) -> None:
        assert build(environment=[UNKNOWN, FLY]).keepalive == 24

    def test_who_cuts_nothing_asks_for_nothing(self) -> None:
        policy = build(environment=[AURORA])
        assert policy.keepalive == 45
        assert "aws-aurora cuts no idle connection by itself" in line(policy, "keepalive")


class TestOthers:
    def test_lifetime(self) -> None:
        assert build(environment=[FLY]).max_lifetime == 540
        assert "0.9 × the 600 s maximum age" in line(build(environment=[FLY]), "max_lifetime")
        policy = build(environment=[PROXY])
        assert policy.max_lifetime == 3600
        assert "below the 86400 s maximum age of aws-rds-proxy" in line(policy, "max_lifetime")

    def test_a_sleeper_is_let_sleep(self) -> None:
        policy = build(environment=[SLEEPER])
        assert (policy.min_size, policy.max_size) == (0, 4)
        assert (policy.keepalive, policy.max_idle, policy.connect_timeout) == (inf, 60, 30)
        assert line(policy, "keepalive") == "keepalive never: a ping would keep neon awake"
        assert build(environment=[SLEEPER], max_size=9).max_size == 9
        short = Environment(idle_cut=100, sleeps_after=300)
        assert build(environment=[short]).max_idle == 40  # gone before the cut

    def test_asking_before_lending(self) -> None:
        assert build(environment=[NLB]).verify_after == 0.5
        assert build(environment=[UNKNOWN]).verify_after == 0.5
        assert build(environment=[PROXY]).verify_after == 2.0
        assert build(environment=[PROXY, NLB]).verify_after == 0.5
        assert build(environment=[AURORA]).verify_after == 0.5
        harmless = Environment(idle_cut=inf, max_age=inf, name="pgbouncer-server-side")
        assert build(environment=[harmless, PROXY]).verify_after == 2.0
        assert build(environment=[harmless]).verify_after == 0.5
        event = Environment(idle_cut=inf, max_age=inf, kill="fatal", name="postgresql-shutdown")
        assert build(environment=[event]).verify_after == 0.5
        assert build(environment=[PROXY], watch=False).verify_after == 0.5

    def test_tcp(self) -> None:
        usual = Policy()
        assert build(environment=[NLB]).keepalives_idle == usual.keepalives_idle
        assert build(environment=[FLY]).keepalives_idle == usual.keepalives_idle  # of no use there
        nat = Environment(idle_cut=60, activity="packets")
        assert build(environment=[nat]).keepalives_idle == 15
        policy = build(environment=[AURORA])
        assert (policy.keepalives_idle, policy.keepalives_interval) == (10, 5)
        assert policy.tcp_user_timeout == 20
        assert build(environment=[AURORA, Environment(idle_cut=20)]).keepalives_idle == 5

    def test_null_pools(self) -> None:
        policy = build(pooled=False, environment=[SLEEPER], min_size=0, max_size=0)
        assert (policy.min_size, policy.max_size, policy.connect_timeout) == (0, 0, 30)


class TestGiven:
    def test_what_is_given_wins(self) -> None:
        policy = build(environment=[FLY], keepalive=20.0, max_lifetime=100.0)
        assert (policy.keepalive, policy.max_lifetime) == (20.0, 100.0)
        assert policy.reason("keepalive").origin == "given"
        assert not policy.contradictions

    def test_the_same_number_as_the_default_is_given_all_the_same(self) -> None:
        assert build(environment=[NLB], keepalive=45.0).keepalive == 45.0
        assert build(environment=[SLEEPER], min_size=4).min_size == 4
        assert build(environment=[FLY], max_lifetime=3600.0).max_lifetime == 3600.0

    @pytest.mark.parametrize(
        ("path", "given", "words"),
        [
            ([PROXY], {"keepalive": 1800}, ["keepalive=1800", "1800 s idle cut", "140 s"]),
            ([FLY, NLB], {"keepalive": 90.0}, ["keepalive=90.0", "60 s idle cut of fly-postgres"]),
            ([FLY], {"keepalive": inf}, ["keepalive=inf"]),
            ([NLB], {"keepalive": 600, "tcp_settings": False}, ["keepalive=600", "350 s", "140 s"]),
            ([FLY], {"max_lifetime": 3600.0}, ["max_lifetime=3600.0", "600 s", "540 s is safe"]),
            ([FLY], {"max_lifetime": inf}, ["max_lifetime=inf", "fly-postgres"]),
            ([SLEEPER], {"min_size": 2}, ["min_size=2", "neon"]),
            ([SLEEPER], {"keepalive": 60}, ["keepalive=60", "awake"]),
            ([SLEEPER], {"max_idle": 600.0}, ["max_idle=600.0", "300 s", "have 60 s"]),
            ([UNKNOWN, NLB], {"keepalive": 400, "tcp_settings": False}, ["have 45 s"]),
            ([AURORA], {"tcp_settings": False}, ["tcp_settings=False", "aws-aurora"]),
        ],
    )
    def test_contradictions(self, path: Any, given: Any, words: list[str]) -> None:
        policy = build(environment=path, **given)
        (told,) = policy.contradictions
        assert all(word in told for word in words), told
        assert f"warning: {told}" in policy.explain()
        assert all(getattr(policy, name) == value for name, value in given.items())

    @pytest.mark.parametrize(
        ("path", "given"),
        [
            ([NLB], {"keepalive": 600}),  # TCP keepalives every 30 s hold it off
            ([FLY], {"keepalive": inf, "min_size": 0, "max_size": 4, "max_idle": 20}),  # they leave
            ([SLEEPER], {"keepalive": inf, "min_size": 0, "max_size": 4, "max_idle": 30}),
            ([SLEEPER, FLY], {"keepalive": inf}),
            ([], {"keepalive": 600, "max_lifetime": inf}),
        ],
    )
    def test_no_contradictions(self, path: Any, given: Any) -> None:
        assert not build(environment=path, **given).contradictions


def test_every_setting_is_explained_and_changed_ones_say_so() -> None:
    lines = build(environment=[NLB], timeout=3).changed(max_idle=7.0).explain().splitlines()
    assert [text.split()[0] for text in lines] == [name for name in SETTINGS if name != "pooled"]
    assert "timeout 3 s: given" in lines
    assert "max_idle 7 s: changed at run time" in lines


def test_what_the_conninfo_may_set_is_said_and_what_is_not_used_too() -> None:
    assert line(build(environment=[SLEEPER]), "connect_timeout").endswith(
        "(if the conninfo does not set it)"
    )
    assert "not used" in line(build(tcp_settings=False), "keepalives_idle")


def test_sizes_that_nobody_gave_say_where_they_come_from() -> None:
    assert line(build(min_size=10), "max_size") == "max_size 10: as min_size"
    null = build(pooled=False, min_size=0)
    assert "a null pool keeps none" in line(null, "min_size")


def test_contradictions_follow_changes() -> None:
    policy = build(environment=[FLY])
    assert not policy.contradictions
    assert policy.changed(max_lifetime=3600.0).contradictions
    assert not policy.changed(max_lifetime=3600.0).changed(max_lifetime=30.0).contradictions
