"""A loan at its deadline: its query is cancelled, then its connection ended, and nobody waits for it."""

from __future__ import annotations

from math import inf

import pytest

from everpool.core.deadlines import CANCEL_GRACE
from everpool.core.events import Cut
from everpool.core.slot import State
from everpool.core.verdict import Trouble

from .simulation import World, started


def test_a_query_is_cancelled_at_its_deadline_and_its_connection_kept():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    number = caller.slot.number
    bound = world.bind(caller, 0.5)
    began = world.now
    world.run(1.0)
    assert world.cancels == [(began + 0.5, number)] and not world.aborts
    assert caller.state == "done" and bound.overdue and not bound.ended
    assert world.machine.deadlines == {"cancelled": 1, "ended": 0}
    assert not world.cuts and not world.machine.bounds
    [again] = world.borrow()
    assert again.slot.number == number


def test_silence_ends_the_loan_a_grace_later_and_its_place_is_free_at_once():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5)
    conn = caller.conn
    world.cut_in_silence([conn])
    waiting = world.request(timeout=5.0)
    began = world.now
    world.run(0.5 + CANCEL_GRACE + world.server.connect_takes + 0.001)
    assert [at for at, _ in world.aborts] == [began + 0.5 + CANCEL_GRACE]
    assert bound.ended and bound.slot.state is State.CORPSE
    assert caller.state == waiting.state == "holding", "the caller has not woken, another is served"
    assert world.machine.counted == 1
    assert world.machine.deadlines == {"cancelled": 0, "ended": 1}
    world.release(waiting)
    world.release(caller)
    world.run(1.0)
    assert world.count(State.IDLE) == 1 == len(world.machine.slots)


def test_a_loan_without_a_query_in_flight_ends_at_its_deadline():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5, busy=False)
    began = world.now
    world.run(0.5)
    assert [at for at, _ in world.aborts] == [began + 0.5]
    assert bound.ended and caller.state == "holding"


def test_a_deadline_is_not_the_path_s_fault():
    world = started(min_size=2, max_size=2)
    callers = world.borrow(2)
    for caller in callers:
        world.bind(caller, 0.5, busy=False)
    world.run(1.0)
    machine = world.machine
    assert [(cut.cause.style, cut.lent) for cut in world.cuts] == [("deadline", True)] * 2
    assert machine.cuts == {"deadline": 2}
    assert not machine.lost and not machine.cuts_lent and not machine.recent_cuts
    assert machine.connector.trouble is None
    assert len(world.opens) == 4 and world.count(State.IDLE) == 2, "both replaced, both at once"
    assert world.opens[2] == world.opens[3]
    for caller in callers:
        world.release(caller)
    world.run(30.0)
    assert len(world.cuts) == 2, "told once, when it happened"
    assert machine.learner.save(world.now) == started().machine.learner.save(world.now)


@pytest.mark.parametrize("busy", [False, True])
def test_what_comes_back_in_time_is_left_alone(busy):
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5, busy=busy)
    world.run(0.4)
    world.release(caller)
    [other] = world.borrow()
    world.run(10.0)
    assert other.state == "holding" and other.slot is bound.slot
    assert not world.cancels and not world.aborts and not bound.overdue
    assert world.machine.deadlines == {"cancelled": 0, "ended": 0}


def test_a_return_through_the_fast_door_is_found_without_being_told():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5)
    caller.bound = None
    world.run(0.1)
    world.release(caller)
    [other] = world.borrow()
    world.run(10.0)
    assert other.state == "holding" and not world.cancels and not bound.overdue
    assert not world.machine.bounds


def test_a_pool_that_comes_late_gives_the_grace_from_then_on():
    """Frozen, or starved: the answer may lie unread."""
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    world.bind(caller, 0.5)
    world.server.cancel_takes = 0.2
    world.now += 30.0
    world.run(0.0)
    assert world.cancels and not world.aborts
    world.run(1.0)
    assert caller.state == "done" and not world.aborts


def test_one_that_came_back_while_the_pool_was_frozen_is_not_ended():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5)
    world.after(0.4, lambda: world.release(caller))
    world.now += 30.0
    world.run(1.0)
    assert not world.cancels and not world.aborts and not bound.overdue


def test_a_commit_on_the_way_out_is_not_cancelled_but_ends():
    """The shell asks; the core still ends what the server does not answer."""
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5)
    bound.committing = True
    world.cut_in_silence()
    began = world.now
    world.run(1.0)
    assert [at for at, _ in world.aborts] == [began + 0.5 + CANCEL_GRACE] and bound.ended


def test_the_last_deadline_counts_and_inf_is_none():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    world.bind(caller, 0.5)
    world.bind(caller, 2.0)
    world.run(1.0)
    assert not world.cancels
    world.bind(caller, inf)
    world.run(10.0)
    assert not world.cancels and not world.machine.bounds


def test_a_connection_that_dies_first_is_no_deadline():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    bound = world.bind(caller, 0.5)
    world.cut()
    world.run(1.0)
    assert not bound.overdue and not world.aborts
    world.release(caller)
    world.run(1.0)
    assert [cut.cause.style for cut in world.tell_of(Cut)] == ["RST"]
    assert not world.machine.bounds


def test_a_forgotten_connection_is_ended_too():
    world = started(min_size=1, max_size=1)
    [caller] = world.borrow()
    world.bind(caller, 0.5)
    world.drop(caller)
    world.run(5.0)
    assert not world.machine.bounds and world.count(State.IDLE) == 1


def test_the_end_of_a_loan_in_an_outage_waits_its_turn_to_be_replaced():
    world = World(min_size=1, max_size=1)
    world.run(5.0)
    [caller] = world.borrow()
    world.server.refused = True
    world.bind(caller, 0.1, busy=False)
    world.run(5.0)
    assert world.machine.connector.trouble is Trouble.GONE
    assert len(world.opens) < 12
