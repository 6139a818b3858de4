"""Opening connections: growth, slow start, outages of every kind, and the way back."""

from __future__ import annotations

import random
from math import inf

import pytest

from everpool.core.events import Opened, Recovered
from everpool.core.slot import State
from everpool.core.verdict import Trouble

from .simulation import CROWDED_TEXT, PASSWORD_TEXT, TERMINATED, Server, World, started


def attempts_at_once(world: World) -> int:
    return world.count(State.OPENING, State.DISOWNED)


class TestGrowth:
    def test_a_burst_opens_no_more_than_max_connecting_at_once(self):
        world = started(min_size=4, max_size=60, max_connecting=16)
        callers = [world.request() for _ in range(50)]
        world.run(0.001)
        assert attempts_at_once(world) == 16
        world.run_while(lambda: any(c.state == "waiting" for c in callers))
        assert world.most_outstanding == 16

    def test_a_burst_is_served_in_rounds_of_max_connecting(self):
        world = started(min_size=4, max_size=60, max_connecting=8)
        callers = [world.request() for _ in range(4 + 24)]
        world.run(0.1)
        assert all(c.state == "holding" for c in callers)
        assert max(c.waited for c in callers) == pytest.approx(3 * 0.020, abs=0.002)

    def test_growth_stops_at_max_size(self):
        world = started(min_size=1, max_size=5)
        callers = [world.request(timeout=2.0) for _ in range(9)]
        world.run(1.0)
        assert [c.state for c in callers] == ["holding"] * 5 + ["waiting"] * 4

    def test_a_new_pool_serves_its_first_caller_before_it_opens_the_rest(self):
        world = World(min_size=10, max_size=10)
        world.request()
        assert attempts_at_once(world) == 1
        world.run(0.5)
        assert len(world.machine.slots) == 10

    def test_callers_who_left_are_not_opened_for(self):
        world = started(min_size=0, max_size=5, max_connecting=1)
        callers = [world.request() for _ in range(5)]
        for caller in callers[1:]:
            world.abandon(caller)
        world.run(1.0)
        assert callers[0].state == "holding"
        assert len(world.opens) == 1

    def test_a_slow_rollback_does_not_hold_up_a_caller_while_there_is_room(self):
        world = started(min_size=1, max_size=5)
        (holder,) = world.borrow()
        world.release_with_work(holder, takes=8.0)
        caller = world.request()
        world.run(1.0)
        assert caller.state == "holding"
        assert caller.waited < 0.1


class TestSlowStart:
    def rounds(self, world: World, since: float) -> list[int]:
        """How many attempts began in each round trip of connecting."""
        times = sorted({round(t, 6) for t in world.opens if t >= since})
        return [sum(round(t, 6) == one for t in world.opens) for one in times]

    def test_after_a_mass_death_one_goes_alone_then_two_then_four_then_eight(self):
        world = started(min_size=20, max_size=20)
        world.cut()
        cut_at = world.now
        world.run(2.0)
        assert self.rounds(world, cut_at) == [1, 2, 4, 8, 5]

    def test_a_pool_without_min_size_starts_slowly_too(self):
        world = started(min_size=0, max_size=20)
        callers = [world.request() for _ in range(20)]
        world.run(1.0)
        for caller in callers:
            world.release(caller)
        world.cut()
        world.run(1.0)
        cut_at = world.now
        callers = [world.request() for _ in range(15)]
        world.run(1.0)
        assert all(c.state == "holding" for c in callers)
        assert self.rounds(world, cut_at) == [1, 2, 4, 8]

    def test_it_holds_after_an_outage_too(self):
        world = started(min_size=20, max_size=20)
        world.server.refused = True
        world.cut()
        world.run(10.0)
        world.heal()
        healed = world.now
        world.run(3.0)
        assert self.rounds(world, healed) == [1, 2, 4, 8, 5]

    def test_the_window_opens_again_when_all_is_well(self):
        world = started(min_size=2, max_size=20)
        world.cut()
        world.run(2.0)
        callers = [world.request() for _ in range(14)]
        world.run(0.001)
        assert attempts_at_once(world) == 12
        world.run(1.0)
        assert all(c.state == "holding" for c in callers)


