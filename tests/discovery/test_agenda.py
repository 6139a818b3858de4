"""What is due and when, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from everpool.core.health import Status
from everpool.discovery.agenda import MAX_PAUSE, MIN_GAP, Act, Agenda

PASS, WARN, FAIL = Status.PASS, Status.WARN, Status.FAIL
TTL = 15.0


def never_early() -> float:
    return 0.0


def most() -> float:
    return 1.0


class World:
    """Carries out what an agenda says, against a registry that is as `mood` says, in virtual time."""

    def __init__(self, ttl: float = TTL, chance: Callable[[], float] = never_early) -> None:
        self.agenda = Agenda(ttl, chance)
        self.now = 1000.0
        self.mood = "well"
        self.wanted = PASS
        self.acts: list[tuple[float, Act, Status]] = []
        self.agenda.want(self.wanted)

    def want(self, status: Status) -> None:
        self.wanted = status
        self.agenda.want(status)

    def run(self, seconds: float) -> list[tuple[float, Act, Status]]:
        """Let time pass; return what was done in it."""
        until, before = self.now + seconds, len(self.acts)
        for _ in range(10_000):
            act = self.agenda.next(self.now)
            if act is None:
                if self.agenda.wake_at > until:
                    break
                self.now = self.agenda.wake_at
                continue
            if act is Act.END:
                self.acts.append((self.now, act, self.wanted))
                return self.acts[before:]
            self.carry_out(act)
        else:
            pytest.fail("it never rests")
        self.now = until
        return self.acts[before:]

    def carry_out(self, act: Act) -> None:
        self.acts.append((self.now, act, self.wanted))
        self.agenda.begin(act)
        if self.mood == "away":
            self.agenda.failed(self.now)
        elif self.mood == "forgetful" and act is Act.REPORT:
            self.agenda.lost(self.now)
        else:
            self.agenda.done(act, self.wanted, self.now)


def kinds(acts: list[tuple[float, Act, Status]]) -> list[Act]:
    return [act for _, act, _ in acts]


def gaps(acts: list[tuple[float, Act, Status]]) -> list[float]:
    times = [at for at, _, _ in acts]
    return [b - a for a, b in pairwise(times)]


def test_registers_at_once_and_renews_at_a_third_of_the_ttl() -> None:
    world = World()
    acts = world.run(60)
    assert kinds(acts) == [Act.REGISTER] + [Act.REPORT] * 12
    assert acts[0][0] == 1000
    assert gaps(acts) == pytest.approx([TTL / 3] * 12)


def test_renewals_come_early_by_chance_never_late() -> None:
    world = World(chance=random.Random(1).random)
    spread = gaps(world.run(3000))
    assert max(spread) <= TTL / 3
    assert min(spread) >= TTL / 3 * 0.8
    assert max(spread) - min(spread) > TTL / 3 * 0.15


def test_a_change_after_quiet_is_told_at_once() -> None:
    world = World()
    world.run(8.0)
    world.want(FAIL)
    assert world.run(0) == [(1008, Act.REPORT, FAIL)]


def test_a_change_right_after_registering_is_told_at_once() -> None:
    world = World()
    world.run(0.01)
    world.want(FAIL)
    assert kinds(world.run(0)) == [Act.REPORT]


def test_flapping_is_told_once_a_second_and_the_last_word_is_true() -> None:
    world = World(ttl=300)
    world.run(10)
    start = len(world.acts)
    for step in range(100):
        world.want(FAIL if step % 2 == 0 else PASS)
        world.run(0.05)
    world.want(FAIL)
    world.run(2)
    told = world.acts[start:]
    assert all(gap >= MIN_GAP for gap in gaps(told))
    assert len(told) <= 7
    assert world.agenda.told is FAIL


def test_what_came_back_before_it_could_be_told_is_not_told() -> None:
    world = World(ttl=300)
    world.run(10)
    world.want(FAIL)
    world.run(0.5)  # told
    world.want(PASS)
    world.run(0.3)  # too early
    world.want(FAIL)
    assert world.run(10) == []


def test_a_registry_that_is_away_is_asked_ever_more_rarely_and_then_registered_with() -> None:
    world = World(ttl=60, chance=most)
    world.mood = "away"
    pauses = gaps(world.run(60))
    assert pauses[:5] == pytest.approx([0.5, 1, 2, 4, 8])
    assert set(pauses[5:]) == {MAX_PAUSE}
    world.mood = "well"
    acts = world.run(MAX_PAUSE)
    assert acts[0][1] is Act.REGISTER
    assert world.agenda.failures == 0


def test_the_pauses_are_spread_from_nothing_to_their_limit() -> None:
    world = World(ttl=60, chance=random.Random(2).random)
    world.mood = "away"
    late = gaps(world.run(3000))[10:]
    assert min(late) < 0.1 * MAX_PAUSE
    assert 0.9 * MAX_PAUSE < max(late) <= MAX_PAUSE
    assert sum(late) / len(late) == pytest.approx(MAX_PAUSE / 2, rel=0.15)


def test_an_absence_shorter_than_the_ttl_costs_no_registration() -> None:
    world = World(chance=most)
    world.run(4)
    world.mood = "away"
    world.run(8)
    world.mood = "well"
    assert Act.REGISTER not in kinds(world.run(20))
    reports = [at for at, act, _ in world.acts if act is Act.REPORT]
    assert reports
    # Between the last answer before and the first after it lies less than a TTL.
    assert min(at for at in reports if at >= 1012) - 1004 < TTL


def test_a_lost_registration_is_made_again_at_once() -> None:
    world = World()
    world.run(1)
    world.mood = "forgetful"
    acts = world.run(4.5)
    assert kinds(acts) == [Act.REPORT, Act.REGISTER]
    assert gaps(acts) == [0]


def test_a_registry_that_forgets_at_once_is_not_asked_all_the_time() -> None:
    world = World()
    world.mood = "forgetful"
    assert len(world.run(60)) <= 2 * 60 / (TTL / 3) + 1


def test_a_registry_that_forgets_at_once_is_not_asked_at_each_change_either() -> None:
    world = World()
    world.mood = "forgetful"
    for step in range(200):
        world.want(FAIL if step % 2 == 0 else PASS)
        world.run(0.05)
    assert len(world.acts) <= 2 * 10 / MIN_GAP + 2


def test_time_that_passed_unseen_makes_a_report_due() -> None:
    world = World()
    world.run(1)
    world.agenda.doubt(world.now)
    assert kinds(world.run(0)) == [Act.REPORT]
    assert kinds(world.run(1)) == []


def test_leaving_withdraws_at_once_even_in_a_pause() -> None:
    world = World(chance=most)
    world.run(1)
    world.mood = "away"
    world.run(30)
    world.agenda.leave(world.now, 5)
    world.mood = "well"
    assert kinds(world.run(0)) == [Act.WITHDRAW, Act.END]


def test_leaving_tries_for_its_time_and_ends() -> None:
    world = World(chance=most)
    world.run(1)
    world.mood = "away"
    world.agenda.leave(world.now, 5)
    acts = world.run(100)
    assert kinds(acts)[:-1] == [Act.WITHDRAW] * (len(acts) - 1)
    assert len(acts) > 3
    assert acts[-1][1] is Act.END
    assert acts[-1][0] - acts[0][0] <= 5


@pytest.mark.parametrize("before", [0.0, 10.0], ids=["never there", "there before"])
def test_leaving_a_registry_that_is_away_takes_one_try(before: float) -> None:
    world = World(chance=most)
    if before:
        world.run(before)
    world.mood = "away"
    world.run(10)
    world.agenda.leave(world.now, 5)
    assert kinds(world.run(5)) == [Act.WITHDRAW, Act.END]


def test_leaving_tries_once_even_if_there_is_no_time() -> None:
    world = World()
    world.run(1)
    world.agenda.leave(world.now, 0)
    assert kinds(world.run(0)) == [Act.WITHDRAW, Act.END]


def test_who_may_have_registered_withdraws_and_who_has_not_does_not() -> None:
    world = World(chance=most)
    world.mood = "away"
    world.run(1)  # the answer was lost, perhaps
    world.agenda.leave(world.now, 5)
    world.mood = "well"
    assert kinds(world.run(0)) == [Act.WITHDRAW, Act.END]

    world = World()
    world.agenda.leave(world.now, 5)
    assert kinds(world.run(0)) == [Act.END]


def test_registered_is_what_the_registry_still_holds() -> None:
    world = World()
    assert not world.agenda.registered(world.now)
    world.run(4)
    world.mood = "away"
    world.run(10)
    assert world.agenda.registered(world.now)
    world.run(1.5)
    assert not world.agenda.registered(world.now)
