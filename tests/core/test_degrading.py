"""What callers get when the pool cannot serve them: soon, with the reason, and when to return."""

from __future__ import annotations

import pytest

from everpool.core.connector import DELAY_WANTED, PATIENCE_LEAST
from everpool.core.events import Paused, QueueChanged, Recovered, Resumed
from everpool.core.health import SATURATED_AFTER

from .simulation import World, started


class TestWhenDown:
    def test_by_default_callers_wait_out_their_deadline(self):
        world = started(min_size=2, max_size=2)
        world.server.refused = True
        world.cut()
        world.run(0.1)
        caller = world.request(timeout=3.0)
        world.run(5.0)
        assert caller.refusal.code == "timeout"
        assert caller.waited == pytest.approx(3.0)

    @pytest.mark.parametrize("fault", ["refused", "silent"])
    def test_fail_tells_the_cause_within_one_period(self, fault):
        world = started(min_size=2, max_size=2, when_down="fail")
        setattr(world.server, fault, True)
        world.cut()
        for _ in range(200):
            world.run(0.037)
            world.request(timeout=30.0)
        world.run(2.0)
        for caller in world.callers:
            assert caller.refusal is not None and caller.refusal.code == "down"
            assert caller.waited <= max(DELAY_WANTED, PATIENCE_LEAST) + 0.01
            assert 0 < caller.refusal.retry_after <= 2.5
        assert ("refused" in caller.refusal.text) == (fault == "refused")

    def test_fail_serves_again_at_once_after_the_end(self):
        world = started(min_size=2, max_size=2, when_down="fail")
        world.server.refused = True
        world.cut()
        world.run(10.0)
        assert world.hold(0.1).state in ("refused", "waiting")
        world.heal()
        world.run(2.1)  # nobody waited: the longer cap holds
        caller = world.hold(0.1)
        world.run(0.2)
        assert caller.state == "done" and caller.waited < 0.01
        assert len(world.tell_of(Recovered)) == 1

    def test_fail_with_nobody_to_refill_for_still_recovers(self):
        """With min_size=0 only callers make the pool connect."""
        world = World(min_size=0, max_size=2, when_down="fail")
        world.server.refused = True
        for _ in range(40):
            world.request()
            world.run(0.25)
        assert {c.refusal.code for c in world.callers} == {"down"}
        world.heal()
        states = []
        for _ in range(8):
            caller = world.hold(0.01)
            world.run(0.25)
            states.append(caller.state)
        assert states[-1] == "done" and "done" in states[:5]

    @pytest.mark.parametrize("size", [2, 10])
    def test_fail_does_not_wait_for_connections_that_are_silent(self, size):
        world = started(min_size=size, max_size=size, when_down="fail")
        world.server.silent = True
        for _ in range(60):
            world.request(timeout=30.0)
            world.run(0.5)
        world.run(2.0)
        assert {c.refusal.code for c in world.callers if c.refusal} == {"down"}
        assert max(c.waited for c in world.callers if c.state != "holding") < 3.0

    @pytest.mark.parametrize("fault", ["refused", "silent"])
    def test_who_waits_for_the_pool_to_fill_may_come_before_the_database(self, fault):
        world = World(min_size=2, max_size=2, when_down="fail")
        setattr(world.server, fault, True)
        waiter = world.wait_full(timeout=20.0)
        world.run(5.0)
        late = world.wait_full(timeout=20.0)
        world.run(1.0)
        assert waiter.refusal is None and late.refusal is None
        world.heal()
        world.run(3.0)
        assert waiter.gone and late.gone and waiter.refusal is None and late.refusal is None

    def test_fail_lends_what_there_is(self):
        world = started(min_size=2, max_size=4, when_down="fail")
        world.server.refused = True
        holders = world.borrow(2)
        caller = world.request(timeout=5.0)  # wants a third, which cannot be opened
        world.run(1.0)
        assert caller.state == "waiting"
        world.release(holders[0])
        world.run(0.1)
        assert caller.state == "holding"


