"""The requests of the demo: the same for the same seed, and with the spells it is about."""

from __future__ import annotations

from itertools import pairwise

import pytest

from everpool.demo.lane import IDLE_CUT
from everpool.demo.traffic import LEAST_SECONDS, Spell, make_requests, make_spells


@pytest.mark.parametrize("seconds", [LEAST_SECONDS, 8.5, 16.0, 19.0, 28.0, 61.0])
def test_spells_fill_the_time_and_do_not_end_quiet(seconds: float) -> None:
    spells = make_spells(seconds)
    assert spells[0].begin == 0.0
    assert spells[-1].end == seconds
    assert spells[-1].kind != "quiet"
    for one, following in pairwise(spells):
        assert one.end == following.begin


@pytest.mark.parametrize("seconds", [LEAST_SECONDS, 28.0, 61.0])
def test_something_goes_idle_for_too_long_and_is_wanted_again(seconds: float) -> None:
    spells = make_spells(seconds)
    dues = make_requests(spells, seed=1)
    for spell in spells:
        if spell.kind == "quiet":
            assert spell.end - spell.begin > IDLE_CUT
            assert not any(spell.begin <= due < spell.end for due in dues)
            assert any(due >= spell.end for due in dues)


def test_a_seed_gives_the_same_requests_again() -> None:
    spells = make_spells(28.0)
    assert make_requests(spells, 7) == make_requests(spells, 7)
    assert make_requests(spells, 7) != make_requests(spells, 8)
    assert make_requests(spells, 7) == sorted(make_requests(spells, 7))


def test_few_visitors_come_one_at_a_time() -> None:
    dues = make_requests([Spell(0.0, 60.0, "few")], seed=1)
    assert len(dues) == len(set(dues)) > 10
