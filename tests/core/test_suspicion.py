"""Peeks, pings, silence and proof: which connection is lent, and which is given up when."""

from __future__ import annotations

from math import inf

import pytest

from everpool.core.slot import State
from everpool.core.verdict import Cause

from .simulation import TERMINATED, Server, World, started


class TestLostPing:
    def test_a_stall_shorter_than_the_ceiling_kills_nothing(self):
        world = started(min_size=10, max_size=10)
        conns = set(world.alive)
        world.server.silent = True
        caller = world.request()
        world.run(6.0)
        assert caller.state == "waiting"
        assert world.count(State.SUSPECT) >= 8
        world.heal()
        world.run(0.1)
        assert caller.state == "holding"
        assert len(set(world.alive) & conns) >= 8

    def test_a_late_pong_revives(self):
        world = started(min_size=1, max_size=1)
        (conn,) = world.alive
        world.server.ping_takes = 3.0
        caller = world.request()
        world.run(4.0)
        # The place was needed for an attempt, or the pong came first; nobody timed out.
        assert caller.state == "holding"
        world.release(caller)
        assert not world.cuts or conn not in world.alive

    def test_at_most_two_places_are_given_up_while_a_full_pool_is_silent(self):
        world = started(min_size=10, max_size=10)
        world.server.silent = True
        world.request(timeout=inf)
        world.run(9.5)
        given_up = [r for r in world.retired if "silent" in r.why]
        assert len(given_up) <= 2

    def test_after_the_ceiling_the_silent_are_given_up(self):
        world = started(min_size=4, max_size=4)
        world.server.silent = True
        world.request(timeout=inf)
        world.run(12.0)
        assert world.count(State.SUSPECT, State.TESTING, State.IDLE) == 0

    def test_a_pong_from_a_sibling_is_proof(self):
        world = started(min_size=3, max_size=4, keepalive=20.0)
        for caller in world.borrow(4):
            world.release(caller)
        world.run(10.0)
        (silent,) = world.cut_in_silence([world.machine.idle[-1].link])
        opened = len(world.opens)
        world.run(10.0)
        assert [cut.cause.style for cut in world.cuts] == ["silence"]
        assert not world.cuts[0].lent
        assert world.cuts[0].silent_for >= 14.0
        assert silent not in world.conns.values()
        assert len(world.opens) == opened

    def test_a_fresh_connect_is_proof(self):
        world = started(min_size=4, max_size=8)
        world.cut_in_silence()
        caller = world.request()
        world.run(0.6)
        assert caller.state == "holding"
        assert len(world.cuts) == 4

    def test_a_hung_up_while_suspect_is_a_cut(self):
        world = started(min_size=2, max_size=2)
        world.server.silent = True
        world.request(timeout=inf)
        world.run(1.0)
        world.cut(cause=Cause("RST"))
        world.run(0.01)
        assert {cut.cause.style for cut in world.cuts} <= {"RST"}
        assert world.count(State.SUSPECT) == 0


class TestSlowPongs:
    """A saturated pooler: empty queries wait for a server, connects are answered at once."""

    @pytest.mark.parametrize("takes", [0.3, 0.4, 1.0, 1.8])
    def test_pings_that_take_longer_than_their_limit_end_in_no_circle_of_reconnects(self, takes):
        world = World(min_size=4, max_size=8, server=Server(connect_takes=0.001, ping_takes=takes))
        world.run(5.0)
        opened = len(world.opens)
        for _ in range(600):
            world.hold(0.1, timeout=5.0)
            world.run(1.0)
        assert len(world.opens) - opened < 30
        assert all(c.state == "done" for c in world.callers[:-5])


