"""Which entries a measured path looks like."""

from __future__ import annotations

from math import inf

import pytest

from everpool.environments import Environment, entries, nearest


def names(most: int = 3, **facts: object) -> list[str]:
    return [entry.name for entry in nearest(Environment(**facts), most)]  # type: ignore[arg-type]


def test_all_facts_fit():
    found = names(idle_cut=351.5, kill="rst-next", activity="packets")
    assert found == ["aws-nlb", "aws-nlb-tls", "aws-nat-gateway"]
    assert names(idle_cut=351.5, kill="silence", activity="packets") == [
        "aws-network-firewall",
        "aws-ec2-nitro-v6",
    ]
    assert names(idle_cut=240, kill="silence") == ["azure-load-balancer"]
    assert names(idle_cut=1810, kill="fin", activity="bytes") == ["aws-rds-proxy"]


def test_the_nearer_time_comes_first():
    found = names(most=100, idle_cut=905)
    assert found[0] == "alibaba-clb"
    assert set(found) == {
        "alibaba-clb",
        "alibaba-nat-gateway",
        "kubernetes-ipvs",
        "docker-swarm",
    }
    # 300 s is nearer to 320 s than 350 s is, though the catalogue has AWS first.
    found = names(most=100, idle_cut=320)
    assert found[:2] == ["nat-home", "neon"]
    assert found[2] == "aws-nlb"


def test_300_and_350_seconds_are_two_environments():
    assert not {"aws-nlb", "aws-ec2-nitro-v6"} & set(names(most=100, idle_cut=300))
    assert not {"neon", "nat-home"} & set(names(most=100, idle_cut=350))


def test_a_fact_that_an_entry_lacks_costs_a_place():
    # Prisma's way of ending is not known, so those with the same time and the same way are nearer.
    found = names(most=100, idle_cut=3600, kill="fin", activity="bytes")
    assert found == ["envoy", "istio", "prisma-postgres"]
    # What CLB counts is not known, though it comes first in the catalogue.
    found = names(most=100, idle_cut=900, activity="packets")
    assert found[0] == "alibaba-nat-gateway"
    assert found[-1] == "alibaba-clb"


def test_an_entry_need_not_explain_all_of_a_path():
    # A day comes from a proxy, the shorter idle cut from something before it.
    found = names(most=100, idle_cut=350, max_age=86400)
    assert "aws-nlb" in found
    assert "aws-rds-proxy" in found
    # What would have cut before the idle cut was seen is not on the path.
    assert "haproxy" not in found
    assert "azure-load-balancer" not in found


def test_what_never_cut_rules_out_what_does():
    found = names(most=100, idle_cut=inf, kill="fatal")
    assert "pgbouncer" in found
    assert "neon" not in found


@pytest.mark.parametrize(
    "facts", [{}, {"idle_cut": 17}, {"idle_cut": inf}, {"idle_cut": 350, "kill": "fatal"}]
)
def test_nothing_in_common_is_nothing(facts):
    assert names(most=100, **facts) == []


def test_every_entry_with_a_time_fits_itself():
    for entry in entries().values():
        times = (entry.facts.idle_cut, entry.facts.max_age)
        if any(time is not None and time < inf for time in times):
            assert entry in nearest(entry.facts, 10)