def first_success_after(world: World, healed: float) -> float:
    world.run_while(lambda: not any(t >= healed for t, _ in opened(world)), limit=120.0)
    return world.now - healed


def opened(world: World) -> list[tuple[float, object]]:
    return [(t, h) for t, h in world.told if isinstance(h, Opened)]


class TestRefusedOutage:
    @pytest.mark.parametrize("length", [4.0, 9.0, 20.0, 600.0])
    def test_never_more_than_one_attempt_and_back_within_a_second(self, length):
        for seed in range(200 if length < 100 else 20):
            world = started(seed, min_size=4, max_size=4, checking=False)
            world.server.refused = True
            world.cut()
            caller = world.request(timeout=inf)
            world.run(0.5)
            world.most_outstanding = 0
            world.run(length + random.Random(seed).random())
            assert world.most_outstanding == 1
            assert caller.state == "waiting"
            world.heal()
            assert first_success_after(world, world.now) <= 1.0, f"seed {seed}"

    def test_the_strict_checks_hold_through_an_outage(self):
        world = started(min_size=4, max_size=10)
        world.server.refused = True
        world.cut()
        callers = [world.hold(0.1, timeout=20.0) for _ in range(30)]
        world.run(15.0)
        world.heal()
        world.run(5.0)
        assert all(c.state == "done" for c in callers)
        (recovered,) = world.tell_of(Recovered)
        assert recovered.down_for == pytest.approx(15.0, abs=1.1)

    def test_an_unwanted_pool_tries_more_slowly(self):
        def attempts(wanted: bool) -> int:
            world = started(min_size=4, max_size=4)
            world.server.refused = True
            world.cut()
            if wanted:
                world.request(timeout=inf)
            before = len(world.opens)
            world.run(100.0)
            return len(world.opens) - before

        assert attempts(wanted=False) < 0.6 * attempts(wanted=True)

    def test_whoever_comes_in_the_middle_hurries_the_next_attempt(self):
        for seed in range(100):
            world = started(seed, min_size=4, max_size=4)
            world.server.refused = True
            world.cut()
            world.run(30.0)
            world.heal()
            caller = world.request()
            world.run(2.5)
            assert caller.state == "holding"
            assert caller.waited <= 0.8 + 0.05

    def test_whoever_waits_for_a_full_pool_hurries_it_too(self):
        for seed in range(100):
            world = World(seed=seed, min_size=1, max_size=4)
            world.server.refused = True
            world.run(30.0)
            world.wait_full()
            world.run(10.0)
            world.heal()
            assert first_success_after(world, world.now) <= 1.0

    def test_what_was_lent_stays_lent_and_serves_on(self):
        world = started(min_size=4, max_size=4)
        callers = world.borrow(2)
        holders = {id(c.conn) for c in callers}
        world.server.refused = True
        world.cut([c for c in world.alive if id(c) not in holders])
        world.run(10.0)
        waiting = world.request()
        world.release(callers[0])
        world.run(1.0)
        assert waiting.state == "holding"

    def test_nobody_waiting_and_no_min_size_means_no_attempts(self):
        world = started(min_size=0, max_size=4)
        world.server.refused = True
        world.request(timeout=1.0)
        world.run(2.0)
        before = len(world.opens)
        world.run(600.0)
        assert len(world.opens) == before


