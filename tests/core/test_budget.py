"""How much may be repeated, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpool.core.budget import (
    BASE,
    CAP,
    CONTENTION_SHARE,
    LIFE,
    RESERVE,
    SHARE,
    TRICKLE,
    Budget,
    pause,
)

SMALL = 4


class Counted:
    """A budget, and the successes that its pool counts for it."""

    def __init__(self, share: float, now: float) -> None:
        self._budget = Budget(share, now)
        self._successes = 0

    def succeeded(self) -> None:
        self._successes += 1

    def spend(self, now: float, size: float) -> bool:
        return self._budget.spend(now, size, self._successes)

    @property
    def refused(self) -> int:
        return self._budget.refused


def spent(budget: Counted, now: float, size: float = SMALL, most: int = 10_000) -> int:
    """How many retries are to be had at this moment."""
    return next(count for count in range(most) if not budget.spend(now, size))


def emptied(share: float = SHARE) -> Counted:
    budget = Counted(share, 0.0)
    assert spent(budget, 0.0) == RESERVE
    return budget


def succeed(budget: Counted, times: int) -> None:
    for _ in range(times):
        budget.succeeded()


class TestShare:
    def test_ten_successes_earn_one_retry(self) -> None:
        budget = emptied()
        succeed(budget, 9)
        assert spent(budget, 0.0) == 0
        succeed(budget, 2)  # ten times 0.1 is a little less than 1
        assert spent(budget, 0.0) == 1

    def test_under_contention_each_success_earns_one(self) -> None:
        budget = emptied(CONTENTION_SHARE)
        succeed(budget, 3)
        assert spent(budget, 0.0) == 3

    @pytest.mark.parametrize(("share", "failing"), [(SHARE, 0.08), (CONTENTION_SHARE, 0.4)])
    def test_a_steady_share_of_failures_is_always_repeated(
        self, share: float, failing: float
    ) -> None:
        budget, owed, refused = Counted(share, 0.0), 0.0, 0
        for number in range(20_000):  # 200 s at 100 a second
            owed += failing
            if owed >= 1:
                owed -= 1
                refused += not budget.spend(number / 100, SMALL)
            else:
                budget.succeeded()
        assert refused == 0

    def test_more_failures_than_the_share_are_repeated_to_the_share(self) -> None:
        budget, repeated = Counted(SHARE, 0.0), 0
        for number in range(20_000):
            if number % 2:
                repeated += budget.spend(number / 100, SMALL)
            else:
                budget.succeeded()
        seconds = 200
        assert repeated == pytest.approx(SHARE * 10_000 + RESERVE + TRICKLE * seconds, rel=0.05)


class TestReserve:
    @pytest.mark.parametrize("size", [1, SMALL, 10])
    def test_a_small_pool_has_ten(self, size: float) -> None:
        assert spent(Counted(SHARE, 0.0), 0.0, size) == RESERVE

    def test_when_all_of_fifty_connections_die_all_fifty_transactions_are_repeated(self) -> None:
        budget = Counted(SHARE, 0.0)
        assert spent(budget, 0.0, 50) == 50
        assert budget.refused == 1

    def test_it_comes_back_by_itself(self) -> None:
        budget = emptied()
        assert spent(budget, 0.9 / TRICKLE) == 0
        assert spent(budget, 1.1 / TRICKLE) == 1
        assert spent(budget, 1000 * RESERVE / TRICKLE) == RESERVE

    def test_a_pool_that_grew_waits_for_the_larger_one(self) -> None:
        budget = emptied()
        assert spent(budget, 5 / TRICKLE, 50) in (4, 5)

    def test_a_pool_that_shrank_has_the_smaller_one(self) -> None:
        budget = Counted(SHARE, 0.0)
        assert budget.spend(0.0, 50)
        assert spent(budget, 0.0, SMALL) == RESERVE

    def test_a_count_that_was_set_back_costs_nothing(self) -> None:
        budget = Budget(1.0, 0.0)
        assert budget.spend(0.0, SMALL, 100)
        assert all(budget.spend(0.0, SMALL, 50) for _ in range(9 + int(RESERVE)))

    def test_what_was_earned_goes_first(self) -> None:
        budget = Counted(SHARE, 0.0)
        succeed(budget, 11)
        assert budget.spend(0.0, SMALL)
        assert spent(budget, 0.0) == RESERVE

    def test_a_clock_that_goes_back_gives_nothing(self) -> None:
        budget = emptied()
        assert spent(budget, -100.0) == 0
        assert spent(budget, 1.1 / TRICKLE - 100.0) == 1


class TestLife:
    def test_what_was_earned_is_gone_after_its_life(self) -> None:
        budget = emptied(CONTENTION_SHARE)
        succeed(budget, 8)
        assert spent(budget, LIFE) == int(TRICKLE * LIFE)

    def test_half_of_it_after_half_of_its_life(self) -> None:
        budget = emptied(CONTENTION_SHARE)
        succeed(budget, 8)
        assert spent(budget, LIFE / 2) == 4

    @pytest.mark.parametrize("share", [SHARE, CONTENTION_SHARE])
    @pytest.mark.parametrize("size", [SMALL, 50])
    def test_a_storm_after_a_busy_hour_is_repeated_no_more_than_twice_the_reserve(
        self, share: float, size: float
    ) -> None:
        budget = Counted(share, 0.0)
        succeed(budget, 50_000)
        assert spent(budget, 0.0, size) <= 2 * max(RESERVE, size)


class TestStorm:
    @given(
        st.lists(st.tuples(st.floats(0, 0.1), st.booleans()), max_size=300),
        st.sampled_from([SHARE, CONTENTION_SHARE]),
    )
    def test_retries_never_exceed_what_was_earned_and_the_reserve(
        self, steps: list[tuple[float, bool]], share: float
    ) -> None:
        budget, now, earned, repeated = Counted(share, 0.0), 0.0, 0.0, 0
        for pass_by, success in steps:
            now += pass_by
            if success:
                budget.succeeded()
                earned += share
            else:
                repeated += budget.spend(now, SMALL)
            assert repeated <= earned + RESERVE + TRICKLE * now + 1e-6

    def test_when_everything_fails_the_load_grows_by_less_than_a_tenth(self) -> None:
        budget, first, repeated = Counted(SHARE, 0.0), 400, 0
        for number in range(first):
            for _ in range(2):  # attempts=3
                if not budget.spend(number / 100, SMALL):
                    break
                repeated += 1
        assert first + repeated <= 1.1 * first

    def test_when_it_is_over_retries_are_possible_again(self) -> None:
        budget = emptied()
        succeed(budget, 50)
        assert spent(budget, 0.1) in (4, 5)


class TestPause:
    @pytest.mark.parametrize("number", range(1, 12))
    @pytest.mark.parametrize(
        ("random", "part"), [(lambda: 0.0, 0.0), (lambda: 0.5, 0.5), (lambda: 1.0, 1.0)]
    )
    def test_it_is_any_part_of_a_limit_that_doubles_up_to_a_cap(
        self, number: int, random: Callable[[], float], part: float
    ) -> None:
        assert pause(number, random) == pytest.approx(part * min(CAP, BASE * 2 ** (number - 1)))

    def test_many_attempts_are_no_overflow(self) -> None:
        assert pause(1000, lambda: 1.0) == CAP
