"""What is told: each thing once, in order, with its numbers; states, leaks, durations."""

from __future__ import annotations

import itertools

import pytest

from everpool.core.events import (
    Closed,
    Cut,
    Drained,
    Leaked,
    Opened,
    Pinged,
    Recovered,
    StateChanged,
    Suspected,
)
from everpool.core.health import Condition, Status, judge
from everpool.core.histogram import BOUNDS, Histogram
from everpool.core.slot import State
from everpool.core.verdict import Cause

from .simulation import PASSWORD_TEXT, World, started


def states(world: World) -> list[str]:
    return [changed.after for changed in world.tell_of(StateChanged)]


class TestStates:
    def test_a_good_life(self):
        world = started(min_size=2, max_size=2)
        assert states(world) == ["up"]
        world.drain()
        world.run(1.0)
        world.close()
        world.run(1.0)
        assert states(world) == ["up", "closed"]
        assert len(world.tell_of(Drained)) == len(world.tell_of(Closed)) == 1

    def test_an_outage_and_its_end(self):
        world = started(min_size=3, max_size=3)
        world.server.refused = True
        world.cut()
        world.run(5.0)
        assert states(world) == ["up", "down"]
        world.heal()
        world.request()
        world.run(5.0)
        assert states(world) == ["up", "down", "recovering", "up"]
        down = next(c for c in world.tell_of(StateChanged) if c.after == "down")
        assert down.before == "up" and down.why == "unreachable"
        (recovered,) = world.tell_of(Recovered)
        assert recovered.down_for == pytest.approx(5.0, abs=1.0)

    def test_trouble_with_connections_left_is_doubt(self):
        world = started(min_size=2, max_size=3)
        world.borrow(2)
        world.server.refused = True
        world.request(timeout=3.0)
        world.run(1.0)
        assert states(world) == ["up", "suspect"]

    def test_one_failure_long_ago_is_no_doubt_while_the_server_answers(self):
        world = started(min_size=2, max_size=3)
        holders = world.borrow(2)
        world.server.refused = True
        world.hold(0.01, timeout=1.0)
        world.run(0.5)
        for holder in holders:
            world.release(holder)  # nobody wants a third any more
        world.heal()
        world.run(30.0)
        assert states(world) == ["up", "suspect"]
        world.run(90.0)
        assert states(world) == ["up", "suspect", "up"]
        world.server.refused = True
        world.borrow(2)
        world.hold(0.01, timeout=1.0)
        world.run(0.5)
        assert states(world)[-1] == "suspect"

    def test_a_rejection_is_doubt_for_as_long_as_nothing_disproves_it(self):
        world = started(min_size=2, max_size=3)
        holders = world.borrow(2)
        world.server.rejecting = PASSWORD_TEXT
        world.request(timeout=1.0)
        world.run(0.5)
        for holder in holders:
            world.release(holder)
        world.run(600.0)
        assert states(world) == ["up", "suspect"]

    def test_an_outage_is_not_explained_by_the_one_before(self):
        world = started(min_size=2, max_size=2)
        world.server.refused = True
        world.cut()
        world.run(3.0)
        world.heal()
        world.run(1000.0)
        world.server.silent = True
        world.cut()
        world.run(5.0)
        health = judge("pool", world.machine.vitals(world.now, 0.0))
        assert health.state is Condition.DOWN and health.status is Status.FAIL
        assert "refused" not in world.machine.picture(world.now)

    def test_lost_pings_are_doubt_and_their_answers_end_it(self):
        world = started(min_size=2, max_size=2, verify_after=1.0)
        world.run(2.0)
        world.server.silent = True
        world.hold(0.1, timeout=5.0)
        world.run(0.6)
        assert states(world)[-1] == "suspect"
        assert len(world.tell_of(Suspected)) == 2
        world.heal()
        world.run(5.0)
        assert states(world)[-1] == "up"
        assert any(pinged.late for pinged in world.tell_of(Pinged))

    def test_no_state_is_told_twice_in_a_row(self):
        world = started(min_size=4, max_size=8)
        for _ in range(20):
            world.server.refused = not world.server.refused
            world.cut(share=0.7)
            world.hold(0.2, timeout=1.0)
            world.run(world.random.uniform(0.1, 3.0))
        changes = world.tell_of(StateChanged)
        assert all(a.after == b.before for a, b in itertools.pairwise(changes))
        assert all(change.before != change.after for change in changes)


