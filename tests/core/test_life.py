"""The table of life is closed: all of it can be reached, all of it is used, nothing else is."""

from __future__ import annotations

import inspect
import re

import pytest

from everpool.core import books, machine, supply, table, upkeep
from everpool.core.slot import COUNTED, LIFE, Event, IllegalTransition, Slot, State
from everpool.core.table import ESTABLISHED, PRESENT

from .simulation import started

SOURCE = "".join(map(inspect.getsource, (table, books, supply, upkeep, machine)))
ILLEGAL = [(state, event) for state in State for event in Event if event not in LIFE[state]]


def test_every_state_has_its_row():
    assert set(LIFE) == set(COUNTED) == set(State)


def test_every_state_can_be_reached():
    reached, fresh = set(), {State.OPENING}
    while fresh:
        reached |= fresh
        fresh = {after for state in fresh for after in LIFE[state].values()} - reached
    assert reached == set(State)


def test_every_state_but_the_last_leads_to_the_last():
    leads = {State.GONE}
    while True:
        more = {s for s in State if set(LIFE[s].values()) & leads} - leads
        if not more:
            break
        leads |= more
    assert leads == set(State)
    assert LIFE[State.GONE] == {}


def test_every_event_is_fired_somewhere():
    fired = set(re.findall(r"_fire\(slot, Event\.(\w+)\)", SOURCE))
    assert fired == {event.name for event in Event}


def test_no_event_is_without_a_meaning():
    assert {event for row in LIFE.values() for event in row} == set(Event)


def test_a_death_always_frees_the_place_and_no_other_event_does_but_the_end():
    for state, row in LIFE.items():
        for event, after in row.items():
            if COUNTED[state] > COUNTED[after]:
                assert event in (Event.DIED, Event.FAILED, Event.CLOSED)
            assert COUNTED[after] <= COUNTED[state]
    for row in LIFE.values():
        if Event.DIED in row:
            assert not COUNTED[row[Event.DIED]]


def test_the_groups_of_states_hold_what_their_names_say():
    assert set(PRESENT) < set(ESTABLISHED)
    unconnected = {State.OPENING, State.DISOWNED}
    going = {State.CORPSE, State.CLOSING, State.DEAD, State.GONE}
    assert set(ESTABLISHED) == set(State) - unconnected - going


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=lambda x: x.value)
def test_what_the_table_does_not_know_is_illegal_and_changes_nothing(state, event):
    world = started(min_size=1, max_size=1)
    slot = world.machine.idle[0]
    slot.state = state
    before = dict(world.machine.tally), world.machine.counted, list(world.machine.slots)
    with pytest.raises(IllegalTransition, match=event.value):
        world.machine._fire(slot, event)
    assert slot.state is state
    assert before == (world.machine.tally, world.machine.counted, list(world.machine.slots))


def test_the_docstring_tells_of_every_state_and_what_counts():
    import everpool.core.slot as module

    rows = dict(re.findall(r"^([A-Z]+) +(yes|no) ", module.__doc__ or "", re.MULTILINE))
    assert rows == {state.name: "yes" if COUNTED[state] else "no" for state in State}


def test_a_slot_says_what_it_is_and_shows_no_connection():
    slot = Slot(7, 0.0, 0)
    slot.conn = "postgresql://joe:secret@host"
    assert repr(slot) == "<Slot 7 opening>"