class TestHopelessWaits:
    def busy(self, hold: float, callers: int, timeout: float) -> World:
        """Two connections, lent for ``hold`` each time, and a queue."""
        world = started(min_size=2, max_size=2)
        for _ in range(callers):
            world.hold(hold, timeout=timeout)
        return world

    def test_a_wait_that_cannot_be_met_in_time_is_refused_at_once(self):
        world = self.busy(1.0, 60, timeout=60.0)  # two a second, so half a minute's worth
        world.run(5.5)
        caller = world.request(timeout=5.0)
        world.run(0.001)
        assert caller.refusal.code == "saturated"
        assert caller.waited == pytest.approx(0, abs=0.01)
        assert 20 < caller.refusal.retry_after < 30
        assert "2 a second" in caller.refusal.text

    def test_one_that_can_be_met_is_not(self):
        world = self.busy(1.0, 20, timeout=60.0)
        world.run(5.5)  # about nine still wait: 5 s
        caller = world.hold(0.0, timeout=5.0)
        world.run(10.0)
        assert caller.state == "done"

    def test_without_evidence_nobody_is_refused(self):
        world = self.busy(1.0, 60, timeout=60.0)
        caller = world.request(timeout=0.5)
        world.run(0.001)
        assert caller.state == "waiting"

    def test_saturation_is_told_once_and_its_end_too(self):
        world = self.busy(0.5, 20, timeout=60.0)
        world.run(60.0)
        began, ended = world.tell_of(QueueChanged)
        assert began.saturated and began.waiting > 0 and began.longest >= SATURATED_AFTER
        assert not ended.saturated
        assert not world.machine.saturated and world.machine.rate == 0.0

    def test_a_queue_that_moves_fast_is_not_saturated(self):
        world = self.busy(0.01, 1000, timeout=60.0)
        world.run(0.9)
        world.run(10.0)
        waited = max(c.waited for c in world.callers)
        told = bool(world.tell_of(QueueChanged))
        assert told == (waited > 2 * SATURATED_AFTER) or waited > SATURATED_AFTER

    def test_an_outage_is_not_saturation(self):
        world = started(min_size=1, max_size=1)
        world.server.refused = True
        world.cut()
        for _ in range(5):
            world.request(timeout=20.0)
        world.run(30.0)
        assert world.tell_of(QueueChanged) == []


class TestPause:
    def test_nothing_is_lent_until_it_ends_and_then_in_order(self):
        world = started(min_size=2, max_size=2)
        world.pause()
        callers = [world.hold(0.1, timeout=60.0) for _ in range(4)]
        world.run(10.0)
        assert {c.state for c in callers} == {"waiting"}
        assert len(world.conns) == 2
        world.resume()
        world.run(1.0)
        assert [c.state for c in callers] == ["done"] * 4
        ended = [c.ended for c in callers]
        assert ended == sorted(ended)
        assert [type(h) for _, h in world.told if isinstance(h, (Paused, Resumed))] == [
            Paused,
            Resumed,
        ]
        assert world.tell_of(Resumed)[0].paused_for == pytest.approx(10.0)

    def test_what_returns_rests(self):
        world = started(min_size=1, max_size=1)
        holder = world.borrow()[0]
        caller = world.request(timeout=60.0)
        world.pause()
        world.release(holder)
        world.run(5.0)
        assert caller.state == "waiting"
        world.resume()
        world.run(0.1)
        assert caller.state == "holding"
        assert len(world.conns) == 1  # the same connection

    def test_who_waits_keeps_his_deadline(self):
        world = started(min_size=1, max_size=1)
        world.pause()
        caller = world.request(timeout=2.0)
        world.run(3.0)
        assert caller.refusal.code == "timeout" and caller.waited == pytest.approx(2.0)
        assert "paused for 2.0 s" in caller.refusal.text

    def test_a_null_pool_keeps_nothing_afterwards(self):
        world = World(min_size=0, max_size=1, pooled=False)
        holder = world.borrow()[0]
        world.request(timeout=2.0)
        world.pause()
        world.release(holder)
        world.run(5.0)
        world.resume()
        world.run(1.0)
        assert not world.machine.slots

    def test_upkeep_goes_on(self):
        world = started(min_size=3, max_size=3, keepalive=10.0)
        world.pause()
        world.run(30.0)
        assert len(world.pinged) >= 6
        world.cut()
        world.run(5.0)
        assert len(world.alive) == 3

    def test_pausing_twice_and_resuming_twice_is_once(self):
        world = started(min_size=1, max_size=1)
        for _ in range(2):
            world.pause()
        for _ in range(2):
            world.resume()
        assert len(world.tell_of(Paused)) == len(world.tell_of(Resumed)) == 1


class TestDyingYoung:
    def test_sessions_that_end_at_once_are_not_reopened_as_fast_as_can_be(self):
        world = started(min_size=10, max_size=10)

        def hang_up() -> None:
            world.cut()
            world.after(0.005, hang_up)

        world.opens.clear()
        hang_up()
        world.run(10.0)
        assert len(world.opens) <= 10 * 25  # without a pause it was several hundred a second

    def test_one_young_mass_death_delays_nothing(self):
        world = World(min_size=10, max_size=10)
        world.wait_full()
        world.run_while(lambda: not world.filled)
        world.opens.clear()
        world.cut()
        before = world.now
        world.run_while(lambda: len(world.alive) < 10)
        assert world.opens[0] - before < 0.005  # the watch takes two milliseconds
        assert world.now - before < 0.3

    def test_a_path_that_cuts_every_second_delays_nothing(self):
        world = started(min_size=4, max_size=4)
        for _ in range(30):
            world.run(1.0)
            world.cut()
            world.run(0.05)
            caller = world.hold(0.01)
            world.run(0.1)
            assert caller.state == "done"
