"""What follows from observations, without sockets."""

from __future__ import annotations

import json
from itertools import pairwise
from math import inf
from pathlib import Path as File

import pytest

from everpool import ConnectionPool, Environment
from everpool.survey import state
from everpool.survey.facts import Facts
from everpool.survey.findings import find, fits, python
from everpool.survey.ladder import FINE, division, ladder
from everpool.survey.observation import Limits, Observation
from everpool.survey.run import Result
from everpool.survey.words import findings as in_words

from .virtual import Path, survey

LIMITS = Limits()


def observed(path: Path, limits: Limits = LIMITS) -> list[Observation]:
    path.delay = 0.05
    return survey(path, limits).books.observations


def test_a_balancer_that_forgets() -> None:
    found = find(observed(Path(350, style="rst-next", activity="packets")), LIMITS)
    assert found.environments == (Environment(350, None, "rst-next", "packets", name="the path"),)
    assert python(found.environments) == (
        "ConnectionPool(conninfo,"
        ' environment=Environment(idle_cut=350, kill="rst-next", activity="packets"))'
    )
    policy = found.policy
    assert policy.keepalive == 140
    assert policy.reason("keepalive").why == "0.4 × the 350 s idle cut of the path"
    assert fits(found, Environment(350, kill="rst-next", activity="packets"))
    assert not fits(found, Environment(300, kill="rst-next", activity="packets"))
    assert not fits(found, Environment(350, kill="silence", activity="packets"))
    assert not fits(found, Environment(350, kill="rst-next", activity="bytes"))
    assert not fits(found, Environment(350, 900, "rst-next", "packets"))
    assert fits(found, Environment(350, 86400, "rst-next", "packets"))


def test_two_things_on_the_path_stay_two() -> None:
    path = Path(300, 900, style="silence", age_style="fatal", activity="packets")
    found = find(observed(path), LIMITS)
    assert [e.kill for e in found.environments] == ["silence", "fatal"]
    line = python(found.environments)
    assert line == (
        "ConnectionPool(conninfo, environment=["
        'Environment(idle_cut=300, kill="silence", activity="packets"),'
        ' Environment(idle_cut=float("inf"), max_age=900, kill="fatal")])'
    )
    assert found.policy.max_lifetime == 810
    assert found.policy.keepalive == 120


@pytest.mark.parametrize(
    "path",
    [
        Path(),
        Path(350, style="rst-next", activity="packets"),
        Path(300, 900, style="silence", age_style="fatal"),
        Path(age=400.5, style="fin"),
    ],
)
def test_the_line_of_python_makes_a_pool_with_those_settings(path: Path) -> None:
    found = find(observed(path), LIMITS)
    names = {"ConnectionPool": ConnectionPool, "Environment": Environment}
    pool = eval(python(found.environments), names, {"conninfo": ""})
    assert isinstance(pool, ConnectionPool)
    settings = {setting.name: setting.value for setting in pool.snapshot().settings}
    for name in found.policy.reasons:
        assert settings[name] == getattr(found.policy, name)
    assert bool(found.policy.reasons) == bool(found.environments)


def test_the_nearest_entries_and_those_that_fit() -> None:
    found = find(observed(Path(350, style="rst-next", activity="packets")), LIMITS)
    entries = state.nearest(found)
    assert "aws-nlb" in [e.name for e in entries if fits(found, e.facts)]


def test_nothing_found_is_said_with_how_far_was_looked() -> None:
    found = find(observed(Path()), LIMITS)
    said = in_words(found, Result(LIMITS, complete=True))
    assert said == ["No idle cut up to 1250 s (21 min).", "No maximum age up to 1250 s (21 min)."]
    assert python(found.environments) == "ConnectionPool(conninfo)"
    assert not found.policy.reasons
    assert found.measured is None


def test_a_wide_gap_tells_no_figure_but_what_was_survived() -> None:
    limits = Limits(connections=4, budget=1300)
    found = find(observed(Path(700, style="silence"), limits), limits)
    assert found.idle is None or found.idle.figure <= 700
    assert all(e.idle_cut is None or e.idle_cut <= 700 for e in found.environments)


def test_text_of_others_is_shown_harmless(tmp_path: File) -> None:
    deaths = [
        Observation("idle", 0, 100, 100, 100, 0, "fatal", "57P05", "a\x1b[2Jb" * 100)
        for _ in range(2)
    ]
    seen = [*deaths, Observation("busy", 0, 200, 0, 200, 200, "lived")]
    said = "\n".join(in_words(find(seen, LIMITS), Result(LIMITS)))
    assert "\x1b" not in said
    assert len(said) < 800


def test_a_saved_survey_is_read_as_it_was(tmp_path: File) -> None:
    result = Result(
        Limits(9, 1000.0, 2000.0),
        Facts(server="abc", version="17", settings={"idle_session_timeout": "0"}),
        observed(Path(350, 800, style="rst-next")),
        seconds=1234.0,
        complete=True,
    )
    file = tmp_path / "survey.json"
    state.save(file, result)
    again = state.load(file)
    assert (again.limits, again.facts, again.seconds) == (result.limits, result.facts, 1234.0)
    assert not again.complete
    for one, other in zip(again.observations, result.observations, strict=True):
        assert one.quiet == pytest.approx(other.quiet, abs=0.001)
        assert (one.kind, one.outcome) == (other.kind, other.outcome)
    text = file.read_text()
    assert "Infinity" not in text
    assert json.loads(text)["settings"]["keepalive"]["value"] == 140


@pytest.mark.parametrize("most", [0.5, 4.0, 60.0, 1250.0, 8000.0])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_ladders_climb_and_have_no_more_rungs_than_asked_for(most: float, share: float) -> None:
    low = share * most
    for count in range(40):
        rungs = ladder(low, most, count)
        assert len(rungs) <= count
        assert rungs == sorted(rungs)
        assert all(low < rung <= most for rung in rungs)
        assert not count or rungs[-1] == most
        steps = division(low, most, count)
        assert len(steps) <= count
        assert steps == sorted(steps)
        assert all(low < step < most for step in steps)


def test_a_division_is_even_and_no_finer_than_needed() -> None:
    steps = division(100.0, 200.0, 9)
    ratios = [b / a for a, b in pairwise([100.0, *steps, 200.0])]
    assert max(ratios) == pytest.approx(min(ratios)) == pytest.approx(2 ** (1 / 10))
    few = division(100.0, 110.0, 30)
    assert len(few) == 2
    assert max(b / a for a, b in pairwise([100.0, *few, 110.0])) < FINE


def test_just_above_each_documented_cut_there_is_a_rung() -> None:
    rungs = ladder(0.0, LIMITS.max_idle, 9)
    for cut in (60, 240, 300, 350, 600, 900, 1200):
        assert any(cut < rung < 1.05 * cut for rung in rungs)
    assert inf not in rungs