class TestSilentOutage:
    @pytest.mark.parametrize("late_answers", [True, False])
    @pytest.mark.parametrize("length", [4.0, 30.0, 600.0])
    def test_two_outstanding_at_most_and_back_soon(self, length, late_answers):
        for seed in range(40 if length < 100 else 4):
            world = started(seed, min_size=4, max_size=4)
            world.server.late_answers = late_answers
            world.server.silent = True
            world.cut_in_silence()
            caller = world.request(timeout=inf)
            world.run(3.0)
            world.most_outstanding = 0
            world.run(length + random.Random(seed).random())
            assert world.most_outstanding <= 2
            patience = world.machine.connector.patience
            world.heal()
            assert first_success_after(world, world.now) <= 1.0 + patience
            world.run(0.1)
            assert caller.state == "holding"

    def test_attempts_that_cannot_be_stopped_stay_two(self):
        world = started(min_size=4, max_size=4, server=Server(abandon_takes=None))
        world.most_outstanding = 0
        world.server.silent = True
        world.cut_in_silence()
        world.request(timeout=inf)
        world.run(60.0)
        assert world.most_outstanding == 2
        world.heal()
        assert first_success_after(world, world.now) <= 1.0

    def test_a_burst_of_hung_attempts_shrinks_to_two(self):
        world = started(min_size=0, max_size=20, max_connecting=16)
        callers = world.borrow(20)
        world.server.silent = True
        world.cut_in_silence()
        for caller in callers:
            world.release_broken(caller)
        for _ in range(20):
            world.request(timeout=inf)
        world.run(0.01)
        assert attempts_at_once(world) == 16
        world.run(5.0)
        assert attempts_at_once(world) <= 2

    def test_a_server_that_wakes_slowly_is_reached_in_the_end(self):
        for takes in (3.0, 5.0, 9.0):
            world = World(min_size=2, max_size=4, server=Server(connect_takes=takes))
            caller = world.request()
            world.run(takes + 0.1)
            assert caller.state == "holding", takes
            world.run(60.0)
            assert world.count(State.IDLE, State.LENT) == 2

    def test_an_attempt_adopted_late_does_not_pass_for_lent_when_it_dies(self):
        world = World(min_size=2, max_size=4, server=Server(connect_takes=5.0, abandon_takes=None))
        world.run(30.0)
        adopted = world.count(State.IDLE)
        assert adopted >= 2
        world.cut()
        world.run(1.0)
        assert [cut.lent for cut in world.cuts] == [False] * adopted

    def test_an_attempt_in_flight_does_not_keep_the_background_busy(self):
        world = started(min_size=4, max_size=4)
        world.server.silent = True
        world.cut_in_silence()
        world.request(timeout=inf)
        world.run(5.0)
        before = world.ticks
        world.run(10.0)
        assert world.ticks - before < 100


class TestRejected:
    def test_callers_are_refused_at_once_with_the_reason(self):
        world = World(min_size=2, max_size=4, server=Server(rejecting=PASSWORD_TEXT))
        first = world.request()
        world.run(0.1)
        assert first.state == "refused" and first.waited < 0.05
        later = world.request()
        assert later.state in ("waiting", "refused")
        world.run(0.001)
        assert later.refusal is not None and later.refusal.code == "rejected"
        assert "password authentication failed" in later.refusal.text

    def test_attempts_slow_down_to_one_in_thirty_seconds(self):
        world = World(min_size=2, max_size=4, server=Server(rejecting=PASSWORD_TEXT))
        for _ in range(600):
            world.request()
            world.run(1.0)
        gaps = [b - a for a, b in zip(world.opens, world.opens[1:], strict=False)]
        assert all(15.0 <= gap <= 30.1 for gap in gaps[6:])
        assert len(world.opens) < 45

    def test_it_recovers_when_the_password_is_right_again(self):
        world = World(min_size=2, max_size=4, server=Server(rejecting=PASSWORD_TEXT))
        world.run(300.0)
        world.heal()
        world.run(31.0)
        world.borrow()

    @pytest.mark.parametrize("pooled", [True, False])
    def test_a_pool_without_min_size_recovers_too(self, pooled):
        world = World(min_size=0, max_size=4, pooled=pooled, server=Server(rejecting=PASSWORD_TEXT))
        for _ in range(60):
            caller = world.request()
            world.run(1.0)
            assert caller.state == "refused"
            assert caller.waited < 0.1
        world.heal()
        states = []
        for _ in range(60):
            caller = world.hold(0.1)
            world.run(0.5)
            states.append(caller.state)
        assert states[-1] == "done"

    def test_those_with_connections_keep_them_and_others_wait_for_a_return(self):
        world = started(min_size=1, max_size=4)
        (holder,) = world.borrow()
        world.server.rejecting = PASSWORD_TEXT
        waiting = world.request()
        world.run(1.0)
        assert waiting.state == "waiting"
        world.release(holder)
        world.run(0.1)
        assert waiting.state == "holding"

    def test_waiters_are_told_when_the_last_working_connection_goes(self):
        world = started(min_size=1, max_size=4)
        (holder,) = world.borrow()
        world.server.rejecting = PASSWORD_TEXT
        waiting = world.request()
        world.run(10.0)
        world.release_broken(holder)
        world.run(0.01)
        assert waiting.state == "refused"

    def test_who_waits_for_a_full_pool_is_told_too(self):
        world = World(min_size=2, max_size=4, server=Server(rejecting=PASSWORD_TEXT))
        waiter = world.wait_full()
        world.run(0.1)
        assert waiter.refusal is not None and waiter.refusal.code == "rejected"


