"""The small parts by themselves: the connector, the round trip, the queue."""

from __future__ import annotations

from math import inf

import pytest

from everpool.core.connector import (
    DELAY_REJECTED,
    DELAY_UNWANTED,
    DELAY_WANTED,
    PATIENCE_LEAST,
    PATIENCE_UNKNOWN,
    Connector,
)
from everpool.core.queue import Queue
from everpool.core.roundtrip import LEAST, MOST, RoundTrip
from everpool.core.verdict import Trouble

from .simulation import Caller, SimWaiter


def connector(most: int = 16, dice: float = 1.0) -> Connector:
    return Connector(most, lambda: dice)


class TestConnector:
    def test_the_very_first_goes_alone_and_its_success_opens_the_window(self):
        c = connector(16)
        assert c.permits(0.0, 0, 0) == 1
        c.succeeded(0.02)
        assert c.permits(0.0, 0, 0) == 16

    def test_in_good_times_it_permits_what_the_window_has_left(self):
        c = connector(16)
        c.succeeded(0.02)
        assert c.permits(0.0, 10, 5) == 6

    def test_each_success_in_slow_start_opens_the_window_by_one(self):
        c = connector(4)
        c.succeeded(0.02)
        c.wounded()
        seen = []
        for _ in range(5):
            seen.append(c.window)
            c.succeeded(0.02)
        assert seen == [1, 2, 3, 4, 4]

    def test_satisfied_after_a_success_it_opens_the_window_whole(self):
        c = connector(16)
        c.wounded()
        c.satisfied()
        assert c.window == 1
        c.succeeded(0.02)
        c.satisfied()
        assert c.window == 16

    def test_in_trouble_it_permits_one_after_its_delay(self):
        c = connector()
        delay = c.failed(10.0, Trouble.GONE, wanted=True)
        assert c.permits(10.0 + delay - 0.001, 0, 0) == 0
        assert c.permits(10.0 + delay, 0, 0) == 1
        assert c.permits(10.0 + delay, 1, 0) == 0
        assert c.permits(10.0 + delay, 0, 1) == 1
        assert c.permits(10.0 + delay, 0, 2) == 0

    @pytest.mark.parametrize(
        ("trouble", "wanted", "cap"),
        [
            (Trouble.GONE, True, DELAY_WANTED),
            (Trouble.SILENT, True, DELAY_WANTED),
            (Trouble.CROWDED, True, DELAY_WANTED),
            (Trouble.GONE, False, DELAY_UNWANTED),
            (Trouble.REJECTED, True, DELAY_REJECTED),
            (Trouble.REJECTED, False, DELAY_REJECTED),
        ],
    )
    def test_delays_double_up_to_their_cap(self, trouble, wanted, cap):
        c = connector()
        delays = [c.failed(0.0, trouble, wanted) for _ in range(40)]
        assert delays[-1] == cap == max(delays)
        assert delays[1] == 2 * delays[0]
        assert delays == sorted(delays)

    def test_jitter_goes_down_to_zero_but_never_when_rejected(self):
        assert connector(dice=0.0).failed(0.0, Trouble.GONE, True) == 0.0
        c = connector(dice=0.0)
        assert [c.failed(0.0, Trouble.REJECTED, True) for _ in range(9)][-1] == 15.0

    def test_a_success_forgets_the_failures(self):
        c = connector()
        for _ in range(9):
            c.failed(0.0, Trouble.GONE, True)
        c.succeeded(0.02)
        assert c.trouble is None and c.window == 2
        assert c.failed(0.0, Trouble.GONE, True) == pytest.approx(0.05)

    def test_down_since_is_the_first_failure(self):
        c = connector()
        c.failed(5.0, Trouble.GONE, True)
        c.failed(9.0, Trouble.SILENT, True)
        assert c.down_since == 5.0

    def test_hurry_brings_the_next_attempt_within_the_shorter_cap(self):
        c = connector()
        for _ in range(9):
            c.failed(100.0, Trouble.GONE, wanted=False)
        assert c.not_before == 100.0 + DELAY_UNWANTED
        c.hurry(100.1)
        assert c.not_before == 100.0 + DELAY_WANTED
        c.hurry(100.2)
        assert c.not_before == 100.0 + DELAY_WANTED

    def test_nobody_hurries_a_rejection(self):
        c = connector()
        for _ in range(9):
            c.failed(100.0, Trouble.REJECTED, wanted=False)
        c.hurry(100.1)
        assert c.not_before == 100.0 + DELAY_REJECTED

    def test_patience_follows_what_connects_take(self):
        c = connector()
        assert c.patience == PATIENCE_UNKNOWN
        c.succeeded(0.01)
        assert c.patience == PATIENCE_LEAST
        for _ in range(50):
            c.succeeded(1.0)
        assert c.patience == pytest.approx(4.0, rel=0.01)

    def test_a_hung_attempt_lets_another_start_at_once(self):
        c = connector()
        c.hung(7.0)
        assert c.trouble is Trouble.SILENT
        assert c.permits(7.0, 0, 1) == 1

    def test_a_hung_attempt_does_not_shorten_a_known_trouble(self):
        c = connector()
        c.failed(7.0, Trouble.REJECTED, True)
        c.hung(7.1)
        assert c.trouble is Trouble.REJECTED
        assert c.not_before == 8.0


