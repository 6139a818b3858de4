"""The life of an alert and the pace of notices, in virtual time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpool.alerts.conditions import Condition, Finding, defaults
from everpool.alerts.engine import Engine
from everpool.alerts.judge import Judge
from everpool.alerts.notice import Notice
from everpool.events import CommitResolved
from tests.alerts.conftest import Picture


class Down(Condition):
    name = "down"
    title = "down"
    severity = "critical"


class Slow(Condition):
    name = "slow"
    title = "slow"


FOUND = Finding("summary", "advice", "detail")


class Desk:
    """An engine, conditions that are on or off, and a clock."""

    def __init__(self, **times: float) -> None:
        given: dict[str, Any] = {"group_wait": 5, "group_interval": 60, "repeat_every": 600}
        self.times = given | times
        self.engine = Engine(**self.times, details=False)
        self.conditions = [Down(after=10, clear=20), Slow(after=0, clear=20)]
        self.on: set[tuple[str, str]] = set()
        self.now = 0.0
        self.notices: list[Notice] = []

    def step(self) -> None:
        for pool in ("a", "b", "c"):
            for condition in self.conditions:
                finding = FOUND if (pool, condition.name) in self.on else None
                self.engine.update(self.now, pool, pool, condition, finding)
        if notice := self.engine.notice(self.now):
            self.notices.append(notice)

    def pass_time(self, seconds: float) -> None:
        """As the thread does: look whenever something is due."""
        until = self.now + seconds
        self.step()
        while (due := self.engine.due) <= until:
            assert due >= self.now
            self.now = due
            self.step()
        self.now = until
        self.step()

    def told(self) -> list[tuple[float, str, list[str], list[str]]]:
        return [
            (n.at, n.status, [f"{a.pool}:{a.condition}" for a in n.firing], [a.pool for a in n.resolved])
            for n in self.notices
        ]  # fmt: skip


def test_pending_then_firing_then_resolved() -> None:
    desk = Desk()
    desk.on = {("a", "down")}
    desk.pass_time(9.9)
    assert [alert.condition for alert in desk.engine.pending()] == ["down"]
    assert desk.engine.firing() == ()
    desk.pass_time(100)
    assert [alert.started for alert in desk.engine.firing()] == [0.0]
    desk.on = set()
    desk.pass_time(100)
    assert desk.told() == [
        (15.0, "firing", ["a:down"], []),  # 10 s of lasting, 5 s for others to join
        (pytest.approx(109.9 + 20 + 5), "resolved", [], ["a"]),
    ]
    assert desk.notices[1].resolved[0].ended == pytest.approx(109.9)
    assert desk.engine.due == float("inf")


def test_what_passes_before_its_time_is_never_told() -> None:
    desk = Desk()
    for _ in range(50):
        desk.on = {("a", "down")}
        desk.pass_time(9)
        desk.on = set()
        desk.pass_time(3)
    assert desk.notices == []


def test_several_pools_and_conditions_become_one_notice() -> None:
    desk = Desk()
    desk.on = {("a", "slow"), ("b", "slow")}
    desk.pass_time(2)
    desk.on |= {("c", "slow")}
    desk.pass_time(20)
    assert desk.told() == [(5.0, "firing", ["a:slow", "b:slow", "c:slow"], [])]


def test_the_worst_comes_first() -> None:
    desk = Desk()
    desk.on = {("a", "slow"), ("b", "down")}
    desk.pass_time(100)
    assert [n.severity for n in desk.notices] == ["warning", "critical"]
    assert [a.condition for a in desk.notices[1].firing] == ["down", "slow"]
    assert [a.new for a in desk.notices[1].firing] == [True, False]


def test_flapping_is_one_alert() -> None:
    desk = Desk()
    for _ in range(30):
        desk.on = {("a", "slow")}
        desk.pass_time(2)
        desk.on = set()
        desk.pass_time(18)  # it would take 20
    assert desk.told() == [(5.0, "firing", ["a:slow"], [])]


def test_what_lasts_is_repeated() -> None:
    desk = Desk()
    desk.on = {("a", "slow")}
    desk.pass_time(1300)
    assert [(n.at, n.repeated) for n in desk.notices] == [(5, False), (605, True), (1205, True)]


def test_what_comes_back_before_its_end_was_told_goes_on() -> None:
    desk = Desk(group_interval=300)
    desk.on = {("a", "slow")}
    desk.pass_time(10)
    desk.on = set()
    desk.pass_time(100)  # resolved at 30, to be told at 305
    desk.on = {("a", "slow")}
    desk.pass_time(400)
    assert desk.told() == [(5.0, "firing", ["a:slow"], [])]
    assert desk.engine.firing()[0].started == 0.0


def test_what_began_and_ended_between_two_notices_is_told_once() -> None:
    desk = Desk(group_interval=300)
    desk.on = {("a", "slow")}
    desk.pass_time(10)
    desk.on |= {("b", "down")}
    desk.pass_time(30)
    desk.on -= {("b", "down")}
    desk.pass_time(500)
    assert desk.told()[1] == (305.0, "firing", ["a:slow"], ["b"])


def test_a_pool_that_is_gone_resolves_nothing() -> None:
    desk = Desk()
    desk.on = {("a", "slow")}
    desk.pass_time(10)
    desk.engine.forget("a")
    desk.on = set()
    desk.pass_time(2000)
    assert len(desk.notices) == 1
    assert desk.engine.due == float("inf")


def test_details_only_by_consent() -> None:
    for details, expected in ((False, ""), (True, "detail")):
        engine = Engine(group_wait=0, group_interval=1, repeat_every=1, details=details)
        engine.update(0.0, "a", "a", Slow(), FOUND)
        assert engine.firing()[0].detail == expected


SWITCHES = st.lists(
    st.tuples(
        st.floats(0.001, 120.0),
        st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from(["down", "slow"]))),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(SWITCHES, st.floats(0, 90), st.floats(0.5, 200), st.floats(1, 5), st.floats(0, 60))
def test_it_never_floods_and_never_keeps_quiet(
    switches: Any, wait: float, interval: float, repeat: float, clear: float
) -> None:
    """Whatever happens: between two notices lies the interval, so that a window of any length
    has at most one more notice than it has intervals; and whoever read all notices knows, once
    it has been quiet, just what fires."""
    desk = Desk(group_wait=wait, group_interval=interval, repeat_every=interval * repeat)
    desk.conditions = [Down(after=10, clear=clear), Slow(after=0, clear=clear)]
    fired: set[tuple[str, str]] = set()
    for seconds, on in switches:
        desk.on = on
        desk.pass_time(seconds)
        fired |= {alert.key for alert in desk.engine.firing()}
    desk.pass_time(10 + clear + wait + 2 * interval)

    times = [notice.at for notice in desk.notices]
    assert all(b - a >= interval * (1 - 1e-9) for a, b in pairwise(times))
    known: set[tuple[str, str]] = set()
    told: set[tuple[str, str]] = set()
    for notice in desk.notices:
        firing = {alert.key for alert in notice.firing}
        new = {alert.key for alert in notice.firing if alert.new}
        resolved = {alert.key for alert in notice.resolved}
        assert not firing & resolved
        assert firing == (known - resolved) | new
        assert new or resolved or (notice.repeated and firing)
        known, told = firing, told | firing | resolved
    assert known == {alert.key for alert in desk.engine.firing()} == desk.on
    assert fired <= told


def test_from_happenings_and_snapshots_to_a_notice(picture: Picture) -> None:
    engine = Engine(group_wait=5, group_interval=60, repeat_every=600, details=False)
    judge = Judge(defaults(), engine)
    judge.hear("x", CommitResolved(1.0, "unknown", 0.1))
    assert judge.judge(1.0) is None  # not looked at yet
    judge.look("x", picture.at(1.0, state="down", trouble="unreachable"))
    assert judge.judge(1.0) is None
    notice = judge.judge(6.0)
    assert notice is not None
    assert [a.condition for a in notice.firing] == ["commit_unknown"]
    judge.judge(31.0)
    assert {a.condition for a in engine.firing()} == {"commit_unknown", "unreachable"}
    judge.forget("x")
    assert engine.firing() == ()
