"""The server behind the name changes its role or its history."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from everpool.core.events import OpenFailed, ServerChanged
from everpool.core.history import MEMORY, MOST_SYSTEMS, History
from everpool.core.incarnation import Incarnation
from everpool.core.slot import Slot, State

from .simulation import Caller, World


def world_on(timeline: int, **options: int) -> World:
    """A full pool of four, whose connections lead to a server on this timeline (0: a standby)."""
    world = World(**{"min_size": 4, "max_size": 4, **options})
    world.leads_to(timeline)
    world.run(1.0)
    return world


def held(callers: Iterable[Caller]) -> list[Slot]:
    slots = [caller.slot for caller in callers]
    assert all(slot is not None for slot in slots)
    return slots  # type: ignore[return-value]


def timelines(world: World) -> list[int]:
    return [slot.incarnation.timeline for slot in world.machine.idle if slot.incarnation]


def changes(world: World) -> list[tuple[int, int, str]]:
    told = world.tell_of(ServerChanged)
    return [(change.timeline_before, change.timeline, change.why) for change in told]


class TestRole:
    def test_a_pool_that_only_reads_lives_on_standbys(self):
        world = world_on(0)
        assert world.machine.idle and not world.machine.writes
        assert all(slot.standby for slot in held(world.borrow(4)))

    def test_a_mistaken_write_does_not_close_a_pool_that_lives_on_standbys(self):
        world = world_on(0)
        for _ in range(5):
            (caller,) = world.borrow()
            world.refuse_write(caller)
            world.run(2.0)
        assert not world.machine.writes
        assert world.count(State.IDLE) == 4
        assert world.machine.cuts == {"demoted 25006": 5}

    def test_a_refused_write_takes_a_pool_that_knew_a_primary_off_the_standby_for_good(self):
        world = world_on(1)
        world.cut()
        world.leads_to(0)  # the name leads to the standby, before it is promoted
        world.run(2.0)
        caller, other = world.borrow(2)
        world.refuse_write(caller)
        world.run(5.0)
        assert world.machine.writes
        assert world.count(State.IDLE) == 0
        waiting = world.request()
        world.release(other)  # a standby too: it is tested when it returns, and closed
        world.run(5.0)
        assert waiting.state == "waiting"
        assert [failure.text for failure in world.failures] and all(
            "the server is a standby" in failure.text for failure in world.failures[-3:]
        )
        cuts = world.cuts[-4:]
        assert [cut.cause.style for cut in cuts] == ["demoted"] * 4
        assert [cut.lent for cut in cuts].count(True) == 1

    def test_after_the_promotion_a_waiting_caller_is_served_within_a_second(self):
        for seed in range(20):
            world = World(min_size=2, max_size=2, seed=seed)
            world.leads_to(1)
            world.run(1.0)
            world.claims_writes()
            world.cut()
            world.leads_to(0)
            caller = world.request(timeout=60.0)
            world.run(10.0)
            assert caller.state == "waiting"
            promoted = world.now
            world.leads_to(2)
            world.run_while(lambda caller=caller: caller.state == "waiting")
            assert world.now - promoted <= 0.8 + 2 * world.server.connect_takes

    def test_what_was_lent_is_tested_when_it_returns_and_a_promoted_session_stays(self):
        world = world_on(0)
        callers = world.borrow(4)
        world.promote(list(world.conns.values()))
        world.machine.told_role("read-write", world.now)
        world.settle()
        for caller in callers:
            world.release(caller)
        world.run(1.0)
        assert world.count(State.IDLE) == 4
        assert not world.cuts and not world.failures

    def test_what_rests_on_a_standby_goes_when_the_pool_is_told_that_it_writes(self):
        world = world_on(0)
        world.machine.told_role("primary", world.now)
        world.settle()
        world.run(0.5)
        assert world.count(State.IDLE) == 0
        assert world.machine.cuts == {"demoted": 4}
        assert not any(cut.lent for cut in world.cuts)

    @pytest.mark.parametrize("attributes", ["any", "standby", "prefer-standby", "read-only"])
    def test_who_says_that_standbys_will_do_is_believed(self, attributes: str):
        world = world_on(1)
        world.machine.told_role(attributes, world.now)
        world.claims_writes()
        world.cut()
        world.leads_to(0)
        world.run(2.0)
        (caller,) = world.borrow()
        world.refuse_write(caller)
        world.run(2.0)
        assert not world.machine.writes
        assert world.count(State.IDLE) == 4

    def test_who_writes_first_and_meets_a_primary_later_writes(self):
        world = world_on(0)
        (caller,) = world.borrow()
        world.leads_to(1)
        world.refuse_write(caller)
        world.run(1.0)
        assert world.machine.writes
        assert timelines(world) == [1] * 4

    def test_one_attempt_looks_for_a_primary_after_a_refused_write(self):
        world = world_on(0)
        (caller,) = world.borrow()
        assert not world.machine.wants_primary
        world.server.refused = True  # no host is a primary
        assert caller.slot is not None
        world.machine.wrong_role(caller.slot, world.now)
        assert world.machine.wants_primary
        world.release(caller)
        world.run(0.01)
        assert world.failures and not world.machine.wants_primary

    def test_a_server_that_cannot_tell_is_never_refused(self):
        world = World(min_size=2, max_size=2)
        world.run(1.0)
        world.machine.told_role("primary", world.now)
        (caller,) = world.borrow()
        world.refuse_write(caller)
        world.run(1.0)
        assert world.count(State.IDLE) == 2
        assert not world.failures and not changes(world)


class TestHistory:
    def test_a_promotion_is_told_and_what_rests_on_the_old_timeline_is_closed(self):
        world = world_on(1)
        (caller,) = world.borrow()
        world.leads_to(2)
        world.release_broken(caller)  # its replacement finds the new primary
        world.run(1.0)
        assert changes(world) == [(1, 2, "promotion")]
        assert timelines(world) == [2] * 4
        assert [end.why for end in world.retired].count("older timeline") == 3

    def test_a_lent_connection_to_an_old_primary_goes_when_it_returns(self):
        world = world_on(1)
        kept, broken = world.borrow(2)
        world.leads_to(2)
        world.release_broken(broken)
        world.run(1.0)
        world.release(kept)
        world.run(1.0)
        assert timelines(world) == [2] * 4

    def test_an_old_primary_is_refused_while_the_new_one_answers(self):
        world = world_on(2)
        world.leads_to(1)
        (caller,) = world.borrow()
        world.release_broken(caller)
        world.run(300.0)  # the three that rest on the new one are pinged all the time
        assert timelines(world) == [2] * 3
        assert not changes(world)
        text = world.failures[-1].text
        assert "timeline 1" in text and "timeline 2" in text

    def test_an_older_history_is_accepted_when_the_newer_one_was_silent_for_a_minute(self):
        world = world_on(2)
        world.leads_to(1)
        silent_at = world.now
        world.cut()
        caller = world.request(timeout=120.0)
        world.run_while(lambda: caller.state == "waiting", limit=90.0)
        assert MEMORY - 1.0 <= world.now - silent_at <= MEMORY + 1.0
        assert changes(world) == [(2, 1, "older timeline")]
        world.run(1.0)
        assert timelines(world) == [1] * 3
        soon = [f for f in world.tell_of(OpenFailed) if "It is accepted in" in f.text]
        assert soon

    def test_a_newer_one_that_was_only_silent_is_believed_again(self):
        world = world_on(2)
        borrowed = world.borrow(4)
        world.run(70.0)  # lent, so nobody hears of them
        world.leads_to(1)
        world.release_broken(borrowed.pop())
        world.run(1.0)
        assert changes(world) == [(2, 1, "older timeline")]
        for caller in borrowed:
            world.release(caller)
        world.run(2.0)
        assert changes(world) == [(2, 1, "older timeline"), (1, 2, "promotion")]
        assert timelines(world) == [2] * 3  # the fourth is refused again

    def test_a_restart_tests_the_siblings_and_is_no_change(self):
        world = world_on(1)
        world.leads_to(1)
        world.server.incarnation = Incarnation(7, 1, 2, 0)
        (caller,) = world.borrow()
        generation = world.machine.generation
        pinged = len(world.pinged)
        world.release_broken(caller)
        world.run(0.5)
        assert world.machine.generation > generation
        assert len(world.pinged) >= pinged + 3
        assert not changes(world)
        assert world.count(State.IDLE) == 4

    def test_another_system_is_told_and_its_siblings_live_on(self):
        world = world_on(3)
        world.leads_to(1, system=8)
        (caller,) = world.borrow()
        world.release_broken(caller)
        world.run(1.0)
        assert changes(world) == [(3, 1, "other system")]
        assert sorted(timelines(world)) == [1, 3, 3, 3]

    def test_two_systems_behind_one_name_are_told_of_once(self):
        world = world_on(3)
        for turn in range(10):
            world.leads_to(1 if turn % 2 else 3, system=8 if turn % 2 else 7)
            (caller,) = world.borrow()
            world.release_broken(caller)
            world.run(2.0)
        assert len(changes(world)) == 1

    def test_a_standby_has_no_history(self):
        world = world_on(2)
        world.leads_to(0)
        (caller,) = world.borrow()
        world.release_broken(caller)
        world.run(1.0)
        assert not changes(world)
        assert world.count(State.IDLE) == 4

    def test_sleep_makes_what_was_heard_old(self):
        world = world_on(2)
        world.cut()
        world.leads_to(1)
        world.slept(MEMORY)
        world.run(1.0)
        assert changes(world) == [(2, 1, "older timeline")]

    def test_systems_without_end_are_forgotten(self):
        history = History()
        for system in range(100):
            history.meet(Incarnation(system, 1, 1, 1), float(system))
        assert len(history._lives) == MOST_SYSTEMS
        assert history.outdated(Incarnation(99, 0, 1, 1)) is False

    def test_null_pools_refuse_an_old_primary_too(self):
        world = World(min_size=0, max_size=4, pooled=False)
        world.leads_to(2)
        (caller,) = world.borrow()
        world.release(caller)
        world.leads_to(1)
        second = world.request(timeout=90.0)
        world.run(30.0)
        assert second.state == "waiting"
        world.run(35.0)
        assert second.state == "holding"