class TestRoundTrip:
    def test_it_starts_at_its_least(self):
        assert RoundTrip().limit == LEAST

    def test_the_first_sample_seeds_it(self):
        trip = RoundTrip()
        trip.sample(0.2)
        assert (trip.smoothed, trip.variation) == (0.2, 0.1)
        assert trip.limit == pytest.approx(0.6)

    def test_it_follows_slowly_and_calms_down(self):
        trip = RoundTrip()
        trip.sample(0.4)
        for _ in range(60):
            trip.sample(0.1)
        assert trip.smoothed == pytest.approx(0.1, rel=0.01)
        assert trip.limit == LEAST

    def test_a_loss_doubles_it_until_the_next_answer(self):
        trip = RoundTrip()
        trip.sample(0.01)
        limits = []
        for _ in range(5):
            trip.lost()
            limits.append(trip.limit)
        assert limits == [0.5, 1.0, 2.0, 2.0, 2.0]
        trip.seed(0.001)
        assert trip.limit == 2.0
        trip.sample(0.01)
        assert trip.limit == LEAST

    def test_a_connect_is_only_a_first_guess(self):
        trip = RoundTrip()
        trip.seed(0.2)
        trip.seed(9.9)
        assert trip.smoothed == 0.2

    def test_it_never_leaves_its_bounds(self):
        trip = RoundTrip()
        for took in (30.0, 0.0, 1e-6, 100.0):
            trip.sample(took)
            assert LEAST <= trip.limit <= MOST


def waiter(deadline: float = inf) -> SimWaiter:
    return SimWaiter(Caller(1, 0.0, deadline), deadline, 0.0)


class TestQueue:
    def test_first_is_the_first_who_still_waits(self):
        queue = Queue()
        a, b, c = waiter(), waiter(), waiter()
        for one in (a, b, c):
            queue.join(one)
        assert queue.leave(a)
        assert queue.first() is b
        assert queue.first() is b and queue.live == 2
        assert queue.leave(b) and not queue.leave(b)
        assert queue.first() is c and queue.waiting() == [c]

    def test_soonest_is_never_too_late(self):
        queue = Queue()
        a, b = waiter(5.0), waiter(3.0)
        queue.join(a)
        queue.join(b)
        assert queue.soonest == 3.0
        assert queue.expired(2.0) == []
        assert queue.expired(3.0) == [b]
        queue.leave(b)
        assert queue.expired(4.0) == [] and queue.soonest == 5.0

    def test_an_empty_queue_has_no_deadline(self):
        queue = Queue()
        a = waiter(5.0)
        queue.join(a)
        queue.leave(a)
        assert queue.soonest == inf and queue.live == 0 and not queue.waiting()

    def test_rebuild_believes_the_waiters(self):
        from everpool.core.queue import Refusal

        queue = Queue()
        a, b, c = waiter(5.0), waiter(3.0), waiter(4.0)
        for one in (a, b, c):
            queue.join(one)
        b.refusal = Refusal("timeout", "", 0.0)
        queue.live, queue.soonest = 99, inf
        queue.rebuild()
        assert queue.waiting() == [a, c] and queue.live == 2 and queue.soonest == 4.0
        assert b.gone


def test_who_resolves_a_commit_is_first_in_the_queue() -> None:
    queue = Queue()
    others = [waiter(at) for at in (1.0, 2.0)]
    for other in others:
        queue.join(other)
    urgent = waiter(3.0)
    queue.join(urgent, first=True)
    assert queue.first() is urgent
    queue.leave(urgent)
    assert queue.first() is others[0]
