"""What the owner asks for, and what befalls the process: resize, drain, close, sleep, loss."""

from __future__ import annotations

import random
from math import inf

import pytest

from everpool.core.machine import Machine
from everpool.core.slot import COUNTED, State

from .simulation import World, started


class TestResize:
    def test_up_opens_what_is_short(self):
        world = started(min_size=2, max_size=4)
        world.resize(6, 8)
        world.run(1.0)
        assert world.count(State.IDLE) == 6

    def test_up_serves_who_waits(self):
        world = started(min_size=1, max_size=1)
        world.borrow()
        waiting = world.request()
        world.resize(1, 2)
        world.run(0.1)
        assert waiting.state == "holding"

    def test_down_closes_what_rests_at_once(self):
        world = started(min_size=8, max_size=8)
        world.resize(2, 3)
        world.run(0.1)
        assert world.count(State.IDLE) == 3

    def test_down_closes_what_is_lent_when_it_returns(self):
        world = started(min_size=8, max_size=8)
        callers = world.borrow(8)
        world.resize(2, 3)
        world.run(1.0)
        assert world.machine.counted == 8
        for caller in callers:
            world.release(caller)
        world.run(0.1)
        assert world.count(State.IDLE) == 3

    def test_down_holds_under_a_load_that_never_lets_a_connection_rest(self):
        world = started(min_size=8, max_size=8)
        for _ in range(40):
            self.go_round(world)
        world.run(1.0)
        world.resize(2, 3)
        world.run(1.0)
        assert world.machine.queue.live > 10
        assert world.machine.counted == 3

    def go_round(self, world: World) -> None:
        def look() -> None:
            if caller.state == "holding":
                world.release(caller)
                self.go_round(world)
            else:
                world.after(0.01, look)

        caller = world.request(timeout=inf)
        world.after(0.01, look)


class TestDrain:
    def test_the_resting_are_replaced_at_once(self):
        world = started(min_size=4, max_size=4)
        old = set(world.alive)
        world.drain()
        world.run(0.5)
        assert world.count(State.IDLE) == 4
        assert not old & set(world.alive)

    def test_the_lent_when_they_return(self):
        world = started(min_size=4, max_size=4)
        a, b = world.borrow(2)
        world.drain()
        world.run(0.5)
        assert world.count(State.LENT) == 2
        old = {a.conn, b.conn}
        world.release(a)
        world.release_with_work(b)
        world.run(0.5)
        assert world.count(State.IDLE) == 4
        assert not old & set(world.alive)

    def test_the_tested_when_they_answer(self):
        world = started(min_size=4, max_size=4)
        old = set(world.alive)
        world.machine.suspect_all(world.now)
        world.drain()
        world.run(0.5)
        assert not old & set(world.alive)
        assert world.count(State.IDLE) == 4

    def test_who_waits_is_served_by_the_new_ones(self):
        world = started(min_size=1, max_size=1)
        holder = world.borrow()[0]
        old = holder.conn
        waiting = world.request()
        world.drain()
        world.release(holder)
        world.run(0.5)
        assert waiting.state == "holding" and waiting.conn is not old

    def test_the_new_ones_stay(self):
        world = started(min_size=4, max_size=4)
        world.drain()
        world.run(0.5)
        new = set(world.alive)
        for caller in world.borrow(4):
            world.release(caller)
        world.run(0.5)
        assert set(world.alive) == new


class TestClose:
    def test_all_that_rests_is_closed_and_who_waits_is_refused(self):
        world = started(min_size=2, max_size=2)
        world.borrow(2)
        waiting = world.request()
        full = world.wait_full()
        world.close()
        world.run(0.1)
        assert waiting.refusal.code == "closed"
        assert full.woken
        late = world.request()
        world.run(0.1)
        assert late.refusal.code == "closed"

    @pytest.mark.parametrize("how", ["release", "release_with_work", "release_broken", "drop"])
    def test_the_lent_are_closed_when_they_return(self, how):
        world = started(min_size=2, max_size=2)
        callers = world.borrow(2)
        world.close()
        for caller in callers:
            getattr(world, how)(caller)
        world.run(0.1)
        assert not world.machine.slots and not world.conns

    def test_in_the_midst_of_everything_nothing_is_left(self):
        for seed in range(30):
            world = started(seed, min_size=4, max_size=12, wake_takes=0.003)
            for _ in range(20):
                world.hold(0.01)
            world.machine.suspect_all(world.now)
            world.settle()
            world.server.silent = seed % 3 == 0
            world.run(seed * 0.0007)
            world.close()
            world.run(1.0)
            assert not world.machine.slots and not world.conns, f"seed {seed}"

    def test_a_doubt_after_it_leaves_nothing(self):
        world = started(min_size=1, max_size=1)
        slot = world.machine.take(world.now)
        world.machine.close(world.now)
        from .simulation import Caller, SimWaiter

        waiter = SimWaiter(Caller(1, world.now, 1.0), world.now + 1.0, world.now)
        world.machine.doubt(slot, waiter, world.now)
        assert slot.state is State.CLOSING
        assert waiter.refusal.code == "closed"

    def test_it_opens_nothing_any_more(self):
        world = started(min_size=4, max_size=8)
        world.cut()
        world.close()
        before = len(world.opens)
        world.run(60.0)
        assert len(world.opens) == before


