"""Those who wait: order, deadlines, leaving, the null pools."""

from __future__ import annotations

from math import inf

import pytest

from everpool.core.slot import State

from .simulation import Server, World, started


class TestQueue:
    def test_first_come_first_served(self):
        world = started(min_size=1, max_size=1)
        holder = world.borrow()[0]
        callers = [world.hold(0.01) for _ in range(10)]
        world.release(holder)
        world.run(1.0)
        ended = [c.ended for c in callers]
        assert ended == sorted(ended)
        assert len(set(ended)) == 10

    def test_a_return_goes_straight_to_the_first_who_waits(self):
        world = started(min_size=1, max_size=1, wake_takes=0.5)
        holder = world.borrow()[0]
        first, second = world.request(), world.request()
        slot = holder.slot
        world.release(holder)
        assert first.waiter.slot is slot
        third = world.request()
        world.run(0.6)
        assert [c.state for c in (first, second, third)] == ["holding", "waiting", "waiting"]

    def test_who_left_is_skipped(self):
        world = started(min_size=1, max_size=1)
        holder = world.borrow()[0]
        callers = [world.request() for _ in range(3)]
        world.abandon(callers[0])
        world.abandon(callers[1])
        world.release(holder)
        world.run(0.1)
        assert [c.state for c in callers] == ["gone", "gone", "holding"]

    def test_marks_of_those_who_left_do_not_pile_up(self):
        world = started(min_size=1, max_size=1, checking=False)
        world.borrow()
        world.request(timeout=inf)
        for _ in range(2000):
            world.abandon(world.request(timeout=inf))
        assert len(world.machine.queue._waiters) < 200

    def test_max_waiting_refuses_the_next_at_once(self):
        world = started(min_size=1, max_size=1, max_waiting=3)
        world.borrow()
        callers = [world.request() for _ in range(4)]
        world.run(0.001)
        assert [c.state for c in callers] == ["waiting"] * 3 + ["refused"]
        assert callers[3].refusal.code == "full"
        assert "max_waiting=3" in callers[3].refusal.text


class TestDeadlines:
    @pytest.mark.parametrize("timeout", [0.0, 0.001, 0.7, 30.0])
    def test_waiters_are_refused_exactly_at_their_deadline(self, timeout):
        world = started(min_size=1, max_size=1)
        world.borrow()
        caller = world.request(timeout=timeout)
        world.run(timeout + 0.1)
        assert caller.state == "refused"
        assert caller.refusal.code == "timeout"
        assert caller.waited == pytest.approx(timeout, abs=1e-9)

    def test_each_at_its_own_in_whatever_order(self):
        world = started(min_size=1, max_size=1)
        world.borrow()
        callers = [world.request(timeout=t) for t in (5.0, 1.0, 3.0, inf, 2.0)]
        world.run(10.0)
        assert [c.state for c in callers] == ["refused"] * 3 + ["waiting"] + ["refused"]
        assert [c.waited for c in callers if c.ended] == pytest.approx([5.0, 1.0, 3.0, 2.0])

    @pytest.mark.parametrize("fault", ["silent", "refused"])
    def test_in_any_outage(self, fault):
        world = started(min_size=4, max_size=8)
        setattr(world.server, fault, True)
        world.cut_in_silence() if fault == "silent" else world.cut()
        callers = [world.request(timeout=3.0) for _ in range(12)]
        world.run(3.5)
        assert {c.state for c in callers} == {"refused"}
        assert {round(c.waited, 9) for c in callers} == {3.0}

    def test_the_refusal_says_what_is_the_matter(self):
        world = started(min_size=1, max_size=2)
        world.borrow(2)
        caller = world.request(timeout=2.0)
        world.run(3.0)
        assert "2 of 2 connections, 2 lent, the longest for 2.0 s" in caller.refusal.text

    def test_it_tells_the_last_error_too(self):
        world = World(min_size=1, max_size=2, server=Server(refused=True))
        caller = world.request(timeout=2.0)
        world.run(3.0)
        assert "Connection refused" in caller.refusal.text
        assert "0 of 2 connections" in caller.refusal.text or "1 of 2" in caller.refusal.text


class TestLeaving:
    def test_a_granted_connection_goes_to_the_next(self):
        world = started(min_size=1, max_size=1, wake_takes=0.1)
        holder = world.borrow()[0]
        first, second = world.request(), world.request()
        world.release(holder)
        world.abandon(first)
        world.run(1.0)
        assert first.state == "gone" and second.state == "holding"

    def test_or_rests(self):
        world = started(min_size=1, max_size=1, wake_takes=0.1)
        holder = world.borrow()[0]
        first = world.request()
        world.release(holder)
        world.abandon(first)
        world.run(1.0)
        assert world.count(State.IDLE) == 1

    def test_a_granted_one_that_died_is_buried(self):
        world = started(min_size=1, max_size=1, wake_takes=1.0)
        holder = world.borrow()[0]
        first = world.request()
        world.release(holder)
        world.cut()
        world.run(0.5)
        world.abandon(first)
        world.run(2.0)
        assert world.count(State.IDLE) == 1 == len(world.machine.slots)

    def test_leaving_twice_is_harmless(self):
        world = started(min_size=1, max_size=1)
        world.borrow()
        caller = world.request()
        world.abandon(caller)
        errors = world.machine.errors
        world.machine.abandon(caller.waiter, world.now)
        assert world.machine.errors == errors
        world.check()

    def test_an_attempt_outlives_the_caller_who_wanted_it(self):
        world = started(min_size=0, max_size=1)
        caller = world.request()
        world.abandon(caller)
        world.run(0.1)
        assert world.count(State.IDLE) == 1