class TestTwentySilent:
    @pytest.mark.parametrize("room", [0, 5])
    def test_the_first_caller_is_served_in_half_a_second_and_all_are_replaced_in_one(self, room):
        for seed in range(20):
            world = started(seed, min_size=20, max_size=20 + room, checking=seed < 3)
            world.run(7.0 * seed)
            gone = set(world.cut_in_silence())
            began = world.now
            caller = world.request()
            world.run(0.5)
            assert caller.state == "holding", f"seed {seed}"
            world.run(began + 1.0 - world.now)
            assert not gone & set(world.conns.values()), f"seed {seed}"
            assert len(world.alive) == 20, f"seed {seed}"

    def test_callers_beside_it_are_all_served_too(self):
        world = started(min_size=20, max_size=20)
        world.cut_in_silence()
        callers = [world.request() for _ in range(20)]
        world.run(1.0)
        assert all(c.state == "holding" for c in callers)

    def test_cut_with_a_reset_nobody_notices(self):
        world = started(min_size=20, max_size=20)
        world.cut(cause=TERMINATED)
        world.run(0.5)
        callers = [world.request() for _ in range(20)]
        world.run(0.01)
        assert all(c.state == "holding" and c.waited <= 0.01 for c in callers)

    def test_without_a_watch_the_peek_sees_it(self):
        world = started(min_size=20, max_size=20, server=Server(watch_takes=inf))
        world.cut()
        caller = world.request()
        world.run(0.2)
        assert caller.state == "holding"
        assert caller.waited <= 0.025


class TestGenerations:
    def test_after_a_suspicion_what_was_lent_is_tested_before_it_is_lent_again(self):
        world = started(min_size=3, max_size=3)
        callers = world.borrow(2)
        held = {c.slot for c in callers}
        world.cut([world.conns[s] for s in world.machine.idle], TERMINATED)
        world.run(0.5)
        before = len(world.pinged)
        world.release(callers[0])
        world.release(callers[1])
        assert len(world.pinged) - before == 2
        assert {n for _, n in world.pinged[before:]} == {s.number for s in held}

    def test_a_grant_abandoned_after_a_suspicion_is_tested_too(self):
        world = started(min_size=2, max_size=2, wake_takes=0.5)
        world.run(1.0)
        a, _b = world.borrow(2)
        waiting = world.request()
        world.release(a)  # granted, and not yet woken
        assert waiting.waiter.slot is not None
        slot = waiting.waiter.slot
        world.machine.suspect_all(world.now)
        world.settle()
        world.abandon(waiting)
        assert slot.state is State.TESTING
        world.run(1.0)
        assert slot.state is State.IDLE

    def test_work_done_counts_for_the_old_generation_and_is_tested(self):
        world = started(min_size=2, max_size=2)
        a, _b = world.borrow(2)
        slot = a.slot
        world.release_with_work(a, takes=0.2)
        world.machine.suspect_all(world.now)
        world.settle()
        world.run_while(lambda: slot.state is State.RETURNING)
        assert slot.state is State.TESTING
        world.run(0.1)
        assert slot.generation == world.machine.generation

    def test_the_idle_ones_are_tested_in_parallel(self):
        world = started(min_size=20, max_size=20)
        before = len(world.pinged)
        world.machine.suspect_all(world.now)
        world.settle()
        assert len(world.pinged) - before == 20
        world.run(world.server.ping_takes)
        assert world.count(State.IDLE) == 20


class TestLentAndDead:
    def test_a_borrower_keeps_its_dead_connection_and_a_replacement_comes_at_once(self):
        world = started(min_size=2, max_size=2)
        holder = world.borrow()[0]
        world.cut([holder.conn])
        world.run(0.1)
        assert holder.slot.state is State.CORPSE
        assert world.count(State.IDLE) == 2
        world.release(holder)
        world.run(0.1)
        assert len(world.machine.slots) == 2
        assert [cut.lent for cut in world.cuts] == [True]

    def test_a_grant_that_dies_before_its_waiter_wakes_is_replaced_for_it(self):
        world = started(min_size=1, max_size=1, wake_takes=0.1)
        holder = world.borrow()[0]
        waiting = world.request()
        world.release(holder)
        world.cut()
        world.run(1.0)
        assert waiting.state == "holding"
        assert waiting.tries == 2
        assert not waiting.conn.dead

    def test_a_death_during_the_reset_ends_well(self):
        world = started(min_size=1, max_size=1)
        holder = world.borrow()[0]
        world.release_with_work(holder, takes=1.0)
        world.cut()
        world.run(3.0)
        assert world.count(State.IDLE) == 1 == len(world.machine.slots)