class TestVanished:
    def test_a_dropped_connection_is_replaced(self):
        world = started(min_size=2, max_size=2)
        a, _ = world.borrow(2)
        waiting = world.request()
        world.drop(a)
        world.run(0.1)
        assert waiting.state == "holding"
        assert world.machine.bad_returns == 1

    def test_a_dropped_corpse_too(self):
        world = started(min_size=2, max_size=2)
        a, _ = world.borrow(2)
        world.cut([a.conn])
        world.run(0.1)
        world.drop(a)
        world.run(0.1)
        assert len(world.machine.slots) == 2

    def test_a_late_word_of_it_is_ignored(self):
        world = started(min_size=1, max_size=1)
        a = world.borrow()[0]
        slot = a.slot
        world.release(a)
        world.machine.vanished(slot, world.now)
        world.check()
        assert slot.state is State.IDLE


class TestSlept:
    def test_everything_is_tested_before_it_is_lent(self):
        world = started(min_size=4, max_size=4)
        world.slept(300.0)
        assert world.count(State.TESTING) == 4
        caller = world.request()
        world.run(0.1)
        assert caller.state == "holding"
        assert len(world.alive) == 4

    def test_the_dead_are_found(self):
        world = started(min_size=4, max_size=4)
        world.cut_in_silence()
        world.slept(3000.0)
        caller = world.request()
        world.run(0.5)
        assert caller.state == "holding"
        assert caller.conn in world.alive

    def test_ages_grow_by_it(self):
        world = started(min_size=4, max_size=4, max_lifetime=3600.0)
        world.slept(3600.0)
        world.run(1.0)
        assert {r.why for r in world.retired} == {"max_lifetime"}
        assert all(r.age >= 3600.0 for r in world.retired)
        assert world.count(State.IDLE) == 4

    def test_nobody_is_taken_for_dead_because_we_came_late(self):
        world = started(min_size=4, max_size=4)
        world.server.silent = True
        world.machine.suspect_all(world.now)
        world.settle()
        conns = set(world.alive)
        world.now += 100.0  # we were stopped with the pings in flight
        world.slept(0.0)
        world.heal()
        world.run(1.0)
        assert not world.cuts
        assert set(world.alive) == conns

    def test_what_was_drained_before_it_stays_drained_and_what_is_new_stays(self):
        world = started(min_size=4, max_size=4)
        world.drain()
        world.run(0.5)
        new = set(world.alive)
        world.slept(100.0)
        world.run(1.0)
        assert set(world.alive) == new


class TestReconcile:
    def corrupt(self, machine: Machine, dice: random.Random) -> None:
        """What an interruption in mid-transition may leave: indices that lie."""
        dice.shuffle(machine.idle)
        del machine.idle[: dice.randrange(len(machine.idle) + 1)]
        for slot in machine.slots:
            if dice.random() < 0.2:
                machine.idle.append(slot)
        for state in State:
            machine.tally[state] += dice.randrange(-3, 4)
        machine.counted += dice.randrange(-5, 6)
        machine.queue.live += dice.randrange(-2, 3)
        machine.queue.soonest = dice.choice([0.0, inf])
        machine.next_wake = inf

    def test_it_rebuilds_the_indices_from_the_table(self):
        for seed in range(200):
            world = started(seed % 5, min_size=4, max_size=8, wake_takes=0.002)
            dice = random.Random(seed)
            for _ in range(dice.randrange(16)):
                world.hold(dice.random() * 0.05, timeout=5.0)
            if dice.random() < 0.5:
                world.cut(share=0.5)
            world.run(dice.random() * 0.05)
            self.corrupt(world.machine, dice)
            world.machine.reconcile()
            world.settle()
            world.run(20.0)
            assert all(c.state == "done" for c in world.callers)
            assert world.count(State.IDLE) >= 4

    def test_a_connection_taken_and_lent_to_nobody_rests_again(self):
        world = started(min_size=2, max_size=2)
        slot = world.machine.take(world.now)  # and the caller was interrupted
        assert slot.state is State.LENT
        world.machine.reconcile()
        world.settle()
        assert slot.state is State.IDLE and slot in world.machine.idle

    def test_one_that_somebody_holds_does_not(self):
        world = started(min_size=2, max_size=2)
        caller = world.borrow()[0]
        world.machine.reconcile()
        world.settle()
        assert caller.slot.state is State.LENT

    def test_what_is_gone_is_forgotten(self):
        world = started(min_size=2, max_size=2)
        slot = world.machine.take(world.now)
        slot.state = State.GONE
        world.conns.pop(slot)
        world.machine.reconcile()
        assert slot not in world.machine.slots
        assert world.machine.counted == sum(COUNTED[s.state] for s in world.machine.slots) == 1
