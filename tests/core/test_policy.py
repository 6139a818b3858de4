"""Settings: what is allowed, what is refused, and that the message says so."""

from __future__ import annotations

import dataclasses
from math import inf, nan

import pytest

from everpool.core.policy import SETTINGS, Policy, build, check_sizes

WHOLE = [
    "min_size", "max_size", "max_waiting", "num_workers", "max_connecting", "keepalives_count",
]  # fmt: skip
SECONDS = [
    "timeout", "max_lifetime", "max_idle", "reconnect_timeout", "keepalive", "verify_after",
    "peek_after", "connect_timeout", "callback_timeout", "leak_after", "deadline",
    "watch_queries", "keepalives_idle", "keepalives_interval", "tcp_user_timeout",
]  # fmt: skip
FLAGS = ["watch", "learn", "tcp_settings", "pooled"]
CHOICES = {"when_down": ("wait", "fail")}
POSITIVE = [
    "keepalive", "max_lifetime", "connect_timeout", "callback_timeout", "leak_after", "deadline",
    "watch_queries", "keepalives_idle", "keepalives_interval", "tcp_user_timeout",
]  # fmt: skip


def test_every_setting_is_tested_here():
    assert {*SETTINGS} == {*WHOLE, *SECONDS, *FLAGS, *CHOICES}
    assert {f.name for f in dataclasses.fields(Policy)} - {*SETTINGS} == {
        "reasons",
        "environment",
    }


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["Wait", "", None, True, 1])
def test_a_choice_names_what_there_is_to_choose(name, value):
    with pytest.raises(ValueError) as caught:
        Policy(**{name: value})
    assert all(word in str(caught.value) for word in (name, repr(value), *CHOICES[name]))


class TestKinds:
    @pytest.mark.parametrize("name", WHOLE)
    @pytest.mark.parametrize("value", [1.5, "4", None, True, inf, nan, [4]])
    def test_whole_numbers_only(self, name, value):
        with pytest.raises(TypeError) as caught:
            Policy(**{name: value})
        assert name in str(caught.value) and repr(value) in str(caught.value)
        assert "whole number" in str(caught.value)

    @pytest.mark.parametrize("name", SECONDS)
    @pytest.mark.parametrize("value", ["30", None, False, [1.0]])
    def test_numbers_only(self, name, value):
        with pytest.raises(TypeError) as caught:
            Policy(**{name: value})
        assert name in str(caught.value) and repr(value) in str(caught.value)
        assert "number of seconds" in str(caught.value)

    @pytest.mark.parametrize("name", FLAGS)
    @pytest.mark.parametrize("value", [1, 0, "yes", None])
    def test_flags_only(self, name, value):
        with pytest.raises(TypeError) as caught:
            Policy(**{name: value})
        assert name in str(caught.value) and repr(value) in str(caught.value)


class TestRanges:
    @pytest.mark.parametrize("name", [*WHOLE, *SECONDS])
    def test_nothing_is_negative(self, name):
        with pytest.raises(ValueError, match="at least|more than") as caught:
            Policy(**{name: -1})
        assert name in str(caught.value) and "-1" in str(caught.value)

    @pytest.mark.parametrize("name", SECONDS)
    def test_nan_is_no_time(self, name):
        with pytest.raises(ValueError, match=name):
            Policy(**{name: nan})

    @pytest.mark.parametrize("name", SECONDS)
    def test_inf_is(self, name):
        assert getattr(Policy(**{name: inf}), name) == inf

    @pytest.mark.parametrize("name", SECONDS)
    def test_whole_seconds_are(self, name):
        assert getattr(Policy(**{name: 7}), name) == 7

    @pytest.mark.parametrize("name", POSITIVE)
    def test_some_times_must_be_more_than_zero(self, name):
        with pytest.raises(ValueError, match=f"{name} must be more than 0, not 0"):
            Policy(**{name: 0})

    @pytest.mark.parametrize("name", sorted({*SECONDS} - {*POSITIVE}))
    def test_zero_is_fine_for_the_others(self, name):
        assert getattr(Policy(**{name: 0}), name) == 0

    @pytest.mark.parametrize("name", ["num_workers", "max_connecting", "keepalives_count"])
    def test_some_counts_must_be_one(self, name):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            Policy(**{name: 0})


class TestSizes:
    @pytest.mark.parametrize("sizes", [(0, 1), (1, 1), (4, 10)])
    def test_good_ones(self, sizes):
        check_sizes(*sizes, pooled=True)
        policy = build(min_size=sizes[0], max_size=sizes[1])
        assert (policy.min_size, policy.max_size) == sizes

    @pytest.mark.parametrize(("sizes", "word"), [((4, 3), "max_size"), ((0, 0), "max_size")])
    def test_bad_ones(self, sizes, word):
        with pytest.raises(ValueError, match=word):
            check_sizes(*sizes, pooled=True)
        with pytest.raises(ValueError, match=word):
            build(min_size=sizes[0], max_size=sizes[1])

    def test_max_size_defaults_to_min_size(self):
        assert build(min_size=7).max_size == 7

    def test_null_pools_have_no_min_size_and_may_have_no_limit(self):
        check_sizes(0, 0, pooled=False)
        check_sizes(0, 5, pooled=False)
        with pytest.raises(ValueError, match="min_size = 0, not 2"):
            check_sizes(2, 5, pooled=False)
        assert build(min_size=0, max_size=0, pooled=False).most == inf
        assert build(min_size=0, max_size=3, pooled=False).most == 3

    @pytest.mark.parametrize("sizes", [(-1, 4), (0, -1)])
    def test_negative_ones(self, sizes):
        with pytest.raises(ValueError, match="at least 0, not -1"):
            check_sizes(*sizes, pooled=True)


class TestContradictions:
    @pytest.mark.parametrize("keepalive", [20.0, 60])
    def test_two_explicit_ones_that_contradict(self, keepalive):
        with pytest.raises(ValueError, match="keepalive") as caught:
            build(keepalive=keepalive, max_lifetime=20.0)
        assert "max_lifetime=20.0" in str(caught.value)
        assert repr(keepalive) in str(caught.value)

    def test_a_default_yields_silently(self):
        assert build(max_lifetime=20.0).max_lifetime == 20.0
        assert build(keepalive=7200.0).keepalive == 7200.0

    def test_never_is_no_contradiction(self):
        assert build(keepalive=inf, max_lifetime=20.0).keepalive == inf

    def test_what_is_not_given_is_the_default(self):
        assert build() == Policy()
        assert all(build().reason(name).origin == "default" for name in SETTINGS)


def test_a_policy_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().timeout = 3.0
