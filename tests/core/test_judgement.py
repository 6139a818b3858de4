"""What errors mean, row by row and phase by phase, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpool.core.judgement import (
    SUSPECTING,
    TABLE,
    Failure,
    Meaning,
    Phase,
    Repeat,
    Verdict,
    concerns_all,
    judge,
)
from everpool.core.outcome import Outcome

LOST: dict[str, Any] = {"lost": True}
FATAL: dict[str, Any] = {"lost": True, "fatal": True}
POOLER: dict[str, Any] = {"fatal": True}  # FATAL, but the session goes on
CACHED_PLAN: dict[str, Any] = {"routine": "RevalidateCachedQuery"}

# What is known, what it means, and what follows before anything was sent, in a transaction, after
# COMMIT was sent, and in autocommit: E evict, G all others are suspect, R repeat, 1 repeat once,
# Q nobody knows what was committed. A dot: nothing of these.
Row = tuple[str, dict[str, Any], Meaning, str]
M = Meaning
ROWS: tuple[Row, ...] = (
    # the connection is gone
    ("", LOST, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("08000", LOST, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("08001", LOST, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("08003", LOST, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("08006", LOST, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("08006", {}, M.SIBLINGS, "EGR EGR EGQ EGQ"),  # of a pooler's server
    ("08007", {}, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("08004", FATAL, M.CONFIGURATION, "E E EQ EQ"),
    ("08P01", {}, M.CONNECTION, "ER E EQ EQ"),  # a server's
    ("08P01", FATAL, M.SIBLINGS, "EGR EGR EGQ EGQ"),  # a pooler's
    ("08P01", POOLER, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    # the server goes
    ("57P01", FATAL, M.GOING, "EGR EGR EGQ EGQ"),
    ("57P01", POOLER, M.GOING, "EGR EGR EGQ EGQ"),
    ("57P01", {}, M.GOING, "EGR EGR EGQ EGQ"),
    ("", LOST | {"notice": "57P01"}, M.GOING, "EGR EGR EGQ EGQ"),
    ("57P02", FATAL, M.ALL_DEAD, "EGR EGR EGQ EGQ"),
    ("", LOST | {"notice": "57P02"}, M.ALL_DEAD, "EGR EGR EGQ EGQ"),
    ("08006", LOST | {"notice": "57P02"}, M.ALL_DEAD, "EGR EGR EGQ EGQ"),
    ("57P03", FATAL, M.GOING, "EGR EGR EGQ EGQ"),
    ("58000", POOLER, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("58000", {}, M.SIBLINGS, "EGR EGR EGQ EGQ"),
    ("57P04", FATAL, M.CONFIGURATION, "EG EG EGQ EGQ"),
    # the session goes
    ("57P05", FATAL, M.CONNECTION, "ER ER EQ EQ"),
    ("25P03", FATAL, M.CONNECTION, "E E EQ EQ"),
    ("25P04", FATAL, M.CONNECTION, "E E EQ EQ"),
    ("P0001", POOLER, M.CONNECTION, "E E EQ EQ"),
    ("22012", FATAL, M.CONNECTION, "E E EQ EQ"),
    # the wrong server
    ("25006", {}, M.WRONG_ROLE, "EG1 EG1 EG1 EG"),
    ("25006", {"chosen": True}, M.WORK, ". . . ."),
    # what the server lacks
    ("53100", {}, M.OVERLOADED, ". . . ."),
    ("53200", {}, M.OVERLOADED, ". . . ."),
    ("53400", {}, M.OVERLOADED, ". . . ."),
    ("58030", {}, M.OVERLOADED, ". . . ."),
    ("53300", {}, M.OVERLOADED, "ER ER ER E"),
    ("53300", FATAL, M.OVERLOADED, "ER ER EQ EQ"),
    # configuration
    ("3D000", FATAL, M.CONFIGURATION, "E E EQ EQ"),
    ("28000", FATAL, M.CONFIGURATION, "E E EQ EQ"),
    ("28P01", FATAL, M.CONFIGURATION, "E E EQ EQ"),
    # contention
    ("40001", {}, M.CONTENTION, "R R R ."),
    ("40P01", {}, M.CONTENTION, "R R R ."),
    # statements that the session has lost, or another has
    ("26000", {}, M.CONNECTION, "E1 E1 E1 E"),
    ("42P05", {}, M.CONNECTION, "E1 E1 E1 E"),
    ("0A000", CACHED_PLAN, M.CONNECTION, "E1 E1 E1 E"),
    ("0A000", {}, M.WORK, ". . . ."),
    ("0A000", {"routine": "ExecCheck"}, M.WORK, ". . . ."),
    # out of its mind
    ("XX000", {}, M.CONNECTION, "E E EQ EQ"),
    ("XX001", {}, M.CONNECTION, "E E EQ EQ"),
    ("XX002", FATAL, M.CONNECTION, "E E EQ EQ"),
    # the work's own
    ("40003", {}, M.WORK, ". . Q Q"),
    ("40002", {}, M.WORK, ". . . ."),
    ("23505", {}, M.WORK, ". . . ."),
    ("23503", {}, M.WORK, ". . . ."),
    ("22012", {}, M.WORK, ". . . ."),
    ("42P01", {}, M.WORK, ". . . ."),
    ("55P03", {}, M.WORK, ". . . ."),
    ("57014", {}, M.WORK, ". . . ."),
    ("25P02", {}, M.WORK, ". . . ."),
    # no error of the database's at all
    ("", {}, M.WORK, ". . Q Q"),
    ("", {"notice": "57P02"}, M.WORK, ". . Q Q"),
)
PHASES = (Phase.LENT, Phase.WORK, Phase.COMMIT, Phase.AUTOCOMMIT)
CASES = [
    pytest.param(Failure(phase, code, **known), meaning, cell, id=f"{code} {known} {phase}")
    for code, known, meaning, cells in ROWS
    for phase, cell in zip(PHASES, cells.split(), strict=True)
]


def cell_of(verdict: Verdict) -> str:
    """A verdict as the table writes it."""
    repeats = {Repeat.YES: "R", Repeat.ONCE: "1", Repeat.NEVER: ""}
    letters = "E" * verdict.evict + "G" * verdict.suspect + repeats[verdict.repeat]
    return letters + "Q" * (verdict.outcome is Outcome.UNKNOWN) or "."


@pytest.mark.parametrize(("failure", "meaning", "cell"), CASES)
def test_each_row_in_each_phase(failure: Failure, meaning: Meaning, cell: str) -> None:
    verdict = judge(failure)
    assert (verdict.meaning, cell_of(verdict)) == (meaning, cell)
    known = {Phase.LENT: Outcome.NOT_STARTED, Phase.WORK: Outcome.ROLLED_BACK}
    sure = known.get(failure.phase, Outcome.ROLLED_BACK)
    assert verdict.outcome is (Outcome.UNKNOWN if "Q" in cell else sure)


@pytest.mark.parametrize("known", [{}, {"lost": True}, {"sqlstate": "40001"}])
def test_a_commit_answered_with_rollback_is_sure_and_never_repeated(known: Any) -> None:
    verdict = judge(Failure(Phase.COMMIT, tag="ROLLBACK", **known))
    assert verdict.outcome is Outcome.ROLLED_BACK
    assert verdict.repeat is Repeat.NEVER
    assert verdict.meaning is Meaning.WORK
    assert verdict.evict is known.get("lost", False)


def test_every_entry_of_the_table_has_a_row() -> None:
    codes = {code for code, *_ in ROWS}
    for entry in TABLE:
        assert any(code == entry or (entry and code[:2] == entry) for code in codes), entry


@pytest.mark.parametrize(
    "sqlstate", ["57P01", "57P02", "57P04", "57P05", "25P03", "58000", "99999", ""]
)
def test_which_ends_are_news_about_the_others(sqlstate: str) -> None:
    assert concerns_all(sqlstate) is (sqlstate in ("57P01", "57P02", "57P04", "58000"))


# -- what holds for all ----------------------------------------------------------------------------

SQLSTATES = st.one_of(
    st.sampled_from(sorted({code for code, *_ in ROWS})),
    st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=5, max_size=5),
)
FAILURES = st.builds(
    Failure,
    phase=st.sampled_from(Phase),
    sqlstate=SQLSTATES,
    lost=st.booleans(),
    fatal=st.booleans(),
    notice=st.sampled_from(["", "57P01", "57P02"]),
    routine=st.sampled_from(["", "RevalidateCachedQuery", "ProcessInterrupts"]),
    tag=st.sampled_from(["", "ROLLBACK"]),
    chosen=st.booleans(),
)


@given(FAILURES)
def test_what_may_be_committed_is_never_repeated(failure: Failure) -> None:
    verdict = judge(failure)
    if verdict.outcome is Outcome.UNKNOWN or failure.phase is Phase.AUTOCOMMIT:
        assert verdict.repeat is Repeat.NEVER


@given(FAILURES)
def test_a_lost_connection_is_always_evicted(failure: Failure) -> None:
    for known in ({"lost": True}, {"fatal": True}):
        assert judge(replace(failure, **known)).evict  # type: ignore[arg-type]


@given(FAILURES)
def test_after_commit_was_sent_only_an_errors_answer_is_sure(failure: Failure) -> None:
    verdict = judge(replace(failure, phase=Phase.COMMIT, tag=""))
    if failure.lost or failure.fatal or not failure.sqlstate or failure.sqlstate[:2] == "08":
        assert verdict.outcome is Outcome.UNKNOWN


@given(FAILURES)
def test_before_commit_was_sent_nothing_is_in_doubt(failure: Failure) -> None:
    for phase in (Phase.LENT, Phase.WORK):
        assert judge(replace(failure, phase=phase)).outcome is not Outcome.UNKNOWN


@given(FAILURES)
def test_others_are_suspected_only_with_the_connection_itself(failure: Failure) -> None:
    verdict = judge(failure)
    if verdict.suspect:
        assert verdict.evict
        assert verdict.meaning in SUSPECTING or failure.sqlstate == "57P04"


@given(st.text(min_size=5, max_size=5), st.sampled_from(Phase))
def test_unknown_sqlstates_are_the_works_own(sqlstate: str, phase: Phase) -> None:
    if sqlstate not in TABLE and sqlstate[:2] not in TABLE and not sqlstate.startswith("57P"):
        verdict = judge(Failure(phase, sqlstate))
        assert (verdict.meaning, verdict.evict, verdict.suspect) == (Meaning.WORK, False, False)
        assert verdict.repeat is Repeat.NEVER
