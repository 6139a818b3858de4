"""The checker sees what is wrong, and only that; the plan comes from the seed."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from click.testing import CliRunner

from everpool import Outcome
from everpool.torture import command
from everpool.torture.arena import Round
from everpool.torture.books import LATE, Books, History, Told
from everpool.torture.faults import CUTTING, POOL_WIDE, SILENT, Kind, make_faults
from everpool.torture.lanes import LANES, LaneSpec
from everpool.torture.report import Report
from everpool.torture.run import Torture

COMMITTED, ROLLED_BACK = Outcome.COMMITTED, Outcome.ROLLED_BACK
UNKNOWN, LOCALLY = Outcome.UNKNOWN, Outcome.COMMITTED_LOCALLY_ONLY


def told(outcome: Outcome, at: float = 1.0) -> Told:
    return Told("token, threads", 7, outcome, 0.0, at)


@pytest.mark.parametrize(
    ("outcomes", "rows", "problems"),
    [
        ([COMMITTED], 1, set()),
        ([LOCALLY], 1, set()),
        ([COMMITTED], 0, {"lost"}),
        ([COMMITTED], 2, {"doubled"}),
        ([ROLLED_BACK], 0, set()),
        ([Outcome.NOT_STARTED], 0, set()),
        ([ROLLED_BACK], 1, {"false"}),
        ([Outcome.NOT_STARTED], 1, {"false"}),
        ([ROLLED_BACK], 2, {"false", "doubled"}),
        ([UNKNOWN], 0, set()),
        ([UNKNOWN], 1, set()),
        ([UNKNOWN], 2, {"doubled"}),
        ([ROLLED_BACK, COMMITTED], 1, set()),  # twins
        ([ROLLED_BACK, COMMITTED], 0, {"lost"}),
    ],
)
def test_what_was_told_is_compared_with_the_rows(
    outcomes: list[Outcome], rows: int, problems: set[str]
) -> None:
    books = Books()
    books.check([told(outcome) for outcome in outcomes], {7: rows} if rows else {}, None)
    assert books.problems.get(7, set()) == problems


@pytest.mark.parametrize(
    ("outcome", "at", "rows", "before", "problems"),
    [
        (COMMITTED, 1.0, 0, 1, {"lost by history"}),
        (COMMITTED, 1.0, 0, 0, {"lost"}),  # no history had it
        (COMMITTED, 9.0, 0, 1, {"lost"}),  # told by the new primary, which has it not
        (COMMITTED, 9.0, 1, 1, set()),
        (ROLLED_BACK, 1.0, 0, 1, {"false"}),  # told by the old primary, which has it
        (ROLLED_BACK, 9.0, 0, 1, set()),  # told by the new one: true in its history
        (UNKNOWN, 1.0, 0, 2, {"doubled"}),
    ],
)
def test_what_a_promotion_lost_is_told_by_the_old_primary(
    outcome: Outcome, at: float, rows: int, before: int, problems: set[str]
) -> None:
    books = Books()
    history = History(since=4.0, until=5.0, rows={7: before} if before else {})
    books.check([told(outcome, at)], {7: rows} if rows else {}, history)
    assert books.problems.get(7, set()) == problems


@pytest.mark.parametrize(
    ("overdue", "how", "problem"),
    [
        (LATE - 0.01, "DeadlineExceeded", ""),
        (LATE + 0.01, "DeadlineExceeded", "late"),
        (LATE + 0.01, "", "late"),
        (-inf, "", ""),
        (-0.1, "CommitUnknown", ""),
        (-0.1, "PoolTimeout", "early"),
        (-0.1, "DeadlineExceeded", "early"),
        (0.0, "PoolTimeout", ""),
    ],
)
@pytest.mark.parametrize("lane", [LANES[2], LANES[-1]])
def test_who_is_free_too_late_or_refused_too_early_is_told_of(
    overdue: float, how: str, problem: str, lane: LaneSpec
) -> None:
    plan = next(iter(Torture(100, 1, "all", True, inf).plans()))
    played = Round(plan)
    played.books.note(
        Told(lane.name, 7, ROLLED_BACK, 0.0, 1.0, Kind.SILENT_WORK, how=how, overdue=overdue)
    )
    report = Report(seed=1)
    report.add(played)
    total = report.totals(lane.name)
    assert [word for word in ("late", "early") if total[word]] == [problem] * bool(problem)
    naive = not lane.mode
    assert bool(report.broken) == (bool(problem) and not naive)
    assert all(problem in line for line in report.broken)
    assert report.latest == overdue


def test_silence_without_end_comes_with_a_deadline_and_only_where_there_are_any() -> None:
    plans = Torture(100_000, 1, "all", True, inf).plans()
    for spec in LANES:
        faults = [fault for plan in plans for fault in plan.faults_of(spec)]
        silent = {fault.kind for fault in faults if fault.deadline is not None}
        assert silent == (SILENT if spec.mode else set())
        assert {fault.style.kind for fault in faults if fault.kind in silent} <= {"silence"}
        assert bool(spec.mode) == any(fault.deadline == POOL_WIDE for fault in faults)
        wide = [plan.pool_wide(spec) for plan in plans]
        assert wide.count(True) == bool(spec.mode) * len(plans) / 2
        assert all(
            plan.pool_wide(spec) or fault.deadline != POOL_WIDE
            for plan in plans
            for fault in plan.faults_of(spec)
        )


def test_the_same_seed_makes_the_same_plan() -> None:
    def faults(seed: int) -> list[Any]:
        plans = Torture(20_000, seed, "all", True, inf).plans()
        return [[*map(plan.faults_of, plan.specs), plan.events()] for plan in plans]

    assert faults(1) == faults(1)
    assert faults(1) != faults(2)


def test_a_plan_has_every_fault_at_every_byte() -> None:
    plans = Torture(100_000, 1, "all", True, inf).plans()
    planned = [
        (spec, fault) for plan in plans for spec in plan.specs for fault in plan.faults_of(spec)
    ]
    ours = [(spec, fault) for spec, fault in planned if spec.mode]
    assert sum(fault.kind in CUTTING for _, fault in ours) > 10_000
    assert {fault.kind for _, fault in ours} == {*Kind} - {Kind.KILL}  # which is an event
    for mode, kind, most in (("xid", Kind.TO_SERVER, 12), ("xid", Kind.TO_CLIENT, 18)):
        counts = {fault.count for spec, fault in ours if (spec.mode, fault.kind) == (mode, kind)}
        assert counts == set(range(most + 1))


def test_only_tasks_are_cancelled() -> None:
    from random import Random

    faults = make_faults(Random(1), 2000, token=True, tasks=False, deadlines=True, pool_wide=False)
    assert not {fault.kind for fault in faults} & {Kind.INTERRUPT, Kind.INTERRUPT_ASKING}


@pytest.mark.parametrize("broken", [[], ["round 1: something is lost"]])
def test_the_status_tells_whether_all_was_as_it_must_be(
    monkeypatch: pytest.MonkeyPatch, broken: list[str]
) -> None:
    report = Report(seed=3, broken=broken)
    report.lanes[LANES[0].name]["no fault of its own"]["transactions"] = 5
    report.took = 1.0
    monkeypatch.setattr(command, "play", lambda plan, show: report)
    for arguments in (["--json"], []):
        result = CliRunner().invoke(command.torture, arguments)
        assert result.exit_code == bool(broken)
        if arguments:
            assert json.loads(result.stdout)["broken"] == broken
        else:
            assert all(line in result.output for line in broken)
