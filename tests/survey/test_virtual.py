"""Surveys of every kind of path, in virtual time: hours in milliseconds."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everpool.survey.evidence import read
from everpool.survey.findings import find
from everpool.survey.observation import BUSY, MAX_IDLE, Limits, Observation
from everpool.survey.plan import PULSE

from .virtual import Path, Run, survey

STYLES = ("fin", "rst", "rst-next", "silence", "fatal")

SETTINGS = settings(
    max_examples=60, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)


@st.composite
def paths(draw: st.DrawFn) -> tuple[Path, Limits]:
    """A path and limits that can find out about it."""
    max_idle = draw(st.sampled_from([3.0, 60.0, MAX_IDLE]))
    idle = draw(st.one_of(st.just(inf), st.floats(max_idle / 15, 0.9 * max_idle)))
    # Nearer to each other the two are one. With fewer probes or a lesser age the pulse is coarse.
    least = max(max_idle / 6, 1.4 * idle if idle < inf else 0.0)
    ages = [st.just(inf)]
    if least < 0.9 * max_idle:
        ages.append(st.floats(least, 0.9 * max_idle))
    age = draw(st.one_of(ages))
    path = Path(
        idle,
        age,
        style=draw(st.sampled_from(STYLES)),
        age_style=draw(st.sampled_from(STYLES)),
        activity=draw(st.sampled_from(["packets", "bytes"])),
        sweep=draw(st.sampled_from([0.0, 0.0, max_idle / 500])),
        delay=max_idle * draw(st.sampled_from([1e-6, 1e-4, 1e-3])),
    )
    return path, Limits(draw(st.integers(9, 40)), max_idle)


def run(path: Path, limits: Limits) -> Run:
    done = survey(path, limits, ping_limit=limits.max_idle / 100)
    assert done.most_open <= limits.connections
    assert done.took <= limits.longest
    assert done.opened <= 10 * limits.connections
    return done


@SETTINGS
@given(paths())
def test_any_cut_is_found_within_a_tenth_and_its_style_exactly(both: tuple[Path, Limits]) -> None:
    path, limits = both
    found = find(run(path, limits).books.observations, limits)
    if path.idle == inf:
        assert found.idle is None
        assert found.idle_survived >= 0.8 * min(path.age, limits.max_idle)
    else:
        assert found.idle is not None
        assert found.idle.value == pytest.approx(path.idle, rel=0.1)
        assert found.idle.figure == pytest.approx(path.idle, rel=0.1)
        assert found.idle.kill == path.style
        assert found.activity == path.activity
    if path.age == inf:
        assert found.age is None
        assert found.age_survived >= 0.99 * limits.max_idle
    else:
        assert found.age is not None
        assert found.age.value == pytest.approx(path.age, rel=0.1)
        assert found.age.kill == path.age_style
    assert found.restarts == found.outages == 0
    assert found.sharp and not found.unexplained


@SETTINGS
@given(paths(), st.integers(4, 12), st.floats(0.2, 3.0), st.data())
def test_limits_hold_and_nothing_is_claimed_that_is_not_so(
    both: tuple[Path, Limits], connections: int, share: float, data: st.DataObject
) -> None:
    path, limits = both
    limits = Limits(connections, limits.max_idle, share * limits.max_idle)
    path.restarts = tuple(data.draw(st.lists(st.floats(0.1, limits.longest), max_size=2)))
    found = find(run(path, limits).books.observations, limits)
    if path.restarts:
        return  # with little time one restart may look like an age
    slack = 1.02
    if found.idle:
        assert found.idle.least / slack <= path.idle + path.sweep
        assert path.idle <= found.idle.most * slack
    if found.age and not path.restarts:
        assert found.age.least / slack <= path.age + path.sweep
        assert path.age <= found.age.most * slack


@SETTINGS
@given(paths(), st.floats(0.01, 1.5))
def test_what_was_interrupted_can_be_gone_on_with(both: tuple[Path, Limits], share: float) -> None:
    path, limits = both
    limit = limits.max_idle / 100
    first = survey(path, limits, ping_limit=limit, until=share * limits.max_idle)
    second = survey(path, limits, first.books.observations, ping_limit=limit)
    assert second.most_open <= limits.connections
    found = find(second.books.observations, limits)
    assert (found.idle is None) == (path.idle == inf)
    if found.idle:
        assert found.idle.value == pytest.approx(path.idle, rel=0.1)
    assert (found.age is None) == (path.age == inf)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("at", [30.0, 400.0, 1000.0])
@pytest.mark.parametrize("idle", [inf, 300.0, 700.0])
def test_a_restart_is_no_cut(style: str, at: float, idle: float) -> None:
    limits = Limits()
    path = Path(idle, style="rst-next", restarts=(at,), restart_style=style, delay=0.05)
    found = find(run(path, limits).books.observations, limits)
    assert found.age is None
    assert found.restarts == 1
    if idle == inf:
        assert found.idle is None
        assert found.idle_survived >= 1180
    else:
        assert found.idle is not None
        assert found.idle.figure == pytest.approx(idle, rel=0.05)


def test_a_path_that_is_never_at_rest_ends_the_survey() -> None:
    limits = Limits()
    done = run(Path(restarts=tuple(200.0 * n for n in range(1, 20))), limits)
    found = find(done.books.observations, limits)
    assert (found.idle, found.age) == (None, None)
    assert found.restarts == 2
    assert done.took < 800


def test_nothing_to_be_found_takes_no_longer_than_the_longest_rung() -> None:
    limits = Limits()
    done = run(Path(delay=0.05), limits)
    assert done.took < 1.02 * limits.max_idle
    assert done.opened <= limits.connections


@pytest.mark.parametrize("figure", [60.0, 240.0, 300.0, 350.0, 600.0, 900.0, 1200.0])
@pytest.mark.parametrize("style", STYLES)
def test_documented_cuts_are_told_as_they_are_documented(figure: float, style: str) -> None:
    limits = Limits()
    path = Path(figure, style=style, activity="packets", delay=0.05)
    found = find(run(path, limits).books.observations, limits)
    assert found.idle is not None
    assert found.idle.figure == figure


def test_an_outage_tells_nothing_of_the_path() -> None:
    limits = Limits()
    found = find(run(Path(outage=(300.0, 340.0)), limits).books.observations, limits)
    assert found.idle is None
    assert found.age is None
    assert found.outages > 0
    assert found.idle_survived > 1100


def test_without_a_busy_probe_that_lived_longer_a_death_is_not_explained() -> None:
    died = Observation("idle", 0.0, 100.0, 100.0, 100.0, 0.0, "fin")
    evidence = read([died], alive=100.0, max_idle=1000.0)
    assert evidence.unexplained == (died,)
    assert not evidence.idle.found
    evidence = read([died], alive=120.0, max_idle=1000.0)
    assert not evidence.unexplained
    assert evidence.idle.value == 100.0


def test_two_busy_ones_of_different_ages_that_end_together_are_a_restart() -> None:
    one = Observation(BUSY, 0.0, 500.0, 0.0, 500.0, 499.0, "fin")
    other = Observation(BUSY, 100.0, 501.0, 0.0, 401.0, 400.0, "fin")
    evidence = read([one, other], 0.0, max_idle=1000.0)
    assert evidence.restarts == (500.0,)
    assert not evidence.age.found
    same_age = Observation(BUSY, 100.0, 600.0, 0.0, 500.0, 499.0, "fin")
    evidence = read([one, same_age], 0.0, max_idle=1000.0)
    assert evidence.restarts == ()
    assert evidence.age.value == 500.0


def test_one_that_ends_alone_is_a_stray() -> None:
    busy = Observation(BUSY, 0.0, 900.0, 0.0, 900.0, 900.0, "lived")
    died = Observation("idle", 0.0, 100.0, 100.0, 100.0, 0.0, "fin")
    lived = Observation("idle", 0.0, 200.0, 200.0, 200.0, 200.0, "lived")
    evidence = read([busy, died, lived], 0.0, max_idle=1000.0)
    assert (evidence.idle.found, evidence.strays, evidence.contradiction) == (True, 0, True)
    evidence = read([busy, died, lived, lived], 0.0, max_idle=1000.0)
    assert (evidence.idle.found, evidence.strays, evidence.contradiction) == (False, 1, False)
    evidence = read([busy, died, died, lived, lived], 0.0, max_idle=1000.0)
    assert (evidence.idle.found, evidence.strays, evidence.contradiction) == (True, 0, True)


@pytest.mark.parametrize("style", STYLES)
def test_a_cut_is_seen_more_than_once(style: str) -> None:
    limits = Limits()
    found = find(run(Path(100.0, style=style, delay=0.05), limits).books.observations, limits)
    assert found.idle is not None
    assert found.idle.count > 1


def test_pulses_are_fine_enough_for_ages() -> None:
    # Half a pulse is the error of an age that ends in silence.
    assert PULSE / 2 <= 0.1 / 6
