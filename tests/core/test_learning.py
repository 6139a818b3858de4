"""A pool follows what the deaths of its connections teach, and finds out when it is no longer so."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from everpool.core.events import Cut, Learned, Retired
from everpool.core.policy import Reason
from everpool.core.verdict import Cause

from .random_paths import (
    DAY,
    FREE,
    HOUR,
    START,
    live,
    long_sleeps,
    pool_on,
    restart,
    trouble,
    visit,
)
from .simulation import KILLERS, Path, World

LOUD = sorted(KILLERS)
UNHEARD = ["rst-next", "silence"]
GIVEN = {name: Reason("given", "given") for name in ("keepalive", "max_lifetime")}


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with long_sleeps():
        yield


def learned(world: World, setting: str = "keepalive") -> list[Learned]:
    return [told for told in world.tell_of(Learned) if told.setting == setting]


def lessons(world: World) -> Any:
    return world.machine.learner.beliefs()


class TestTightening:
    @pytest.mark.parametrize("kill", LOUD)
    @pytest.mark.parametrize("cut", [30.0, 350.0, 580.0])
    def test_of_a_cut_that_is_heard_the_third_generation_is_the_last(self, kill, cut):
        world = pool_on(Path(cut, kill=kill), 1)
        world.run(HOUR if cut < 450 else 4 * HOUR)
        assert world.machine.keepalive == pytest.approx(0.4 * cut, rel=0.01)
        (told,) = learned(world)
        assert (told.before, told.contradicts) == (START, False)
        assert "idle cut" in told.why and f"{cut:g} s of silence" in told.why
        assert "3 separate moments" in told.why
        if cut < 450:
            assert world.path_cuts <= 3 * 4

    @pytest.mark.parametrize("kill", UNHEARD)
    @pytest.mark.parametrize("cut", [30.0, 100.0, 350.0, 580.0])
    def test_a_silent_one_is_closed_in_on(self, kill, cut):
        world = pool_on(Path(cut, kill=kill), 1)
        world.run(3 * HOUR)
        assert world.machine.keepalive < cut
        before = world.path_cuts
        world.run(DAY)
        assert world.path_cuts - before <= world.machine.experiments

    @pytest.mark.parametrize("kill", LOUD)
    def test_an_age_is_told_from_idleness(self, kill):
        world = pool_on(Path(max_age=700.0, kill=kill), 1, keepalive=45.0)
        visit(world, 30.0)
        world.run(3 * HOUR)
        assert world.machine.lifetime == pytest.approx(630.0, rel=0.01)
        assert world.machine.keepalive == 45.0
        (told,) = learned(world, "max_lifetime")
        assert (told.before, told.after) == (3600.0, pytest.approx(630.0, rel=0.01))
        assert "a maximum age" in told.why

    def test_connections_that_were_open_already_go_in_time_too(self):
        world = pool_on(Path(max_age=700.0, kill="fin"), 1, keepalive=45.0)
        world.run(HOUR)
        before = world.path_cuts
        world.run(DAY)
        assert world.path_cuts - before <= world.machine.experiments

    def test_both_at_once(self):
        world = pool_on(Path(200.0, 900.0, "rst"), 1)
        visit(world, 60.0)
        world.run(3 * HOUR)
        assert world.machine.keepalive == pytest.approx(80.0, rel=0.01)
        assert world.machine.lifetime == pytest.approx(810.0, rel=0.01)

    def test_nobody_notices_while_it_learns(self):
        for kill in (*LOUD, *UNHEARD):
            world = pool_on(Path(100.0, kill=kill), 1)
            visit(world, 45.0)
            world.run(6 * HOUR)
            assert world.lent_dead == world.broken == 0
            assert {c.state for c in world.callers} <= {"done", "holding"}

    def test_a_server_that_says_so_is_believed_at_once(self):
        world = pool_on(Path(), 1)
        world.run(500.0)
        world.cut([world.alive[0]], Cause("FATAL", "57P05", "idle-session timeout"))
        world.run(10.0)
        assert learned(world)


class TestRestraint:
    def test_restarts_are_no_cut(self):
        for seed in range(5):
            world = pool_on(Path(), seed)
            trouble(world, restarts=24, failovers=0, flaps=0)
            world.run(3 * DAY)
            assert world.machine.keepalive == START and world.machine.lifetime == 3600.0
            assert not learned(world) and not learned(world, "max_lifetime")

    @pytest.mark.parametrize("size", [1, 4])
    def test_not_even_failovers_in_silence_drive_it_far(self, size):
        """Found by pings only, and by a single connection, they look like a cut most."""
        tightened = 0
        for seed in range(20):
            world = pool_on(Path(), seed, min_size=size, max_size=size)
            trouble(world, restarts=4, failovers=2, flaps=2)
            least = START
            for _ in range(48):
                world.run(HOUR)
                least = min(least, world.machine.keepalive)
            assert least > 0.25 * START
            tightened += least < START
        assert tightened <= 1

    def test_a_nightly_restart_is_none_either(self):
        world = pool_on(Path(), 1, keepalive=45.0)
        for _ in range(10):
            world.run(DAY)
            restart(world)
        assert not world.tell_of(Learned)

    def test_what_is_given_is_kept_and_the_contradiction_told_once(self):
        world = pool_on(Path(300.0), 1, reasons=GIVEN)
        world.run(2 * DAY)
        (told,) = learned(world)
        assert (told.before, told.after, told.contradicts) == (
            START,
            pytest.approx(120.0, rel=0.01),
            True,
        )
        assert world.machine.keepalive == START
        world.path = Path()
        world.run(2 * DAY)
        assert [t.contradicts for t in learned(world)] == [True, False]

    def test_who_does_not_want_it_to_learn_is_obeyed(self):
        world = pool_on(Path(300.0), 1, learn=False)
        world.run(DAY)
        assert not world.tell_of(Learned) and not world.machine.learner.idle.events

    def test_a_database_that_is_let_sleep_is_not_woken_by_what_is_learned(self):
        reasons = {"keepalive": Reason("environment", "a ping would keep neon awake")}
        world = pool_on(Path(300.0), 1, keepalive=inf, reasons=reasons)
        world.run(DAY)
        assert world.machine.keepalive == inf and not learned(world)

    def test_settings_changed_at_run_time_are_given(self):
        world = pool_on(Path(max_age=700.0, kill="fin"), 1, keepalive=45.0)
        world.run(HOUR)
        assert world.machine.lifetime == pytest.approx(630.0, rel=0.01)
        world.machine.change(world.machine.policy.changed(max_lifetime=1000.0), world.now)
        world.settle()
        assert world.machine.lifetime == 1000.0
        world.run(HOUR)
        assert world.machine.lifetime == 1000.0
        assert learned(world, "max_lifetime")[-1].contradicts

    def test_a_cut_is_not_worth_a_line_for_each_new_death(self):
        world = pool_on(Path(350.0), 1)
        trouble(world, 2, 0, 4)
        world.run(4 * DAY)
        assert len(learned(world)) == 1


class TestOddities:
    def test_a_corpse_that_is_returned_late_spoils_nothing(self):
        world = pool_on(Path(350.0), 1, min_size=4, max_size=6)
        world.run(10.0)
        (holder,) = world.borrow(1)
        assert holder.conn is not None
        world.cut([holder.conn])
        world.run(2 * HOUR)
        keepalive = world.machine.keepalive
        assert keepalive < 350.0
        world.release(holder)
        world.run(60.0)
        assert world.machine.keepalive == keepalive

    def test_who_does_not_ask_before_lending_is_not_experimented_on(self):
        world = pool_on(Path(100.0, kill="silence"), 1, verify_after=inf, keepalive=40.0)
        saved = pool_on(Path(100.0), 2)
        saved.run(HOUR)
        world.machine.taught(saved.machine.learner.save(saved.now), 0.0, world.now)
        visit(world, 140.0)
        world.run(12 * HOUR)
        assert world.lent_dead == 0 and world.path_cuts == 0

    def test_what_dies_while_this_machine_sleeps_is_no_sample(self):
        world = pool_on(Path(), 1, keepalive=45.0)
        for hours in (8, 2, 30, 3, 2, 2):
            world.run(25.0)
            for conn in world.alive:
                conn.cause = Cause("RST")
            world.slept(hours * HOUR)
            world.run(30.0)
            assert all(cut.silent_for > HOUR for cut in world.tell_of(Cut)[-4:])
        assert not world.tell_of(Learned)

    @pytest.mark.parametrize("reasons", [FREE, GIVEN], ids=["free", "given"])
    def test_a_cut_of_some_paths_only_is_not_told_again_and_again(self, reasons):
        world = pool_on(Path(), 1, reasons=reasons)

        def some() -> None:
            for conn in world.alive:
                if conn.number % 2 and world.now - conn.heard_at >= 350.0:
                    world.cut([conn], Cause("RST"))
            world.after(5.0, some)

        some()
        world.run(3 * DAY)
        assert 1 <= len(learned(world)) <= 12

    def test_an_outage_whose_connects_hang_long_is_one(self):
        world = pool_on(Path(), 1)
        world.server.connect_timeout = 25.0
        for _ in range(4):
            world.run(300.0)
            world.server.silent = True
            world.cut(world.alive, Cause("RST"))
            world.run(40.0)
            world.heal()
            world.run(20.0)
        assert not learned(world)

    def test_deaths_that_never_end_are_learned_from_all_the_same(self):
        world = pool_on(Path(), 1, keepalive=45.0)

        def one() -> None:
            oldest = min(world.alive, key=lambda conn: conn.heard_at)
            if world.now - oldest.heard_at >= 5.0:
                world.cut([oldest], Cause("FIN"))
            world.after(1.3, one)

        world.run(5.0)
        one()
        world.run(60.0)
        assert learned(world)

    def test_a_text_that_speaks_of_idleness_by_chance_is_not_believed(self):
        said = 'terminating connection: database "idle_heroes" was dropped'
        assert not Cause("FATAL", "57P01", said).says_idle
        for sqlstate, text in (
            ("57P05", "whatever"),
            ("08P01", "client_idle_timeout"),
            ("08006", "Connection was dropped by Odyssey due to idle timeout"),
        ):
            assert Cause("FATAL", sqlstate, text).says_idle
        assert not Cause("FATAL", "08P01", "idle transaction timeout").says_idle

    @pytest.mark.parametrize("kill", ["rst", "rst-next"])
    def test_health_probes_do_not_disturb_experiments(self, kill):
        world = pool_on(Path(100.0, kill=kill), 1)
        world.run(6 * HOUR)
        world.path = Path()

        def probe() -> None:
            world.machine.probe(world.now)
            world.settle()
            world.after(15.0, probe)

        probe()
        world.run(12 * HOUR)
        assert world.machine.keepalive == START


class TestExperiments:
    @pytest.mark.parametrize("kill", [*LOUD, *UNHEARD])
    def test_one_an_hour_and_its_death_keeps_what_is_known(self, kill):
        world = pool_on(Path(350.0, kill=kill), 1)
        world.run(3 * HOUR)
        world.told.clear()
        keepalive, cuts = world.machine.keepalive, world.path_cuts
        world.run(DAY)
        assert world.machine.keepalive == keepalive and not learned(world)
        assert 15 <= world.path_cuts - cuts <= 24

    @pytest.mark.parametrize("kill", [*LOUD, *UNHEARD])
    def test_it_relaxes_when_the_cut_goes_away(self, kill):
        world = pool_on(Path(100.0, kill=kill), 1)
        world.run(6 * HOUR)
        assert world.machine.keepalive < 100.0
        world.path = Path()
        world.run(24 * HOUR)
        assert world.machine.keepalive == START
        told = learned(world)[-1]
        assert told.after == START and "live longer" in told.why

    def test_it_relaxes_its_lifetime_too(self):
        world = pool_on(Path(max_age=700.0, kill="fin"), 1, keepalive=45.0)
        visit(world, 60.0)
        world.run(6 * HOUR)
        assert world.machine.lifetime < 700.0
        world.path = Path()
        world.run(6 * HOUR)
        assert world.machine.lifetime == 3600.0

    def test_what_is_kept_beyond_its_age_is_not_lent(self):
        """``World`` asserts that for each loan."""
        world = pool_on(Path(max_age=700.0, kill="fin"), 1, keepalive=45.0)
        world.run(3 * HOUR)
        until = world.now + 3 * HOUR
        while world.now < until:
            for _ in range(4):
                world.hold(0.5)
            world.run(5.0)
        assert world.machine.experiments > 2
        assert world.broken == world.lent_dead == 0
        assert all(c.waited < 0.2 for c in world.callers)

    def test_the_last_at_rest_is_never_risked(self):
        world = pool_on(Path(350.0), 1, min_size=1, max_size=1)
        world.run(DAY)
        assert world.machine.keepalive == pytest.approx(140.0, rel=0.01)
        assert world.machine.experiments == 0 and world.path_cuts == 3

    def test_without_them_it_is_forgotten_after_a_week(self):
        world = pool_on(Path(350.0), 1, min_size=1, max_size=1)
        world.run(DAY)
        world.path = Path()
        world.run(5 * DAY)
        assert world.machine.keepalive < START
        world.run(2 * DAY)
        assert world.machine.keepalive == START


class TestHandingOver:
    def test_the_next_process_begins_with_what_this_one_knew(self):
        world = pool_on(Path(350.0), 1)
        world.run(DAY)
        saved = world.machine.learner.save(world.now)
        heir = pool_on(Path(350.0), 2)
        heir.machine.taught(saved, 60.0, heir.now)
        heir.settle()
        assert heir.machine.keepalive == pytest.approx(140.0, rel=0.01)
        heir.run(30 * 60.0)
        assert heir.path_cuts == 0
        assert len(learned(heir)) == 1


class TestTrueSilence:
    """What a death is told with is what it died of."""

    @pytest.mark.parametrize("kill", UNHEARD)
    def test_of_one_that_its_taker_finds_dead(self, kill):
        world = pool_on(Path(100.0, kill=kill), 1, keepalive=inf, min_size=1, max_size=1)
        world.run(200.0)
        caller = world.hold(0.01)
        world.run(5.0)
        assert caller.state == "done"
        silences = [cut.silent_for for cut in world.tell_of(Cut)]
        assert silences == [pytest.approx(200.0, abs=15.0)] or world.tell_of(Retired)


def test_random_paths():
    """Some of the ten thousand that ``make simulate`` judges."""
    outcomes = [live(seed) for seed in range(24)]
    needed = [outcome for outcome in outcomes if outcome.cut < START]
    assert len(needed) >= 7
    assert all(outcome.keepalive < outcome.cut for outcome in outcomes)
    assert all(outcome.keepalive == START for outcome in outcomes if outcome.cut >= START)
    assert all(outcome.relaxed == START for outcome in needed)
    assert all(outcome.lifetime == 3600.0 for outcome in outcomes)
    assert not sum(outcome.lent_dead for outcome in outcomes)


def test_reconciling_keeps_what_was_learned():
    world = pool_on(Path(350.0), 1)
    world.run(HOUR)
    world.machine.reconcile()
    world.settle()
    assert world.machine.keepalive < START
    assert lessons(world)[0].value == pytest.approx(350.0, rel=0.01)
