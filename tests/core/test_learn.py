"""What makes a limit of deaths, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everpool.core.learn import (
    FORGOTTEN_AFTER,
    MOST_EVENTS,
    MOST_OUTLIVED_AGES,
    MOST_OUTLIVED_SILENCES,
    Learner,
    checked,
)


class Deaths(Learner):
    """Deaths at a time, after a silence, at an age."""

    def seen(self, at: float, silence: float, age: float | None = None, **more: Any) -> None:
        """The watch saw it."""
        self._one(at, silence, age, exact=True, **more)

    def found(self, at: float, silence: float, age: float | None = None, **more: Any) -> None:
        """A ping found it."""
        self._one(at, silence, age, exact=False, **more)

    def _one(self, at: float, silence: float, age: float | None, **more: Any) -> None:
        facts = {"lent": False, "style": "RST", "declared": False, **more}
        self.died(
            heard_at=at - silence,
            found_at=at,
            silence=silence,
            age=silence if age is None else age,
            **facts,
        )


@pytest.fixture
def deaths() -> Deaths:
    return Deaths()


def idle_cut(deaths: Deaths) -> float | None:
    belief, _ = deaths.beliefs()
    return belief and belief.value


def max_age(deaths: Deaths) -> float | None:
    _, belief = deaths.beliefs()
    return belief and belief.value


class TestIdleCut:
    def test_three_moments_make_one(self, deaths):
        for moment in (1000, 2000, 3000):
            assert idle_cut(deaths) is None
            for late in (0.0, 0.002, 0.3):
                deaths.seen(moment + late, 350.0 + late)
        assert idle_cut(deaths) == 350.0
        belief, _ = deaths.beliefs()
        assert (belief.deaths, belief.events, belief.outlived) == (9, 3, 0)
        assert (belief.since, belief.last_at, belief.style) == (1000, 3000, "RST")

    def test_one_restart_that_pings_find_bit_by_bit_makes_none(self, deaths):
        for at in range(10):  # ten connections, all last heard before a restart at 1000
            deaths.found(1010 + 50 * at, 500.0 + 20 * at)
        assert len(deaths.idle.events) == 10 and idle_cut(deaths) is None

    def test_three_generations_that_pings_find_do(self, deaths):
        for generation in range(3):
            for at in range(3):
                deaths.found(1000 + 600 * generation + 20 * at, 500.0 + 20 * at)
        assert idle_cut(deaths) == 500.0

    def test_silences_that_differ_make_none(self, deaths):
        for at, silence in ((1000, 20.0), (2000, 90.0), (3000, 200.0), (4000, 500.0)):
            deaths.seen(at, silence)
        assert idle_cut(deaths) is None

    def test_deaths_of_one_moment_after_different_silences_do_not_count(self, deaths):
        for at in (1000, 2000, 3000, 4000):
            deaths.seen(at, 300.0)
            deaths.seen(at + 0.1, 100.0)
        assert idle_cut(deaths) is None

    @pytest.mark.parametrize("how", [{"lent": True}, {"silence": 0.2}])
    def test_when_busy_ones_die_too_it_is_not_idleness(self, deaths, how):
        busy = {"silence": 100.0, "age": 900.0, **how}
        for at in (1000, 2000, 3000, 4000):
            deaths.seen(at, 300.0, 900.0)
            deaths.seen(at + 0.1, **busy)
        assert idle_cut(deaths) is None

    def test_one_is_enough_if_the_server_says_so(self, deaths):
        deaths.seen(1000, 60.0, declared=True)
        assert idle_cut(deaths) == 60.0

    def test_the_least_that_enough_agree_on_counts(self, deaths):
        deaths.seen(500, 30.0)  # chance
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        assert idle_cut(deaths) == 350.0
        for at in (4000, 5000, 6000):
            deaths.seen(at, 120.0)
        assert idle_cut(deaths) == 120.0

    def test_survivors_beyond_refute_it_and_those_below_do_not(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        for _ in range(1000):
            assert not deaths.idle.lived(349.0, 4000)
        for _ in range(3):
            deaths.idle.lived(350.0, 4000)
        assert idle_cut(deaths) == 350.0  # half of those that went so far died
        deaths.idle.lived(350.0, 4000)
        assert idle_cut(deaths) is None and len(deaths.idle.events) == 3
        for _ in range(MOST_OUTLIVED_SILENCES - 4):
            assert not deaths.idle.lived(350.0, 4000)
        assert deaths.idle.lived(350.0, 4000) and not deaths.idle.events

    def test_what_lived_before_the_cut_came_does_not_count(self, deaths):
        deaths.seen(10, 600.0)
        for at in range(20, 900):
            deaths.idle.lived(500.0, at)
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        assert idle_cut(deaths) == 350.0

    def test_lives_between_two_deaths_count_against_the_shorter(self, deaths):
        deaths.seen(1000, 400.0)
        for at in range(1100, 1900, 100):
            deaths.idle.lived(370.0, at)
        deaths.seen(2000, 360.0)
        deaths.seen(3000, 350.0)
        assert idle_cut(deaths) is None

    def test_a_cut_of_only_some_paths_is_one(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
            deaths.seen(at, 350.0)
            for _ in range(2):
                deaths.idle.lived(500.0, at + 2)
        assert idle_cut(deaths) == 350.0

    def test_a_confirmation_makes_survivors_forgotten(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        for _ in range(MOST_OUTLIVED_SILENCES):
            deaths.idle.lived(400.0, 4000)
        assert deaths.idle.confirmed(500.0, 4000) and not deaths.idle.confirmed(349.0, 4000)
        deaths.idle.lived(400.0, 4000)
        assert idle_cut(deaths) == 350.0

    def test_it_is_forgotten_unless_confirmed(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        deaths.forget(2500 + FORGOTTEN_AFTER)
        assert idle_cut(deaths) is None and len(deaths.idle.events) == 1
        deaths.idle.confirmed(500.0, 4000)
        deaths.forget(3900 + FORGOTTEN_AFTER)
        assert len(deaths.idle.events) == 1

    def test_an_outage_takes_what_died_just_now(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        deaths.outage(3005, 3004)
        assert idle_cut(deaths) is None and len(deaths.idle.events) == 2

    def test_memory_is_bounded(self, deaths):
        for at in range(1000):
            deaths.seen(10.0 * at, 2.0 + at)
        assert len(deaths.idle.events) <= MOST_EVENTS and len(deaths.age.events) <= MOST_EVENTS


class TestMaximumAge:
    def test_three_moments_make_one_whoever_is_lent(self, deaths):
        deaths.seen(1000, 5.0, 600.0)
        deaths.seen(2000, 0.1, 602.0, lent=True)
        deaths.seen(3000, 40.0, 599.0)
        assert max_age(deaths) == 599.0 and idle_cut(deaths) is None

    def test_of_those_that_pings_find_only_the_last_sign_of_life_is_sure(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.found(at, 40.0, 600.0)
        assert max_age(deaths) == 560.0
        for _ in range(10):
            deaths.age.lived(599.0, 4000)  # it may have been cut at 600
        assert max_age(deaths) == 560.0

    def test_restarts_make_none(self, deaths):
        for at, age in ((1000, 900.0), (5000, 4000.0), (6000, 1000.0), (9000, 3000.0)):
            for silence in (1.0, 10.0, 40.0):
                deaths.seen(at, silence, age)
        assert max_age(deaths) is None

    def test_deaths_of_one_moment_at_different_ages_do_not_count(self, deaths):
        for at in (1000, 2000, 3000, 4000):
            deaths.seen(at, 1.0, 600.0)
            deaths.seen(at, 1.0, 300.0)
        assert max_age(deaths) is None

    def test_nobody_outlives_it(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 1.0, 600.0)
        for _ in range(MOST_OUTLIVED_AGES):
            deaths.age.lived(700.0, 4000)
        assert max_age(deaths) == 600.0
        deaths.age.lived(700.0, 4000)
        assert max_age(deaths) is None

    def test_the_never_used_do_not_tell_age_from_idleness(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 600.0, 600.0)
        assert max_age(deaths) is None and idle_cut(deaths) == 600.0

    def test_once_the_age_is_known_the_idle_cut_it_looked_like_is_not(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 600.0, 600.0)
        for at in (4000, 5000, 6000):
            deaths.seen(at, 50.0, 600.0)
        assert (idle_cut(deaths), max_age(deaths)) == (None, 600.0)

    def test_both(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 100.0, 400.0)
            deaths.seen(at + 500, 1.0, 900.0)
        assert (idle_cut(deaths), max_age(deaths)) == (100.0, 900.0)


class TestSaving:
    def test_what_is_saved_is_believed_again_later(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
            deaths.seen(at + 500, 1.0, 900.0)
        saved = json.loads(json.dumps({**deaths.save(3600), "saved_at": 1e9}))
        other = Deaths()
        other.load(checked(saved), 50.0)
        assert (idle_cut(other), max_age(other)) == (350.0, 900.0)
        belief, _ = other.beliefs()
        assert belief.last_at == pytest.approx(50.0 - 600.0)
        assert belief.since == pytest.approx(50.0 - 2600.0)

    def test_what_is_too_old_is_not(self, deaths):
        for at in (1000, 2000, 3000):
            deaths.seen(at, 350.0)
        other = Deaths()
        other.load(deaths.save(3000 + FORGOTTEN_AFTER + 1), 50.0)
        assert not other.idle.events

    @pytest.mark.parametrize(
        "saved",
        [
            {},
            {"version": 1},
            {"version": 2, "idle": [], "age": [], "saved_at": 0},
            {"version": True, "idle": [], "age": [], "saved_at": 0},
            {"version": 1, "idle": [], "age": [], "saved_at": "yesterday"},
            {"version": 1, "idle": [], "age": [], "saved_at": True},
            {"version": 1, "idle": [], "age": [], "saved_at": float("nan")},
            {"version": 1, "idle": [], "age": [], "saved_at": 10**400},
            {"version": 1, "idle": [{}], "age": [], "saved_at": 0},
            {"version": 1, "idle": [{"alive_at": 1.0}], "age": [], "saved_at": 0},
            {"version": 1, "idle": 3, "age": [], "saved_at": 0},
            {"version": 1, "idle": ["x" * 1_000_000], "age": [], "saved_at": 0},
        ],
    )
    def test_what_nobody_saved_is_refused_in_few_words(self, saved):
        with pytest.raises(ValueError, match="no findings of a pool that can be used") as caught:
            checked(saved)
        assert len(str(caught.value)) < 250

    @pytest.mark.parametrize("saved", [None, 7, "text", [1], True])
    def test_what_is_no_mapping_is_a_mistake(self, saved):
        with pytest.raises(TypeError, match="learn must be True, False, None, or a mapping"):
            checked(saved)

    @pytest.mark.parametrize(
        "change",
        [
            {"least": "1"},
            {"least": float("nan")},
            {"least": True},
            {"least": 0.1},  # less is never learned
            {"least": 400.0},  # more than the most
            {"bound": 300.0},
            {"bound": 1e300},
            {"most": 10**400},
            {"alive_at": 0.0, "found_at": 10.0, "seen_at": 10.0},
            {"seen_at": -1e9, "found_at": -1e9, "alive_at": -1e9},
            {"deaths": 0},
            {"outlived": -1},
            {"style": 3},
            {"style": "A\x1b[31m\nERROR root forged"},
            {"style": "FATAL 57P01\n"},
        ],
        ids=str,
    )
    def test_nor_what_somebody_has_changed(self, deaths, change):
        deaths.seen(1000, 350.0)
        saved = {**deaths.save(1000), "saved_at": 0.0}
        checked(saved)
        saved["idle"][0].update(change)
        with pytest.raises(ValueError, match="no findings"):
            checked(saved)

    def test_what_more_is_in_it_is_left_out(self, deaths):
        deaths.seen(1000, 350.0, style="FATAL 57P05")
        saved = {**deaths.save(1000), "saved_at": 0.0, "more": "x"}
        saved["idle"] = [{**saved["idle"][0], "void": True}] * 1000
        found = checked(saved)
        assert found.keys() == {"version", "saved_at", "idle", "age"}
        assert len(found["idle"]) == MOST_EVENTS and "void" not in found["idle"][0]