class TestOrder:
    def test_times_never_go_back_and_a_life_is_told_in_its_order(self):
        world = started(min_size=3, max_size=5)
        for _ in range(10):
            world.hold(0.05)
            world.cut(share=0.5)
            world.run(0.7)
        times = [happening.at for _, happening in world.told]
        assert times == sorted(times)
        for number in {c.number for c in world.cuts}:
            life = [type(h) for _, h in world.told if getattr(h, "number", None) == number]
            assert life[0] is Opened and life[-1] is Cut and life.count(Cut) == 1

    def test_a_cut_says_how_idle_how_old_and_whether_lent(self):
        world = World(min_size=2, max_size=2)
        world.wait_full()
        world.run(5.0)
        holder = world.borrow()[0]
        world.run(3.0)
        world.cut(cause=Cause("FATAL", "57P05", "idle"))
        world.run(0.1)
        world.release(holder)
        world.run(0.1)
        idle, lent = world.cuts
        assert (idle.lent, lent.lent) == (False, True)
        assert idle.cause.kind == "FATAL 57P05"
        assert idle.age == pytest.approx(8.0, abs=0.1)
        assert idle.silent_for == pytest.approx(8.0, abs=0.1)


class TestLeaks:
    def test_a_long_loan_is_told_once(self):
        world = started(min_size=2, max_size=2, leak_after=60.0)
        holder = world.borrow()[0]
        world.run(300.0)
        (leak,) = world.tell_of(Leaked)
        assert not leak.dropped and leak.number == holder.slot.number
        assert 60.0 <= leak.lent_for <= 65.0
        world.release(holder)
        world.borrow(2)
        world.run(100.0)
        assert len(world.tell_of(Leaked)) == 3

    def test_one_that_is_dropped_is_told(self):
        world = started(min_size=1, max_size=1)
        world.drop(world.borrow()[0])
        world.run(1.0)
        (leak,) = world.tell_of(Leaked)
        assert leak.dropped

    def test_inf_switches_it_off(self):
        world = started(min_size=1, max_size=1, leak_after=float("inf"))
        world.borrow()
        world.run(100_000.0)
        assert world.tell_of(Leaked) == []


class TestDurations:
    @pytest.mark.parametrize("index", range(len(BOUNDS)))
    def test_a_bound_belongs_to_its_bucket(self, index):
        histogram = Histogram()
        histogram.record(BOUNDS[index])
        histogram.record(BOUNDS[index] * 1.0001)
        assert histogram.counts[index] == histogram.counts[index + 1] == 1
        assert histogram.sum == pytest.approx(2 * BOUNDS[index], rel=0.001)

    def test_every_loan_is_counted_once_however_it_ends(self):
        world = started(min_size=3, max_size=3)
        ends = 0
        for hold in (0.0005, 0.003, 0.2, 7.0):
            for end in ("release", "release_broken", "release_with_work", "drop"):
                caller = world.borrow()[0]
                world.run(hold)
                getattr(world, end)(caller)
                world.run(0.1)
                ends += 1
        machine = world.machine
        assert machine.returns == ends
        assert machine.brief_uses == 4
        assert machine.uses.counts[1] == machine.uses.counts[5] - 0 == 4
        assert machine.used == pytest.approx(4 * (0.0005 + 0.003 + 0.2 + 7.0))

    def test_waits_of_those_served_and_of_those_not(self):
        world = started(min_size=1, max_size=1, verify_after=1e9)
        holder = world.borrow()[0]
        served, late = world.request(timeout=30.0), world.request(timeout=1.0)
        world.run(2.0)
        world.release(holder)
        world.run(0.1)
        assert served.state == "holding" and late.state == "refused"
        machine = world.machine
        assert sum(machine.waits.counts) == 1 and machine.waits.sum == pytest.approx(2.0)
        assert machine.waited_in_vain == pytest.approx(1.0)
        assert machine.waits_none() == 1  # the holder
        assert machine.refusals == {"timeout": 1}

    def test_connects(self):
        world = started(min_size=3, max_size=3)
        assert sum(world.machine.creations.counts) == 3
        assert world.machine.creations.sum == pytest.approx(3 * 0.020, rel=0.01)


class TestProbing:
    def test_a_thousand_who_ask_cause_one_ping(self):
        world = started(min_size=4, max_size=4, keepalive=1e6)
        world.run(20.0)
        world.pinged.clear()
        for _ in range(1000):
            assert world.machine.stale(world.now) or world.pinged
            world.machine.probe(world.now)
            world.settle()
        assert len(world.pinged) == 1
        world.run(1.0)
        assert not world.machine.stale(world.now)

    def test_what_is_fresh_is_not_tested(self):
        world = started(min_size=4, max_size=4)
        world.run(5.0)
        world.machine.probe(world.now)
        world.settle()
        assert world.pinged == []

    def test_the_silent_are_not_pinged_over_and_over(self):
        world = started(min_size=4, max_size=4, keepalive=1e6)
        world.run(20.0)
        world.server.silent = True
        world.pinged.clear()
        for _ in range(500):
            world.machine.probe(world.now)
            world.settle()
            world.run(0.1)
        assert len(world.pinged) <= 4
        assert world.count(State.IDLE) == 0