class TestFullness:
    def test_waits_until_min_size_is_reached(self):
        world = World(min_size=5, max_size=8)
        waiter = world.wait_full()
        world.run(0.03)
        assert not waiter.woken
        world.run(1.0)
        ((when, _),) = world.filled
        assert waiter.refusal is None
        assert len(world.successes) == 5
        assert when - 1000.0 < 0.2

    def test_returns_at_once_when_it_is(self):
        world = started(min_size=5, max_size=8)
        world.wait_full()
        world.run(0.001)
        assert len(world.filled) == 1

    def test_connections_in_use_count(self):
        world = World(min_size=3, max_size=3)
        callers = [world.request() for _ in range(3)]
        world.wait_full()
        world.run(1.0)
        assert all(c.state == "holding" for c in callers)
        assert len(world.filled) == 1 and world.filled[0][1].refusal is None

    def test_connections_under_test_count_when_they_answer(self):
        world = started(min_size=3, max_size=3)
        world.machine.suspect_all(world.now)
        world.settle()
        world.wait_full()
        world.run(0.1)
        assert len(world.filled) == 1

    def test_is_refused_at_its_deadline(self):
        world = World(min_size=5, max_size=8, server=Server(refused=True))
        waiter = world.wait_full(timeout=3.0)
        world.run(2.9)
        assert not waiter.woken
        world.run(0.11)
        assert waiter.refusal is not None and waiter.refusal.code == "timeout"

    def test_can_be_left(self):
        world = World(min_size=5, max_size=8, server=Server(refused=True))
        waiter = world.wait_full()
        world.run(1.0)
        world.machine.lose_hope(waiter)
        world.settle()
        world.heal()
        world.run(3.0)
        assert not world.filled and not world.machine.hopes

    def test_a_null_pool_connects_once_to_prove_that_it_can(self):
        for max_size in (0, 3):
            world = World(min_size=0, max_size=max_size, pooled=False)
            world.wait_full()
            world.run(1.0)
            assert len(world.filled) == 1 and len(world.opens) == 1
            assert not world.machine.slots

    def test_a_null_pool_in_use_has_proven_it(self):
        world = World(min_size=0, max_size=1, pooled=False)
        world.borrow()
        world.wait_full()
        world.run(0.1)
        assert len(world.filled) == 1


class TestNullPools:
    def test_a_connection_is_closed_when_it_returns(self):
        world = World(min_size=0, max_size=0, pooled=False)
        caller = world.borrow()[0]
        world.release(caller)
        world.run(0.1)
        assert not world.machine.slots

    def test_or_goes_to_who_waits(self):
        world = World(min_size=0, max_size=1, pooled=False)
        caller = world.borrow()[0]
        waiting = world.request()
        slot = caller.slot
        world.release(caller)
        world.run(0.1)
        assert waiting.slot is slot

    def test_max_size_zero_means_as_many_as_are_wanted(self):
        world = World(min_size=0, max_size=0, pooled=False)
        world.release(world.borrow()[0])
        world.run(1.0)
        callers = [world.request() for _ in range(200)]
        world.run(1.0)
        assert all(c.state == "holding" for c in callers)

    def test_max_size_holds(self):
        world = World(min_size=0, max_size=3, pooled=False)
        callers = [world.hold(0.1) for _ in range(20)]
        world.run(10.0)
        assert all(c.state == "done" for c in callers)

    def test_nothing_is_kept_alive_or_refilled(self):
        world = World(min_size=0, max_size=3, pooled=False)
        world.run(600.0)
        assert not world.opens and not world.pinged

    def test_an_outage_has_one_attempt_in_flight(self):
        world = World(min_size=0, max_size=0, pooled=False)
        world.release(world.borrow()[0])
        world.server.refused = True
        world.request(timeout=inf)
        world.run(1.0)
        world.most_outstanding = 0
        for _ in range(20):
            world.request(timeout=inf)
        world.run(20.0)
        assert world.most_outstanding == 1
        world.heal()
        world.run(2.0)
        assert {c.state for c in world.callers[1:]} == {"holding"}


class TestCounters:
    def test_they_add_up(self):
        world = started(min_size=1, max_size=1)
        machine = world.machine
        a = world.borrow()[0]
        b = world.request()
        world.run(2.0)
        world.release(a)
        world.run(1.0)
        assert machine.used == pytest.approx(2.0, abs=0.01)
        assert machine.waited == pytest.approx(2.0, abs=0.01)
        world.release(b)
        assert machine.used == pytest.approx(3.0, abs=0.01)
        assert machine.errors == 0
        assert machine.connects == 1
        assert machine.connecting == pytest.approx(0.02)