class TestCrowded:
    def test_what_rests_is_lent_and_the_rest_waits(self):
        world = started(min_size=2, max_size=10, server=Server(room=3))
        callers = [world.hold(0.05, timeout=20.0) for _ in range(12)]
        world.run(5.0)
        assert all(c.state == "done" for c in callers)
        assert world.machine.connector.trouble is Trouble.CROWDED or len(world.alive) == 3

    def test_attempts_back_off(self):
        world = started(min_size=2, max_size=10, server=Server(room=2))
        for _ in range(4):
            world.request(timeout=inf)
        before = len(world.opens)
        world.run(60.0)
        assert len(world.opens) - before < 60 / 0.3
        assert all(f.text == CROWDED_TEXT for f in world.failures)

    def test_nothing_at_rest_is_suspected_of_it(self):
        world = started(min_size=4, max_size=10, server=Server(room=4))
        callers = world.borrow(4)
        world.request()
        for caller in callers[:3]:
            world.release(caller)
        pinged = len(world.pinged)
        world.run(2.0)
        assert len(world.pinged) == pinged


class TestReconnectFailed:
    @pytest.mark.parametrize("silent", [False, True])
    def test_it_is_called_once_in_each_reconnect_timeout_and_trying_goes_on(self, silent):
        world = started(min_size=4, max_size=4, reconnect_timeout=60.0)
        began = world.now
        world.server.silent, world.server.refused = silent, not silent
        world.cut_in_silence() if silent else world.cut()
        world.request(timeout=inf)
        world.run(310.0)
        assert 4 <= len(world.callbacks) <= 5
        assert world.callbacks[0] - began == pytest.approx(61.5, abs=2.0)
        assert max(world.opens) > world.now - 10.0

    def test_it_stops_with_the_outage(self):
        world = started(min_size=4, max_size=4, reconnect_timeout=60.0)
        world.server.refused = True
        world.cut()
        world.run(50.0)
        world.heal()
        world.run(500.0)
        assert not world.callbacks

    def test_no_trying_no_call(self):
        world = started(min_size=0, max_size=4, reconnect_timeout=60.0)
        world.server.refused = True
        world.request(timeout=1.0)
        world.run(600.0)
        assert not world.callbacks

    def test_a_timeout_of_zero_calls_no_loop(self):
        world = World(min_size=1, max_size=4, reconnect_timeout=0.0, server=Server(refused=True))
        world.run(10.0)
        assert 1 <= len(world.callbacks) <= 200


class TestCausesThatConcernAll:
    def test_an_admin_shutdown_of_one_has_the_others_tested(self):
        world = started(min_size=10, max_size=10)
        pinged = len(world.pinged)
        world.cut([world.alive[0]], TERMINATED)
        world.run(1.0)
        assert len(world.pinged) - pinged == 9
        assert world.count(State.IDLE) == 10

    def test_a_reset_of_one_does_not(self):
        world = started(min_size=10, max_size=10)
        pinged = len(world.pinged)
        world.cut([world.alive[0]])
        world.run(1.0)
        assert len(world.pinged) == pinged
