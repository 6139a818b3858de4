"""What goes on while nobody asks: keepalive, lifetimes, shrinking."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from math import inf

import pytest

from everpool.core.events import Opened
from everpool.core.slot import State

from .simulation import World, started


def chatter(world: World, seconds: float, every: float = 1.0, hold: float = 0.005) -> None:
    """One request after another."""
    end = world.now + seconds
    while world.now < end:
        world.hold(hold)
        world.run(every)


class TestKeepalive:
    def test_every_idle_connection_is_heard_in_every_interval_for_hours(self):
        world = started(min_size=10, max_size=10, keepalive=45.0, max_lifetime=inf, checking=False)
        for _ in range(2 * 60):
            world.run(60.0)
            oldest = min(conn.heard_at for conn in world.alive)
            assert world.now - oldest <= 45.0 + 0.1

    def test_it_does_so_beside_steady_traffic_which_uses_only_the_newest(self):
        world = started(min_size=10, max_size=10, keepalive=45.0, max_lifetime=inf, checking=False)
        for _ in range(30):
            chatter(world, 60.0)
            oldest = min(conn.heard_at for conn in world.alive)
            assert world.now - oldest <= 45.0 + 0.1

    def test_it_pings_no_more_often_than_it_must(self):
        world = started(min_size=10, max_size=10, keepalive=45.0, max_lifetime=inf, checking=False)
        before = len(world.pinged)
        world.run(3600.0)
        assert len(world.pinged) - before <= 10 * 3600 / (45.0 * 0.75 - 0.6)

    def test_half_of_the_idle_ones_at_most_are_under_test_at_once(self):
        world = World(min_size=20, max_size=20, keepalive=45.0)
        world.machine._random = lambda: 0.0  # all become due at the same moment
        world.run(40.0)
        world.server.ping_takes = 0.2
        most = 0
        for _ in range(1000):
            world.run(0.01)
            most = max(most, world.count(State.TESTING))
        assert most == 10
        assert min(conn.heard_at for conn in world.alive) >= world.now - 10.0

    def test_a_single_connection_is_kept_alive_too(self):
        world = started(min_size=1, max_size=1, keepalive=30.0)
        before = len(world.pinged)
        world.run(300.0)
        assert len(world.pinged) - before >= 10

    def test_inf_means_never(self):
        world = started(min_size=4, max_size=4, keepalive=inf, max_lifetime=inf)
        world.run(3600.0)
        assert not world.pinged

    def test_the_background_rests_between(self):
        world = started(min_size=20, max_size=20, checking=False)
        before = world.ticks
        world.run(3600.0)
        assert world.ticks - before < 3600 * 2

    def test_a_new_interval_holds_for_connections_that_are_open(self):
        world = started(min_size=4, max_size=4, keepalive=inf, max_lifetime=inf)
        world.machine.change(replace(world.policy, keepalive=30.0), world.now)
        world.settle()
        world.run(100.0)
        assert min(conn.heard_at for conn in world.alive) >= world.now - 31.0


class TestLifetime:
    def test_a_new_lifetime_holds_for_connections_that_are_open(self):
        world = started(min_size=4, max_size=8, max_lifetime=inf)
        world.machine.change(replace(world.policy, max_lifetime=300.0), world.now)
        world.settle()
        world.run(301.0)
        assert all(world.now - slot.opened_at < 60.0 for slot in world.machine.slots)

    def test_idle_ones_are_replaced_without_being_used(self):
        world = started(min_size=4, max_size=8, max_lifetime=600.0, checking=False)
        for _ in range(60):
            world.run(60.0)
            assert all(world.now - slot.opened_at <= 600.0 + 1 for slot in world.machine.slots)
        assert len(world.successes) == pytest.approx(4 + 4 * 3600 / 570, abs=5)

    def test_the_replacement_is_open_before_the_old_one_closes(self):
        world = started(min_size=4, max_size=5, max_lifetime=600.0)
        least = 4
        for _ in range(36000):
            world.run(0.1)
            least = min(least, world.count(State.IDLE, State.TESTING))
        assert least == 4
        assert len(world.retired) >= 20

    def test_old_ones_only_are_retired_for_new_ones(self):
        """However long all have rested: max_idle is no reason while there are min_size."""
        world = started(min_size=4, max_size=8, max_lifetime=3600.0, max_idle=60.0)
        world.server.connect_takes = 0.7
        world.run(12 * 3600.0)
        assert Counter(r.why for r in world.retired).keys() == {"max_lifetime"}
        assert min(r.age for r in world.retired) >= 0.89 * 3600.0 - 30.0

    def test_at_max_size_one_at_a_time_gives_its_place(self):
        world = started(min_size=8, max_size=8, max_lifetime=600.0)
        least = 8
        for _ in range(36000):
            world.run(0.1)
            least = min(least, world.count(State.IDLE, State.TESTING))
        assert least >= 7
        assert len(world.retired) >= 40

    def test_at_max_size_none_is_retired_early_while_somebody_waits_or_the_server_is_gone(self):
        world = started(min_size=2, max_size=2, max_lifetime=600.0, keepalive=inf)
        world.server.refused = True
        first = min(slot.expires_at for slot in world.machine.slots)
        world.cut([world.conns[max(world.machine.idle, key=lambda s: s.expires_at)]])
        world.run_until(first - 0.1)
        assert world.count(State.IDLE, State.TESTING) == 1
        world.run(1.0)
        assert world.count(State.IDLE, State.TESTING) == 0

    def test_retirements_are_spread_over_time(self):
        world = started(min_size=20, max_size=20, max_lifetime=3600.0, checking=False)
        world.run(3500.0)
        times = sorted(t for t, h in world.told if isinstance(h, Opened))[20:]
        world.run(200.0)
        times = sorted(t for t, h in world.told if isinstance(h, Opened))[20:]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert len(times) >= 15
        assert sorted(gaps)[len(gaps) // 4] > 3.0

    def test_a_lent_one_outlives_it_and_goes_when_it_returns(self):
        world = started(min_size=1, max_size=2, max_lifetime=60.0)
        holder = world.borrow()[0]
        slot = holder.slot
        world.run(120.0)
        assert slot.state is State.LENT
        world.release(holder)
        world.run(1.0)
        assert slot.state is State.GONE

    def test_no_expired_one_is_lent(self):
        world = started(min_size=4, max_size=4, max_lifetime=30.0)
        world.machine.next_wake = inf  # no tick comes to retire them
        world.now += 31.0
        world.machine.next_wake = world.now + 1.0
        caller = world.request()
        world.run(0.1)
        assert caller.state == "holding"
        assert world.now - caller.slot.opened_at < 1.0


class TestShrinking:
    def test_unused_ones_go_down_to_min_size(self):
        world = started(min_size=2, max_size=10, max_idle=60.0)
        for caller in world.borrow(10):
            world.release(caller)
        world.run(59.0)
        assert len(world.machine.slots) == 10
        world.run(8.0)
        assert len(world.machine.slots) == 2
        world.run(600.0)
        assert len(world.machine.slots) == 2

    def test_the_used_ones_stay(self):
        world = started(min_size=0, max_size=10, max_idle=60.0)
        for caller in world.borrow(10):
            world.release(caller)
        chatter(world, 200.0)
        assert len(world.machine.slots) == 1

    def test_an_attempt_in_flight_spares_no_connection(self):
        world = started(min_size=4, max_size=8, max_lifetime=inf, max_idle=60.0)
        world.run(120.0)
        holders = world.borrow(4)
        world.server.silent = True
        world.request(timeout=5.0)
        world.run(0.1)
        before = world.ticks
        for holder in holders:
            world.release(holder)
        world.run(3.0)
        assert world.ticks - before < 100
        assert not [r for r in world.retired if r.why == "max_idle"]

    def test_max_idle_zero_keeps_nothing_beyond_min_size(self):
        world = started(min_size=1, max_size=10, max_idle=0.0)
        for caller in world.borrow(5):
            world.release(caller)
        world.run(6.0)
        assert len(world.machine.slots) == 1

    def test_a_slow_close_does_not_keep_the_background_busy(self):
        world = started(min_size=2, max_size=10, max_idle=60.0)
        for caller in world.borrow(10):
            world.release(caller)
        world.server.close_takes = 30.0
        before = world.ticks
        world.run(80.0)
        assert world.ticks - before < 400
